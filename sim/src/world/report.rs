//! Figures and pictures of a packet run.
//!
//! | figure                    | what                                                              |
//! |---------------------------|-------------------------------------------------------------------|
//! | `messages_*`              | said, delivered, acknowledged: the run fails if these differ       |
//! | `message_latency_*_ms`    | from the application's word until its recipient has all of it      |
//! | `loop_latency_*_ms`       | from a loop's slot until it was read                               |
//! | `occupancy_mean_packets`  | packets in a mix; Poisson's mean where no fault takes packets      |
//!
//! Standard errors come from ten consecutive stretches of time or of messages.

use std::collections::BTreeSet;

use proto::{Time, directory::params::NODE_PROFILE};

use crate::{
    closed::{erlang_cdf, poisson_pmf},
    outcome::{Expected, Figure, Mark, Outcome, Plot, Series},
    scenario::{Scenario, Strategy},
    stats::{Estimate, mean, quantile, quantile_groups},
};

use super::{LOOK, World};

/// Stretches that standard errors are made from.
const SECTIONS: usize = 10;
/// Pools are looked at only after this many mean delays: they fill within a few.
const WARM_UP_MEANS: f64 = 20.0;

/// `values` as stretches.
fn stretches(values: &[f64]) -> Vec<Vec<f64>> {
    let each = values.len().div_ceil(SECTIONS).max(1);
    values.chunks(each).map(<[f64]>::to_vec).collect()
}

/// Their mean, with the spread between stretches.
fn mean_of(values: &[f64]) -> Estimate {
    let sections: Vec<f64> = stretches(values).iter().map(|some| mean(some)).collect();
    Estimate::from_sections(mean(values), values.len() as u64, &sections)
}

/// What a finished world found.
pub(super) fn outcome(scenario: &Scenario, world: &World<'_>) -> Outcome {
    let mut outcome = Outcome {
        counts: world.tally.counts.clone(),
        trace: Some(world.tally.trace()),
        messages: Vec::new(),
        ..Outcome::default()
    };
    messages(world, &mut outcome);
    alarms(world, &mut outcome);
    let fates = world.tally.fates.values();
    let mut latencies: Vec<f64> = fates
        .filter_map(|fate| Some((fate.delivered?, fate.said?)))
        .map(|(delivered, said)| delivered.since(said).as_secs_f64())
        .collect();
    latency(&mut outcome, "message", "Message latency", &latencies);
    let mut loops = world.tally.loop_latencies_s.clone();
    latency(&mut outcome, "loop", "Loop latency", &loops);
    let pools = pools(scenario, world, &mut outcome);
    latencies.sort_unstable_by(f64::total_cmp);
    loops.sort_unstable_by(f64::total_cmp);
    outcome.plots.extend(latency_plot(
        scenario,
        &[("messages", &latencies), ("loops", &loops)],
    ));
    outcome.plots.extend(pools);
    outcome
}

fn push(outcome: &mut Outcome, name: String, label: String, estimate: Estimate) {
    outcome.figures.push(Figure {
        name,
        label,
        estimate,
        expected: None,
    });
}

/// When attacks were noticed: seconds from the start of the run, for each whole second once.
fn alarms(world: &World<'_>, outcome: &mut Outcome) {
    let users = world.users;
    let first = |mine: &dyn Fn(usize) -> bool, times: &[(usize, Time)]| {
        let found = times.iter().find(|(whose, _)| mine(*whose));
        found.map(|(_, at)| at.since(Time::ZERO).as_secs_f64())
    };
    let tally = &world.tally;
    for (name, label, at) in [
        (
            "first_hold_s",
            "First hold of a mix, from the start (s)",
            first(&|mix| mix == 0, &tally.holds),
        ),
        (
            "first_alarm_s",
            "First alarm of a client, from the start (s)",
            first(&|seat| seat < users, &tally.alarms),
        ),
        (
            "target_left_s",
            "The target leaves the mix, from the start (s)",
            first(&|_| true, &tally.after_target),
        ),
    ] {
        if let Some(at) = at {
            push(
                outcome,
                name.to_owned(),
                label.to_owned(),
                Estimate::exact(at),
            );
        }
    }
    let alarmed: BTreeSet<usize> = tally.alarms.iter().map(|(seat, _)| *seat).collect();
    let alarmed = alarmed.range(..users).count() as u64;
    if alarmed > 0 {
        outcome.counts.insert("clients_alarmed".to_owned(), alarmed);
    }
    let after_target = tally.after_target.len() as u64;
    if after_target > 0 {
        let name = "LeftAfterTarget".to_owned();
        outcome.counts.insert(name, after_target);
    }
    let elsewhere = tally.holds.iter().filter(|(mix, _)| *mix != 0).count() as u64;
    if elsewhere > 0 {
        outcome
            .counts
            .insert("holds_of_others".to_owned(), elsewhere);
    }
}

/// Safety and progress.
fn messages(world: &World<'_>, outcome: &mut Outcome) {
    let said = world.tally.fates.len();
    let (delivered, acked) = world.tally.progress();
    for (name, count) in [
        ("messages_said", said),
        ("messages_delivered", delivered),
        ("messages_acknowledged", acked),
    ] {
        outcome.counts.insert(name.to_owned(), count as u64);
    }
    outcome.failures.clone_from(&world.tally.violations);
    for (count, what) in [(delivered, "delivered"), (acked, "acknowledged")] {
        if count < said {
            outcome.failures.push(format!(
                "{} of {said} messages were not {what} within {} s after faults stopped",
                said - count,
                super::DRAIN.as_secs(),
            ));
        }
    }
}

fn latency(outcome: &mut Outcome, what: &str, label: &str, latencies_s: &[f64]) {
    if latencies_s.is_empty() {
        return;
    }
    let milliseconds: Vec<f64> = latencies_s.iter().map(|s| s * 1e3).collect();
    push(
        outcome,
        format!("{what}_latency_mean_ms"),
        format!("{label}, mean (ms)"),
        mean_of(&milliseconds),
    );
    for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        if quantile_groups(1, milliseconds.len() as u64, q).is_none() {
            continue;
        }
        push(
            outcome,
            format!("{what}_latency_{name}_ms"),
            format!("{label}, {name} (ms)"),
            Estimate::quantile_of(q, &stretches(&milliseconds)),
        );
    }
}

/// Mean delay of one mix, in seconds.
fn delay_mean_s(scenario: &Scenario) -> f64 {
    match scenario.strategy {
        Strategy::Poisson { delay_mean_s } => delay_mean_s,
        Strategy::Pool { .. } => 0.0, // refused before the run
    }
}

/// Packets that enter the network, users' and nodes' own.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of nodes and small rates"
)]
fn packets_per_s(scenario: &Scenario, world: &World<'_>) -> f64 {
    let looping = world.seats.len() - world.users;
    let profile = world.consensus.profile(NODE_PROFILE);
    let each = profile.map_or(0.0, |(_, profile)| profile.loops_uhz as f64 / 1e6);
    scenario.traffic.total_per_s() + looping as f64 * each
}

/// Packets in the mixes: the figure, and its picture over Poisson's law.
#[expect(clippy::cast_precision_loss, reason = "counts of packets in memory")]
fn pools(scenario: &Scenario, world: &World<'_>, outcome: &mut Outcome) -> Option<Plot> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number of looks"
    )]
    let warm_up = (WARM_UP_MEANS * delay_mean_s(scenario) / LOOK.as_secs_f64()).ceil() as usize + 4;
    let looks = world.tally.held.get(warm_up..).unwrap_or_default();
    let held = || looks.iter().flatten().copied();
    let most = held().max()?;
    let means: Vec<f64> = looks
        .iter()
        .filter(|look| !look.is_empty())
        .map(|look| look.iter().sum::<usize>() as f64 / look.len() as f64)
        .collect();
    let rate = packets_per_s(scenario, world) / scenario.network.mixes_per_layer as f64;
    let expected = rate * delay_mean_s(scenario);
    let packet = &scenario.packet;
    let undisturbed =
        packet.loss_ppm + packet.restarts + packet.partitions + packet.loss_bursts == 0;
    outcome.figures.push(Figure {
        name: "occupancy_mean_packets".to_owned(),
        label: "Packets in a mix, mean".to_owned(),
        estimate: mean_of(&means),
        expected: undisturbed.then_some(Expected::Equals(expected)),
    });
    let mut counts = vec![0_u64; most + 1];
    held().for_each(|n| counts[n] += 1);
    let total = held().count() as f64;
    let bars = counts.iter().enumerate();
    let bars: Vec<_> = bars
        .map(|(n, seen)| (n as f64, *seen as f64 / total))
        .collect();
    let law = |&(n, _): &(f64, f64)| (n, poisson_at(expected, n));
    let row = |&(n, share): &(f64, f64)| {
        let poisson = undisturbed.then(|| format!("{:.5}", poisson_at(expected, n)));
        let shares = core::iter::once(format!("{share:.5}")).chain(poisson);
        core::iter::once(format!("{n}")).chain(shares).collect()
    };
    let table_rows = bars.iter().map(row).collect();
    let reference = undisturbed.then(|| Series {
        name: format!("Poisson({expected:.3})"),
        mark: Mark::Dots,
        points: bars.iter().map(law).collect(),
    });
    let simulated = Series {
        name: "simulated".to_owned(),
        mark: Mark::Bars,
        points: bars,
    };
    let head = ["packets", "share", "Poisson"].map(str::to_owned);
    Some(Plot {
        title: "Pools of the mixes".to_owned(),
        caption: "How many packets a mix holds, looked at twice a second, over all mixes. \
                  Poisson traffic and exponential delays give Poisson's law where nothing is lost."
            .to_owned(),
        x_label: "packets in the mix".to_owned(),
        y_label: "share of looks".to_owned(),
        table_head: head[..if reference.is_some() { 3 } else { 2 }].to_vec(),
        series: core::iter::once(simulated).chain(reference).collect(),
        table_rows,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that was made a float for the axis"
)]
fn poisson_at(mean: f64, n: f64) -> f64 {
    poisson_pmf(mean, n as u64)
}

/// Distribution of latencies over the Erlang law of the mixes alone.
#[expect(clippy::cast_precision_loss, reason = "counts of messages in memory")]
fn latency_plot(scenario: &Scenario, measured: &[(&str, &[f64])]) -> Option<Plot> {
    const POINTS: u32 = 200;
    let last = measured
        .iter()
        .filter_map(|(_, sorted)| sorted.get(sorted.len().saturating_sub(1) * 99 / 100))
        .fold(0.0, |a: f64, b| a.max(*b));
    if last == 0.0 {
        return None;
    }
    let grid = || (0..=POINTS).map(|i| last * f64::from(i) / f64::from(POINTS));
    let mut series: Vec<Series> = measured
        .iter()
        .filter(|(_, sorted)| !sorted.is_empty())
        .map(|(name, sorted)| {
            let below = |t: f64| sorted.partition_point(|latency| *latency <= t);
            let share = |t: f64| below(t) as f64 / sorted.len() as f64;
            Series {
                name: (*name).to_owned(),
                mark: Mark::Line,
                points: grid().map(|t| (t * 1e3, share(t))).collect(),
            }
        })
        .collect();
    let layers = scenario.network.layers;
    let links_s = scenario.links.delay_s * (layers + 3) as f64;
    let law = |t: f64| erlang_cdf(layers, delay_mean_s(scenario), (t - links_s).max(0.0));
    series.push(Series {
        name: format!("Erlang({layers} stages) and links"),
        mark: Mark::Reference,
        points: grid().map(|t| (t * 1e3, law(t))).collect(),
    });
    let row = |(name, sorted): &(&str, &[f64])| {
        let at = |q| match quantile_groups(1, sorted.len() as u64, q) {
            Some(_) => format!("{:.1}", quantile(sorted, q) * 1e3),
            None => "–".to_owned(),
        };
        let count = sorted.len().to_string();
        vec![(*name).to_owned(), count, at(0.5), at(0.95), at(0.99)]
    };
    Some(Plot {
        title: "Latency from end to end".to_owned(),
        caption: "Share of messages and loops that have arrived after a given time. The Erlang law is that of \
                  the mixes and links alone: what lies to its right is waiting for a payload slot, for a \
                  downstream tick, for the disk, and, for messages of several packets, for the last of them."
            .to_owned(),
        x_label: "latency (ms)".to_owned(),
        y_label: "share".to_owned(),
        series,
        table_head: ["", "n", "p50 (ms)", "p95 (ms)", "p99 (ms)"].map(str::to_owned).to_vec(),
        table_rows: measured.iter().filter(|(_, sorted)| !sorted.is_empty()).map(row).collect(),
    })
}
