//! What a capture of the loopback shows of every link to a gateway or a mix.
//!
//! Rule LNK-1, ATTACKS p15: one record length on client links in each direction, whatever is
//! carried (data, acks, replies by reply blocks, cover, control); on node links multiples of the
//! frame. `LACUNA_SYSTEM=1` runs it, with `tcpdump` and the right to capture.
//!
//! | layer read | what of it                                                             |
//! |------------|------------------------------------------------------------------------|
//! | pcap       | packets of Ethernet, as `lo` gives them                                |
//! | IPv4, TCP  | ports, sequence numbers; each direction of a link is one stream         |
//! | TLS        | headers `17 03 03 len`; the first such record in each direction is the  |
//! |            | handshake's, and an alert may be the last                               |
//!
//! Deliberately not shared with the taps: it is a second reading of the same wire.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use client::api::Wait;
use rustix::process::{Pid, Signal, kill_process};
use shell::clock::Clock;
use testnet::{
    conversation::{ALICE, BOB, Conversation},
    ledger::Purpose,
    network::{Network, Plan},
    progress::Progress,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const LIMIT: Duration = Duration::from_secs(60);
const FRAME: usize = 2432;
/// Content type and tag.
const SEAL: usize = 17;
const ALERT: usize = 2 + SEAL;
/// A dialler without a key ends its handshake in a record shorter than this.
const KEYLESS: usize = 100;

/// One direction of one link.
#[derive(Clone, Default)]
struct Stream {
    first: u32,
    segments: BTreeMap<u32, Vec<u8>>,
}

impl Stream {
    /// Lengths of its encrypted records.
    fn records(&self) -> anyhow::Result<Vec<usize>> {
        let mut bytes = Vec::new();
        for (at, segment) in &self.segments {
            let seen = bytes.len().checked_sub(*at as usize);
            let seen = seen.context("the capture has a gap")?;
            bytes.extend(segment.iter().skip(seen));
        }
        let (mut records, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((&[kind, 3, _, high, low], after)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let Some(after) = after.get(len..) else { break };
            ensure!(matches!(kind, 20..=23), "no TLS record: {kind}");
            if kind == 23 {
                records.push(len);
            }
            rest = after;
        }
        Ok(records)
    }
}

/// Both directions of a link: what the dialler sent, what it was sent; lengths of records.
type Link = [Vec<usize>; 2];

/// Links in `capture` to one of `ports`.
fn links(capture: &[u8], ports: &[u16]) -> anyhow::Result<Vec<Link>> {
    let mut open: BTreeMap<(u16, u16), Stream> = BTreeMap::new();
    let (head, mut rest) = capture.split_at_checked(24).context("no capture")?;
    ensure!(
        head.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()) && head[20] == 1,
        "a capture of Ethernet"
    );
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((packet, after)) = after.split_at_checked(len) else {
            break;
        };
        rest = after;
        let Some(ip) = packet.get(14..).filter(|_| packet[12..14] == [8, 0]) else {
            continue;
        };
        let tcp = &ip[usize::from(ip[0] & 15) * 4..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let way = (port(0), port(2));
        if !ports.contains(&way.0) && !ports.contains(&way.1) {
            continue;
        }
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        if tcp[13] & 2 != 0 {
            let first = sequence.wrapping_add(1);
            let twice = open.get(&way).is_some_and(|stream| stream.first != first);
            ensure!(!twice, "a pair of ports was used twice");
            open.entry(way).or_default().first = first;
        }
        let data = &tcp[usize::from(tcp[12] >> 4) * 4..];
        if let (false, Some(stream)) = (data.is_empty(), open.get_mut(&way)) {
            let at = sequence.wrapping_sub(stream.first);
            let kept = stream.segments.entry(at).or_default();
            if kept.len() < data.len() {
                *kept = data.to_vec();
            }
        }
    }
    let dialled = open.keys().filter(|(_, to)| ports.contains(to));
    dialled
        .map(|&(from, to)| {
            let records = |way| open.get(&way).map_or(Ok(Vec::new()), Stream::records);
            Ok([records((from, to))?, records((to, from))?])
        })
        .collect()
}

fn is_client(link: &Link) -> bool {
    link[0].first().is_some_and(|len| *len < KEYLESS)
}

/// Records of frames in one direction: without the handshake's, and the alert at the end.
fn frames(way: &[usize]) -> &[usize] {
    let way = way.get(1..).unwrap_or_default();
    way.strip_suffix(&[ALERT]).unwrap_or(way)
}

/// LNK-1: frames seen on client links and on node links, or what is wrong with them.
fn check(links: &[Link]) -> anyhow::Result<[usize; 2]> {
    let mut count = [0; 2];
    for way in 0..2 {
        let client = links.iter().filter(|link| is_client(link));
        let lengths: Vec<_> = client.flat_map(|link| frames(&link[way])).collect();
        let distinct: BTreeSet<_> = lengths.iter().collect();
        ensure!(distinct.len() == 1, "client links, way {way}: {distinct:?}");
        count[0] += lengths.len();
        let node = links.iter().filter(|link| !is_client(link));
        for len in node.flat_map(|link| frames(&link[way])) {
            let whole = len.saturating_sub(SEAL);
            ensure!(
                whole > 0 && whole.is_multiple_of(FRAME),
                "node links, way {way}: {len}"
            );
            count[1] += whole / FRAME;
        }
    }
    Ok(count)
}

/// A link into which one record of another length is put is found out, of either kind and way.
fn control(links: &[Link]) {
    for client in [true, false] {
        for way in 0..2 {
            let busy = |link: &Link| is_client(link) == client && !frames(&link[way]).is_empty();
            let at = links.iter().position(busy).expect("a link of each kind");
            let mut odd = links.to_vec();
            odd[at][way].insert(1, FRAME + SEAL + 1);
            assert!(check(&odd).is_err(), "client {client}, way {way}");
        }
    }
}

/// Begins a capture into `file`.
async fn begin(file: &Path) -> anyhow::Result<Child> {
    let mut capture = Command::new("tcpdump")
        .args(["-i", "lo", "-n", "-U", "-B", "65536", "-w", "-", "tcp"])
        .stdout(File::create(file)?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("tcpdump: install it")?;
    let mut said = BufReader::new(capture.stderr.take().context("it is piped")?).lines();
    let listening = async {
        while let Some(line) = said.next_line().await? {
            if line.contains("listening on") {
                return Ok(());
            }
        }
        anyhow::bail!("tcpdump ended: may this user capture?")
    };
    tokio::time::timeout(LIMIT, listening).await??;
    tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    Ok(capture)
}

#[tokio::test]
async fn one_record_length_on_the_wire() -> anyhow::Result<()> {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        eprintln!("skipped: LACUNA_SYSTEM=1 runs it, with tcpdump and the right to capture");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture");
    let mut capture = begin(&file).await?;
    let clock = Clock::start();
    let plan = Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        mixes_per_layer: 1,
        params: "delay_mean_ms = 5\n".to_owned(),
        ..Plan::demo(&folder.path().join("network"))?
    };
    let network = Network::start(plan, clock, &Progress::new()).await?;
    let ports = network.tap_ports();
    let mut talk = Conversation::over(network, clock);
    talk.introduce().await?;
    let numbers = [
        talk.send(ALICE, 20_000, Purpose::Other).await?,
        talk.send(BOB, 200, Purpose::Other).await?,
    ];
    talk.until("messages both ways, and their acks", |ledger| {
        let acked = |number: &u64| ledger.has_reached(*number, Wait::Acked);
        numbers.iter().all(acked)
    })
    .await?;
    let unnamed = talk.send_unnamed(ALICE, 200).await?;
    talk.until("unnamed message", |ledger| ledger.is_opened(unnamed))
        .await?;
    let answer = talk.answer(BOB, unnamed, 200).await?;
    talk.until("answer by reply blocks", |ledger| ledger.is_opened(answer))
        .await?;
    talk.network.stop().await?;
    let pid = capture.id().and_then(|id| i32::try_from(id).ok());
    kill_process(
        pid.and_then(Pid::from_raw).context("it ended")?,
        Signal::INT,
    )?;
    tokio::time::timeout(LIMIT, capture.wait()).await??;

    let links = links(&fs::read(&file)?, &ports)?;
    let [client, node] = check(&links)?;
    println!(
        "{} links: {client} frames of clients, {node} of nodes",
        links.len()
    );
    // Both clients have an entry and a mailbox; 11 fragments crossed three mixes.
    assert!(links.iter().filter(|link| is_client(link)).count() >= 4);
    assert!(client > 100 && node > 100);
    control(&links);
    Ok(())
}
