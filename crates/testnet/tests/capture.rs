//! What a capture of the loopback shows of every link to a gateway or a mix.
//!
//! Rule LNK-1, ATTACKS p15: one record length on client links in each direction, whatever is
//! carried (data, acks, replies by reply blocks, cover, control); on node links multiples of the
//! frame. `LACUNA_SYSTEM=1` runs it, with `tcpdump` and the right to capture.
//!
//! Deliberately not shared with the taps: it is a second reading of the same wire.

mod wire;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::ensure;
use client::api::Wait;
use shell::clock::Clock;
use testnet::{
    conversation::{ALICE, BOB, Conversation},
    ledger::Purpose,
    network::{Network, Plan},
    progress::Progress,
};
use wire::{Capture, FRAME, Link, Record, SEAL, may_capture};

/// LNK-1: frames seen on client links and on node links, or what is wrong with them.
fn check(links: &[Link]) -> anyhow::Result<[usize; 2]> {
    let mut count = [0; 2];
    for way in 0..2 {
        let client = links.iter().filter(|link| link.is_client());
        let lengths: Vec<_> = client
            .flat_map(|link| link.frames(way))
            .map(|record| record.len)
            .collect();
        let distinct: BTreeSet<_> = lengths.iter().collect();
        ensure!(distinct.len() == 1, "client links, way {way}: {distinct:?}");
        count[0] += lengths.len();
        let node = links.iter().filter(|link| !link.is_client());
        for Record { len, .. } in node.flat_map(|link| link.frames(way)) {
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
            let busy = |link: &Link| link.is_client() == client && !link.frames(way).is_empty();
            let at = links.iter().position(busy).expect("a link of each kind");
            let mut odd = links.to_vec();
            let record = Record {
                len: FRAME + SEAL + 1,
                ..odd[at].ways[way][0]
            };
            odd[at].ways[way].insert(1, record);
            assert!(check(&odd).is_err(), "client {client}, way {way}");
        }
    }
}

#[tokio::test]
async fn one_record_length_on_the_wire() -> anyhow::Result<()> {
    if !may_capture() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let capture = Capture::begin(folder.path()).await?;
    let clock = Clock::start();
    let plan = Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        mixes_per_layer: 1,
        params: "delay_mean_ms = 20\n".to_owned(),
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
    let links = capture.end(&ports).await?;
    let [client, node] = check(&links)?;
    println!(
        "{} links: {client} frames of clients, {node} of nodes",
        links.len()
    );
    // Both clients have an entry and a mailbox; 11 fragments crossed three mixes.
    assert!(links.iter().filter(|link| link.is_client()).count() >= 4);
    assert!(client > 100 && node > 100);
    control(&links);
    Ok(())
}
