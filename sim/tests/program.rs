//! `lacuna-sim` as a user meets it: files, exit codes, messages.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/threshold-pool.toml");
const PACKETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/packet-small.toml");

fn lacuna_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("utf-8")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

#[test]
fn a_run_writes_a_summary_and_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, threads: &str| {
        let out = folder.path().join(name);
        let arguments = [
            "run",
            SCENARIO,
            "--seed",
            "7",
            "--quiet",
            "--threads",
            threads,
        ];
        let output = lacuna_sim(&[&arguments[..], &["--out", path(&out)]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
        let read = |file| fs::read_to_string(out.join(file)).expect("written");
        (read("summary.json"), read("report.html"))
    };
    let (summary, page) = run("a", "1");
    assert_eq!(run("b", "2"), (summary.clone(), page.clone()));
    let printed = lacuna_sim(&["run", SCENARIO, "--seed", "7", "--json"]);
    assert_eq!(printed.status.code(), Some(0), "{}", error(&printed));
    assert_eq!(printed.stdout, summary.as_bytes());
    let summary: Value = serde_json::from_str(&summary).expect("json");
    assert_eq!(summary["seed"], 7);
    assert_eq!(summary["program_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(summary["scenario_sha256"].as_str().map(str::len), Some(64));
    let entropy = &summary["figures"]["entropy_mean_bits"];
    for key in ["value", "standard_error", "interval_95", "n", "expected"] {
        assert!(!entropy[key].is_null(), "{key} in {entropy}");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    // Self-contained: nothing is fetched, nothing is executed.
    for outside in [
        "<script", "http://", "https://", "src=", "href=", "@import", "url(",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// A trace and a table of regions come from files; a bad one is named as the key it stands for.
#[test]
fn a_trace_and_regions_are_read_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("writable");
        path(&file).to_owned()
    };
    let times: Vec<String> = (1..=400)
        .map(|n| format!("{:.2}", f64::from(n) * 0.02))
        .collect();
    let trace = file("trace.csv", &times.join("\n"));
    let regions = file("regions.csv", "5,100\n100,5\n");
    let out = path(folder.path()).to_owned() + "/out";
    let run = ["run", SCENARIO, "--quiet", "--out", out.as_str()];
    let figures = |more: &[&str]| {
        let output = lacuna_sim(&[&run[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        let text = fs::read_to_string(Path::new(&out).join("summary.json")).expect("written");
        let summary: Value = serde_json::from_str(&text).expect("json");
        ["mix_packets_per_s", "latency_mean_ms"].map(|name| {
            summary["figures"][name]["value"]
                .as_f64()
                .expect("a number")
        })
    };
    let near = figures(&["--trace", trace.as_str()]);
    let far = figures(&["--trace", trace.as_str(), "--regions", regions.as_str()]);
    assert!((near[0] - 50.0).abs() < 1e-6, "{near:?}");
    // Two links of 52.5 ms on average.
    assert!((far[1] - near[1] - 105.0).abs() < 40.0, "{near:?} {far:?}");
    for (flag, text, says) in [
        (
            "--trace",
            "1\n3\n2\n",
            "bad.csv: line 3: \"2\": must be a time in seconds",
        ),
        (
            "--trace",
            "1\n2, x\n",
            "bad.csv: line 2: \"x\": must be a time in seconds",
        ),
        ("--trace", "0\n", "bad.csv: must hold at least one time"),
        (
            "--regions",
            "5,1\n\n1\n",
            "bad.csv: line 3: \"1\": must be 2 numbers from 0",
        ),
        (
            "--regions",
            "5,1\n1,-5\n",
            "bad.csv: line 2: \"1,-5\": must be 2 numbers from 0",
        ),
        ("--regions", "\n", "bad.csv: 0 lines: must be from 1"),
    ] {
        let bad = file("bad.csv", text);
        let output = lacuna_sim(&[&run[..], &[flag, bad.as_str()]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(error(&output).contains(says), "{}", error(&output));
    }
}

#[test]
fn a_bad_scenario_or_command_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.toml");
    fs::write(&bad, "version = 1\n[network]\nlayers = 99\n").expect("writable");
    let out = folder.path().join("out");
    let out = path(&out);
    for (arguments, expected) in [
        (
            vec!["run", path(&bad), "--out", out],
            "line 3: network.layers = 99: must be a whole number from 1 to 32",
        ),
        (vec!["run", "absent.toml", "--out", out], "absent.toml"),
        (vec!["run", SCENARIO], "--out"),
        (
            vec!["run", SCENARIO, "--out", out, "--seed", "many"],
            "--seed",
        ),
        (
            vec!["run", SCENARIO, "--out", out, "--engine", "fluid"],
            "fluid",
        ),
        (
            vec!["run", PACKETS, "--out", out, "--messages", "csv"],
            "--messages: ",
        ),
        (vec!["fly"], "fly"),
    ] {
        let output = lacuna_sim(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error(&output).contains(expected), "{}", error(&output));
    }
    assert!(!Path::new(out).exists(), "nothing is written");
}

#[test]
fn what_cannot_be_written_exits_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a-file");
    fs::write(&file, "").expect("writable");
    let output = lacuna_sim(&["run", SCENARIO, "--quiet", "--out", path(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(error(&output).contains("a-file"), "{}", error(&output));
    // Before a run of hours, not after it.
    let long = folder.path().join("long.toml");
    let text = "version = 1\n[traffic]\nusers = 60000000\n[flow]\ntargets = 10000000\n";
    fs::write(&long, text).expect("writable");
    let output = lacuna_sim(&["run", path(&long), "--quiet", "--out", path(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
}

/// So are attacks and plans, before minutes of work: what the work itself would refuse is not come to.
#[test]
fn an_attack_or_a_plan_tries_its_folder_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a-file");
    fs::write(&file, "").expect("writable");
    let attack = [
        "attack",
        "resend",
        "--payload-per-s",
        "1e6",
        "--timeout-s",
        "1e6",
    ];
    let plan = [
        "plan",
        "--latency-p95",
        "20s",
        "--bytes-per-day",
        "1kB",
        "--users",
        "1000",
    ];
    for arguments in [&attack[..], &plan[..]] {
        let refused = lacuna_sim(arguments);
        assert!(!refused.status.success(), "{}", error(&refused));
        assert!(!error(&refused).contains("a-file"), "{}", error(&refused));
        let output = lacuna_sim(&[arguments, &["--quiet", "--out", path(&file)]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", error(&output));
        assert!(error(&output).contains("a-file"), "{}", error(&output));
    }
}

/// Whatever a page or a summary is of, it says what made it and how to make it again.
#[test]
fn results_name_what_made_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    let done = |arguments: &[&str]| {
        let output = lacuna_sim(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let (run, attack, runs) = (out("run"), out("attack"), out("runs.html"));
    done(&[
        "run",
        SCENARIO,
        "--quiet",
        "--seed",
        "7",
        "--out",
        path(&run),
    ]);
    done(&[
        "attack",
        "n-1",
        "--replications",
        "32",
        "--quiet",
        "--seed",
        "7",
        "--out",
        path(&attack),
    ]);
    done(&["report", path(&run), path(&attack), "--out", path(&runs)]);
    let read = |file: &Path| fs::read_to_string(file).expect("written");
    let standing = done(&["plan", "--defaults", "--users", "1000", "--json"]);
    let summaries = [
        read(&run.join("summary.json")),
        read(&attack.join("summary.json")),
        standing,
    ];
    let summaries = summaries.map(|text| serde_json::from_str::<Value>(&text).expect("json"));
    let said = |summary: &Value, key: &str| summary[key].as_str().expect(key).to_owned();
    for summary in &summaries {
        assert_eq!(summary["program"], "lacuna-sim");
        assert!(
            !said(summary, "program_version").is_empty() && !said(summary, "commit").is_empty()
        );
    }
    let [ran, attacked, _] = &summaries;
    let made_by = format!(
        "lacuna-sim {}, commit {}",
        said(ran, "program_version"),
        said(ran, "commit")
    );
    let hash = said(ran, "scenario_sha256");
    for (page, says) in [
        (
            run.join("report.html"),
            vec!["seed 7", &hash, "flow.targets = "],
        ),
        (
            attack.join("report.html"),
            vec!["seed 7", "n-1 --loops-per-s 1 "],
        ),
        (
            runs,
            vec!["<td>7</td>", &hash[..16], "n-1 --loops-per-s 1 "],
        ),
    ] {
        let page = read(&page);
        for says in [&[made_by.as_str()], &says[..]].concat() {
            assert!(page.contains(says), "{says}");
        }
    }
    assert_eq!(attacked["seed"], 7);
}

/// Messages of another run would pass for this one's.
#[test]
fn a_new_summary_takes_old_messages_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |more: &[&str]| {
        let arguments = ["run", SCENARIO, "--quiet", "--out", path(folder.path())];
        let output = lacuna_sim(&[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        let files = fs::read_dir(folder.path()).expect("there");
        let mut names: Vec<String> = files
            .map(|file| {
                file.expect("readable")
                    .file_name()
                    .into_string()
                    .expect("utf-8")
            })
            .collect();
        names.sort();
        names
    };
    let both = [
        "messages.csv",
        "messages.parquet",
        "report.html",
        "summary.json",
    ];
    assert_eq!(run(&["--messages", "csv,parquet"]), both);
    assert_eq!(run(&["--messages", "parquet"]), both[1..]);
    assert_eq!(run(&[]), both[2..]);
}

/// Where nothing arrives nothing is measured, and that is no success.
#[test]
fn a_run_that_measures_nothing_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = folder.path().join("dropped.toml");
    let text = "version = 1\n[adversary]\ncorrupt_mixes_per_layer = 3\ndrop_ppm = 1000000\n[flow]\ntargets = 16\n";
    fs::write(&scenario, text).expect("writable");
    let output = lacuna_sim(&["run", path(&scenario), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    let says = "3 of 3 mixes at each hop are corrupt and drop 100 % of it (adversary.drop_ppm)";
    assert!(
        error(&output).contains("no message was measured"),
        "{}",
        error(&output)
    );
    assert!(error(&output).contains(says), "{}", error(&output));
}

/// An attack that gave up took more rounds than that, and is counted.
#[test]
fn an_attack_that_gives_up_is_more_than_its_rounds() {
    let attack = |more: &[&str]| {
        let arguments = [
            "attack",
            "intersection",
            "--users",
            "10",
            "--replications",
            "320",
        ];
        let output = lacuna_sim(&[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let never = ["--mailboxes", "--rounds", "20"];
    let shown = attack(&never);
    assert!(
        shown.contains("more than 20") && !shown.contains("unknown"),
        "{shown}"
    );
    let figures = |more: &[&str]| -> Value {
        serde_json::from_str::<Value>(&attack(&[more, &["--json"]].concat())).expect("json")["figures"].clone()
    };
    let found = figures(&never);
    assert_eq!(found["rounds_mean"]["more_than"], 20.0);
    assert!(found["rounds_mean"]["value"].is_null(), "{found}");
    assert_eq!(found["gave_up"]["value"], 1.0);
    // Some give up: a mean is not known, a median may be. Without memory 3.4 rounds are the median of the greatest
    // of nine geometric times.
    let found = figures(&["--rounds", "5"]);
    let more = found["rounds_mean"]["more_than"].as_f64().expect("a bound");
    assert!((3.0..5.0).contains(&more), "{more}");
    assert!(
        (3.0..=4.0).contains(&found["rounds_median"]["value"].as_f64().expect("known")),
        "{found}"
    );
    let gave_up = found["gave_up"]["value"].as_f64().expect("a share");
    assert!((gave_up - 0.248).abs() < 0.1, "{gave_up}");
}

#[test]
fn keys_lists_the_language() {
    let output = lacuna_sim(&["keys"]);
    let listed = String::from_utf8(output.stdout).expect("utf-8");
    for key in sim::scenario::keys::KEYS {
        assert!(listed.contains(key.name), "{}", key.name);
    }
}

/// More threads are faster and see the same, to the last bit: the program compares them itself.
#[test]
fn bench_shows_the_same_on_more_threads() {
    let output = lacuna_sim(&["bench", "--scaling", "--in-flight", "10"]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let shown = String::from_utf8(output.stdout).expect("utf-8");
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect())
        .collect();
    let threads: Vec<&str> = rows.iter().map(|row| row[2]).collect();
    let doubled = ["1", "2", "4", "8", "16", "32", "64", "128", "256", "512"];
    assert_eq!(threads, doubled[..threads.len()]);
    let cores = std::thread::available_parallelism().expect("cores").get();
    assert_eq!(threads.len(), cores.ilog2() as usize + 1);
    assert!(rows.iter().all(|row| row.last() == Some(&"yes")), "{shown}");
}

/// Each kind of network runs, on the core that is named.
#[test]
fn bench_measures_both_cores() {
    let output = lacuna_sim(&["bench", "--in-flight", "300000", "--network", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("free routes"), "{}", error(&output));
    let output = lacuna_sim(&["bench", "--in-flight", "30"]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let shown = String::from_utf8(output.stdout).expect("utf-8");
    let rows = |core: &str| {
        let rows = shown.lines().skip(1);
        rows.filter(|row| row.contains(core)).count()
    };
    assert_eq!((rows("  fast "), rows(" general ")), (2, 13), "{shown}");
}

/// As CI calls it; the sabotaged run shows that exit code 1 can happen.
#[test]
fn validate_prints_checks_and_fails_when_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("validation.html");
    let output = lacuna_sim(&[
        "validate",
        "--quick",
        "--quiet",
        "--json",
        "--html",
        path(&page),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let json: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(json["passes"], true);
    assert!(
        json["checks"]
            .as_array()
            .is_some_and(|checks| checks.len() > 200)
    );
    assert!(
        fs::read_to_string(page)
            .expect("written")
            .contains("checks pass")
    );

    let output = lacuna_sim(&[
        "validate",
        "--quick",
        "--quiet",
        "--sabotage",
        "early-readout",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED"));
}

/// An attack's figures do not depend on threads, and settings that make no sense are refused.
#[test]
fn attacks_print_json_and_refuse_nonsense() {
    let json = |threads: &str| {
        let arguments = ["attack", "n-1", "--replications", "640", "--json"];
        let output = lacuna_sim(&[&arguments[..], &["--threads", threads]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        serde_json::from_slice::<Value>(&output.stdout).expect("json")
    };
    let (one, two) = (json("1"), json("2"));
    assert_eq!(one, two);
    let z = one["figures"]["detection_mean_s"]["z"]
        .as_f64()
        .expect("a z");
    assert!(z.abs() < 4.0, "{z}");
    for (arguments, says) in [
        (
            vec!["path", "--corrupt", "20"],
            "--corrupt 20: must be at most --width 10",
        ),
        (
            vec!["sda", "--friends", "2000"],
            "--friends 2000: must be from 1 to 1000",
        ),
        (
            vec!["intersection", "--online", "0.9", "--session", "2"],
            "--session 2: must be 0, or at least 9.00 rounds",
        ),
        (
            vec!["n-1", "--loss", "0"],
            "must be a number from 0.0001 to 0.25",
        ),
        (
            vec![
                "n-1",
                "--loops-per-s",
                "1e6",
                "--days-between-false-alarms",
                "1e6",
            ],
            "loops in 10 s: must be at most 1e5; lower --loops-per-s",
        ),
        (
            vec![
                "n-1",
                "--blocked",
                "1e-9",
                "--loss",
                "0.0001",
                "--replications",
                "1000000",
            ],
            "loops to play: must be at most 1e11; lower --replications",
        ),
        (
            vec![
                "flood",
                "--days-between-false-alarms",
                "1e6",
                "--loops-per-s",
                "1e6",
                "--loss",
                "0.25",
            ],
            "no threshold of the detector leaves",
        ),
        (
            vec!["correlate", "--flow-per-s", "1e6", "--seconds", "1e6"],
            "packets and bins of time in one observation: must be at most 1e7; lower --flow-per-s",
        ),
        (
            vec![
                "correlate",
                "--flow-per-s",
                "1e4",
                "--seconds",
                "900",
                "--replications",
                "1000000",
            ],
            "steps: must be at most 1e11; lower --flow-per-s",
        ),
        (
            vec!["correlate", "--replications", "3"],
            "from 32 to 1000000",
        ),
        (
            vec!["path", "--packets", "10000000", "--replications", "1000000"],
            "must be at most",
        ),
        (
            vec!["receiving", "--loops-per-s", "1e6", "--window-s", "1e6"],
            "loops in a window: must be at most 1e4; lower --loops-per-s",
        ),
        (
            vec!["resend", "--payload-per-s", "1e6", "--timeout-s", "1e6"],
            "steps: must be at most 1e11; lower --payload-per-s",
        ),
        (
            vec!["pause", "--watch-s", "1e6"],
            "steps of all courses: must be at most 1e7; lower --watch-s",
        ),
        (
            vec!["pause", "--candidates", "1000", "--watch-s", "90000"],
            "steps: must be at most 1e11; lower --watch-s",
        ),
        (
            vec!["flood", "--flood-per-s", "1e6", "--quota", "1000000000"],
            "packets in the mailbox: must be at most 1e7; lower --flood-per-s",
        ),
        (
            vec!["flood", "--downstream-per-s", "1e6", "--seconds", "1e6"],
            "steps: must be at most 1e11; lower --flood-per-s",
        ),
    ] {
        let output = lacuna_sim(&[vec!["attack"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(error(&output).contains(says), "{}", error(&output));
    }
}
