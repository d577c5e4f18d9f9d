//! A client that is handed long messages keeps its rhythm.
//!
//! Rules CLI-2, CLI-13, ATTACKS t07. In virtual time computing costs nothing; here the body is parsed,
//! copied, stored and coded by the process that also ticks. Two clients run; one of them is handed a body
//! of [`BODY`] bytes, and as many more that it refuses.
//!
//! | what is judged                         | law                                                | bound                                   |
//! |----------------------------------------|----------------------------------------------------|-----------------------------------------|
//! | longest gap of frames, entry link      | of so many exponential gaps, at the profile's rate | passed once in 10⁴ times, and [`LATE`]  |
//! | confirmations on the mailbox link      | multiples of a constant interval                   | [`LATE`]                                |
//! | those that were skipped                | one woken 50 ms late is (CLI-4)                    | [`SKIPPED`]                             |
//! | work on the rhythm's thread            | as of the client that does nothing                 | and a fourth of what other threads work |
//!
//! On a fast processor a body takes too short for the first three to see whose thread it was on; the last
//! sees it on any.
//!
//! Both clients are held to all, so that a machine which wakes everybody late is told from one that
//! works in between.

use core::time::Duration;
use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, ensure};
use client::{
    api::{Reply, Request, Response, Wait},
    base64,
    call::{Call, CallError},
};
use shell::apart::apart;

use rhythm::{
    RATE, Stage,
    own::Own,
    wire::{Link, may_capture},
};

mod rhythm;

/// Of a message that is sent, bytes.
const BODY: usize = 60_000_000;
/// How many times it is refused.
const REFUSED: usize = 6;
/// Frames before and after.
const FRAMES: u64 = 100;
/// By how much a process may be woken late on a busy machine, in seconds.
const LATE: f64 = 0.15;
/// How many confirmations a busy machine may cost a client: fewer than the bodies that it is handed.
const SKIPPED: f64 = 2.0;
/// Seconds between two confirmations of the profile `interactive`.
const CONFIRMS: f64 = 1.0;

/// Seconds between the frames that a dialler sent.
fn gaps(link: &Link) -> Vec<f64> {
    let times = link.frames(0).iter().map(|record| record.at);
    let times: Vec<Duration> = times.collect();
    let gap = |pair: &[Duration]| pair[1].saturating_sub(pair[0]).as_secs_f64();
    times.windows(2).map(gap).collect()
}

/// Whether the links of one client keep the law, or what is wrong with them.
fn check(entry: &[f64], mailbox: &[f64]) -> anyhow::Result<()> {
    let longest = entry.iter().copied().fold(0.0, f64::max);
    let most = (entry.len() as f64 * 1e4).ln() / RATE + LATE;
    let ticks = |gap: &f64| (gap / CONFIRMS).round().max(1.0);
    let late = mailbox
        .iter()
        .map(|gap| (gap - ticks(gap) * CONFIRMS).abs());
    let late = late.fold(0.0, f64::max);
    let skipped: f64 = mailbox.iter().map(|gap| ticks(gap) - 1.0).sum();
    ensure!(longest < most, "a gap of {longest:.3} s on the entry link");
    ensure!(late < LATE, "a confirmation is off by {late:.3} s");
    ensure!(skipped <= SKIPPED, "{skipped} confirmations were skipped");
    Ok(())
}

/// Whether the `busy` client's rhythm left the bodies to other threads of its process, which has worked
/// `whole`: it has worked little more than the `steady` client's.
fn check_work(steady: u64, busy: u64, whole: u64) -> anyhow::Result<()> {
    let [more, others] = [busy.saturating_sub(steady), whole - busy];
    let said = format!("{more} ticks on the rhythm's thread, {others} on others");
    ensure!(4 * more < others, said);
    Ok(())
}

/// What an application does: long messages that are refused, and one that is taken.
async fn hand_over(socket: PathBuf, address: String) -> anyhow::Result<()> {
    let body = base64::encode(&vec![7; BODY]);
    let send = |to: &str| Request::Send {
        to: Some(to.to_owned()),
        reply_to: None,
        body: body.clone(),
        reply: Reply::None,
        wait: Wait::Queued,
    };
    for _ in 0..REFUSED {
        let refused = Call::open(&socket).await?.ask(&send("lacuna1nobody")).await;
        ensure!(
            matches!(refused, Err(CallError::Refused(..))),
            "{refused:?}"
        );
    }
    let queued = Call::open(&socket).await?.ask(&send(&address)).await?;
    ensure!(matches!(queued, Response::Progress { .. }), "{queued:?}");
    Ok(())
}

#[tokio::test]
async fn attack_t07_a_long_message_does_not_show_in_the_rhythm() -> anyhow::Result<()> {
    if !may_capture() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let network = &stage.network;
    let mut both = Vec::new();
    for name in ["steady", "busy"] {
        let mut own = Own::make(network, name.to_owned()).await?;
        own.start(network)?;
        let process = own.process.as_mut().context("it runs")?;
        network.until_ready(process).await?;
        both.push(own);
    }
    let [steady, busy] = both.as_mut_slice() else {
        anyhow::bail!("two clients");
    };
    let sent = busy.until_sent(1, FRAMES).await?;
    let mut ports = [BTreeSet::new(), BTreeSet::new()];
    steady.links(&mut ports[0])?;
    busy.links(&mut ports[1])?;

    let Response::Address { address } = steady.ask(&Request::Address {}).await? else {
        anyhow::bail!("asked for the address");
    };
    let socket = busy.socket();
    // This process also plays the wires: they must not wait for it.
    let before = [steady.worked()?, busy.worked()?];
    apart("application", move || hand_over(socket, address)).await??;
    let after = [steady.worked()?, busy.worked()?];
    let since = |who: usize, of: usize| after[who][of] - before[who][of];
    let [steadily, busily, whole] = [since(0, 0), since(1, 0), since(1, 1)];
    eprintln!("ticks of 10 ms: steady {steadily}, busy {busily}, its whole process {whole}");
    check_work(steadily, busily, whole)?;
    let control = check_work(steadily, whole, whole);
    assert!(control.is_err(), "control, work");
    busy.until_sent(1, sent + FRAMES).await?;
    for own in &mut both {
        own.stop().await?;
    }

    let links = stage.strike().await?;
    for (ports, name) in ports.iter().zip(["steady", "busy"]) {
        let own = links.iter().filter(|link| ports.contains(&link.ports));
        let mut own: Vec<_> = own.map(gaps).collect();
        own.sort_by_key(Vec::len);
        let [.., mailbox, entry] = own.as_slice() else {
            anyhow::bail!("{name}: two links");
        };
        assert!(entry.len() as u64 > FRAMES && mailbox.len() > 5, "{name}");
        let mailbox = &mailbox[1..]; // a new link begins with a confirmation of its own
        check(entry, mailbox).context(name)?;

        // The controls: the rhythm stands still for a second, as often, or a confirmation is late.
        let with = |gaps: &[f64], times, stands: f64| {
            let mut gaps = gaps.to_vec();
            for gap in gaps.iter_mut().take(times) {
                *gap += stands;
            }
            gaps
        };
        let stands = check(&with(entry, 1, 1.0), mailbox);
        let skips = check(entry, &with(mailbox, 3, CONFIRMS));
        let late = check(entry, &with(mailbox, 1, 0.3));
        for (control, of) in [(stands, "entry"), (skips, "skipped"), (late, "late")] {
            assert!(control.is_err(), "control: {of}");
        }
    }
    Ok(())
}
