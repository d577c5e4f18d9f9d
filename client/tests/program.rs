//! The program `lacuna` by itself: exit codes and what it says when something is missing.
//!
//! A test binary of its own: a child inherits the locks of state folders between fork and exec, so
//! programs started beside the daemons of tests/api.rs would keep those folders locked for a moment.

use std::path::PathBuf;

/// What `lacuna run` needs before it runs is a matter of settings: exit code 2, one line.
#[test]
fn the_program_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("none");
    let lacuna = |args: &[&str]| {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_lacuna"));
        let output = std::process::Command::new(program)
            .args(args)
            .arg("--state-dir")
            .arg(&state)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), error)
    };
    for (args, code, words) in [
        (&["run"][..], 2, "lacuna init"),
        (&["init"], 2, "--network FILE"),
        (&["status"], 1, "no daemon runs on"),
        (&["moved", "--follow", "--json"], 1, "no daemon runs on"),
        (&["status", "--profil", "x"], 2, "--profile"),
        (&["send", "nym1x"], 2, "lacuna1"),
    ] {
        let (found, error) = lacuna(args);
        assert_eq!(found, Some(code), "{error}");
        assert!(error.contains(words), "{error}");
    }
    // A `restore` that was killed.
    shell::state::StateDir::open(&state).unwrap();
    std::fs::write(state.join("restored.redb"), []).unwrap();
    let (code, error) = lacuna(&["run"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("`lacuna restore`"), "{error}");
    let (code, error) = lacuna(&["status", "--print-config"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
}
