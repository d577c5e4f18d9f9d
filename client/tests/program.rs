//! The program `lacuna` by itself: exit codes and what it says when something is missing.
//!
//! A test binary of its own: a child inherits the locks of state folders between fork and exec, so
//! programs started beside the daemons of tests/api.rs would keep those folders locked for a moment.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Output},
    thread,
};

use chacha20::ChaCha20Rng;
use client::{
    api::{Response, Wait},
    status::Status,
};
use proto::{NodeId, client::Identity};
use rand_core::SeedableRng;

fn lacuna(args: &[&str]) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_lacuna"));
    let output = Command::new(program).args(args).output();
    output.expect("it runs")
}

/// What `lacuna run` needs before it runs is a matter of settings: exit code 2, one line.
#[test]
fn the_program_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("none");
    let lacuna = |args: &[&str]| {
        let output = lacuna(&[args, &["--state-dir", state.to_str().unwrap()]].concat());
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

/// A message that did not get as far as it should in time names the reason, where the daemon knows one.
#[test]
fn a_message_that_waits_says_why() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let to = Identity::generate(&mut rng, NodeId([7; 32])).address();
    for (stranded, expected) in [
        (0, "not sent within 1 s\n"),
        (
            1,
            "not sent within 1 s: 1 of the messages under way waits for a gateway that this network's document does not have",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let daemon = UnixListener::bind(folder.path().join("lacuna.sock")).unwrap();
        let answers = [
            Response::Progress {
                id: "00".repeat(16),
                state: Wait::Queued,
            },
            Response::Status(Box::new(Status {
                messages_stranded: stranded,
                ..Status::default()
            })),
        ];
        // A connection for each, which stays open.
        let daemon = thread::spawn(move || {
            answers.map(|answer| {
                let (mut connection, _) = daemon.accept().unwrap();
                let mut asked = String::new();
                BufReader::new(&connection).read_line(&mut asked).unwrap();
                let answer = serde_json::to_string(&answer).unwrap();
                writeln!(connection, "{answer}").unwrap();
                connection
            })
        });
        let folder = folder.path().to_str().unwrap();
        let sent = lacuna(&[
            "send",
            &to.to_string(),
            "/dev/null",
            "--wait",
            "sent",
            "--timeout",
            "1",
            "--state-dir",
            folder,
        ]);
        let error = String::from_utf8(sent.stderr).unwrap();
        assert_eq!(sent.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
        drop(daemon.join().unwrap());
    }
}
