//! Four authorities as real processes on 127.0.0.1: they start, sign one document, remember it,
//! and stop as asked.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{
    io::{BufRead, BufReader, Lines},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use proto::{
    NodeId,
    directory::{Answer, Network, Params, Question, Role, SignedConsensus},
};
use serde_json::{Value, json};
use shell::{
    ask::ask,
    clock::Clock,
    keys::{About, Keys},
    link::{Dialler, Target},
    network,
    state::StateDir,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lacuna-authority");
const AUTHORITIES: usize = 4;

/// A process that ends with the test.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Running {
    fn start(folder: &Path, number: usize, address: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .current_dir(folder)
            .args(["run", "--metrics-listen=127.0.0.1:0", "--log=warn"])
            .args([
                "--mixes-min=3",
                "--gateways-min=1",
                "--settle-ms=100",
                "--round-s=1",
            ])
            .arg(format!("--state-dir=authority-{number}"))
            .arg(format!("--listen={address}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line on standard output.
    fn said(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

fn init(folder: &Path, number: usize) -> [u8; 32] {
    let output = Command::new(PROGRAM)
        .current_dir(folder)
        .args(["init", &format!("--state-dir=authority-{number}")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap();
    network::unhex(first.strip_prefix("identity ").unwrap()).unwrap()
}

/// Addresses that were free a moment ago.
fn addresses() -> Vec<String> {
    let all: Vec<_> = (0..AUTHORITIES)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    all.iter()
        .map(|one| one.local_addr().unwrap().to_string())
        .collect()
}

fn keys(folder: &Path, name: &str) -> Keys {
    Keys::open(StateDir::open(&folder.join(name)).unwrap()).unwrap()
}

async fn asked(network: &Network, authority: usize, question: &Question) -> Answer {
    let dialler = Dialler {
        network: network.id,
        key: None,
        clock: Clock::start(),
    };
    let target = Target {
        id: NodeId(network.authorities[authority]),
        address: network.authority_addresses[authority].clone(),
        link_key: None,
    };
    ask(&dialler, &target, question).await.unwrap()
}

async fn document(network: &Network, authority: usize) -> SignedConsensus {
    let newest = Question::Consensus { period: None };
    let Answer::Consensus(signed) = asked(network, authority, &newest).await else {
        panic!("a ready authority has the document");
    };
    signed
}

/// DIR-7, DIR-8, DIR-12
#[tokio::test]
async fn four_authorities_sign_one_document_and_remember_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let gateway = keys(folder, "gateway");

    let addresses = addresses();
    let ids: Vec<_> = (0..AUTHORITIES)
        .map(|number| init(folder, number))
        .collect();
    let mut command = Command::new(PROGRAM);
    command
        .arg("network")
        .arg(format!("--gateway={}@127.0.0.1:9", gateway.id()));
    for (id, address) in ids.iter().zip(&addresses) {
        command.arg(format!("--authority={}@{address}", network::hex(id)));
    }
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    std::fs::write(folder.join("network.toml"), &text).unwrap();
    let network = network::parse(&text, "network.toml").unwrap();

    let mut running: Vec<_> = (0..AUTHORITIES)
        .map(|number| Running::start(folder, number, &addresses[number]))
        .collect();
    for (one, address) in running.iter_mut().zip(&addresses) {
        assert_eq!(one.said()["listening"], json!(address));
        assert_eq!(one.said(), json!({"state": "bootstrapping"}));
    }

    let gathering = asked(&network, 0, &Question::Gathering).await;
    let params = Params::default();
    assert_eq!(
        gathering,
        Answer::Gathering {
            period: 0,
            params: params.clone()
        }
    );
    let now_s = Clock::start().utc().as_secs();
    let mixes: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| keys(folder, name))
        .collect();
    let mixes = mixes.iter().map(|keys| (keys, Role::Mix));
    for (node, role) in mixes.chain([(&gateway, Role::Gateway)]) {
        let about = About {
            role,
            address: "127.0.0.1:9".into(),
            family: "x".into(),
        };
        let said = node
            .descriptor(&network.id, &about, 0, &params, now_s)
            .unwrap();
        for authority in 0..AUTHORITIES {
            let answer = asked(&network, authority, &Question::Submit(said.clone())).await;
            assert_eq!(answer, Answer::Accepted);
        }
    }

    for one in &mut running {
        assert_eq!(one.said(), json!({"state": "ready"}));
    }
    let signed = document(&network, 0).await;
    let consensus = signed.verify(&network, Some(Clock::start().utc())).unwrap();
    assert_eq!((consensus.nodes.len(), consensus.layers.len()), (4, 3));
    for authority in 1..AUTHORITIES {
        assert_eq!(document(&network, authority).await.body, signed.body);
    }

    // One is killed; it comes back with the document and needs no other for it.
    drop(running.split_off(1));
    drop(running);
    let mut again = Running::start(folder, 0, &addresses[0]);
    assert_eq!(again.said()["listening"], json!(addresses[0]));
    let state = again.said();
    if state == json!({"state": "bootstrapping"}) {
        assert_eq!(again.said(), json!({"state": "ready"}));
    }
    let own = network
        .authorities
        .iter()
        .position(|key| *key == ids[0])
        .unwrap();
    assert_eq!(document(&network, own).await.body, signed.body);
    assert_eq!(again.terminate(), Some(0));
}

#[test]
fn an_identity_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), 0);
    let output = Command::new(PROGRAM)
        .current_dir(folder.path())
        .args(["init", "--state-dir=authority-0"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("holds an identity already"), "{error}");
}
