//! What real processes say of themselves names nobody: ATTACKS o01, rule OPS-1.
//!
//! A network of real processes logs at the level `trace`, in every library, through messages, reply
//! blocks, garbage, replays, a client that is stopped and a gateway that is killed.
//!
//! | searched                         | for                                                      |
//! |----------------------------------|----------------------------------------------------------|
//! | logs of all processes, which are also their last words | this run's own identifiers ([`Marks`]), in any form; addresses that are no node's |
//! | `/status` of every mix and gateway | the same                                               |
//! | `/metrics` of the same           | the same; names and labels that are none of the source's |
//!
//! | identifier                       | where the test has it from                               |
//! |----------------------------------|----------------------------------------------------------|
//! | addresses, mailboxes, their keys, labels, message ids, reply tokens, bodies | the clients' local API |
//! | secret keys of clients and nodes | the files that hold them                                 |
//! | replay tags' fingerprints        | the journals                                             |
//! | a packet                         | made here, and sent as a client does                     |
//!
//! The control plants each of them, in each form, in a log of the same run: the search finds it.
//! Not searched: the pages of authorities, which meet no client.

mod marks;

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use chacha20::ChaCha20Rng;
use client::{
    api::{Reply, Request, Response, Wait},
    base64,
    call::Call,
};
use marks::{Marks, TAG, hex};
use proto::{
    address::Address,
    client::Identity,
    directory::{Consensus, SignedConsensus},
    wire::{Frame, Hello, Kind, Purpose, WIRE_VERSION},
};
use rand::SeedableRng;
use shell::{
    clock::Clock,
    link::{Dialler, Link, Target},
};
use sphinx::{Hop, Packet};
use testnet::{
    network::{CLIENTS, Network, Plan},
    progress::Progress,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(60);
const LABEL: &str = "zephyrine-quill";
const BODY: &str = "the heron stands in the reeds at noon";
const REPLAYED: &str = "lacuna_packets_dropped_total{reason=\"replay\"}";

/// A page of metrics has names and reasons that stand in the source: words, without a number.
fn check_metrics(page: &str) -> anyhow::Result<usize> {
    let word =
        |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !text.is_empty();
    let lines = page.lines().filter(|line| !line.starts_with("# TYPE "));
    let mut count = 0;
    for line in lines {
        let (name, value) = line.rsplit_once(' ').context("a value")?;
        let label = name.split_once('{').map(|(name, label)| {
            let reason = label
                .strip_prefix("reason=\"")
                .and_then(|label| label.strip_suffix("\"}"));
            (name, reason)
        });
        let good = match label {
            None => word(name),
            Some((name, reason)) => word(name) && reason.is_some_and(word),
        };
        ensure!(
            good && value.parse::<u64>().is_ok(),
            "no metric of the source: {line}"
        );
        count += 1;
    }
    Ok(count)
}

/// One client, through its local API.
struct Owner {
    socket: PathBuf,
}

impl Owner {
    async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        Ok(Call::open(&self.socket).await?.ask(request).await?)
    }

    async fn address(&self, request: &Request, marks: &mut Marks) -> anyhow::Result<String> {
        let Response::Address { address } = self.ask(request).await? else {
            bail!("no address");
        };
        marks.address(&address)?;
        Ok(address)
    }

    /// Sends, and waits until `wait` is reached.
    async fn send(
        &self,
        to: Result<&str, &str>,
        body: &str,
        reply: Reply,
        wait: Wait,
        marks: &mut Marks,
    ) -> anyhow::Result<()> {
        let body = base64::encode(body.as_bytes());
        marks.text("a body", &body[..24]);
        let mut call = Call::open(&self.socket).await?;
        let request = Request::Send {
            to: to.ok().map(str::to_owned),
            reply_to: to.err().map(str::to_owned),
            body,
            reply,
            wait,
        };
        let mut answer = call.ask(&request).await?;
        loop {
            let Response::Progress { id, state } = &answer else {
                bail!("sent, and was told {answer:?}");
            };
            marks.hex("a message id", id)?;
            if *state >= wait {
                return Ok(());
            }
            answer = tokio::time::timeout(LIMIT, call.next()).await??;
        }
    }

    /// Takes one message; its reply token.
    async fn take(&self, marks: &mut Marks) -> anyhow::Result<Option<String>> {
        let mut call = Call::open(&self.socket).await?;
        let request = Request::Receive {
            follow: false,
            timeout_s: Some(LIMIT.as_secs()),
        };
        let Response::Message { id, reply, .. } = call.ask(&request).await? else {
            bail!("no message came");
        };
        marks.hex("a message id", &id)?;
        if let Some(token) = &reply {
            marks.hex("a reply token", token)?;
        }
        call.ask(&Request::Taken { id }).await?;
        Ok(reply)
    }
}

/// Messages by address and by reply blocks; what a client is told that asks for nonsense.
async fn converse(network: &Network, marks: &mut Marks) -> anyhow::Result<String> {
    let [alice, bob] = CLIENTS.map(|name| Owner {
        socket: network.socket(name),
    });
    marks.text("a label", LABEL);
    marks.text("a body", BODY);
    let label = LABEL.to_owned();
    let made = Request::NewAddress {
        label: label.clone(),
    };
    let own = alice.address(&Request::Address {}, marks).await?;
    alice.address(&made, marks).await?;
    let to = bob.address(&Request::Address {}, marks).await?;
    let long = BODY.repeat(200);
    alice
        .send(Ok(&to), BODY, Reply::At(label.clone()), Wait::Acked, marks)
        .await?;
    alice
        .send(Ok(&to), &long, Reply::None, Wait::Sent, marks)
        .await?;
    alice
        .send(Ok(&to), BODY, Reply::Surbs(8), Wait::Acked, marks)
        .await?;
    for _ in 0..3 {
        if let Some(token) = bob.take(marks).await? {
            bob.send(Err(&token), BODY, Reply::None, Wait::Sent, marks)
                .await?;
            alice.take(marks).await?;
        }
    }
    bob.send(Ok(&own), BODY, Reply::Address, Wait::Acked, marks)
        .await?;
    alice.take(marks).await?;
    alice.ask(&Request::RevokeAddress { label }).await?;
    let typo = format!("{}{}", &own[..own.len() - 2], "qq");
    let wrong = [
        Request::Send {
            to: Some(typo),
            reply_to: None,
            body: base64::encode(BODY.as_bytes()),
            reply: Reply::None,
            wait: Wait::Sent,
        },
        Request::Taken {
            id: "00".repeat(16),
        },
    ];
    for request in wrong {
        ensure!(alice.ask(&request).await.is_err(), "{request:?}");
    }
    Ok(to)
}

fn consensus(network: &Network) -> anyhow::Result<Consensus> {
    let start = shell::network::read(&network.root().join("network.toml"))?;
    let bytes = fs::read(network.folder("mix-0").join("state").join("consensus"))?;
    let signed = SignedConsensus::parse(&bytes).ok().context("a document")?;
    signed.verify(&start, None).ok().context("its votes")
}

/// Ports at which authorities and nodes are reached.
fn public_ports(network: &Network) -> anyhow::Result<BTreeSet<u16>> {
    let start = shell::network::read(&network.root().join("network.toml"))?;
    let consensus = consensus(network)?;
    let nodes = consensus.nodes.iter().map(|node| &node.address);
    let all = nodes.chain(&start.authority_addresses);
    let port = |address: &String| Ok(address.parse::<SocketAddr>()?.port());
    all.map(port).collect()
}

/// A packet for a mailbox, as a client builds it.
fn packet(consensus: &Consensus, to: &Address, clock: Clock) -> anyhow::Result<Packet> {
    let epoch = consensus.schedule().at(clock.utc()).context("an epoch")?;
    let mixes = consensus.layers.iter().map(|layer| layer[0]);
    let mut route = Vec::new();
    for id in mixes.chain([to.gateway]) {
        let node = consensus.node(&id).context("a node")?;
        let key = consensus.packet_key(node, epoch).context("a key")?;
        route.push(Hop {
            address: id.0,
            key,
            delay_ns: 0,
        });
    }
    route.push(Hop {
        address: to.mailbox.0,
        key: to.key,
        delay_ns: 0,
    });
    let mut rng = ChaCha20Rng::from_seed(shell::entropy::seed());
    Ok(*sphinx::build(
        &mut rng,
        &route,
        to.mailbox.0,
        [0; 16],
        BODY.as_bytes(),
    ))
}

/// What a client may do that no client does: the same packet twice, garbage, frames that are none of
/// an entry link's, a handshake that is none.
async fn misbehave(
    network: &Network,
    to: &str,
    clock: Clock,
    marks: &mut Marks,
) -> anyhow::Result<()> {
    let consensus = consensus(network)?;
    let packet = packet(&consensus, &marks.address(to)?, clock)?;
    marks.bytes("a packet", &packet);
    let mut garbage = packet;
    garbage[100] ^= 1;
    let gateway = consensus.gateways().next().context("a gateway")?;
    let hello = Hello {
        version: WIRE_VERSION,
        purpose: Purpose::Entry,
        profile: 0,
    };
    let dialler = Dialler {
        network: consensus.network,
        key: None,
        clock,
    };
    let first = consensus.layers[0][0].0;
    let frames = [packet, packet, garbage].map(|packet| Frame::packet(0, first, &packet));
    let Link {
        mut writer, reader, ..
    } = dialler.dial(&Target::from(gateway), hello).await?;
    for frame in frames
        .into_iter()
        .chain([Frame::new(Kind::Confirm, 7, [9; 32])])
    {
        writer.write(&[frame]).await?;
    }
    for node in &consensus.nodes {
        let mut link = TcpStream::connect(&node.address).await?;
        link.write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).await?;
        let mut answer = Vec::new();
        let _reset = tokio::time::timeout(LIMIT, link.read_to_end(&mut answer)).await?;
    }
    // The packet is a replay at the first mix when this is seen there.
    let seen = async {
        let mut ask = tokio::time::interval(Duration::from_millis(50));
        while !network.dropped().await?.contains_key("replay") {
            ask.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, seen)
        .await
        .context(REPLAYED)??;
    drop((writer, reader));
    Ok(())
}

/// The fingerprints of a journal; where they end, it has room for millions.
fn fingerprints(journal: &Path, marks: &mut Marks) -> anyhow::Result<usize> {
    const HEADER_LEN: u64 = 96;
    let mut file = BufReader::new(File::open(journal)?);
    file.seek(SeekFrom::Start(HEADER_LEN))?;
    let (mut record, mut count) = ([0; 8], 0);
    while file.read_exact(&mut record).is_ok() && record != [0; 8] {
        marks.bytes(TAG, &record);
        count += 1;
    }
    Ok(count)
}

/// Secrets and fingerprints that are on the disks.
fn on_disks(root: &Path, marks: &mut Marks) -> anyhow::Result<usize> {
    let mut folders = vec![root.to_owned()];
    let mut tags = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "replay")
            {
                tags += fingerprints(&path, marks)?;
            } else if kind.is_file() && matches!(entry.metadata()?.len(), 32 | 97) {
                let bytes = fs::read(&path)?;
                match <&[u8; 97]>::try_from(bytes.as_slice())
                    .ok()
                    .and_then(Identity::from_bytes)
                {
                    None => marks.bytes("a secret key", &bytes),
                    Some(_) => {
                        marks.bytes("a secret key", &bytes[1..]);
                        marks.bytes("a secret key", &bytes[33..]);
                    }
                }
            }
        }
    }
    Ok(tags)
}

/// Every log, by the name of its process.
fn logs(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if let Ok(bytes) = fs::read(entry.path().join("log")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            logs.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(logs)
}

/// Each mark in each form, in the middle of a log, is found as what it is.
fn control(marks: &Marks, log: &str) {
    let (start, end) = log.split_at(log.find('\n').map_or(0, |at| at + 1));
    let found = |planted: &str| {
        marks
            .search(&format!("{start}DEBUG {planted}\n{end}"))
            .map(|(what, _)| what)
    };
    for (what, text) in &marks.texts {
        assert_eq!(
            found(&format!("to=\"{}\"", text.to_uppercase())),
            Some(*what)
        );
    }
    let mut kinds = BTreeSet::new();
    for (head, what) in marks.heads.iter().filter(|(_, what)| kinds.insert(**what)) {
        let [digits, list] = [hex(head), format!("{head:?}")];
        let forms = [
            format!("id={digits}"),
            format!("id={}00aabb", digits.to_uppercase()),
            format!("a dump: 1603{digits}1603"),
            format!("Id({list})"),
            format!("Id([{}, 7, 7])", list.trim_matches(['[', ']'])),
            u64::from_be_bytes(*head).to_string(),
        ];
        for form in forms {
            assert_eq!(found(&form), Some(*what), "{form}");
        }
        if *what != TAG {
            assert_eq!(found(&format!("{}…", &digits[..8])), Some(*what));
        }
    }
    let private = (1024..)
        .find(|port| !marks.public.contains(port))
        .expect("most");
    assert_eq!(
        found(&format!("from 127.0.0.1:{private}: hung up")),
        Some("a peer's address")
    );
    assert!(kinds.len() >= 7, "{kinds:?}");
    for label in [
        "client=\"alice\"",
        "reason=\"10.0.0.1\"",
        "reason=\"mac\",peer=\"a\"",
    ] {
        assert!(check_metrics(&format!("lacuna_packets_total{{{label}}} 1")).is_err());
    }
}

/// OPS-1, ATTACKS o01
#[tokio::test]
async fn attack_o01_nothing_that_is_logged_or_counted_names_anybody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::start();
    let plan = Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        mixes_per_layer: 1,
        params: "delay_mean_ms = 20\n".to_owned(),
        log: "trace".to_owned(),
        applications: false,
        ..Plan::demo(folder.path())?
    };
    let mut network = Network::start(plan, clock, &Progress::new()).await?;
    let mut marks = Marks::default();
    let to = converse(&network, &mut marks).await?;
    misbehave(&network, &to, clock, &mut marks).await?;
    network.stop_client(1).await?;
    network.kill_gateway(0).await?;
    network.start_gateway(0).await?;
    network.start_client(1).await?;
    let pages = network.pages().await?;
    let root = network.root().to_owned();
    marks.public = public_ports(&network)?;
    let tags = on_disks(&root, &mut marks)?;
    network.stop().await?;

    let logs = logs(&root)?;
    let bytes: usize = logs.iter().map(|(_, log)| log.len()).sum();
    println!(
        "{} marks, {tags} of them tags; {} logs, {bytes} bytes; {} pages",
        marks.heads.len() + marks.texts.len(),
        logs.len(),
        pages.len()
    );
    assert!(tags > 100);
    assert_eq!(
        logs.len(),
        4 + 3 + 2 + 2,
        "authorities, mixes, gateways, clients"
    );
    for (name, log) in &logs {
        // The level is in force; nothing has anything to say at `trace`, and clients little at all.
        let client = CLIENTS.contains(&name.as_str());
        let level = if client { " INFO " } else { " DEBUG " };
        assert!(log.contains(level), "{name}:{level}");
        assert_eq!(marks.search(log), None, "the log of {name}");
    }
    assert_eq!(pages.len(), 2 * (2 + 3));
    for (name, page) in &pages {
        assert_eq!(marks.search(page), None, "{name}");
        if name.ends_with("/metrics") {
            assert!(check_metrics(page)? > 10, "{name}");
        }
    }
    control(&marks, &logs[0].1);
    Ok(())
}
