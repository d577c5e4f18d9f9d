//! `bench node`: one real mix under load, over real links, replay protection on.
//!
//! The node and the load process run on a processor each, so that a processor's worth of packets
//! is what the node carries. Capacity is what it forwards when offered more than it can take.

use core::fmt;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use serde_json::json;
use shell::{clock::Clock, journal::Throwaway};

use super::{
    load::Orders,
    phase::{Phase, capacity},
    stage::Stage,
};
use crate::{
    metrics::{dropped, page, value},
    process::{Line, Process, READY, STOP, Starter},
    progress::Progress,
};

/// Loads that are measured, as shares of the capacity: just at it is the hardest to tell from a burst.
const LOADS: [f64; 5] = [0.5, 0.8, 1.0, 1.05, 1.2];
/// More than all phases of a second each offer on any processor so far, for the replay set.
const PACKETS_PER_SECOND: f64 = 1_000_000.0;
/// A load process that is later than this, for one packet in a hundred, measures the machine.
const SENDER_LATE_MS: f64 = 5.0;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets per second that one processor forwarded when offered more.
    pub capacity_per_s: f64,
    /// Links that brought packets.
    pub gateways: usize,
    /// Each phase, in order.
    pub phases: Vec<Phase>,
    /// Packets that the node says it has received, over all phases.
    pub received: u64,
    /// Packets that it says it has sent.
    pub sent: u64,
    /// Packets that it says it has dropped, by reason.
    pub dropped: Vec<(String, u64)>,
    /// Most memory that the node held, in bytes.
    pub memory_max: u64,
    /// Whether node and load process had a processor each.
    pub pinned: bool,
    /// Whether the load process could not keep its times, so that figures mean little.
    pub sender_was_late: bool,
}

/// Runs it in the empty folder `root`, each phase `seconds` long, with links from so many `gateways`, all
/// of which the load process plays, as it does the one next hop.
///
/// # Errors
///
/// What failed, with the last words of the process that did.
pub async fn run(
    root: &Path,
    seconds: f64,
    gateways: usize,
    progress: &Progress,
) -> anyhow::Result<Report> {
    progress.step("making keys and a signed document");
    let clock = Clock::start();
    let _marks = Throwaway(root.to_owned());
    let stage = Stage::make(root, clock, gateways)?;
    copy_secret(&stage, clock)?;
    let starter = Starter {
        executable: std::env::current_exe().context("finding this executable")?,
        clock,
    };
    let processors = processors()?;
    let pinned = processors.len() >= 2;

    progress.step("starting one mix");
    let folder = stage.folder(stage.tested());
    let mut args = stage.arguments()?;
    let replay_max = (seconds * PACKETS_PER_SECOND).max(2e6);
    args.extend(["--replay-max".into(), format!("{replay_max:.0}").into()]);
    let mut node = on(pinned.then(|| processors[0]), || {
        starter.start("the mix", &folder, "mix-node", args)
    })?;
    let address = |line: &Line| line.value.get("metrics")?.as_str()?.parse().ok();
    let metrics = node.until("addresses", READY, address).await?;
    let ready = |line: &Line| (line.value.get("state")? == "ready").then_some(());
    node.until("readiness", READY, ready).await?;

    progress.step("building packets and sending them");
    let mut load = on(pinned.then(|| processors[1]), || {
        starter.start("the load", &root.join("load"), "bench-load", [])
    })?;
    let pid = node.id().context("the mix has ended")?;
    let orders = Orders {
        root: root.to_owned(),
        pid,
        seconds,
        loads: LOADS.to_vec(),
    };
    load.tell(&json!(orders)).await?;
    let mut phases = Vec::new();
    let measured = |phases: &[Phase]| phases.iter().filter(|phase| phase.load > 0.0).count();
    while measured(&phases) < LOADS.len() {
        let line = load.line().await?;
        let phase: Phase = serde_json::from_value(line.value).context("a phase")?;
        progress.step(&format!(
            "{}: {:.0} of {:.0} packets/s",
            phase.name, phase.forwarded_per_s, phase.offered_per_s
        ));
        phases.push(phase);
    }
    load.ended().await?;
    let page = page(metrics, "/metrics").await?;
    let memory_max = memory_max(pid)?;
    stop(node).await?;
    let late_ms = latest(&phases);
    let sender_was_late = late_ms > SENDER_LATE_MS;
    if sender_was_late {
        progress.note(&format!(
            "the sender was late by {late_ms:.1} ms: figures mean little"
        ));
    }
    Ok(Report {
        capacity_per_s: capacity(&phases),
        gateways,
        phases,
        received: value(&page, "lacuna_packets_received_total"),
        sent: value(&page, "lacuna_packets_sent_total"),
        dropped: dropped(&page),
        memory_max,
        pinned,
        sender_was_late,
    })
}

/// The latest that the load process was in a phase that counts: in all but the first. In ms.
fn latest(phases: &[Phase]) -> f64 {
    let late = phases.iter().skip(1).map(|phase| phase.late_p99_ms);
    late.fold(0.0, f64::max)
}

async fn stop(node: Process) -> anyhow::Result<()> {
    node.stop(STOP).await
}

/// Lets the load process know the tested key, to tell packets by what they become.
fn copy_secret(stage: &Stage, clock: Clock) -> anyhow::Result<()> {
    let keys = stage.keys(stage.tested())?;
    let schedule = stage.consensus.schedule();
    let epoch = schedule.at(clock.utc()).context("no epoch is open now")?;
    let secret = keys.packet_secret(epoch)?.context("the key was not made")?;
    let path = stage.root.join("tested-secret");
    Ok(shell::state::write(&path, secret.to_bytes().as_slice())?)
}

/// The processors that this process may use.
fn processors() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking for processors")?;
    Ok((0..CpuSet::MAX_CPU).filter(|i| set.is_set(*i)).collect())
}

/// Does `work` with this thread on `processor`, so that a process started in it stays there.
fn on<T>(processor: Option<usize>, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let Some(processor) = processor else {
        return work();
    };
    let before = sched_getaffinity(None).context("asking for processors")?;
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).context("choosing a processor")?;
    let done = work();
    sched_setaffinity(None, &before).context("going back to all processors")?;
    done
}

/// Most memory that process `pid` has held, in bytes.
pub(super) fn memory_max(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("/proc/…/status has no VmHWM")?.trim().parse()?;
    ensure!(kib > 0, "/proc/…/status says no memory");
    Ok(kib * 1024)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "One mix, real links, replay protection on{}\n\n\
             capacity  {:.0} packets/s on one processor\n\
             links     {} in, 1 out\n\
             memory    {:.1} MB at most\n",
            if self.pinned {
                "; node and load on a processor each"
            } else {
                "; ONE PROCESSOR FOR BOTH: figures mean little"
            },
            self.capacity_per_s,
            self.gateways,
            bytes_in_mb(self.memory_max),
        )?;
        writeln!(
            f,
            "{:>9} {:>11} {:>11} {:>7} {:>9} {:>12} {:>12} {:>8} {:>8} {:>12}",
            "load",
            "offered/s",
            "forwarded/s",
            "lost",
            "CPU/pkt",
            "added p50",
            "added p99",
            "KS",
            "chance",
            "sender late"
        )?;
        for phase in &self.phases {
            let load = if phase.load > 0.0 {
                format!("{:.0} %", phase.load * 100.0)
            } else {
                phase.name.clone()
            };
            writeln!(
                f,
                "{load:>9} {:>11.0} {:>11.0} {:>5.1} % {:>6.1} µs {:>9.2} ms {:>9.2} ms {:>8.4} {:>8.4} {:>9.2} ms",
                phase.offered_per_s,
                phase.forwarded_per_s,
                phase.lost() * 100.0,
                phase.cpu_us,
                phase.added_p50_ms,
                phase.added_p99_ms,
                phase.ks_distance,
                phase.chance(),
                phase.late_p99_ms,
            )?;
        }
        for (reason, count) in &self.dropped {
            writeln!(f, "dropped: {count} {reason}")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes_in_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_phase_may_be_late() {
        let phase = |late_p99_ms| Phase {
            late_p99_ms,
            ..Phase::default()
        };
        let phases = [9.0, 0.1, 5.5, 0.2].map(phase);
        assert!((latest(&phases) - 5.5).abs() < 1e-9);
        assert!(latest(&phases[..2]) < SENDER_LATE_MS);
        assert!(latest(&[]) < SENDER_LATE_MS);
    }
}
