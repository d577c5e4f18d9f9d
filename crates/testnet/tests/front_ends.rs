//! Two front ends of one gateway as real processes on one PostgreSQL. `LACUNA_SYSTEM=1` runs it.
//!
//! | attack | what is done                                                                        |
//! |--------|-------------------------------------------------------------------------------------|
//! | p01    | a captured packet to both front ends, one after the other and at once               |
//! | p02    | captured packets to the other one after `kill -9`                                   |
//!
//! The test plays the mix before the gateway and the client whose mailbox it keeps. What departs is
//! counted there. The control: the same two processes with a store each.

#![expect(clippy::print_stderr, reason = "a test says that it was skipped")]

use core::time::Duration;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use chacha20::ChaCha20Rng;
use ed25519_dalek::{Signer, SigningKey};
use proto::{
    MailboxId, NodeId,
    wire::{
        Confirmation, FIELD_LEN, Frame, Hello, Kind, Open, Purpose, WIRE_VERSION, open_statement,
    },
};
use rand::SeedableRng;
use shell::{
    accept::{Door, Incoming, Limits, accept},
    clock::Clock,
    journal::Throwaway,
    link::{Dialler, Link, Target, Writer, certificate_frame},
    metrics::Metrics,
    store::throwaway::PostgreSql,
};
use sphinx::{Hop, Packet, PublicKey, SecretKey};
use testnet::{
    bench::stage::Stage,
    metrics::page,
    process::{Line, Process, Starter},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
/// How often the page of metrics is read while a count is waited for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Packets sent at once, so that none is dropped because they are too many.
const TOGETHER: usize = 8;
const PEELED: &str = "lacuna_packets_peeled_total ";
const NOBODYS: &str = "lacuna_packets_dropped_total{reason=\"no_mailbox\"} ";
const STORED: &str = "lacuna_mailbox_packets_stored_total ";
const CONFIRMED: &str = "lacuna_mailbox_packets_confirmed_total ";
const REPLAYED: &str = "lacuna_packets_dropped_total{reason=\"replay\"} ";
const DISPLACED: &str = "lacuna_gateway_events_total{reason=\"mailbox_displaced\"} ";

/// The network around the gateway, and who owns a mailbox there.
struct Bed {
    stage: Stage,
    starter: Starter,
    rng: ChaCha20Rng,
    gateway: NodeId,
    key: PublicKey,
    owner: SigningKey,
    _marks: Throwaway,
}

/// One process of the gateway, and the mix's link to it.
struct FrontEnd {
    process: Process,
    metrics: SocketAddr,
    address: SocketAddr,
    mix: Writer,
}

/// What is sent down a client's link: a packet's bytes.
type Body = Vec<u8>;

impl Bed {
    fn make(root: &Path) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let stage = Stage::make(root, clock, 1)?;
        let consensus = &stage.consensus;
        let epoch = consensus.schedule().at(clock.utc()).context("an epoch")?;
        let gateway = consensus.gateways().next().context("a gateway")?;
        let key = consensus.packet_key(gateway, epoch).context("its key")?;
        Ok(Self {
            gateway: gateway.id,
            key,
            starter: Starter {
                executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
                clock,
            },
            rng: ChaCha20Rng::from_seed([1; 32]),
            owner: SigningKey::from_bytes(&[7; 32]),
            stage,
            _marks: Throwaway(root.to_owned()),
        })
    }

    fn mailbox(&self) -> MailboxId {
        MailboxId::of(self.owner.verifying_key().as_bytes())
    }

    /// The state folder that the stage has made, or another.
    fn folder(&self, name: Option<&str>) -> PathBuf {
        let made = self.stage.folder(self.gateway);
        name.map_or(made, |name| self.stage.root.join(name))
    }

    /// What an operator copies from one front end that is stopped to the folder of another; and the
    /// document, since here are no authorities to ask for it.
    fn copy(&self, to: &str) -> anyhow::Result<()> {
        let to = self.folder(Some(to));
        std::fs::create_dir(&to)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o700))?;
        let names = [
            "identity",
            "link",
            "packet-keys",
            "mailbox-keys",
            "consensus",
        ];
        let from = names.map(|name| self.folder(None).join(name));
        let from = from.iter().filter(|path| path.exists());
        let done = std::process::Command::new("cp")
            .arg("-rp")
            .args(from)
            .arg(to)
            .status()?;
        ensure!(done.success(), "cp");
        Ok(())
    }

    /// Starts a process of the gateway and dials it as the mix.
    async fn start(
        &self,
        name: Option<&str>,
        server: &PostgreSql,
        shared: bool,
    ) -> anyhow::Result<FrontEnd> {
        let folder = self.folder(name);
        let advertised = self.stage.address(self.gateway)?;
        let mut args: Vec<OsString> = vec!["run".into(), "--state-dir".into()];
        args.push(folder.clone().into());
        args.push("--network".into());
        args.push(self.stage.root.join("network.toml").into());
        for arg in [
            "--listen=127.0.0.1:0",
            &format!("--advertise={advertised}"),
            "--metrics-listen=127.0.0.1:0",
            &format!("--postgres={}", server.address("postgres")),
            &format!("--front-ends={shared}"),
            "--log=warn",
        ] {
            args.push(arg.into());
        }
        let mut process = self
            .starter
            .start("the gateway", &folder, "gateway", args)?;
        let address = |line: &Line, key| line.value.get(key)?.as_str()?.parse().ok();
        let both = |line: &Line| Some((address(line, "listening")?, address(line, "metrics")?));
        let (address, metrics) = process.until("addresses", LIMIT, both).await?;
        let ready = |line: &Line| (line.value.get("state")? == "ready").then_some(());
        process.until("readiness", LIMIT, ready).await?;
        let key = self.stage.keys(self.stage.next())?.link().clone();
        let mix = self.dial(address, Some(key), Purpose::Node, 0).await?;
        Ok(FrontEnd {
            process,
            metrics,
            address,
            mix: mix.writer,
        })
    }

    async fn dial(
        &self,
        address: SocketAddr,
        key: Option<SigningKey>,
        purpose: Purpose,
        profile: u8,
    ) -> anyhow::Result<Link> {
        let consensus = &self.stage.consensus;
        let node = consensus.node(&self.gateway).context("no such node")?;
        let target = Target {
            address: address.to_string(),
            ..Target::from(node)
        };
        let hello = Hello {
            version: WIRE_VERSION,
            purpose,
            profile,
        };
        let dialler = Dialler {
            network: consensus.network,
            key,
            clock: self.starter.clock,
        };
        Ok(dialler.dial(&target, hello).await?)
    }

    /// Listens as the mix after the gateway, and hands over the links that the gateway dials.
    async fn listen(&self) -> anyhow::Result<mpsc::UnboundedReceiver<Link>> {
        let (stage, clock) = (&self.stage, self.starter.clock);
        let keys = stage.keys(stage.tested())?;
        let network = stage.consensus.network;
        let now_s = clock.utc().as_secs();
        let certificate = keys.certificate(&network, now_s - 60..now_s + 86_400);
        let certificate = certificate_frame(&certificate);
        let gateway = stage
            .consensus
            .node(&self.gateway)
            .context("no such node")?;
        let (id, link_key) = (gateway.id, gateway.link.link_key);
        let door = Door {
            key: keys.link().clone(),
            certificate: Arc::new(move || certificate.clone()),
            purposes: &[Purpose::Node],
            admit: Arc::new(move |key| (*key == link_key).then_some(id)),
            limits: Limits::default(),
            clock,
            metrics: Metrics::default(),
        };
        let listener = TcpListener::bind(stage.address(stage.tested())?).await?;
        let (hand, links) = mpsc::unbounded_channel();
        let handle = move |incoming: Incoming| {
            let _test_is_over = hand.send(incoming.link);
            async move { incoming.ended.cancelled().await }
        };
        tokio::spawn(accept(listener, door, handle, CancellationToken::new()));
        Ok(links)
    }

    /// A client's link to `at`, on which the mailbox is opened.
    async fn open(&self, at: &FrontEnd) -> anyhow::Result<Link> {
        let consensus = &self.stage.consensus;
        let (profile, _) = consensus.profile("service").context("a profile")?;
        let mut link = self
            .dial(at.address, None, Purpose::Mailbox, profile)
            .await?;
        let exporter = link.peer.exporter;
        let statement = open_statement(&consensus.network, &self.mailbox(), &exporter);
        let open = Open {
            slot: 0,
            key: self.owner.verifying_key().to_bytes(),
            signature: self.owner.sign(&statement).to_bytes(),
        };
        let opening = Confirmation {
            cursors: Vec::new(),
            opens: vec![open],
        };
        link.writer.write(&[opening.to_frame()]).await?;
        Ok(link)
    }

    /// New packets for the mailbox.
    fn packets(&mut self, count: usize) -> Vec<Packet> {
        let hop = |address, key| Hop {
            address,
            key,
            delay_ns: 0,
        };
        let recipient = SecretKey::from_bytes([9; 32]).public();
        let route = [
            hop(self.gateway.0, self.key),
            hop(self.mailbox().0, recipient),
        ];
        let mut build = || *sphinx::build(&mut self.rng, &route, [0; 32], [0; 16], b"");
        (0..count).map(|_| build()).collect()
    }

    /// Waits until `at` knows the mailbox; how many packets it has stored until then.
    async fn until_known(&mut self, at: &mut FrontEnd) -> anyhow::Result<usize> {
        let known = async {
            for sent in 1.. {
                at.send(&self.packets(1)).await?;
                at.until(&[STORED, NOBODYS], sent).await?;
                let stored = at.count(&[STORED]).await?;
                if stored > 0 {
                    return Ok(usize::try_from(stored)?);
                }
            }
            unreachable!("it counts for ever")
        };
        timeout(LIMIT, known).await.context("it is never told")?
    }
}

impl FrontEnd {
    /// Sends `packets`, no more at once than are opened in a batch, and waits until they are opened,
    /// and passed on or refused as replays.
    async fn send(&mut self, packets: &[Packet]) -> anyhow::Result<()> {
        for some in packets.chunks(TOGETHER) {
            let before = self.count(&[PEELED, REPLAYED]).await?;
            for packet in some {
                let frame = Frame::packet(0, [0; FIELD_LEN], packet);
                self.mix.write(&[frame]).await?;
            }
            let all = before + some.len() as u64;
            self.until(&[PEELED, REPLAYED], all).await?;
        }
        Ok(())
    }

    /// Counts on the page of metrics, added up.
    async fn count(&self, names: &[&str]) -> anyhow::Result<u64> {
        let page = page(self.metrics, "/metrics").await?;
        let value = |line: &str| {
            let of = |name: &&str| line.strip_prefix(*name)?.parse::<u64>().ok();
            names.iter().find_map(of)
        };
        Ok(page.lines().filter_map(value).sum())
    }

    async fn until(&self, names: &[&str], least: u64) -> anyhow::Result<()> {
        let mut ask = tokio::time::interval(ASK_EVERY);
        let reached = async {
            while self.count(names).await? < least {
                ask.tick().await;
            }
            anyhow::Ok(())
        };
        let reached = timeout(LIMIT, reached).await;
        reached.with_context(|| format!("{names:?} stay below {least}"))?
    }
}

/// The next packet on a client's link, and its number.
async fn packet(link: &mut Link) -> anyhow::Result<(u64, Body)> {
    let came = async {
        loop {
            let (_, frame) = link.reader.frame().await?;
            if frame.kind() == Some(Kind::Packet) {
                return anyhow::Ok((frame.numbers().0, frame.body().to_vec()));
            }
        }
    };
    timeout(LIMIT, came).await.context("no packet comes")?
}

async fn packets(link: &mut Link, count: usize) -> anyhow::Result<Vec<(u64, Body)>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(packet(link).await?);
    }
    Ok(all)
}

async fn confirm(link: &mut Link, upto: u64) -> anyhow::Result<()> {
    let confirmation = Confirmation {
        cursors: vec![(0, upto)],
        opens: Vec::new(),
    };
    Ok(link.writer.write(&[confirmation.to_frame()]).await?)
}

fn system() -> bool {
    let runs = std::env::var_os("LACUNA_SYSTEM").is_some();
    if !runs {
        eprintln!("skipped: LACUNA_SYSTEM=1 runs it, with PostgreSQL (apt-get install postgresql)");
    }
    runs
}

/// The control: processes with a store each let one packet through each.
#[tokio::test]
async fn with_a_store_each_a_packet_departs_twice() -> anyhow::Result<()> {
    if !system() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path())?;
    bed.copy("second")?;
    let one = bed.packets(1);
    let mut bodies = Vec::new();
    for name in [None, Some("second")] {
        let server = PostgreSql::start()?;
        let mut at = bed.start(name, &server, false).await?;
        let mut link = bed.open(&at).await?;
        let before = bed.until_known(&mut at).await?;
        packets(&mut link, before).await?;
        at.send(&one).await?;
        bodies.push(packet(&mut link).await?.1);
        at.process.stop(LIMIT).await?;
    }
    assert_eq!(bodies[0], bodies[1]);
    Ok(())
}

/// GW-31: what leaves is not the gateway. The control: one that is alone says that it does.
#[tokio::test]
async fn a_front_end_leaves_without_a_word() -> anyhow::Result<()> {
    if !system() {
        return Ok(());
    }
    for shared in [false, true] {
        let (folder, server) = (tempfile::tempdir()?, PostgreSql::start()?);
        let bed = Bed::make(folder.path())?;
        let mut links = bed.listen().await?;
        let at = bed.start(None, &server, shared).await?;
        let link = timeout(LIMIT, links.recv()).await?;
        let mut reader = link.context("it dials")?.reader;
        at.process.stop(LIMIT).await?;
        let mut notices = 0;
        while let Ok((_, frame)) = reader.frame().await {
            notices += usize::from(frame.kind() == Some(Kind::Notice));
        }
        assert_eq!(notices > 0, !shared, "{notices} notices");
    }
    Ok(())
}

/// GW-27 to GW-31
#[tokio::test]
async fn front_ends_on_one_store_are_one_gateway() -> anyhow::Result<()> {
    const MANY: usize = 40;
    if !system() {
        return Ok(());
    }
    let (folder, server) = (tempfile::tempdir()?, PostgreSql::start()?);
    let mut bed = Bed::make(folder.path())?;
    let alone = bed.start(None, &server, true).await?;
    alone.process.stop(LIMIT).await?;
    bed.copy("second")?;
    let mut a = bed.start(None, &server, true).await?;
    let mut b = bed.start(Some("second"), &server, true).await?;

    // A message put at one is read at the other.
    let mut at_b = bed.open(&b).await?;
    let mut bodies = BTreeSet::new();
    let mut are_new =
        |came: Vec<(u64, Body)>| came.into_iter().all(|(_, body)| bodies.insert(body));
    let known = bed.until_known(&mut a).await?;
    assert!(are_new(packets(&mut at_b, known).await?));

    // p01: to one, then to the other; then to both at once.
    let mut captured = bed.packets(1);
    a.send(&captured).await?;
    b.send(&captured).await?;
    assert_eq!(b.count(&[REPLAYED]).await?, 1);
    let at_once = bed.packets(MANY);
    let (to_a, to_b) = tokio::join!(a.send(&at_once), b.send(&at_once));
    to_a.and(to_b)?;
    captured.extend(at_once);
    let came = packets(&mut at_b, captured.len()).await?;
    let last = came.last().context("some")?.0;
    assert!(are_new(came), "a packet departed twice");
    let refused = a.count(&[REPLAYED]).await? + b.count(&[REPLAYED]).await?;
    assert_eq!(refused, captured.len() as u64);
    confirm(&mut at_b, last).await?;
    b.until(&[CONFIRMED], 1).await?; // else it is sent again (GW-16)

    // The newest link has the mailbox; the older one ticks on.
    let mut at_a = bed.open(&a).await?;
    b.until(&[DISPLACED], 1).await?;
    let (count, mut counted) = watch::channel([0u64; 2]);
    let mut older = at_b.reader;
    let reading = tokio::spawn(async move {
        while let Ok((_, frame)) = older.frame().await {
            let packet = usize::from(frame.kind() == Some(Kind::Packet));
            count.send_modify(|count| count[packet] += 1);
        }
    });
    let fresh = bed.packets(MANY);
    b.send(&fresh).await?;
    captured.extend(fresh);
    let came = packets(&mut at_a, MANY).await?;
    let last = came.last().context("some")?.0;
    assert!(are_new(came));
    confirm(&mut at_a, last).await?;
    a.until(&[CONFIRMED], 1).await?;
    let [dummies, _] = *counted.borrow();
    let ticks_on = counted.wait_for(|[now, _]| *now > dummies + 20);
    assert_eq!(timeout(LIMIT, ticks_on).await??[1], 0);
    reading.abort();

    // p02: killed, what it had stored is read at the other, which goes on, and lets nothing through
    // again.
    let fresh = bed.packets(MANY);
    let before = a.count(&[STORED]).await?;
    a.send(&fresh).await?;
    a.until(&[STORED], before + MANY as u64).await?;
    a.process.kill().await?;
    captured.extend(fresh);
    let mut at_b = bed.open(&b).await?;
    assert!(are_new(packets(&mut at_b, MANY).await?));
    let before = b.count(&[REPLAYED]).await?;
    b.send(&captured).await?;
    let refused = b.count(&[REPLAYED]).await? - before;
    assert_eq!(refused, captured.len() as u64);
    b.send(&bed.packets(1)).await?;
    assert!(are_new(packets(&mut at_b, 1).await?), "a replay came first");
    b.process.stop(LIMIT).await
}
