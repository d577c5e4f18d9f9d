//! A capture of the loopback, read as links: what `tcpdump` sees, no more.
//!
//! | layer read | what of it                                                             |
//! |------------|------------------------------------------------------------------------|
//! | pcap       | packets of Ethernet, as `lo` gives them, to the microsecond             |
//! | IPv4, TCP  | ports, sequence numbers; each direction of a link is one stream         |
//! | TLS        | headers `17 03 03 len`; the first such record in each direction is the  |
//! |            | handshake's, and an alert may be the last                               |

#![allow(dead_code, reason = "each test binary uses some of it")]

use core::time::Duration;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

const LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
pub(crate) const FRAME: usize = 2432;
/// Content type and tag.
pub(crate) const SEAL: usize = 17;
const ALERT: usize = 2 + SEAL;
/// A dialler without a key ends its handshake in a record shorter than this.
const KEYLESS: usize = 100;

/// An encrypted record: its length, and when its last byte passed, by the clock of the capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) len: usize,
    pub(crate) at: Duration,
}

/// The dialler's port, and the one that it dialled.
pub(crate) type Ports = (u16, u16);

/// A link, in both directions: what the dialler sent, what it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) ports: Ports,
    pub(crate) ways: [Vec<Record>; 2],
    /// When either side ended it.
    pub(crate) ended: Option<Duration>,
}

impl Link {
    /// Whether its dialler showed no key.
    pub(crate) fn is_client(&self) -> bool {
        self.ways[0]
            .first()
            .is_some_and(|first| first.len < KEYLESS)
    }

    /// Records of frames in one direction: without the handshake's, and the alert at the end.
    pub(crate) fn frames(&self, way: usize) -> &[Record] {
        let way = self.ways[way].get(1..).unwrap_or_default();
        match way {
            [frames @ .., last] if last.len == ALERT => frames,
            frames => frames,
        }
    }
}

/// One direction of one link.
#[derive(Clone, Default)]
struct Stream {
    first: u32,
    segments: BTreeMap<u32, (Duration, Vec<u8>)>,
    ended: Option<Duration>,
}

impl Stream {
    fn records(&self) -> anyhow::Result<Vec<Record>> {
        let (mut bytes, mut passed) = (Vec::new(), Vec::new());
        for (at, (when, segment)) in &self.segments {
            let seen = bytes.len().checked_sub(*at as usize);
            let seen = seen.context("the capture has a gap")?;
            bytes.extend(segment.iter().skip(seen));
            passed.push((bytes.len(), *when));
        }
        let (mut records, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((&[kind, 3, _, high, low], after)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let Some(after) = after.get(len..) else { break };
            ensure!(matches!(kind, 20..=23), "no TLS record: {kind}");
            if kind == 23 {
                let upto = bytes.len() - after.len();
                let last = passed.partition_point(|(until, _)| *until < upto);
                let at = passed[last].1;
                records.push(Record { len, at });
            }
            rest = after;
        }
        Ok(records)
    }
}

/// Links in `capture` to one of `ports`.
fn links(capture: &[u8], ports: &[u16]) -> anyhow::Result<Vec<Link>> {
    const FIN_OR_RST: u8 = 1 | 4;
    const SYN: u8 = 2;
    // Both directions of each link, by its dialler's ports and how often they were used before.
    let mut open: BTreeMap<(Ports, usize), [Option<Stream>; 2]> = BTreeMap::new();
    let mut uses: BTreeMap<Ports, usize> = BTreeMap::new();
    let (head, mut rest) = capture.split_at_checked(24).context("no capture")?;
    ensure!(
        head.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()) && head[20] == 1,
        "a capture of Ethernet"
    );
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let when = Duration::from_secs(number(0).into()) + Duration::from_micros(number(4).into());
        let Some((packet, after)) = after.split_at_checked(number(8) as usize) else {
            break;
        };
        rest = after;
        let Some(ip) = packet.get(14..).filter(|_| packet[12..14] == [8, 0]) else {
            continue;
        };
        let tcp = &ip[usize::from(ip[0] & 15) * 4..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let way = (port(0), port(2));
        let (dialler, side) = match (ports.contains(&way.1), ports.contains(&way.0)) {
            (true, _) => (way, 0),
            (false, true) => ((way.1, way.0), 1),
            (false, false) => continue,
        };
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let used = uses.entry(dialler).or_default();
        if tcp[13] & SYN != 0 {
            let first = sequence.wrapping_add(1);
            let known = open
                .get(&(dialler, *used))
                .and_then(|both| both[side].as_ref());
            if side == 0 && known.is_some_and(|stream| stream.first != first) {
                *used += 1;
            }
            let both = open.entry((dialler, *used)).or_default();
            both[side].get_or_insert_default().first = first;
        }
        let both = open.get_mut(&(dialler, *used));
        let Some(stream) = both.and_then(|both| both[side].as_mut()) else {
            continue;
        };
        if tcp[13] & FIN_OR_RST != 0 {
            stream.ended.get_or_insert(when);
        }
        let data = &tcp[usize::from(tcp[12] >> 4) * 4..];
        if !data.is_empty() {
            let at = sequence.wrapping_sub(stream.first);
            let kept = stream.segments.entry(at).or_insert((when, Vec::new()));
            if kept.1.len() < data.len() {
                *kept = (when, data.to_vec());
            }
        }
    }
    open.into_iter()
        .filter(|(_, both)| both[0].is_some())
        .map(|((ports, _), both)| {
            let records =
                |way: &Option<Stream>| way.as_ref().map_or(Ok(Vec::new()), Stream::records);
            let ended = both.iter().flatten().filter_map(|stream| stream.ended);
            Ok(Link {
                ports,
                ended: ended.min(),
                ways: [records(&both[0])?, records(&both[1])?],
            })
        })
        .collect()
}

/// Whether captures are asked for; says so if not.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
pub(crate) fn may_capture() -> bool {
    let asked = std::env::var_os("LACUNA_SYSTEM").is_some();
    if !asked {
        eprintln!("skipped: LACUNA_SYSTEM=1 runs it, with tcpdump and the right to capture");
    }
    asked
}

/// A running capture of all TCP on the loopback.
pub(crate) struct Capture {
    file: PathBuf,
    dump: Child,
}

impl Capture {
    /// Begins a capture into a file in `folder`.
    pub(crate) async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join("capture");
        let mut dump = Command::new("tcpdump")
            .args(["-i", "lo", "-n", "-U", "-B", "65536", "-w", "-", "tcp"])
            .stdout(File::create(&file)?)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("tcpdump: install it")?;
        let mut said = BufReader::new(dump.stderr.take().context("it is piped")?).lines();
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
        Ok(Self { file, dump })
    }

    /// Ends it, when all that has passed is written: the links to `ports` that it saw from their beginning.
    pub(crate) async fn end(mut self, ports: &[u16]) -> anyhow::Result<Vec<Link>> {
        // The system hands packets over up to a second late, and what it has not is lost when the program
        // ends. A connection that is made now is written after all that passed before.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let last = listener.local_addr()?;
        let _last = TcpStream::connect(last).await?;
        let mut ask = tokio::time::interval(ASK_EVERY);
        let written = async {
            while links(&fs::read(&self.file)?, &[last.port()])?.is_empty() {
                ask.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, written).await??;
        let pid = self.dump.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).context("it ended")?;
        kill_process(pid, Signal::INT)?;
        tokio::time::timeout(LIMIT, self.dump.wait()).await??;
        links(&fs::read(&self.file)?, ports)
    }
}
