//! The real program on 127.0.0.1: makes its identity, starts, says where it listens, waits for
//! its network, stops as asked.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lacuna-mix-node");

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).args(arguments);
    command
}

fn init(folder: &Path, state_dir: &str) -> Output {
    let state = format!("--state-dir={state_dir}");
    program(folder, &["init", &state]).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// The identity that `init` prints first.
fn identity(output: Output) -> String {
    let text = text(output.stdout);
    let first = text.lines().next().unwrap();
    first.strip_prefix("identity ").unwrap().to_owned()
}

/// Writes a network.toml whose four authorities listen, but never answer.
fn network(folder: &Path) -> Vec<TcpListener> {
    let silent: Vec<_> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut file = format!("id = \"{}\"\n", "07".repeat(32));
    for (i, listener) in silent.iter().enumerate() {
        let key = identity(init(folder, &format!("authority-{i}")));
        let address = listener.local_addr().unwrap();
        file += &format!("[[authority]]\nkey = \"{key}\"\naddress = \"{address}\"\n");
    }
    let gateway = identity(init(folder, "gateway"));
    file += &format!("[[bootstrap]]\nid = \"{gateway}\"\naddress = \"127.0.0.1:9\"\n");
    std::fs::write(folder.join("network.toml"), file).unwrap();
    silent
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn init_makes_a_private_identity_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = init(folder.path(), "state");
    assert!(first.status.success());
    let id = identity(first);
    assert!(
        id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()),
        "{id}"
    );
    let mode = |name: &str| {
        let found = std::fs::metadata(folder.path().join(name)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!((mode("state"), mode("state/identity")), (0o700, 0o600));
    let kept = std::fs::read(folder.path().join("state/identity")).unwrap();

    let again = init(folder.path(), "state");
    assert_eq!(again.status.code(), Some(2));
    let error = text(again.stderr);
    assert!(error.contains("holds an identity already"), "{error}");
    assert_eq!(
        std::fs::read(folder.path().join("state/identity")).unwrap(),
        kept
    );
}

#[test]
fn a_node_says_where_it_listens_and_stops_on_both_signals() {
    let folder = tempfile::tempdir().unwrap();
    let _authorities = network(folder.path());
    let id = identity(init(folder.path(), "state"));
    for signal in ["-TERM", "-INT"] {
        let arguments = [
            "run",
            "--state-dir=state",
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
        ];
        let mut command = program(folder.path(), &arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let mut said =
            || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

        let first = said();
        let address = |name: &str| first[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
        assert_ne!(address("listening").port(), 0);
        while said() != json!({"state": "bootstrapping"}) {}
        let status = get(address("metrics"), "/status");
        assert!(
            status.contains("\"state\":\"bootstrapping\"") && status.contains(&id),
            "{status}"
        );
        assert!(get(address("metrics"), "/metrics").contains("lacuna_packets_held 0"));

        // A second process must not run on the same keys.
        let second = program(folder.path(), &arguments).output().unwrap();
        assert_eq!(second.status.code(), Some(2));
        assert!(text(second.stderr).contains("in use by another process"));

        let pid = running.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(running.0.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        running
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

#[test]
fn an_address_in_use_ends_with_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = network(folder.path());
    init(folder.path(), "state");
    let taken = format!("--listen={}", authorities[0].local_addr().unwrap());
    let output = program(folder.path(), &["run", "--state-dir=state", &taken])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).contains("can't listen on"));
}

/// A supervisor that starts it again and again would mend nothing.
#[test]
fn a_document_that_is_not_believed_ends_with_code_2_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let _authorities = network(folder.path());
    init(folder.path(), "state");
    let arguments = ["run", "--state-dir=state", "--listen=127.0.0.1:0"];
    for name in ["consensus", "consensus.previous"] {
        let file = folder.path().join("state").join(name);
        std::fs::write(&file, b"damaged").unwrap();
        let output = program(folder.path(), &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        let error = text(output.stderr);
        assert!(
            error.contains(name) && error.contains("remove it"),
            "{error}"
        );
        std::fs::remove_file(file).unwrap();
    }
}
