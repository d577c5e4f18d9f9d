//! Which layers, rates and delay are most anonymous within budgets of latency and bytes.
//!
//! | quantity      | formula, per user                                                          |
//! |---------------|----------------------------------------------------------------------------|
//! | bytes per day | 86 400 × 2432 × (λP + λL + μD + 1/c): **both directions count**, dummies too |
//! | mailbox       | μD = (λL + i λP) / load, load 0.2 to 0.8; i = 1 unless given: every payload slot may carry a message to a user |
//! | confirmations | c = 30 / μD, between 1 s and 600 s: one for 30 frames                      |
//! | latency       | 95 % quantile of [`latency`] (slot + L mixes + mailbox), and what links take |
//! | limit         | [`network_limit_bits`] of users × (λP + λL): over packets, no corrupt mix, large pools |
//! | claim         | mean entropy **over users** as measured; of more than [`measured::USERS_MAX`], that over packets or log₂ users, whichever is less |
//!
//! A fixed grid of (m, λP, λL, load) is searched for each number of layers; a *front* holds what
//! nothing else of as many layers beats in latency and limit within both budgets. Of the front of
//! [`DEPLOYED`] layers [`SPREAD`] points, evenly, and of the others the last one are measured by
//! the flow engine with the corrupt mixes. Packets may be many more than users, and then more of them
//! hide nobody better: the fastest whose claim is no less than the greatest of deployed layers, as far as
//! [`TIE_BITS`] and errors tell them apart, is chosen; that of the greatest with any is told beside it.
//!
//! Bytes are frames as links carry them, without TLS, TCP and IP. λL is at least a tenth of λP:
//! anonymity alone would spend nothing on loops, and without loops nobody notices an (n−1) attack.
//! A network's mean delay is one for all profiles, and how fast loops notice is a choice of its own:
//! both may be [`Given`], and then the grid of what is left is finer. The grid depends on no budget, so that a tighter budget leaves a subset. One layer is not
//! searched: its mix sees both ends. Deliberately no lost packets, no message of many packets.

mod choice;
pub mod defaults;
pub mod latency;
pub mod measured;
mod show;

pub use choice::{Finalist, TIE_BITS};
use latency::{Mailbox, Way};
use measured::{Layered, corrupt_of};
use proto::directory::{Params, Profile};
use rayon::prelude::*;
pub use show::{HEAD, params_toml};

use crate::{closed::network_limit_bits, outcome::RunError, report::short};

/// Bytes of a frame in each direction.
pub const FRAME_BYTES: u32 = 2432;
/// Layers of deployed packets (PKT-1): only plans of so many are written as parameters.
pub const DEPLOYED: u32 = 3;
/// Points of the front of deployed layers that the flow engine measures, at most.
pub const SPREAD: usize = 5;
/// Packets per second for which a plan counts one mix: less than a quarter of what one processor
/// was measured at (docs/PERFORMANCE.md).
pub const MIX_CAPACITY_PER_S: f64 = 10_000.0;
/// Fewest mixes of a layer.
pub const WIDTH_MIN: u32 = 5;
/// Layers that are searched.
const LAYERS: [u32; 4] = [2, 3, 4, 5];
/// Most packets in flight that are measured: 4 million take about a minute and 400 MB.
const IN_FLIGHT_MAX: f64 = 4e6;
/// Messages measured for each point, at most and at least; few where each pass is long.
const TARGETS: [f64; 2] = [512.0, 64.0];
/// Packets in flight × messages measured, at most (above the least number of messages).
const WORK: f64 = 1e8;
/// Loads of a mailbox's downstream: this many steps of equal width, up to the last.
const LOADS: u32 = 4;
const LOAD_PLANNED: f64 = 0.8;
/// Steps of λP in a decade.
const RATES: u32 = 16;
/// How many times as many steps of either if delay and loops are given.
const FINER: (u32, u32) = (4, 6);
/// Fastest downstream that is planned, per second; 2^32 µHz are a little more.
const RATE_MAX_PER_S: f64 = 4000.0;
/// Loops for each payload slot.
const LOOPS: [f64; 4] = [0.1, 0.2, 0.5, 1.0];
/// Longest mean delay: an eighth of an epoch of 10 800 s must exceed 5 s and 82.8 of it (DIR-2).
pub const DELAY_MAX_MS: u32 = 16_000;

/// What a plan must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    /// 95 % quantile of the latency of a message of one packet, in seconds, > 0.
    pub latency_p95_s: f64,
    /// Bytes of one user's links in a day, both directions, > 0.
    pub bytes_per_day: f64,
    /// Users online, ≥ 2.
    pub users: u64,
    /// Share of mixes that are corrupt, from 0 to 0.9.
    pub corrupt: f64,
    /// What all links of a way take together, in seconds, ≥ 0.
    pub links_s: f64,
    /// What is not to be searched.
    pub given: Given,
}

/// Parameters that something else has decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Given {
    /// Mean delay of each mix, in milliseconds, from 1 to [`DELAY_MAX_MS`].
    pub delay_mean_ms: Option<u32>,
    /// λL, per second, > 0.
    pub loops_per_s: Option<f64>,
    /// Packets that a user is sent for each payload slot that it has, ≥ 0.
    pub inbound: f64,
}

impl Given {
    /// Nothing: a user gets as much as it may send.
    pub const NOTHING: Self = Self {
        delay_mean_ms: None,
        loops_per_s: None,
        inbound: 1.0,
    };

    /// Steps of λP in a decade, and loads.
    const fn steps(&self) -> (u32, u32) {
        if self.delay_mean_ms.is_some() && self.loops_per_s.is_some() {
            (RATES * FINER.1, LOADS * FINER.0)
        } else {
            (RATES, LOADS)
        }
    }
}

/// One choice of parameters, in the units of the consensus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Mixes that a packet passes.
    pub layers: u32,
    /// Mean delay of each mix, in milliseconds.
    pub delay_mean_ms: u32,
    /// λP, in microhertz.
    pub payload_uhz: u32,
    /// λL, in microhertz.
    pub loops_uhz: u32,
    /// μD, in microhertz.
    pub downstream_uhz: u32,
    /// Time between confirmations, in milliseconds.
    pub confirm_ms: u32,
    /// Place of its mailbox load among those of the grid.
    load: usize,
}

/// A candidate within the budgets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its parameters.
    pub candidate: Candidate,
    /// 95 % quantile of latency, in seconds.
    pub latency_p95_s: f64,
    /// What networks approach at these rates as their pools grow, in bits over packets, at least 0.
    pub bound_bits: f64,
}

/// What [`plan`] found.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The front of deployed layers, by rising latency and bits.
    pub front: Vec<Point>,
    /// The fronts of deployed layers within a half and a quarter of the bytes; empty if nothing is.
    pub cheaper: [Vec<Point>; 2],
    /// Those measured: of the front by rising latency, then the last one of each other number of
    /// layers.
    pub finalists: Vec<Finalist>,
    /// The fastest of those of which none with deployed layers is more anonymous.
    pub chosen: usize,
    /// Which of another number of layers is more anonymous than all of these, and most; else the chosen.
    pub best: usize,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "values of the grid, far below 2^32"
)]
fn whole(x: f64) -> u32 {
    x.round() as u32
}

impl Candidate {
    /// Rates per second; `inbound` packets for each payload slot load the mailbox to `load`, the
    /// one at `place` of the grid.
    fn new(layers: u32, rates: [f64; 2], inbound: f64, (place, load): (usize, f64)) -> Self {
        let [payload_uhz, loops_uhz] = rates.map(|per_s| whole(per_s * 1e6));
        let stored = f64::from(payload_uhz) * inbound + f64::from(loops_uhz);
        // Rounded up: DIR-2 and the load hold for the whole numbers too.
        let downstream_uhz = whole((stored / load).ceil());
        let confirm_s = (30e6 / f64::from(downstream_uhz)).clamp(1.0, 600.0);
        Self {
            layers,
            delay_mean_ms: 1,
            payload_uhz,
            loops_uhz,
            downstream_uhz,
            confirm_ms: whole(confirm_s * 1e3),
            load: place,
        }
    }

    fn sent_per_s(&self) -> f64 {
        f64::from(self.payload_uhz + self.loops_uhz) / 1e6
    }

    /// Bytes of a user's links in a day, both directions, confirmations included.
    #[must_use]
    pub fn bytes_per_day(&self) -> f64 {
        let down = f64::from(self.downstream_uhz) / 1e6;
        let frames = self.sent_per_s() + down + 1e3 / f64::from(self.confirm_ms);
        86_400.0 * f64::from(FRAME_BYTES) * frames
    }

    fn delay_mean_s(&self) -> f64 {
        f64::from(self.delay_mean_ms) / 1e3
    }

    fn way(&self) -> Way {
        Way {
            payload_per_s: f64::from(self.payload_uhz) / 1e6,
            layers: self.layers,
            delay_mean_s: self.delay_mean_s(),
            downstream_per_s: f64::from(self.downstream_uhz) / 1e6,
        }
    }

    /// Packets per second of all users.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    pub fn total_per_s(&self, users: u64) -> f64 {
        users as f64 * self.sent_per_s()
    }

    /// What networks of so many layers approach at these rates as their pools grow, in bits, at
    /// least 0.
    #[must_use]
    pub fn bound_bits(&self, users: u64) -> f64 {
        let hops = self.layers as usize;
        network_limit_bits(self.total_per_s(users), hops, self.delay_mean_s()).max(0.0)
    }

    /// The parameters for a consensus, with one profile, `planned`.
    #[must_use]
    pub fn params(&self) -> Params {
        Params {
            delay_mean_ms: self.delay_mean_ms,
            profiles: vec![Profile {
                name: "planned".to_owned(),
                payload_uhz: self.payload_uhz.into(),
                loops_uhz: self.loops_uhz.into(),
                downstream_uhz: self.downstream_uhz.into(),
                confirm_ms: self.confirm_ms,
            }],
            ..Params::default()
        }
    }
}

/// Delays on the grid, 12 in a decade; whole milliseconds.
fn delays_ms() -> Vec<u32> {
    let steps = (0..).map(|i| whole(10_f64.powf(f64::from(i) / 12.0)));
    let mut delays: Vec<u32> = steps.take_while(|ms| *ms <= DELAY_MAX_MS).collect();
    delays.dedup();
    delays
}

/// Laws of the mailbox waits of the grid, and what budgets ask of a candidate.
struct Search {
    /// By load, the highest first.
    mailboxes: Vec<(f64, Mailbox)>,
    budgets: Budgets,
}

impl Search {
    fn new(budgets: &Budgets) -> Self {
        let steps = budgets.given.steps().1;
        let loads = (1..=steps).rev();
        let loads = loads.map(|step| LOAD_PLANNED * f64::from(step) / f64::from(steps));
        Self {
            mailboxes: loads.map(|load| (load, Mailbox::new(load))).collect(),
            budgets: *budgets,
        }
    }

    /// Rates on the grid, each with the shortest delay: λP from 0.001 to 1000 per second.
    fn rates(&self, layers: u32) -> Vec<Candidate> {
        let given = &self.budgets.given;
        let decade = given.steps().0.cast_signed();
        let mut rates = Vec::new();
        for i in -3 * decade..=3 * decade {
            let payload_per_s = 10_f64.powf(f64::from(i) / f64::from(decade));
            let loops = match given.loops_per_s {
                Some(loops) => vec![loops],
                None => LOOPS.map(|loops| loops * payload_per_s).into(),
            };
            for loops in loops {
                for (place, (load, _)) in self.mailboxes.iter().enumerate() {
                    let stored = payload_per_s * given.inbound + loops;
                    if stored / load > RATE_MAX_PER_S {
                        continue;
                    }
                    let rates_per_s = [payload_per_s, loops];
                    rates.push(Candidate {
                        delay_mean_ms: given.delay_mean_ms.unwrap_or(1),
                        ..Candidate::new(layers, rates_per_s, given.inbound, (place, *load))
                    });
                }
            }
        }
        rates
    }

    fn p95(&self, one: &Candidate) -> f64 {
        let (_, mailbox) = &self.mailboxes[one.load];
        one.way().quantile(mailbox, 0.95) + self.budgets.links_s
    }

    /// What nothing else of `layers` beats in latency and bits, by rising latency, within the
    /// latency budget and `bytes_per_day`.
    fn front(&self, layers: u32, bytes_per_day: f64) -> Vec<Point> {
        let delays = self.budgets.given.delay_mean_ms;
        let delays = delays.map_or_else(delays_ms, |delay_ms| vec![delay_ms]);
        let rates = self.rates(layers);
        let mut points: Vec<Point> = rates
            .par_iter()
            .filter(|one| one.bytes_per_day() <= bytes_per_day)
            .flat_map_iter(|rate| {
                let with = delays.iter().map(|&delay_mean_ms| Candidate {
                    delay_mean_ms,
                    ..*rate
                });
                // Latency grows with the delay: the first that is too slow ends the row.
                let points = with.map(|candidate| Point {
                    candidate,
                    latency_p95_s: self.p95(&candidate),
                    bound_bits: candidate.bound_bits(self.budgets.users),
                });
                points.take_while(|point| point.latency_p95_s <= self.budgets.latency_p95_s)
            })
            .collect();
        points.sort_by(|a, b| {
            let bytes = |point: &Point| point.candidate.bytes_per_day();
            a.latency_p95_s
                .total_cmp(&b.latency_p95_s)
                .then(b.bound_bits.total_cmp(&a.bound_bits))
                .then(bytes(a).total_cmp(&bytes(b)))
        });
        let mut best = f64::NEG_INFINITY;
        points.retain(|point| {
            let better = point.bound_bits > best + 1e-9;
            best = best.max(point.bound_bits);
            better
        });
        points
    }

    /// Which budget leaves nothing, and what would be enough.
    fn binding(&self) -> String {
        let rates = self.rates(DEPLOYED);
        let timed: Vec<(f64, f64)> = rates
            .par_iter()
            .map(|one| (self.p95(one), one.bytes_per_day()))
            .collect();
        let of = |keep: &dyn Fn(&(f64, f64)) -> bool, pick: fn(&(f64, f64)) -> f64| {
            let values = timed.iter().filter(|one| keep(one)).map(pick);
            values.fold(f64::INFINITY, f64::min)
        };
        let (latency, bytes) = (self.budgets.latency_p95_s, self.budgets.bytes_per_day);
        let cheapest = of(&|_| true, |one| one.1);
        if bytes < cheapest {
            return format!(
                "impossible: the byte budget binds: {} MB a day is below the least of the grid, \
                 {} MB",
                short(bytes / 1e6),
                short((cheapest / 1e4).ceil() / 100.0)
            );
        }
        let fastest = of(&|_| true, |one| one.0);
        if latency < fastest {
            return format!(
                "impossible: the latency budget binds: {} s is below the fastest of the grid, \
                 {} s, at any number of bytes",
                short(latency),
                short(fastest)
            );
        }
        format!(
            "impossible: the budgets bind together: {} MB a day (both directions) gives a p95 of \
             {} s at best, however short the delay, and a p95 of {} s needs {} MB a day; raise \
             either",
            short(bytes / 1e6),
            short(of(&|one| one.1 <= bytes, |one| one.0)),
            short(latency),
            short((of(&|one| one.0 <= latency, |one| one.1) / 1e6).ceil()),
        )
    }
}

/// What nothing else of deployed layers beats in latency and bits within `budgets`, by rising
/// latency.
///
/// # Errors
///
/// Which budget binds, and what it would have to be.
pub fn front(budgets: &Budgets) -> Result<Vec<Point>, RunError> {
    let search = Search::new(budgets);
    let front = search.front(DEPLOYED, budgets.bytes_per_day);
    if front.is_empty() {
        return Err(RunError::Failed(search.binding()));
    }
    Ok(front)
}

fn measure(
    point: Point,
    budgets: &Budgets,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Finalist, RunError> {
    let candidate = point.candidate;
    let per_s = candidate.total_per_s(budgets.users);
    let width = whole((per_s / MIX_CAPACITY_PER_S).ceil()).max(WIDTH_MIN);
    let network = Layered {
        layers: candidate.layers,
        width,
        corrupt: corrupt_of(width, budgets.corrupt),
        delay_mean_ms: candidate.delay_mean_ms,
        users: budgets.users,
        payload_uhz: candidate.payload_uhz.into(),
        loops_uhz: candidate.loops_uhz.into(),
    };
    let in_flight = network.in_flight();
    if in_flight > IN_FLIGHT_MAX {
        return Err(RunError::Failed(format!(
            "these budgets keep {in_flight:.1e} packets in flight, and {IN_FLIGHT_MAX:.0e} are \
             measured at most; plan for fewer users (ten times fewer cost 3.3 bits) or tighter \
             budgets"
        )));
    }
    let messages = whole((WORK / in_flight).clamp(TARGETS[1], TARGETS[0]));
    Ok(Finalist {
        point,
        network,
        entropy: network.measure(messages, seed, progress)?,
    })
}

/// Searches, measures and chooses; `progress` is told the fraction done, 0 to 1.
///
/// # Errors
///
/// Budgets that leave nothing, by name; more packets in flight than are measured.
pub fn plan(
    budgets: &Budgets,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Plan, RunError> {
    let front = front(budgets)?;
    let search = Search::new(budgets);
    let last = front.len() - 1;
    let mut places: Vec<usize> = (0..SPREAD).map(|i| last * i / (SPREAD - 1)).collect();
    places.dedup();
    let spread = places.len();
    let others = LAYERS.iter().filter(|layers| **layers != DEPLOYED);
    let others = others.filter_map(|&layers| {
        let front = search.front(layers, budgets.bytes_per_day);
        front.last().copied()
    });
    let points: Vec<Point> = places.iter().map(|&at| front[at]).chain(others).collect();
    #[expect(clippy::cast_precision_loss, reason = "a progress bar")]
    let share = |done: usize, part: f64| (done as f64 + part) / points.len() as f64;
    let finalists = points
        .iter()
        .enumerate()
        .map(|(done, point)| measure(*point, budgets, seed, &|part| progress(share(done, part))));
    let finalists: Vec<Finalist> = finalists.collect::<Result<_, _>>()?;
    let (chosen, best) = choice::choose(&finalists, spread);
    Ok(Plan {
        cheaper: [2.0, 4.0].map(|part| search.front(DEPLOYED, budgets.bytes_per_day / part)),
        chosen,
        best,
        front,
        finalists,
    })
}
