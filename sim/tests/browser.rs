//! The report in a real browser. Needs Chromium, so it runs with `LACUNA_SYSTEM=1` alone.
//!
//! The browser parses the page, lays it out and draws it; what it drew is checked: every picture is
//! there and has a size, nothing was asked of the network, and the screenshot is not one colour.

use std::{fs, path::Path, process::Command};

/// Pictures of a flow report: latency, entropy, pools.
const PICTURES: usize = 4;

fn browser(page: &Path, profile: &Path, arguments: &[String]) -> String {
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--disable-quic",
            "--window-size=1100,2600",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium is installed: apt-get install chromium");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a page is text")
}

/// How many pictures the laid-out page holds.
fn pictures(dom: &str) -> usize {
    dom.matches("<svg").count()
}

#[test]
fn the_report_is_drawn_by_a_browser() {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        println!("skipped: LACUNA_SYSTEM=1 runs it; it needs chromium (apt-get install chromium)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/small-network.toml");
    let run = Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
        .args(["run", "--seed", "1", "--quiet", "--out"])
        .arg(&out)
        .arg(scenario)
        .status()
        .expect("the simulator runs");
    assert!(run.success());

    let page = out.join("report.html");
    let profile = folder.path().join("profile");
    let dom = browser(&page, &profile, &["--dump-dom".to_owned()]);
    assert_eq!(pictures(&dom), PICTURES);
    assert!(!dom.contains("src=\"http") && !dom.contains("href=\"http"));

    let picture = folder.path().join("page.png");
    browser(
        &page,
        &profile,
        &[format!("--screenshot={}", picture.display())],
    );
    let drawn = fs::metadata(&picture).expect("a screenshot").len();

    // The control: an empty page is not taken for a report.
    let empty = folder.path().join("empty.html");
    fs::write(&empty, "<!doctype html><title>empty</title>").expect("a page");
    assert_eq!(
        pictures(&browser(&empty, &profile, &["--dump-dom".to_owned()])),
        0
    );
    browser(
        &empty,
        &profile,
        &[format!("--screenshot={}", picture.display())],
    );
    let blank = fs::metadata(&picture).expect("a screenshot").len();
    assert!(
        drawn > blank * 5,
        "{drawn} bytes drawn, {blank} for a blank page"
    );
}
