//! Settings and command line: the example file is the truth, later sources win, and what is
//! wrong is refused in one line with exit code 2.

use std::{path::Path, process::Command};

use gateway::settings::{Config, EXAMPLE, command};

/// The settings that `file`, environment and flags make.
fn load(file: &str, environment: &[&str], flags: &[&str]) -> anyhow::Result<Config> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, file)?;
    let name = path.to_str().expect("a temporary path is UTF-8");
    let line = [&["lacuna-gateway", "run", "--config", name], flags].concat();
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
    let (file, env) = ("read_ahead = 2", "LACUNA_GATEWAY_READ_AHEAD=3");
    for (config, expected) in [
        (load("", &[], &[]), 64),
        (load(file, &[], &[]), 2),
        (load(file, &[env], &[]), 3),
        (load(file, &[env], &["--read-ahead=4"]), 4),
    ] {
        assert_eq!(config.unwrap().read_ahead, expected);
    }
    let config = load("", &["LACUNA_GATEWAY_STATE_DIR=/var/lib/gateway"], &[]).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/gateway"));
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    for (result, expected) in [
        (
            load("read_aheads = 1", &[], &[]),
            "did you mean `read_ahead`?",
        ),
        (
            load("", &["LACUNA_GATEWAY_READAHEAD=1"], &[]),
            "did you mean `read_ahead`?",
        ),
        (
            load("read_ahead = 'many'", &[], &[]),
            "`read_ahead` must be an integer",
        ),
        (
            load("", &[], &["--read-ahead=many"]),
            "`read_ahead` must be an integer",
        ),
        (
            load("read_ahead = 0", &[], &[]),
            "read_ahead must be 1 to 10000000",
        ),
        (load("family = 'a b'", &[], &[]), "family must be"),
        (
            load("postgres = 'host=db.example.org'", &[], &[]),
            "host must be the folder of a socket",
        ),
        (
            load(
                "front_ends = true",
                &[],
                &["--advertise=gw.example.org:9000"],
            ),
            "set `postgres`",
        ),
        (
            load(
                "front_ends = true\npostgres = 'host=/run user=lacuna'",
                &[],
                &[],
            ),
            "set `advertise`",
        ),
        (load("log = 'loud=very'", &[], &[]), "log"),
    ] {
        let error = format!("{:#}", result.expect_err(expected));
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

/// Runs the real program and gives exit code, standard output, standard error.
fn program(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lacuna-gateway"))
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
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "read_ahed = 3").unwrap();
    let config = format!("--config={}", file.display());
    for (arguments, expected) in [
        (
            &["run", &config][..],
            "unknown setting `read_ahed`; did you mean `read_ahead`?",
        ),
        (
            &["run", "--config=/nowhere/gateway.toml"],
            "/nowhere/gateway.toml",
        ),
        (
            &["run", "--crypto-path=fast"],
            "best, portable, assembly, avx2 or lanes",
        ),
        (&["run", "--readahead=3"], "--read-ahead"),
        (&["walk"], "walk"),
        (&["run"], "set `advertise`"),
        (
            &["run", "--listen=127.0.0.1:0", "--state-dir=/nowhere"],
            "lacuna-gateway init",
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

/// GW-26: neither settings nor what is said of them hold the secret.
#[test]
fn a_password_in_settings_is_refused_and_not_repeated() {
    for given in [
        "host=/run password=hunter2",
        "postgresql://me:hunter2@[::1]/",
    ] {
        let (code, out, error) = program(&["run", &format!("--postgres={given}")]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("postgres-password"), "{error}");
        assert!(!error.contains("hunter2") && out.is_empty(), "{error}");
    }
}

#[test]
fn print_config_shows_what_is_in_force() {
    let (code, out, _) = program(&[
        "run",
        "--print-config",
        "--read-ahead=7",
        "--listen=127.0.0.1:1",
    ]);
    assert_eq!(code, Some(0));
    let shown: Config = toml::from_str(&out).unwrap();
    assert_eq!((shown.read_ahead, shown.listen.port()), (7, 1));
}
