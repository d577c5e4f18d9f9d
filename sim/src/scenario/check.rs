//! What no single key of a scenario can show: keys that exclude or bound each other, and the
//! two that hold a table.
//!
//! Each fault blames one key, with its value, its line and what it must be.

use std::sync::Arc;

use super::{Engine, Pattern, Scenario, ScenarioError, Strategy, Topology, Trigger, Values};
use crate::{
    flow::{LOAD_MAX, Setup},
    report::short,
};

/// Packets in flight that the flow engine accepts at most, for each thread: about 4 GB.
const IN_FLIGHT_MAX: f64 = 1e8;

/// The same where packets carry more than a time and a place (`flow::network`).
const IN_FLIGHT_MAX_GENERAL: f64 = 3e7;

/// The same when posteriors are kept whole, 8 targets at a time: about 3 GB.
const IN_FLIGHT_MAX_SORTED: f64 = 1e6;

/// Packets of users in flight at least: with fewer, the time between packets outgrows the clock.
pub const IN_FLIGHT_MIN: f64 = 1e-3;

/// Packets in all pools together: about 1 GB.
const POOLED_MAX: f64 = 1e7;

/// And of users at least, for a timed pool to see packets.
const POOLED_MIN: f64 = 0.01;

/// With more, a target's mass takes thousands of batches to leave.
const KEPT_PER_BATCH_MAX: f64 = 100.0;

/// Longest time online, offline, of a trace, or on a way besides mixes, in mean delays or batches:
/// the clock has 2²⁴.
const TIMES_MAX: f64 = 1e6;

/// Packets in flight for `flow.games`: a second or so for each game.
const GAMES_IN_FLIGHT_MAX: f64 = 20_000.0;

/// The same where corrupt mixes hold packets that are tracked one by one, pair by pair.
const GAMES_IN_FLIGHT_MAX_CORRUPT: f64 = 2_000.0;

/// Users for `flow.games`: with more, each sends so seldom that ε takes too long.
const GAMES_USERS_MAX: u64 = 10_000;

/// Pools for `flow.games`, which keeps a number for each two of them: 32 MB for each thread.
const GAMES_POOLS_MAX: usize = 2_000;

/// Mixes, each with its random streams: about 1 kB.
const POOLS_MAX: usize = 320_000;

/// Regions that a table may have.
const REGIONS_MAX: usize = 100;

/// Longest link delay between regions, in milliseconds.
const REGION_MS_MAX: f64 = 10_000.0;

impl Scenario {
    pub(super) fn check(&self, v: &Values) -> Result<(), ScenarioError> {
        self.check_mixes(v)?;
        self.check_traffic(v)?;
        self.check_idle(v)?;
        if self.engine == Engine::Packet {
            return self.check_packet(v);
        }
        if self.flow.contacts > 0 && self.flow.receivers == 0 {
            return Err(v.refuse(
                "flow.contacts_per_user",
                "be 0 unless flow.receivers is above 0",
            ));
        }
        let (setup, unit_s) = Setup::of(self);
        self.check_dummies(v)?;
        self.check_watched(v, &setup)?;
        self.check_room(v, &setup)?;
        self.check_lines(v, &setup)?;
        self.check_clock(v, &setup, unit_s)?;
        self.check_games(v, &setup)
    }

    /// The unit of time of the flow engine, in seconds: a mean delay, or from batch to batch.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub fn unit_s(&self) -> f64 {
        match self.strategy {
            Strategy::Poisson { delay_mean_s } => delay_mean_s,
            Strategy::Pool { trigger, .. } => match trigger {
                Trigger::Every { interval_s, .. } => interval_s,
                Trigger::Full { batch } => {
                    let packets = (batch * self.network.mixes_per_layer) as f64;
                    packets / (self.traffic.total_per_s() + self.adversary.flood_per_s)
                }
            },
        }
    }

    fn check_mixes(&self, v: &Values) -> Result<(), ScenarioError> {
        let (network, adversary) = (self.network, &self.adversary);
        let free = matches!(network.topology, Topology::Free | Topology::PeerToPeer);
        let corrupt = "adversary.corrupt_mixes_per_layer";
        let width = network.mixes_per_layer;
        let users = usize::try_from(self.traffic.users).unwrap_or(usize::MAX);
        if network.topology == Topology::PeerToPeer {
            let most = POOLS_MAX / network.layers;
            if !(2..=most).contains(&users) {
                let must = format!("be from 2 to {most} for network.topology = \"p2p\"");
                return Err(v.refuse("traffic.users", &must));
            }
            if adversary.corrupt_mixes_per_layer * network.layers > users {
                let most = users / network.layers;
                let must = format!("be at most traffic.users / network.layers = {most}");
                return Err(v.refuse(corrupt, &must));
            }
        } else if adversary.corrupt_mixes_per_layer > width {
            let must = format!("be at most network.mixes_per_layer = {width}");
            return Err(v.refuse(corrupt, &must));
        }
        if network.topology == Topology::Free {
            let mixes = network.layers * width;
            if mixes * network.layers > POOLS_MAX {
                let must =
                    format!("keep layers² × mixes per layer at most {POOLS_MAX} with free routes");
                return Err(v.refuse("network.mixes_per_layer", &must));
            }
        }
        if free && !matches!(self.strategy, Strategy::Poisson { .. }) {
            let must = "be \"poisson\" with free routes: a batch would mix packets of all hops";
            return Err(v.refuse("mix.strategy", must));
        }
        Ok(())
    }

    fn check_traffic(&self, v: &Values) -> Result<(), ScenarioError> {
        let traffic = &self.traffic;
        let alone = self.engine == Engine::Packet && self.packet.node_loops;
        if traffic.users == 0 && !alone {
            return Err(v.refuse(
                "traffic.users",
                "be above 0, but for engine = \"packet\" with packet.node_loops",
            ));
        }
        let trace = matches!(traffic.pattern, Pattern::Trace(_));
        if traffic.users > 0 && traffic.total_per_s() <= 0.0 && !trace {
            return Err(v.refuse(
                "traffic.payload_per_user_per_s",
                "be above 0 unless traffic.loop_per_user_per_s is",
            ));
        }
        self.check_times(v)
    }

    /// What the clock of the flow engine can hold of users who come and go.
    fn check_times(&self, v: &Values) -> Result<(), ScenarioError> {
        let most_s = TIMES_MAX * self.unit_s();
        let times = match &self.traffic.pattern {
            Pattern::Steady => return Ok(()),
            Pattern::OnOff {
                online_s,
                offline_s,
            } => vec![
                ("traffic.online_s", *online_s),
                ("traffic.offline_s", *offline_s),
            ],
            Pattern::Sessions { online_s } => vec![("traffic.online_s", *online_s)],
            Pattern::Trace(times) => {
                vec![("traffic.trace_s", times.last().copied().unwrap_or(0.0))]
            }
        };
        match times.into_iter().find(|(_, time_s)| *time_s > most_s) {
            Some((name, _)) => Err(v.refuse(
                name,
                &format!("keep times within {most_s} s: {TIMES_MAX} mean delays or batches"),
            )),
            None => Ok(()),
        }
    }

    /// Packets that come to each mix over links, per second, but for loops of mixes and losses.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "mixes are few")]
    pub fn through_mix_per_s(&self) -> f64 {
        let entering = self.traffic.total_per_s() + self.adversary.flood_per_s;
        match self.network.topology {
            Topology::PeerToPeer => {
                entering * self.network.layers as f64 / self.traffic.users as f64
            }
            Topology::Stratified | Topology::Cascade | Topology::Free => {
                entering / self.network.mixes_per_layer as f64
            }
        }
    }

    /// Where posteriors with dummies on single links are exact.
    fn check_dummies(&self, v: &Values) -> Result<(), ScenarioError> {
        let traffic = &self.traffic;
        if traffic.dummy_per_mix_per_s > 0.0 && self.capacity.is_some() {
            let must = "be 0 where mixes have a limit (mix.packets_per_s)";
            return Err(v.refuse("traffic.dummy_per_mix_per_s", must));
        }
        let memoryless = matches!(self.strategy, Strategy::Poisson { .. });
        let steady = traffic.pattern == Pattern::Steady && self.capacity.is_none();
        if traffic.dummy_per_user_per_s > 0.0 && !(memoryless && steady) {
            let must = "be 0 unless mix.strategy is \"poisson\", users are steady and mixes have no \
                        limit: elsewhere which packets were dummies could be told";
            return Err(v.refuse("traffic.dummy_per_user_per_s", must));
        }
        Ok(())
    }

    /// Where mixes that are not watched are alike.
    fn check_watched(&self, v: &Values, setup: &Setup) -> Result<(), ScenarioError> {
        let (count, layers) = (
            "adversary.unwatched_mixes_per_layer",
            "adversary.unwatched_layers",
        );
        let per_layer = self.adversary.unwatched_mixes_per_layer;
        let most = match self.network.topology {
            Topology::PeerToPeer => setup.width / setup.layers,
            Topology::Stratified | Topology::Cascade | Topology::Free => {
                self.network.mixes_per_layer
            }
        };
        if per_layer > most {
            return Err(v.refuse(count, &format!("be at most {most}, all mixes")));
        }
        let dark = self.adversary.unwatched_layers;
        if u64::from(dark) >> setup.layers != 0 {
            let must = format!("name layers from 1 to network.layers = {}", setup.layers);
            return Err(v.refuse(layers, &must));
        }
        if dark != 0 && self.network.topology != Topology::Stratified {
            let must = "be empty unless network.topology is \"stratified\": a packet stays in its \
                        cascade, and a mix is in all layers of a free route";
            return Err(v.refuse(layers, must));
        }
        let memoryless = matches!(self.strategy, Strategy::Poisson { .. });
        let alike = memoryless && self.capacity.is_none() && self.links.regions_s.is_empty();
        if per_layer + dark as usize > 0 && !alike {
            let name = if per_layer > 0 { count } else { layers };
            let must = "watch all unless mix.strategy is \"poisson\", mixes have no limit and links no \
                        regions: elsewhere times tell one mix from another";
            return Err(v.refuse(name, must));
        }
        Ok(())
    }

    /// What the games of `flow.games` are defined for, and have the patience for.
    fn check_games(&self, v: &Values, setup: &Setup) -> Result<(), ScenarioError> {
        let name = "flow.games";
        if self.flow.games == 0 {
            return Ok(());
        }
        let links = &self.links;
        let adversary = &self.adversary;
        let acts = adversary.drop + adversary.delay_s + adversary.flood_per_s;
        let still = links.jitter_s + links.loss + acts == 0.0;
        if setup.pool.is_some() {
            return Err(v.refuse(name, "be 0 unless mix.strategy is \"poisson\""));
        }
        let steady = self.traffic.pattern == Pattern::Steady && self.capacity.is_none();
        let dummies = self.traffic.dummy_per_user_per_s + self.traffic.dummy_per_mix_per_s;
        let all = setup.watches_all() && dummies == 0.0;
        if !(still && steady && all && links.regions_s.is_empty()) {
            let must = "be 0 unless users are steady, links take one constant time and carry no \
                        dummies, mixes have no limit and the adversary only watches, and every link";
            return Err(v.refuse(name, must));
        }
        let pools = setup.layers * setup.width;
        if pools > GAMES_POOLS_MAX {
            let must = format!(
                "be 0 unless there are at most {GAMES_POOLS_MAX} pools, one for each mix and hop (here {pools})"
            );
            return Err(v.refuse(name, &must));
        }
        let in_flight = setup.in_flight().sum();
        let most = if adversary.corrupt_mixes_per_layer > 0 {
            GAMES_IN_FLIGHT_MAX_CORRUPT
        } else {
            GAMES_IN_FLIGHT_MAX
        };
        if in_flight > most || !(2..=GAMES_USERS_MAX).contains(&self.traffic.users) {
            let must = format!(
                "be 0 unless traffic.users is from 2 to {GAMES_USERS_MAX} and at most {most} packets are in \
                 flight (here {})",
                short(in_flight)
            );
            return Err(v.refuse(name, &must));
        }
        Ok(())
    }

    /// What the memory of the flow engine can hold, and the patience for pools.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    fn check_room(&self, v: &Values, setup: &Setup) -> Result<(), ScenarioError> {
        let in_flight = setup.in_flight();
        let (name, least, most) = match self.strategy {
            Strategy::Poisson { .. } => {
                let most = if self.flow.guesswork {
                    IN_FLIGHT_MAX_SORTED
                } else if setup.is_plain() {
                    IN_FLIGHT_MAX
                } else {
                    IN_FLIGHT_MAX_GENERAL
                };
                ("traffic.users", IN_FLIGHT_MIN, most)
            }
            Strategy::Pool { trigger, kept } => {
                let (name, batch) = match trigger {
                    Trigger::Full { batch } => ("mix.batch", batch as f64),
                    Trigger::Every { .. } => {
                        let batch = (setup.rate + setup.flood) / setup.width as f64;
                        ("mix.interval_ms", batch)
                    }
                };
                if kept as f64 > batch * KEPT_PER_BATCH_MAX {
                    let must = format!(
                        "be at most {KEPT_PER_BATCH_MAX} × the packets of a batch, {batch}"
                    );
                    return Err(v.refuse("mix.kept", &must));
                }
                (name, POOLED_MIN, POOLED_MAX)
            }
        };
        if in_flight.users < least {
            let must = format!(
                "keep at least {least} packets of users in mixes, on average, here {}",
                short(in_flight.users)
            );
            return Err(v.refuse(name, &must));
        }
        if in_flight.sum() <= most {
            return Ok(());
        }
        let blamed = largest([
            (name, in_flight.users),
            ("traffic.loop_per_mix_per_s", in_flight.loops),
            ("traffic.dummy_per_mix_per_s", in_flight.dummies),
            ("adversary.flood_per_s", in_flight.flood),
            (self.slow_links(), in_flight.links),
            ("adversary.delay_ms", in_flight.held),
        ]);
        let sorted = if self.flow.guesswork {
            ", with flow.guesswork"
        } else {
            ""
        };
        let must = format!(
            "keep at most {most} packets in flight, in mixes and on links{sorted}, here {}",
            short(in_flight.sum())
        );
        Err(v.refuse(blamed, &must))
    }

    /// The key that says how long links take.
    fn slow_links(&self) -> &'static str {
        if self.links.regions_s.is_empty() {
            "links.jitter_ms"
        } else {
            "links.regions_ms"
        }
    }

    /// Lines must settle.
    fn check_lines(&self, v: &Values, setup: &Setup) -> Result<(), ScenarioError> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let load = setup.load();
        if load <= LOAD_MAX {
            return Ok(());
        }
        let least = capacity.packets_per_s * load / LOAD_MAX;
        let must = format!(
            "be 0 or at least {}, so that what comes to a mix over links loads it to {LOAD_MAX} \
             at most, here {}",
            short(least),
            short(load)
        );
        Err(v.refuse("mix.packets_per_s", &must))
    }

    /// What the clock of the flow engine can hold of a packet's way.
    fn check_clock(&self, v: &Values, setup: &Setup, unit_s: f64) -> Result<(), ScenarioError> {
        let away = setup.away();
        let sum = away.links + away.lines + away.held;
        if sum <= TIMES_MAX {
            return Ok(());
        }
        let blamed = largest([
            (self.slow_links(), away.links),
            ("mix.packets_per_s", away.lines),
            ("adversary.delay_ms", away.held),
        ]);
        let must = format!(
            "keep the time that links, lines and corrupt mixes take on a way, here up to {} s, \
             within {} s: {TIMES_MAX} mean delays or batches",
            short(sum * unit_s),
            short(TIMES_MAX * unit_s)
        );
        Err(v.refuse(blamed, &must))
    }
}

/// The layers that `name` lists, separated by commas: the first in the lowest bit.
pub(super) fn layers(v: &Values, name: &str) -> Result<u32, ScenarioError> {
    let text = v.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    let must = "list layers from 1 to 32, as in \"1, 3\"";
    text.split(',').try_fold(0, |mask, layer| {
        let layer = layer.trim().parse::<u32>().ok();
        let layer = layer.filter(|layer| (1..=32).contains(layer));
        layer
            .map(|layer| mask | 1 << (layer - 1))
            .ok_or_else(|| v.refuse(name, must))
    })
}

/// The name of the largest.
fn largest<const N: usize>(parts: [(&'static str, f64); N]) -> &'static str {
    let more = |a: (&'static str, f64), b: (&'static str, f64)| if b.1 > a.1 { b } else { a };
    parts.into_iter().fold(("", f64::NEG_INFINITY), more).0
}

/// The numbers of `text`, separated by commas or line ends; `None` if one is not a finite
/// number.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let words = text.split([',', '\n']).map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().ok().filter(|x: &f64| x.is_finite()))
        .collect()
}

/// What is wrong with a file of times for `traffic.trace_s`, and in which line of it.
#[must_use]
pub fn trace_fault(text: &str) -> Option<String> {
    let mut last = 0.0;
    for (line, row) in (1..).zip(text.lines()) {
        for word in row.split(',').map(str::trim) {
            let time = match numbers(word).as_deref() {
                Some([]) => continue,
                Some([time, ..]) if *time >= last => *time,
                _ => {
                    return Some(format!(
                        "line {line}: {word:?}: must be a time in seconds, not before {last}: they ascend"
                    ));
                }
            };
            last = time;
        }
    }
    (last <= 0.0).then(|| "must hold at least one time in seconds above 0".to_owned())
}

/// The same of a file of delays for `links.regions_ms`.
#[must_use]
pub fn regions_fault(text: &str) -> Option<String> {
    let rows = (1..).zip(text.lines());
    let rows: Vec<(usize, &str)> = rows.filter(|(_, row)| !row.trim().is_empty()).collect();
    if rows.is_empty() || rows.len() > REGIONS_MAX {
        let many = rows.len();
        return Some(format!(
            "{many} lines: must be from 1 to {REGIONS_MAX}, one for each region"
        ));
    }
    rows.iter().find_map(|(line, row)| {
        let many = rows.len();
        let good = numbers(row).filter(|found| {
            found.len() == many && found.iter().all(|ms| (0.0..=REGION_MS_MAX).contains(ms))
        });
        good.is_none().then(|| {
            format!(
                "line {line}: {row:?}: must be {many} numbers from 0 to {REGION_MS_MAX}, one for each \
                 line, separated by commas"
            )
        })
    })
}

/// `links.regions_ms`, in seconds.
pub(super) fn regions_s(v: &Values) -> Result<Arc<[Vec<f64>]>, ScenarioError> {
    let name = "links.regions_ms";
    let lines = v.text(name).lines().filter(|line| !line.trim().is_empty());
    let rows: Option<Vec<Vec<f64>>> = lines.map(numbers).collect();
    let good = rows.filter(|rows| {
        let square = rows.iter().all(|row| row.len() == rows.len());
        let bounds = 0.0..=REGION_MS_MAX;
        let bounded = rows.iter().flatten().all(|ms| bounds.contains(ms));
        square && bounded && rows.len() <= REGIONS_MAX
    });
    let rows = good.ok_or_else(|| {
        let must = format!(
            "be up to {REGIONS_MAX} lines of as many numbers from 0 to {REGION_MS_MAX}, separated by commas"
        );
        v.refuse(name, &must)
    })?;
    let seconds = |row: Vec<f64>| row.into_iter().map(|ms| ms / 1e3).collect();
    Ok(rows.into_iter().map(seconds).collect())
}

/// `traffic.trace_s`.
pub(super) fn trace_s(v: &Values) -> Result<Arc<[f64]>, ScenarioError> {
    let name = "traffic.trace_s";
    let good = numbers(v.text(name)).filter(|times| {
        let positive = times.first().is_some_and(|first| *first >= 0.0);
        let ends = times.last().is_some_and(|last| *last > 0.0);
        positive && ends && times.is_sorted()
    });
    let must = "be at least one time in seconds, the last above 0, in ascending order, separated by \
                commas or line ends";
    good.map(Into::into).ok_or_else(|| v.refuse(name, must))
}
