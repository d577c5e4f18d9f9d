//! Through the edge of a key epoch, and of a period, with real processes: nothing is lost, replies on the reply
//! blocks of before included, and the old keys go from every node's disk.
//!
//! The edge of an epoch:
//!
//! | when                         | what is under way                                          |
//! |------------------------------|------------------------------------------------------------|
//! | before the edge              | messages both ways; one without a name, with reply blocks  |
//! | just before and just after   | an answer on those reply blocks, opened                    |
//! | until the old key has closed | messages both ways; the clients go over on the way         |
//! | after that                   | the old packet keys and their journals are off the disks   |
//!
//! At the edge of a period every mix stands in another layer from one moment to the next. The documents of both
//! periods are signed beforehand, by the keys of authorities that do not run. Until the old keys have closed, links of
//! both layers are up; then the old ones end. A mix that is killed and started again when the newer document holds
//! already, a skew before the edge, opens what everyone sends with the older one's key.
//!
//! It takes as long as the shortest epoch, 90 s, and waits for messages all the while, not for
//! time. What the keys of a client's packets tell is tested with the machine alone
//! (`crates/proto/tests/client_replies.rs`).

use core::time::Duration;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use client::api::Wait;
use proto::{
    calendar::{Epoch, Schedule, Utc},
    directory::SignedConsensus,
};
use serde_json::Value;
use shell::clock::Clock;
use testnet::{
    conversation::{ALICE, BOB, Conversation},
    ledger::Purpose,
    metrics::dropped,
    network::{Network, Plan},
    progress::Progress,
};

/// The shortest epoch, and delays of which three caps are small against it. Shorter ones would mean more loops of nodes,
/// and these networks run side by side.
const PARAMS: &str = "delay_mean_ms = 20\nepoch_s = 90\n";
/// The same, and a period of one epoch.
const PERIODS: &str = "delay_mean_ms = 20\nepoch_s = 90\nepochs = 1\n";
/// From the start of the nodes to the edge of the period: enough for slow machines to be talking by then.
const START: Duration = Duration::from_secs(35);
/// The same where nobody has to talk.
const START_QUIET: Duration = Duration::from_secs(20);
/// Packets that a mix has opened since it was started anew: enough to see that it does.
const OPENED: u64 = 100;
const SHORT: usize = 200;
/// How long before the edge the message with the reply blocks is sent, and the first answer.
const BEFORE: [Duration; 2] = [Duration::from_secs(12), Duration::from_secs(2)];
const ASK_EVERY: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);

fn plan(root: &Path, params: &str) -> anyhow::Result<Plan> {
    Ok(Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        mixes_per_layer: 1,
        params: params.to_owned(),
        ..Plan::demo(root)?
    })
}

/// Folders of the nodes in which keys and journals are.
fn nodes(root: &Path) -> Vec<PathBuf> {
    let names = ["mix-0", "mix-1", "mix-2", "gateway-0", "gateway-1"];
    names.map(|name| root.join(name).join("state")).into()
}

/// What a node keeps of `epoch`: its packet key and its replay journal.
fn kept(node: &Path, epoch: Epoch) -> [bool; 2] {
    let key = node.join("packet-keys").join(epoch.0.to_string());
    let journal = node
        .join("replay")
        .join(format!("epoch-{}.replay", epoch.0));
    [key.exists(), journal.exists()]
}

fn schedule(root: &Path) -> anyhow::Result<Schedule> {
    let network = shell::network::read(&root.join("network.toml"))?;
    let bytes = std::fs::read(nodes(root)[0].join("consensus"))?;
    let signed = SignedConsensus::parse(&bytes).ok().context("a document")?;
    let consensus = signed.verify(&network, None).ok().context("its votes")?;
    Ok(consensus.schedule())
}

/// Messages both ways until `until`, each opened and acknowledged before the next.
async fn talk_until(talk: &mut Conversation, clock: Clock, until: Utc) -> anyhow::Result<u64> {
    let mut count = 0;
    while clock.utc() < until {
        let numbers = [
            talk.send(ALICE, SHORT, Purpose::Other).await?,
            talk.send(BOB, SHORT, Purpose::Other).await?,
        ];
        talk.until("messages both ways, and their acks", |ledger| {
            let acked = |number: &u64| ledger.has_reached(*number, Wait::Acked);
            numbers.iter().all(acked)
        })
        .await?;
        count += 2;
    }
    Ok(count)
}

/// Packets that nodes have dropped because of their keys, their layers or their links.
async fn lost(talk: &Conversation) -> anyhow::Result<u64> {
    let dropped = talk.network.dropped().await?;
    let of = |reason| dropped.get(reason).copied().unwrap_or(0);
    let reasons = [
        "mac",
        "no_key",
        "replay",
        "wrong_next",
        "wrong_first",
        "link_down",
        "link_full",
        "link_slow",
    ];
    Ok(reasons.into_iter().map(of).sum())
}

/// d05, EPO-2, EPO-3, EPO-5
#[tokio::test]
async fn attack_d05_nothing_is_lost_at_an_edge_and_old_keys_go() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let clock = Clock::start();
    let network = Network::start(plan(root, PARAMS)?, clock, &Progress::new()).await?;
    let mut talk = Conversation::over(network, clock);
    talk.introduce().await?;
    let schedule = schedule(root)?;
    let now = clock.utc();
    let current = schedule.at(now).context("an epoch")?;
    let soon = schedule.start(Epoch(current.0 + 1)) < now.after(BEFORE[0]);
    let old = if soon { Epoch(current.0 + 1) } else { current };
    let edge = schedule.start(Epoch(old.0 + 1));

    let mut sent = talk_until(&mut talk, clock, edge.before(BEFORE[0])).await?;
    let lost_before = lost(&talk).await?;
    for node in nodes(root) {
        assert_eq!(kept(&node, old), [true, true], "{}", node.display());
    }
    let unnamed = talk.send_unnamed(ALICE, SHORT).await?;
    talk.until("the message without a name", |ledger| {
        ledger.has_reached(unnamed, Wait::Acked)
    })
    .await?;
    sent += 1;
    // Its reply blocks are enough for two answers. No client goes over before a skew has passed.
    for at in [edge.before(BEFORE[1]), edge] {
        sent += talk_until(&mut talk, clock, at).await?;
        let answer = talk.answer(BOB, unnamed, SHORT).await?;
        let in_time = clock.utc() < edge.after(schedule.skew());
        ensure!(in_time, "this machine is too slow to answer in time");
        talk.until("answer on a reply block", |ledger| ledger.is_opened(answer))
            .await?;
        sent += 1;
    }

    sent += talk_until(&mut talk, clock, schedule.opens(old).end).await?;
    assert_eq!(talk.ledger.outcome(), (sent, 0, 0), "each exactly once");
    assert_eq!(lost(&talk).await? - lost_before, 0, "no key was missing");

    // A key's window is looked after twice a second.
    let mut ask = tokio::time::interval(ASK_EVERY);
    let gone = async {
        while nodes(root).iter().any(|node| kept(node, old) != [false; 2]) {
            ask.tick().await;
        }
    };
    let gone = tokio::time::timeout(LIMIT, gone).await;
    gone.context("an old key is still on a disk")?;
    for node in nodes(root) {
        // The control: the key that is in use now is where the old one was.
        assert_eq!(kept(&node, Epoch(old.0 + 1)), [true, true]);
    }
    sent += talk_until(&mut talk, clock, clock.utc().after(Duration::from_nanos(1))).await?;
    assert_eq!(talk.ledger.outcome(), (sent, 0, 0));
    talk.network.stop().await
}

/// What each mix says of itself: its period, its layer, the links that it has and wants.
async fn standing(talk: &Conversation) -> anyhow::Result<Vec<[u64; 4]>> {
    let mut all = Vec::new();
    for (path, page) in talk.network.pages().await? {
        let status: Value = if path == "/status" {
            serde_json::from_str(&page)?
        } else {
            continue;
        };
        let number = |key: &str| status[key].as_u64().context("a number");
        if status["role"] == "mix" {
            let keys = ["period", "layer", "links_up", "links_wanted"];
            let [period, layer, up, wanted] = keys.map(number);
            all.push([period?, layer?, up?, wanted?]);
        }
    }
    Ok(all)
}

/// d05, EPO-6, LNK-8, MIX-4, GW-2
#[tokio::test]
async fn attack_d05_nothing_is_lost_when_layers_change() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let clock = Clock::start();
    let plan = Plan {
        edge: Some(START),
        ..plan(root, PERIODS)?
    };
    let network = Network::start(plan, clock, &Progress::new()).await?;
    let mut talk = Conversation::over(network, clock);
    talk.introduce().await?;
    let after = schedule(root)?; // the newer document's
    let edge = after.valid_from;
    ensure!(
        clock.utc() < edge.before(BEFORE[0]),
        "this machine is too slow"
    );

    let mut sent = talk_until(&mut talk, clock, edge.before(BEFORE[0])).await?;
    let lost_before = lost(&talk).await?;
    let before = standing(&talk).await?;
    // Two gateways follow the last layer, one mix the others. Who comes from the first has the same mix after it.
    for [period, layer, up, wanted] in &before {
        let both = if *layer == 1 { 1 } else { 3 };
        assert_eq!([period, up, wanted], [&0, &both, &both], "layer {layer}");
    }
    let unnamed = talk.send_unnamed(ALICE, SHORT).await?;
    talk.until("the message without a name", |ledger| {
        ledger.has_reached(unnamed, Wait::Acked)
    })
    .await?;
    sent += 1 + talk_until(&mut talk, clock, edge.before(BEFORE[1])).await?;
    let answer = talk.answer(BOB, unnamed, SHORT).await?;
    talk.until("answer on a reply block", |ledger| ledger.is_opened(answer))
        .await?;
    sent += 1;

    let old = Epoch(after.first.0 - 1);
    sent += talk_until(&mut talk, clock, after.opens(old).end).await?;
    assert_eq!(
        lost(&talk).await? - lost_before,
        0,
        "no key and no link was missing"
    );
    let mut ask = tokio::time::interval(ASK_EVERY);
    let settled = async {
        loop {
            let now = standing(&talk).await?;
            let alone = |[_, layer, up, wanted]: &[u64; 4]| {
                let own = if *layer == 3 { 2 } else { 1 };
                [*up, *wanted] == [own; 2]
            };
            if now.iter().all(alone) {
                return anyhow::Ok(now);
            }
            ask.tick().await;
        }
    };
    let now = tokio::time::timeout(LIMIT, settled).await;
    let now = now.context("links of the old layers are still up")??;
    for ([_, old, ..], [period, new, ..]) in before.iter().zip(now) {
        assert_eq!(
            [period, new],
            [1, old % 3 + 1],
            "every mix stands elsewhere"
        );
    }
    sent += talk_until(&mut talk, clock, clock.utc().after(Duration::from_nanos(1))).await?;
    assert_eq!(talk.ledger.outcome(), (sent, 0, 0), "each exactly once");
    talk.network.stop().await
}

/// d05, EPO-2: a mix that is started anew at the edge of a period still opens the packets of the period before. The
/// packets are loops and drops of nodes and clients, all under the old keys until the edge.
#[tokio::test]
async fn attack_d05_a_mix_started_within_an_edge_has_the_old_key() -> anyhow::Result<()> {
    const RESTARTED: usize = 1;
    let folder = tempfile::tempdir()?;
    let clock = Clock::start();
    let plan = Plan {
        edge: Some(START_QUIET),
        applications: false,
        ..plan(folder.path(), PERIODS)?
    };
    let gateways = plan.gateways;
    let mut network = Network::start(plan, clock, &Progress::new()).await?;
    let schedule = schedule(folder.path())?;
    let edge = schedule.valid_from;
    let mut ask = tokio::time::interval(ASK_EVERY);
    let holds = edge.before(schedule.skew());
    ensure!(clock.utc() < holds, "this machine is too slow to start");
    while clock.utc() < holds {
        ask.tick().await;
    }
    network.restart_mix(RESTARTED).await?;
    let opened = async {
        loop {
            let pages = network.pages().await?;
            let (_, page) = &pages[2 * (gateways + RESTARTED)];
            let count = |line: &str| {
                line.strip_prefix("lacuna_packets_peeled_total ")?
                    .parse()
                    .ok()
            };
            let opened: u64 = page.lines().find_map(count).unwrap_or(0);
            let refused: u64 = dropped(page)
                .into_iter()
                .filter(|(reason, _)| ["mac", "no_key"].contains(&&**reason))
                .map(|(_, count)| count)
                .sum();
            if opened + refused >= OPENED {
                return anyhow::Ok((opened, refused));
            }
            ask.tick().await;
        }
    };
    let opened = tokio::time::timeout(LIMIT, opened).await;
    let (opened, refused) = opened.context("nothing comes to the mix")??;
    ensure!(
        clock.utc() < edge,
        "this machine is too slow: new keys are in use"
    );
    assert!(opened >= OPENED && refused == 0, "{opened} {refused}");
    network.stop().await
}
