//! `lacuna-sim capacity`: figures by hand, what grows with what, and the document that quotes them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use proto::directory::Params;
use sim::capacity::{Capacity, Documents, Given, capacity, measure};

/// The command's own defaults.
fn given(profile: &str) -> Given {
    let params = Params::default();
    let (_, profile) = params.profile(profile).expect("a default profile");
    Given {
        profile: profile.clone(),
        params,
        corrupt: 0.2,
        links_s: 0.24,
        mix_per_s: 10_000.0,
        gateway_per_s: 4_000.0,
        processor_month: 5.0,
        terabyte: 1.0,
    }
}

fn of(given: &Given, users: u64) -> Capacity {
    let documents = Documents::measure().expect("they are built");
    capacity(given, &documents, users).expect("it fits")
}

fn near(x: f64, expected: f64) {
    assert!((x / expected - 1.0).abs() < 2e-3, "{x} {expected}");
}

/// A million users of `messaging` (0.5 + 0.1 up, 1 down, confirmed each 30 s), by hand.
#[test]
fn a_million_users_by_hand() {
    let one = of(&given("messaging"), 1_000_000);
    near(one.packets_per_s, 600_000.0);
    // Nodes leave 2.2 packets in each mix: 44/s at 50 ms, whatever their number.
    assert_eq!((one.processors, one.width), (1, 61));
    near(one.mix_per_s, 600_000.0 / 61.0 + 44.0);
    near(one.mix_bits_per_s, one.mix_per_s * 2432.0 * 8.0);
    near(one.pool, 600_000.0 * 0.05 / 61.0);
    // 10⁶ frames/s down, and five for each loop of a node.
    let loops: f64 = 44.0 * 61.0;
    assert_eq!(
        f64::from(one.gateways),
        ((1e6 + 5.0 * loops) / 4000.0).ceil()
    );
    near(
        one.user_bytes_per_day,
        86_400.0 * 2432.0 * (1.6 + 1.0 / 30.0),
    );
    near(one.journal_bytes, 8.0 * one.mix_per_s * 10_800.0);
    // log₂ (6e5 + 2684) + (1.8475 + ln 0.05) / ln 2: nodes' loops hide as well.
    assert!((one.bound_bits - 17.5446).abs() < 2e-4);
    // A fifth of 61; all three of a path.
    assert_eq!(one.corrupt, 12);
    let sent = 4.0 * (6e5 + loops) + 1e6 + 5.0 * loops;
    // The document fills buckets of 32 frames, once a day for everybody.
    let buckets = (one.document_bytes / (2396.0 * 32.0)).ceil();
    near(one.download_bytes, buckets * 32.0 * 2432.0);
    let day = sent * 2432.0 * 86_400.0 + 1e6 * one.download_bytes;
    assert!((one.cost_of_bytes / (day * 30.0 / 1e12 / 1e6) - 1.0).abs() < 3e-4);
    let nodes = f64::from(3 * one.width + one.gateways);
    near(one.cost, one.cost_of_bytes + nodes * 5.0 / 1e6);
    let [p50, p95] = one.latency_s.expect("a load of 0.6");
    // The slot alone: ln 2 / λP and ln 20 / λP; with mixes, mailbox and links a little more.
    assert!((1.39 + 0.24..4.0).contains(&p50), "{p50}");
    assert!((5.99 + 0.24..9.0).contains(&p95), "{p95}");
}

/// But for the document, which each of them fetches and which grows with the nodes.
#[test]
fn more_users_take_more_and_cost_each_less() {
    let given = given("messaging");
    let all = [1_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000].map(|n| of(&given, n));
    for pair in all.windows(2) {
        assert!(pair[0].bound_bits < pair[1].bound_bits);
        assert!(pair[0].width * pair[0].processors < pair[1].width * pair[1].processors);
        let [fewer, more] = [&pair[0], &pair[1]].map(|one| {
            let days = 30.0 * 86_400.0 / one.period_s;
            one.cost - days * one.download_bytes / 1e12
        });
        assert!(fewer > 0.999 * more, "{fewer} {more}");
    }
    // A document of 16 MiB is the reason for larger nodes, and holds them.
    assert_eq!(all[1].processors, 1);
    assert!(all[3].processors > 1);
    for one in &all {
        assert!(one.document_bytes <= 16.0 * 1_048_576.0);
        let nodes = f64::from(3 * one.width + one.gateways);
        assert!((700.0..1200.0).contains(&(one.document_bytes / nodes)));
    }
}

/// However many they are: weak processors make more nodes than a `u32` counts.
#[test]
fn a_document_that_cannot_hold_the_nodes_is_said() {
    let documents = Documents::measure().expect("they are built");
    for mix_per_s in [10_000.0, 1.0, 1e-300] {
        let weak = Given {
            mix_per_s,
            ..given("interactive")
        };
        let why = capacity(&weak, &documents, 1_000_000_000).expect_err("too many");
        assert!(why.to_string().contains("several networks"), "{why}");
    }
}

/// Entropy has no negative bound, and what is measured keeps to it: a single user, and one of the
/// fewest mixes whose share of corrupt ones is rounded.
#[test]
fn few_users_have_few_bits_and_not_less_than_none() {
    for (profile, users) in [("frugal", 1), ("messaging", 1), ("messaging", 3000)] {
        let given = given(profile);
        let mut one = of(&given, users);
        assert_eq!((one.width, one.corrupt), (5, 1));
        measure(&given, &mut one, 1, &|_| ()).expect("it runs");
        let found = one.measured.expect("small").mean.value;
        assert!((0.0..=one.bound_bits).contains(&found), "{users}: {one:?}");
    }
    let table = String::from_utf8(program(&["--users", "1"]).stdout).expect("utf-8");
    assert!(!table.contains(" -"), "{table}");
}

fn program(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
        .arg("capacity")
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// What stands between the marks is what the command prints; `BLESS=1` writes it there.
#[test]
fn the_document_quotes_the_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CAPACITY.md");
    let text = fs::read_to_string(&path).expect("docs/CAPACITY.md");
    let mut written = text.clone();
    let tables: [(&str, &[&str]); 3] = [
        ("messaging", &[]),
        (
            "interactive",
            &["--profile", "interactive", "--users", "1000000,10000000"],
        ),
        ("frugal", &["--profile", "frugal"]),
    ];
    for (profile, arguments) in tables {
        let output = program(arguments);
        let error = String::from_utf8(output.stderr).expect("utf-8");
        assert_eq!(output.status.code(), Some(0), "{profile}: {error}");
        let table = String::from_utf8(output.stdout).expect("utf-8");
        let (start, end) = (
            format!("<!-- {profile}: written by sim/tests/capacity.rs -->\n"),
            format!("<!-- end of {profile} -->"),
        );
        let (before, rest) = written.split_once(&start).expect("the mark");
        let (_, after) = rest.split_once(&end).expect("the end mark");
        written = format!("{before}{start}{table}{end}{after}");
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &written).expect("written");
    } else {
        assert_eq!(text, written, "BLESS=1 cargo test -p sim --test capacity");
    }
}

#[test]
fn bad_arguments_say_what_is_allowed() {
    for (arguments, code, expected) in [
        (
            &["--profile", "slow"][..],
            2,
            "must be one of interactive, messaging",
        ),
        (&["--users", "0"][..], 2, "1..=1000000000"),
        (&["--terabyte", "0"][..], 2, "must be a number above 0"),
        (
            &["--links=-1ms"][..],
            2,
            "must be a number from 0 with a unit",
        ),
    ] {
        let output = program(arguments);
        let error = String::from_utf8(output.stderr).expect("utf-8");
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

/// `lacuna-sim capacity | head -1`: no panic, no word, and what a shell says of SIGPIPE.
#[test]
fn a_reader_that_leaves_ends_it_in_silence() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
        .arg("capacity")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take()); // before the documents are built and measured
    let output = child.wait_with_output().expect("it ends");
    let error = String::from_utf8(output.stderr).expect("utf-8");
    assert_eq!(output.status.code(), Some(141), "{error}");
    assert_eq!(error, "");
}
