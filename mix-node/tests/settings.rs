//! Settings and command line: the example file is the truth, later sources win, and what is
//! wrong is refused in one line with exit code 2.

use std::{path::Path, process::Command};

use mix_node::settings::{Config, EXAMPLE, command};

/// The settings that `file`, environment and flags make.
fn load(file: &str, environment: &[&str], flags: &[&str]) -> anyhow::Result<Config> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, file)?;
    let name = path.to_str().expect("a temporary path is UTF-8");
    let line = [&["lacuna-mix-node", "run", "--config", name], flags].concat();
    let matches = command().try_get_matches_from(line)?;
    let (_, flags) = matches.subcommand().expect("run");
    let environment = environment.iter().map(|pair| {
        let (name, text) = pair.split_once('=').expect("a pair");
        (name.into(), text.into())
    });
    Config::load(environment, flags)
}

/// Neither more nor fewer settings than the struct has, each with its help on the command line.
#[test]
fn the_example_file_is_exhaustive() {
    let example: toml::Table = EXAMPLE.parse().unwrap();
    let defaults = toml::Table::try_from(load("", &[], &[]).unwrap()).unwrap();
    assert_eq!(defaults, example);
    assert_eq!(
        toml::Table::try_from(load(EXAMPLE, &[], &[]).unwrap()).unwrap(),
        example
    );
    for verb in ["init", "run"] {
        let command = command();
        let sub = command.find_subcommand(verb).unwrap();
        for key in example.keys() {
            let flag = sub.get_arguments().find(|flag| flag.get_id() == key);
            let help = flag
                .and_then(|flag| flag.get_help())
                .expect(key)
                .to_string();
            assert!(help.contains("[default: "), "{key}: {help}");
        }
    }
}

#[test]
fn the_operators_guide_names_every_setting() {
    let guide = include_str!("../../docs/OPERATING.md");
    for key in EXAMPLE.parse::<toml::Table>().unwrap().keys() {
        assert!(
            guide.contains(&format!("`{key}`")),
            "docs/OPERATING.md lacks {key}"
        );
    }
}

#[test]
fn a_later_source_wins() {
    let (file, env) = ("pool_max = 2", "LACUNA_MIX_NODE_POOL_MAX=3");
    for (config, expected) in [
        (load("", &[], &[]), 100_000),
        (load(file, &[], &[]), 2),
        (load(file, &[env], &[]), 3),
        (load(file, &[env], &["--pool-max=4"]), 4),
    ] {
        assert_eq!(config.unwrap().pool_max, expected);
    }
    let config = load("", &["LACUNA_MIX_NODE_STATE_DIR=/var/lib/mix"], &[]).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/mix"));
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    for (result, expected) in [
        (
            load("pool_maximum = 1", &[], &[]),
            "did you mean `pool_max`?",
        ),
        (
            load("", &["LACUNA_MIX_NODE_POOLMAX=1"], &[]),
            "did you mean `pool_max`?",
        ),
        (
            load("pool_max = 'many'", &[], &[]),
            "`pool_max` must be an integer",
        ),
        (
            load("", &[], &["--pool-max=many"]),
            "`pool_max` must be an integer",
        ),
        (
            load("pool_max = 0", &[], &[]),
            "pool_max must be 1 to 10000000, not 0",
        ),
        (
            load("", &[], &["--link-queue-max=99999999999999999"]),
            "link_queue_max must be 1 to 10000000, not",
        ),
        (
            load("replay_max = 4000000001", &[], &[]),
            "replay_max must be 0 to 4000000000",
        ),
        (load("family = 'a b'", &[], &[]), "family must be"),
        (load("log = 'loud=very'", &[], &[]), "log"),
    ] {
        let error = format!("{:#}", result.expect_err(expected));
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

/// Runs the real program and gives exit code, standard output, standard error.
fn program(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lacuna-mix-node"))
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn bad_settings_and_usage_end_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mix.toml");
    std::fs::write(&file, "pool_mx = 3").unwrap();
    let config = format!("--config={}", file.display());
    for (arguments, expected) in [
        (
            &["run", &config][..],
            "unknown setting `pool_mx`; did you mean `pool_max`?",
        ),
        (&["run", "--config=/nowhere/mix.toml"], "/nowhere/mix.toml"),
        (
            &["run", "--crypto-path=fast"],
            "best, portable, assembly, avx2 or lanes",
        ),
        (&["run", "--poolmax=3"], "--pool-max"),
        (&["walk"], "walk"),
        (&["run"], "set `advertise`"),
        (
            &["run", "--listen=127.0.0.1:0", "--state-dir=/nowhere"],
            "lacuna-mix-node init",
        ),
    ] {
        let (code, out, error) = program(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(
            error.contains(expected) && out.is_empty(),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn print_config_shows_what_is_in_force() {
    let (code, out, _) = program(&[
        "run",
        "--print-config",
        "--pool-max=7",
        "--listen=127.0.0.1:1",
    ]);
    assert_eq!(code, Some(0));
    let shown: Config = toml::from_str(&out).unwrap();
    assert_eq!((shown.pool_max, shown.listen.port()), (7, 1));
}
