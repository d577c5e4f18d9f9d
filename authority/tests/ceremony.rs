//! Authorities as real processes on 127.0.0.1: three of four sign a document, the last comes late
//! and takes it, all remember it, the next document names it, and they stop as asked.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{
    io::{BufRead, BufReader, Lines},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use proto::{
    NodeId,
    directory::{Answer, Consensus, Network, Params, Question, Role, SelfCheck, SignedConsensus},
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
    fn start(folder: &Path, number: usize, address: &str, period: u64) -> Self {
        let mut child = Command::new(PROGRAM)
            .current_dir(folder)
            .args(["run", "--metrics-listen=127.0.0.1:0", "--log=warn"])
            .args([
                "--mixes-min=3",
                "--gateways-min=1",
                "--settle-ms=100",
                "--round-s=2",
            ])
            .arg(format!("--state-dir=authority-{number}"))
            .arg(format!("--listen={address}"))
            .arg(format!("--period={period}"))
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

/// A network before its first document: four authorities with identities, four nodes with keys.
struct Founded<'a> {
    folder: &'a Path,
    addresses: Vec<String>,
    ids: Vec<[u8; 32]>,
    network: Network,
    nodes: Vec<(Keys, Role)>,
}

impl<'a> Founded<'a> {
    fn new(folder: &'a Path) -> Self {
        let nodes: Vec<_> = [
            ("a", Role::Mix),
            ("b", Role::Mix),
            ("c", Role::Mix),
            ("gateway", Role::Gateway),
        ]
        .map(|(name, role)| (keys(folder, name), role))
        .into();
        let addresses = addresses();
        let ids: Vec<_> = (0..AUTHORITIES)
            .map(|number| init(folder, number))
            .collect();
        let mut command = Command::new(PROGRAM);
        command
            .arg("network")
            .arg(format!("--gateway={}@127.0.0.1:9", nodes[3].0.id()));
        for (id, address) in ids.iter().zip(&addresses) {
            command.arg(format!("--authority={}@{address}", network::hex(id)));
        }
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        std::fs::write(folder.join("network.toml"), &text).unwrap();
        let network = network::parse(&text, "network.toml").unwrap();
        Self {
            folder,
            addresses,
            ids,
            network,
            nodes,
        }
    }

    /// Starts authority `number` and waits until it listens.
    fn start(&self, number: usize, period: u64) -> Running {
        let mut running = Running::start(self.folder, number, &self.addresses[number], period);
        assert_eq!(running.said()["listening"], json!(self.addresses[number]));
        running
    }

    async fn ask(&self, number: usize, question: &Question) -> Answer {
        let place = self.network.authority(&self.ids[number]).unwrap();
        asked(&self.network, usize::from(place), question).await
    }

    /// Every node introduces itself to these authorities.
    async fn introduce(&self, numbers: &[usize], period: u64) {
        let now_s = Clock::start().utc().as_secs();
        for (node, role) in &self.nodes {
            let about = About {
                role: *role,
                address: "127.0.0.1:9".into(),
                family: "x".into(),
                check: SelfCheck::new(shell::selfcheck::path("best").unwrap(), 1, 1),
            };
            let params = Params::default();
            let said = node.descriptor(&self.network.id, &about, period, &params, now_s);
            let said = said.unwrap();
            for number in numbers {
                let answer = self.ask(*number, &Question::Submit(said.clone())).await;
                assert_eq!(answer, Answer::Accepted);
            }
        }
    }

    async fn document(&self, number: usize) -> (SignedConsensus, Consensus) {
        let newest = Question::Consensus { period: None };
        let Answer::Consensus(signed) = self.ask(number, &newest).await else {
            panic!("a ready authority has the document");
        };
        let now = Clock::start().utc();
        let consensus = signed.verify(&self.network, Some(now)).unwrap();
        (signed, consensus)
    }
}

/// DIR-7, DIR-8, DIR-9, DIR-12
#[tokio::test]
async fn three_of_four_sign_a_document_and_all_remember_it() {
    let folder = tempfile::tempdir().unwrap();
    let founded = Founded::new(folder.path());

    // A document needs three of four: one is not there.
    let mut running: Vec<_> = (0..3).map(|number| founded.start(number, 0)).collect();
    for one in &mut running {
        assert_eq!(one.said(), json!({"state": "bootstrapping"}));
    }
    let params = Params::default();
    let gathering = founded.ask(0, &Question::Gathering).await;
    assert_eq!(gathering, Answer::Gathering { period: 0, params });
    founded.introduce(&[0, 1, 2], 0).await;
    for one in &mut running {
        assert_eq!(one.said(), json!({"state": "ready"}));
    }
    // The one that comes late takes the document from the others.
    let mut late = founded.start(3, 0);
    assert_eq!(late.said(), json!({"state": "bootstrapping"}));
    assert_eq!(late.said(), json!({"state": "ready"}));
    let (signed, first) = founded.document(0).await;
    assert_eq!((first.nodes.len(), first.layers.len()), (4, 3));
    for number in 1..AUTHORITIES {
        assert_eq!(founded.document(number).await.0.body, signed.body);
    }

    // All are killed. One comes back alone, with the document from its disk.
    drop((running, late));
    let mut again = founded.start(0, 0);
    while again.said() != json!({"state": "ready"}) {}
    assert_eq!(founded.document(0).await.0.body, signed.body);
    assert_eq!(again.terminate(), Some(0));

    // The next period's document names this one.
    let mut running: Vec<_> = (0..3).map(|number| founded.start(number, 1)).collect();
    founded.introduce(&[0, 1, 2], 1).await;
    for one in &mut running {
        while one.said() != json!({"state": "ready"}) {}
    }
    let (_, second) = founded.document(0).await;
    assert_eq!((second.period, second.previous), (1, first.hash()));
    assert_eq!(second.follows(first.period, &first.hash()), Ok(()));
    for one in running {
        assert_eq!(one.terminate(), Some(0));
    }
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
