//! Sweeps: the same bytes however they are cut, killed and repeated; on Dask too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_lacuna-sim");

fn sim(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn done(arguments: &[&str]) {
    let output = sim(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// A sweep of `runs` tiny runs, planned in `folder/name`.
fn planned(folder: &Path, name: &str, runs: u64) -> PathBuf {
    let base = folder.join("base.toml");
    fs::write(
        &base,
        "version = 1\n[network]\nlayers = 1\nmixes_per_layer = 1\n[mix]\ndelay_mean_ms = 50\n\
         [traffic]\nusers = 100\n[flow]\ntargets = 16\n",
    )
    .expect("written");
    let seeds: Vec<String> = (0..runs / 4).map(|seed| seed.to_string()).collect();
    let grid = folder.join("grid.toml");
    let grid_text = format!(
        "version = 1\nbase = \"base.toml\"\nseeds = [{}]\nfigures = [\"entropy_mean_bits\"]\n[grid]\n\
         \"mix.delay_mean_ms\" = [20.0, 40.0]\n\"network.layers\" = [1, 2]\n",
        seeds.join(", ")
    );
    fs::write(&grid, grid_text).expect("written");
    let out = folder.join(name);
    done(&["sweep", "plan", text(&grid), "--out", text(&out)]);
    out
}

fn shard(sweep: &Path, index: usize, count: usize) {
    let (index, count) = (index.to_string(), count.to_string());
    let arguments = ["--index", &index, "--count", &count, "--quiet"];
    done(&[&["sweep", "shard", text(sweep)], &arguments[..]].concat());
}

fn merged(sweep: &Path) -> Vec<Vec<u8>> {
    done(&["sweep", "merge", text(sweep), "--quiet"]);
    let read = |name| fs::read(sweep.join(name)).expect("merged");
    ["sweep.csv", "sweep.parquet", "sweep.html"]
        .map(read)
        .into()
}

#[test]
fn any_cut_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = planned(folder.path(), "whole", 24);
    shard(&whole, 0, 1);
    let expected = merged(&whole);
    assert!(expected[2].starts_with(b"<!DOCTYPE html>"));
    let csv = String::from_utf8(expected[0].clone()).expect("utf-8");
    let head = "run,seed,network_layers,mix_delay_mean_ms,figure,value,standard_error,low,high,n";
    assert_eq!(csv.lines().next(), Some(head));
    // The same names in Parquet, whose schema holds each with its length before it.
    for name in head.split(',') {
        let length = u8::try_from(name.len()).expect("short");
        let held = [&[length], name.as_bytes()].concat();
        let found = expected[1].windows(held.len()).any(|bytes| bytes == held);
        assert!(found, "{name}");
    }
    // What was run: all but what varies, and that.
    let page = std::str::from_utf8(&expected[2]).expect("utf-8");
    for says in [
        "traffic.users = 100\n",
        "mix.delay_mean_ms: 20.0, 40.0\n",
        "seeds: 0, 1, 2, 3, 4, 5\n",
        ", commit ",
        "24 runs, plan <code>",
    ] {
        assert!(page.contains(says), "{says}");
    }
    assert!(!page.contains("mix.delay_mean_ms = "));

    let cut = planned(folder.path(), "cut", 24);
    for index in [6, 2, 0, 1, 2, 3, 4, 5] {
        shard(&cut, index, 7);
    }
    // What a killed shard leaves: a file under another name, and one of another run.
    fs::write(cut.join("runs/.000003.json.99"), "{\"half\":").expect("written");
    assert_eq!(merged(&cut), expected);

    // A result that is missing or not this run's is named, and made again; the others are kept.
    fs::copy(cut.join("runs/000004.json"), cut.join("runs/000005.json")).expect("copied");
    fs::remove_file(cut.join("runs/000007.json")).expect("removed");
    let refused = sim(&["sweep", "merge", text(&cut)]);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.contains("2 of 24 runs have no result of this program: 5, 7"),
        "{error}"
    );
    let kept = fs::metadata(cut.join("runs/000006.json")).expect("there");
    shard(&cut, 0, 1);
    assert_eq!(merged(&cut), expected);
    let same = fs::metadata(cut.join("runs/000006.json")).expect("there");
    assert_eq!(
        kept.modified().expect("a time"),
        same.modified().expect("a time")
    );
}

/// A plan into a used folder takes away what was merged before; a shard makes the folder of results.
#[test]
fn a_plan_starts_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = planned(folder.path(), "sweep", 4);
    fs::remove_dir(sweep.join("runs")).expect("removed");
    shard(&sweep, 0, 1);
    merged(&sweep);
    planned(folder.path(), "sweep", 8);
    for name in ["sweep.csv", "sweep.parquet", "sweep.html"] {
        assert!(!sweep.join(name).exists(), "{name}");
    }
}

/// A figure that only the runs show to be missing costs its picture, not what was measured.
#[test]
fn what_cannot_be_drawn_is_still_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = planned(folder.path(), "sweep", 4);
    let plan = sweep.join("plan.json");
    let text_of = fs::read_to_string(&plan).expect("planned");
    fs::write(
        &plan,
        text_of.replacen("entropy_mean_bits", "latency_p999_ms", 1),
    )
    .expect("written");
    shard(&sweep, 0, 1);
    let output = sim(&["sweep", "merge", text(&sweep)]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("no run has a figure latency_p999_ms"),
        "{error}"
    );
    for name in ["sweep.csv", "sweep.parquet", "sweep.html"] {
        assert!(sweep.join(name).exists(), "{name}");
    }
}

#[test]
fn bad_requests_exit_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = planned(folder.path(), "sweep", 4);
    for (arguments, says) in [
        (
            vec!["shard", text(&sweep), "--index", "3", "--count", "3"],
            "must be below --count 3",
        ),
        (
            vec!["merge", text(folder.path())],
            "make it with: lacuna-sim sweep plan",
        ),
        (
            vec!["plan", "nowhere.toml", "--out", text(&sweep)],
            "reading nowhere.toml",
        ),
    ] {
        let output = sim(&[vec!["sweep"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_examples_for_clusters_call_the_program_as_it_is() {
    let cluster = Path::new(ROOT).join("cluster");
    let slurm = cluster.join("slurm-array.sh");
    let checked = Command::new("bash").arg("-n").arg(&slurm).status();
    assert!(checked.expect("bash runs").success());
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = planned(folder.path(), "sweep", 8);
    let path = format!(
        "{}:{}",
        text(Path::new(PROGRAM).parent().expect("a folder")),
        std::env::var("PATH").unwrap_or_default()
    );
    for index in ["0", "1"] {
        let run = Command::new("bash")
            .arg(&slurm)
            .env("PATH", &path)
            .env("SWEEP", &sweep)
            .env("SLURM_ARRAY_TASK_ID", index)
            .env("SLURM_ARRAY_TASK_COUNT", "1") // as if each were submitted again alone
            .env("COUNT", "2")
            .status();
        assert!(run.expect("bash runs").success());
        // A share, and not all of it.
        let runs = fs::read_dir(sweep.join("runs")).expect("made").count();
        assert_eq!(runs, if index == "0" { 4 } else { 8 });
    }
    merged(&sweep);
    // The command of the Kubernetes job, taken out of its file.
    let job = fs::read_to_string(cluster.join("kubernetes-indexed-job.yaml")).expect("there");
    let line = job
        .lines()
        .find_map(|line| line.trim().strip_prefix("- exec "))
        .expect("the shard's command");
    fs::remove_dir_all(sweep.join("runs")).expect("removed");
    fs::create_dir(sweep.join("runs")).expect("made");
    for index in 0..16 {
        let run = Command::new("sh")
            .args(["-c", &line.replace("/sweep", text(&sweep))])
            .env("PATH", &path)
            .env("JOB_COMPLETION_INDEX", index.to_string())
            .status();
        assert!(run.expect("sh runs").success());
    }
    merged(&sweep);
}

#[test]
fn every_sweep_that_is_shipped_can_be_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut planned = 0;
    for entry in fs::read_dir(Path::new(ROOT).join("sweeps")).expect("there") {
        let grid = entry.expect("an entry").path();
        done(&[
            "sweep",
            "plan",
            text(&grid),
            "--out",
            text(&folder.path().join("out")),
        ]);
        planned += 1;
    }
    assert!(planned >= 3);
}

/// With `LACUNA_SYSTEM=1`: 200 runs on Dask, one worker killed.
#[test]
fn dask_gives_the_same_bytes_with_a_worker_killed() {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        println!(
            "skipped: needs Python with `distributed` and `pyarrow`; run with LACUNA_SYSTEM=1"
        );
        return;
    }
    let python = std::env::var("LACUNA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let single = planned(folder.path(), "single", 200);
    shard(&single, 0, 1);
    let expected = merged(&single);
    let sweep = planned(folder.path(), "dask", 200);
    let script = Path::new(ROOT).join("cluster/dask_sweep.py");
    let output = Command::new(&python)
        .arg(script)
        .args([
            text(&sweep),
            "--shards",
            "25",
            "--workers",
            "2",
            "--kill-one",
            "--program",
            PROGRAM,
        ])
        .output()
        .expect("python runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert!(error.contains("killed a worker"), "{error}");
    assert_eq!(merged(&sweep), expected);

    // Both kinds of file say the same to Python.
    let read = |file: &str| {
        let script = Path::new(ROOT).join("cluster/read_results.py");
        let output = Command::new(&python)
            .arg(script)
            .arg(sweep.join(file))
            .output();
        let output = output.expect("python runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).expect("utf-8");
        let last = |line: &str| {
            line.rsplit('\t')
                .nth(1)
                .and_then(|cell| cell.parse::<f64>().ok())
        };
        text.lines().filter_map(last).collect::<Vec<f64>>()
    };
    let (csv, parquet) = (read("sweep.csv"), read("sweep.parquet"));
    assert_eq!(csv.len(), 200);
    assert_eq!(csv, parquet);
}

/// With `LACUNA_SYSTEM=1`: the example reader takes quantiles as the summary does.
#[test]
fn python_reads_the_quantiles_of_the_summary() {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        println!("skipped: needs Python; run with LACUNA_SYSTEM=1");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("messages.csv");
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    let rows = values.iter().map(|x| format!("{x},{x}\n"));
    let rows: String = rows.rev().collect();
    fs::write(&file, format!("message,entropy_bits\n{rows}")).expect("written");
    let read = Command::new("python3")
        .arg(Path::new(ROOT).join("cluster/read_results.py"))
        .arg(&file)
        .output()
        .expect("python runs");
    let [p01, p50] = [0.01, 0.5].map(|q| sim::stats::quantile(&values, q));
    assert_eq!(
        String::from_utf8_lossy(&read.stdout),
        format!("100 messages; entropy p01 {p01:.4} p50 {p50:.4} bits\n")
    );
    // A figure that no run has is an error that names those there are.
    let table = folder.path().join("sweep.csv");
    fs::write(
        &table,
        "run,seed,figure,value,standard_error,low,high,n\n0,1,latency_mean_ms,2,0,2,2,9\n",
    )
    .expect("written");
    let read = Command::new("python3")
        .arg(Path::new(ROOT).join("cluster/read_results.py"))
        .args([text(&table), "nonsense"])
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(
        !read.status.success() && said.contains("latency_mean_ms"),
        "{said}"
    );
}

#[test]
fn messages_and_comparison() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = Path::new(ROOT).join("scenarios/single-mix.toml");
    for (name, seed) in [("a", "1"), ("b", "2")] {
        let out = folder.path().join(name);
        let arguments = [
            "--seed",
            seed,
            "--out",
            text(&out),
            "--messages",
            "csv,parquet",
            "--quiet",
        ];
        done(&[&["run", text(&scenario)], &arguments[..]].concat());
        let csv = fs::read_to_string(out.join("messages.csv")).expect("written");
        assert_eq!(csv.lines().count(), 1 + 512);
        // No column for what the scenario does not measure.
        let head = "message,entropy_bits,min_entropy_bits,renyi2_bits,log_loss_bits";
        assert_eq!(csv.lines().next(), Some(head));
        let parquet = fs::read(out.join("messages.parquet")).expect("written");
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    }
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    done(&["compare", text(&a), text(&b), "--fail-above", "5"]);
    let says = |a: &Path, b: &Path| {
        let output = sim(&["compare", text(a), text(b)]);
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let differ = says(&a, &b);
    assert!(
        differ.starts_with("a: ") && differ.contains("seed 2, flow engine, commit"),
        "{differ}"
    );
    assert!(!differ.contains("warning"), "{differ}");
    assert!(says(&a, &a).contains("warning: one seed"));
    let other = folder.path().join("other");
    let pool = Path::new(ROOT).join("scenarios/threshold-pool.toml");
    done(&["run", text(&pool), "--out", text(&other), "--quiet"]);
    assert!(says(&other, &b).contains("warning: another scenario"));
    let apart = sim(&["compare", text(&a), text(&b), "--fail-above", "0.0001"]);
    assert_eq!(apart.status.code(), Some(1));
    assert_eq!(
        sim(&["compare", text(&a), "nowhere"]).status.code(),
        Some(2)
    );
}
