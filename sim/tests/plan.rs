//! `lacuna-sim plan`: the same bytes again, budgets that are kept, budgets that cannot be.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use proto::directory::Params;
use serde_json::Value;
use sim::plan::{Budgets, Given, defaults, front};

/// Budgets that fit; small enough for a test.
const FITS: [&str; 6] = ["20s", "200MB", "200", "0.2", "3", "1"];

/// `plan` with latency, bytes, users, corrupt share, seed and threads; results in `out`.
fn plan([latency, bytes, users, corrupt, seed, threads]: [&str; 6], out: &Path) -> Output {
    let flags = [
        ("--latency-p95", latency),
        ("--bytes-per-day", bytes),
        ("--users", users),
        ("--corrupt", corrupt),
        ("--seed", seed),
        ("--threads", threads),
        ("--out", out.to_str().expect("utf-8")),
    ];
    let flags = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
    Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
        .args(["plan", "--json"])
        .args(flags)
        .output()
        .expect("the program starts")
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("utf-8")
}

#[test]
fn a_plan_keeps_its_budgets_and_is_the_same_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, threads: &'static str| {
        let out = folder.path().join(name);
        let mut arguments = FITS;
        arguments[5] = threads;
        let output = plan(arguments, &out);
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        let files = ["params.toml", "summary.json", "report.html"];
        (
            output.stdout,
            files.map(|file| fs::read_to_string(out.join(file)).expect("written")),
        )
    };
    let (shown, files) = run("a", "1");
    assert_eq!(run("b", "2"), (shown.clone(), files.clone()));
    let [params, summary, page] = files;
    assert_eq!(shown, summary.as_bytes());

    let summary: Value = serde_json::from_str(&summary).expect("json");
    let figure = |name: &str| summary["figures"][name]["value"].as_f64().expect(name);
    assert!(figure("latency_p95_s") <= 20.0);
    assert!(figure("bytes_per_day") <= 200e6);
    assert!(figure("entropy_mean_bits") <= figure("bound_bits"));
    // The formula, written out again.
    let frames = figure("payload_per_s") + figure("loops_per_s") + figure("downstream_per_s");
    let bytes = 86_400.0 * 2432.0 * (frames + 1e3 / figure("confirm_ms"));
    assert!((bytes / figure("bytes_per_day") - 1.0).abs() < 1e-9);
    let through = figure("payload_per_s") + figure("loops_per_s");
    assert!(through <= 0.8 * figure("downstream_per_s"));
    // Up to five of the deployed layers, one of each other number.
    let rows = summary["front"]["rows"].as_array().expect("rows");
    let layers: Vec<&str> = rows
        .iter()
        .map(|row| row[0].as_str().expect("text"))
        .collect();
    let (deployed, others) = layers.split_at(layers.len() - 3);
    assert!((1..=5).contains(&deployed.len()) && deployed.iter().all(|layers| *layers == "3"));
    assert_eq!(others, ["2", "4", "5"]);
    // One of five mixes: 4 % of paths of two layers are corrupt, and chance decides whether p05 is 0.
    let p05 = |row: &Value| [5, 6].map(|at| row[at].as_str().expect("text").to_owned());
    assert_ne!(p05(&rows[0])[0], "–");
    let [two, between] = p05(&rows[deployed.len()]);
    assert_eq!(two, "–");
    assert!(between.starts_with("0.00 to "), "{between}");
    // Nobody is hidden among more than all users, however many packets there are.
    let over_users = figure("receiver_entropy_mean_bits");
    assert!((figure("users_bits") - 200_f64.log2()).abs() < 1e-12);
    assert!(over_users <= figure("users_bits") && over_users <= figure("entropy_mean_bits"));
    let heads = summary["front"]["head"].as_array().expect("names");
    assert_eq!(
        [&heads[2], &heads[4]],
        ["bits over users", "bits over packets"]
    );
    let share = (figure("corrupt_per_layer") / figure("mixes_per_layer")).powi(3);
    assert!((figure("corrupt_paths_share") - share).abs() < 1e-12);

    let table: toml::Table = params.parse().expect("toml");
    let profile = &table["profiles"][0];
    let uhz = |key: &str| profile[key].as_integer().expect(key);
    let delay = table["delay_mean_ms"].as_integer().expect("whole");
    assert_eq!(delay.to_string(), figure("delay_mean_ms").to_string());
    let rate = uhz("payload_uhz").to_string();
    assert_eq!(rate, (figure("payload_per_s") * 1e6).round().to_string());
    assert!(uhz("downstream_uhz") * 4 >= (uhz("loops_uhz") + uhz("payload_uhz")) * 5);
    assert!(params.contains("drops all others"), "{params}");
    assert_eq!(page.matches("<svg").count(), 1);
    // Quantities are rows, since a page has no room for so many columns; the chosen column says so.
    assert_eq!(page.matches("<th>3, chosen</th>").count(), 1);
    assert!(page.contains("<tr><td>latency p95 s</td>"));
    for outside in ["<script", "http://", "https://", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// The most that each budget leaves, by the bound: it never falls as a budget grows, and grows
/// somewhere.
#[test]
fn a_tighter_budget_never_gives_more_anonymity() {
    let best = |latency_p95_s, bytes_per_day| {
        let budgets = Budgets {
            latency_p95_s,
            bytes_per_day,
            users: 10_000,
            corrupt: 0.2,
            links_s: 0.0,
            given: Given::NOTHING,
        };
        let front = front(&budgets).expect("they fit");
        for pair in front.windows(2) {
            assert!(pair[0].latency_p95_s < pair[1].latency_p95_s);
            assert!(pair[0].bound_bits < pair[1].bound_bits);
        }
        let last = front.last().expect("not empty");
        assert!(last.latency_p95_s <= latency_p95_s);
        assert!(last.candidate.bytes_per_day() <= bytes_per_day);
        last.bound_bits
    };
    for budgets in [
        [150e6, 200e6, 300e6, 1e9].map(|bytes| (20.0, bytes)),
        [13.0, 16.0, 20.0, 40.0].map(|latency| (latency, 200e6)),
    ] {
        let bits = budgets.map(|(latency, bytes)| best(latency, bytes));
        assert!(bits.is_sorted(), "{bits:?}");
        assert!(bits[3] > bits[0] + 0.5, "{bits:?}");
    }
}

/// Corrupt mixes cost anonymity as measured, whatever the bound says.
#[test]
fn corrupt_mixes_cost_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let bits = |corrupt: &'static str| {
        let mut arguments = FITS;
        arguments[3] = corrupt;
        let output = plan(arguments, folder.path());
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        let summary: Value = serde_json::from_slice(&output.stdout).expect("json");
        let figure = &summary["figures"]["receiver_entropy_mean_bits"];
        ["value", "standard_error"].map(|key| figure[key].as_f64().expect(key))
    };
    let ([honest, a], [corrupt, b]) = (bits("0"), bits("0.4"));
    assert!(honest - corrupt > 4.0 * a.hypot(b), "{honest} {corrupt}");
}

#[test]
fn what_cannot_be_says_which_budget_binds() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |latency, bytes| plan([latency, bytes, "200", "0.2", "1", "1"], folder.path());
    for (latency, bytes, code, expected) in [
        ("20s", "100kB", 1, "the byte budget binds"),
        ("1ms", "900GB", 1, "the latency budget binds"),
        ("2s", "200MB", 1, "the budgets bind together"),
        ("2", "200MB", 2, "with a unit (ms, s, min, h), as in 2s"),
        ("-2s", "200MB", 2, "--latency-p95"),
        ("20s", "200", 2, "with a unit (B, kB, MB, GB), as in 200MB"),
        ("20s", "0MB", 2, "a number above 0"),
    ] {
        let output = with(latency, bytes);
        let error = error(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{latency} {bytes}: {error}"
        );
        assert!(error.contains(expected), "{error}");
        assert!(output.stdout.is_empty());
    }
    assert!(fs::read_dir(folder.path()).expect("there").next().is_none());

    // Too few users to measure: said of the flag, not of a scenario that nobody wrote.
    let output = plan(["2h", "1MB", "2", "0.2", "1", "1"], folder.path());
    let said = error(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--users 2: they keep "), "{said}");
    // One user is hidden among nobody.
    let output = plan(["20s", "200MB", "1", "0.2", "1", "1"], folder.path());
    assert_eq!(output.status.code(), Some(2), "{}", error(&output));

    // What the message names as enough is enough.
    let message = error(&with("2s", "200MB"));
    let (_, rest) = message.split_once("needs ").expect("how much it needs");
    let (megabytes, _) = rest.split_once(" MB").expect("megabytes");
    let output = with("2s", &format!("{megabytes}MB"));
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
}

/// Links that take no time are links.
#[test]
fn links_may_take_no_time() {
    let run = |links: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_lacuna-sim"))
            .args([
                "plan",
                "--json",
                "--latency-p95",
                "20s",
                "--bytes-per-day",
                "200MB",
            ])
            .args(["--users", "200"])
            .args(links)
            .output()
            .expect("the program starts")
    };
    let none = run(&["--links", "0ms"]);
    assert_eq!(none.status.code(), Some(0), "{}", error(&none));
    assert_eq!(none.stdout, run(&[]).stdout);
    let less = run(&["--links", "-1ms"]);
    assert_eq!(less.status.code(), Some(2));
    assert!(
        error(&less).contains("from 0 with a unit"),
        "{}",
        error(&less)
    );
}

/// The network's default profiles: each on the front at the network's delay (within a twentieth of
/// a bit), and `docs/plans/defaults.json` says what is computed here.
#[test]
fn the_default_profiles_are_on_the_front() {
    let params = Params::default();
    let standings = defaults::standings(&params, 100_000);
    let names: Vec<&str> = standings.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        ["interactive", "messaging", "frugal", "service", "nym-like"]
    );
    for one in &standings {
        let Some(front) = one.front else {
            // More than its mailbox carries, were every slot a message to another such user.
            assert_eq!(one.name, "service");
            assert!(one.load > 1.0);
            continue;
        };
        assert!(front.shared_bits < 0.05, "{one:?}");
        // A delay of its own is found by halving, so not to the last digit.
        assert!(front.alone_bits >= front.shared_bits - 0.001, "{one:?}");
    }
    // The control: a downstream three times as fast is off the front.
    let mut wasteful = params.clone();
    wasteful.profiles[1].downstream_uhz *= 3;
    let off = &defaults::standings(&wasteful, 100_000)[1];
    assert!(off.front.expect("a low load").shared_bits > 0.3, "{off:?}");

    // Another: where most of the load is loops, a fuller mailbox than 0.8 leaves more payload slots.
    let mut looping = params.clone();
    let one = &mut looping.profiles[1];
    (one.payload_uhz, one.loops_uhz, one.downstream_uhz) = (44_444, 400_000, 555_556);
    let off = &defaults::standings(&looping, 100_000)[1];
    assert!(
        off.front.expect("a load of 0.8").shared_bits > 0.05,
        "{off:?}"
    );

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plans/defaults.json");
    let shipped: Value = serde_json::from_str(&fs::read_to_string(path).expect("shipped")).unwrap();
    assert_eq!(shipped["head"], serde_json::json!(defaults::HEAD));
    assert_eq!(
        shipped["rows"],
        serde_json::json!(defaults::rows(&standings))
    );
}

/// Each default profile answers budgets, and the plan for them is in the repository: the profile
/// keeps the budgets, its mailbox keeps up, and it loses at most a tenth of a bit to the best of
/// the plan, by the bound; the files say what is planned here.
#[test]
fn the_default_profiles_answer_plans_in_the_repository() {
    let params = Params::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plans");
    for (name, budgets) in defaults::ANSWERS {
        let profile = params.profiles.iter().find(|one| one.name == name);
        let profile = profile.expect(name);
        let costs = defaults::costs(profile, params.delay_mean_ms, &budgets);
        let [latency_p95_s, bytes_per_day, bits] = costs.expect("its mailbox keeps up");
        assert!(
            latency_p95_s <= budgets.latency_p95_s,
            "{name}: {latency_p95_s} s"
        );
        assert!(
            bytes_per_day <= budgets.bytes_per_day,
            "{name}: {bytes_per_day} B"
        );
        // The budgets are not wide, or any profile would keep them.
        assert!(
            latency_p95_s >= 0.95 * budgets.latency_p95_s,
            "{name}: {latency_p95_s} s"
        );
        assert!(
            bytes_per_day >= 0.97 * budgets.bytes_per_day,
            "{name}: {bytes_per_day} B"
        );
        let front = front(&budgets).expect("they fit");
        let best = front.last().expect("not empty");
        assert!(best.bound_bits - bits < 0.1, "{name}: {bits} of {best:?}");
        // The control: a fifth less traffic is too far from the front.
        let fewer = bits + 0.8_f64.log2();
        assert!(best.bound_bits - fewer > 0.1, "{name}");

        let read = |ending: &str| {
            let file = folder.join(format!("{name}.{ending}"));
            fs::read_to_string(file).expect("shipped")
        };
        let summary: Value = serde_json::from_str(&read("json")).expect("json");
        assert_eq!(summary["settings"], budgets.command(1));
        let table: toml::Table = read("toml").parse().expect("toml");
        let planned = &table["profiles"][0];
        let uhz = |key: &str| planned[key].as_integer().expect(key);
        let chosen = front.iter().map(|point| point.candidate);
        let found = chosen.into_iter().any(|one| {
            let rates = [one.payload_uhz, one.loops_uhz, one.downstream_uhz].map(i64::from);
            rates == ["payload_uhz", "loops_uhz", "downstream_uhz"].map(uhz)
        });
        assert!(found, "{name}: {planned}");
        assert_eq!(
            table["delay_mean_ms"].as_integer(),
            Some(params.delay_mean_ms.into())
        );
        assert_eq!(uhz("loops_uhz"), i64::try_from(profile.loops_uhz).unwrap());
    }
}
