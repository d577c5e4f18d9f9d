//! A network without units, and what to measure in it.
//!
//! Time is counted in mean delays (Poisson mixes) or in the time from batch to batch (pools).
//! Mixes stand in *pools*, numbered `hop × width + node`: a layer's mixes one after the other
//! or, with free routes, each mix once for every hop. That is: the adversary is told how many
//! hops a packet has behind it. Without being told it would know less, so anonymity over free
//! routes is a lower bound.
//!
//! | quantity            | unit                         |
//! |---------------------|------------------------------|
//! | times               | the unit above               |
//! | rates               | packets per unit             |
//! | loss, drop, fraction | shares, 0 to 1              |

use std::sync::Arc;

use super::{
    SECTIONS,
    contacts::Contacts,
    poisson::Sabotage,
    posterior::{LANES, RESIDUAL},
};
use crate::{
    random::{Purpose, SOURCE, Stream},
    scenario::{Pattern, Placement, Scenario, Strategy, Topology, Trigger},
};

/// Which pool may follow which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Any of the next layer, uniformly.
    #[default]
    Stratified,
    /// The one at the same place of the next layer.
    Cascade,
    /// That of any other node, at the next hop.
    Free,
}

/// A mix that sends in batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Packets that leave together as soon as there are this many above those kept; `None`:
    /// once per unit of time.
    pub batch: Option<usize>,
    /// Packets that stay at least, chosen at random.
    pub kept: usize,
    /// Share of the packets held that leaves once per unit, rounded down, above 0.
    pub fraction: f64,
}

/// Links that are more than one constant delay.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// Delays from each region to each.
    pub regions: Vec<Vec<f64>>,
    /// How much longer at most, uniform.
    pub jitter: f64,
    /// Share of packets lost.
    pub loss: f64,
}

impl Default for Links {
    /// One region, no delay, no loss.
    fn default() -> Self {
        Self {
            regions: vec![vec![0.0]],
            jitter: 0.0,
            loss: 0.0,
        }
    }
}

/// A line in front of each mix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Time that a mix takes for one packet.
    pub service: f64,
    /// Packets that wait at most.
    pub queue: usize,
}

/// When users send.
#[derive(Clone, Debug, PartialEq)]
pub enum Users {
    /// Always: one Poisson process.
    Steady,
    /// `users`, each online and offline for exponential times of these means.
    OnOff {
        /// How many.
        users: u64,
        /// Mean time online.
        online: f64,
        /// Mean time offline.
        offline: f64,
    },
    /// Sessions that begin as a Poisson process and last an exponential time.
    Sessions {
        /// How many at a time, on average, > 0.
        users: f64,
        /// Mean length.
        online: f64,
    },
    /// Times of packets, ascending; the last ends the round.
    Trace(Arc<[f64]>),
}

/// A network without units, and what to measure in it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which pool may follow which.
    pub route: Route,
    /// Hops, ≥ 1.
    pub layers: usize,
    /// Mixes per layer, ≥ 1; with free routes, all mixes.
    pub width: usize,
    /// Corrupt mixes per layer, ≤ width; with free routes, of all.
    pub corrupt: usize,
    /// Where they stand.
    pub placement: Placement,
    /// Packets that users send per unit of time, > 0.
    pub rate: f64,
    /// When.
    pub users: Users,
    /// How pools work; `None` for Poisson mixes.
    pub pool: Option<Pool>,
    /// `None`: one constant delay, which the caller adds to latencies.
    pub links: Option<Links>,
    /// `None` without limit.
    pub capacity: Option<Capacity>,
    /// Loops of each mix per unit.
    pub loops: f64,
    /// Dummies of all users together per unit: each ends at its first mix.
    pub user_dummies: f64,
    /// Dummies of each mix per unit, over its links as packets are: each ends at the link's end.
    pub mix_dummies: f64,
    /// Mixes of each layer whose links are not watched, ≤ width; with free routes, of all.
    pub unwatched: usize,
    /// Layers none of whose mixes is watched, the first in the lowest bit.
    pub dark: u32,
    /// Packets of the adversary per unit.
    pub flood: f64,
    /// Share of packets that corrupt mixes drop.
    pub drop: f64,
    /// How much longer corrupt mixes hold packets.
    pub hold: f64,
    /// Length of the stationary window, in units of time.
    pub window: f64,
    /// Receivers over which exits are aggregated; 0 for none.
    pub receivers: usize,
    /// Contacts of each sender, among the receivers; 0 for none.
    pub contacts: usize,
    /// How unequal receivers are: the r-th has weight `r^-popularity`.
    pub popularity: f64,
    /// Whether to measure guesswork.
    pub guesswork: bool,
    /// Games of each kind to play (`games`); 0 for none.
    pub games: u64,
    /// Packets of one user per unit, for Loopix's ε; 0 leaves it out.
    pub sender_rate: f64,
    /// Mass that may be left when a target counts as finished.
    pub residual: f64,
    /// A deliberate mistake, for positive controls.
    pub sabotage: Sabotage,
}

impl Default for Pool {
    /// A timed mix.
    fn default() -> Self {
        Self {
            batch: None,
            kept: 0,
            fraction: 1.0,
        }
    }
}

impl Default for Setup {
    /// One honest Poisson mix with one packet per mean delay.
    fn default() -> Self {
        Self {
            route: Route::Stratified,
            layers: 1,
            width: 1,
            corrupt: 0,
            placement: Placement::Greedy,
            rate: 1.0,
            users: Users::Steady,
            pool: None,
            links: None,
            capacity: None,
            loops: 0.0,
            user_dummies: 0.0,
            mix_dummies: 0.0,
            unwatched: 0,
            dark: 0,
            flood: 0.0,
            drop: 0.0,
            hold: 0.0,
            window: 8.0,
            receivers: 0,
            contacts: 0,
            popularity: 0.0,
            guesswork: false,
            games: 0,
            sender_rate: 0.0,
            residual: RESIDUAL,
            sabotage: Sabotage::None,
        }
    }
}

impl Setup {
    /// The network of `scenario`, and its unit of time in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    pub fn of(scenario: &Scenario) -> (Self, f64) {
        let per_s = scenario.traffic.total_per_s();
        let layers = scenario.network.layers;
        let (adversary, links) = (&scenario.adversary, &scenario.links);
        let per_layer = (
            scenario.network.mixes_per_layer,
            adversary.corrupt_mixes_per_layer,
        );
        let (route, width, corrupt) = match scenario.network.topology {
            Topology::Stratified => (Route::Stratified, per_layer.0, per_layer.1),
            Topology::Cascade => (Route::Cascade, per_layer.0, per_layer.1),
            Topology::Free => (Route::Free, layers * per_layer.0, layers * per_layer.1),
            Topology::PeerToPeer => {
                let users = usize::try_from(scenario.traffic.users).expect("checked");
                (Route::Free, users, layers * per_layer.1)
            }
        };
        let unit_s = scenario.unit_s();
        let pool = match scenario.strategy {
            Strategy::Poisson { .. } => None,
            Strategy::Pool { trigger, kept } => {
                let (batch, fraction) = match trigger {
                    Trigger::Full { batch } => (Some(batch), 1.0),
                    Trigger::Every { fraction, .. } => (None, fraction),
                };
                Some(Pool {
                    batch,
                    kept,
                    fraction,
                })
            }
        };
        let links = (!links.regions_s.is_empty() || links.jitter_s + links.loss > 0.0).then(|| {
            let plain = Links::default().regions;
            let regions = links.regions_s.iter();
            let regions: Vec<Vec<f64>> = regions
                .map(|row| row.iter().map(|s| s / unit_s).collect())
                .collect();
            Links {
                regions: if regions.is_empty() { plain } else { regions },
                jitter: links.jitter_s / unit_s,
                loss: links.loss,
            }
        });
        let users = scenario.traffic.users;
        let mut setup = Self {
            route,
            layers,
            width,
            corrupt,
            placement: adversary.placement,
            rate: per_s * unit_s,
            users: match &scenario.traffic.pattern {
                Pattern::Steady => Users::Steady,
                Pattern::OnOff {
                    online_s,
                    offline_s,
                } => Users::OnOff {
                    users,
                    online: online_s / unit_s,
                    offline: offline_s / unit_s,
                },
                Pattern::Sessions { online_s } => Users::Sessions {
                    users: users as f64,
                    online: online_s / unit_s,
                },
                Pattern::Trace(times) => {
                    Users::Trace(times.iter().map(|at_s| at_s / unit_s).collect())
                }
            },
            pool,
            links,
            capacity: scenario.capacity.map(|capacity| Capacity {
                service: 1.0 / (capacity.packets_per_s * unit_s),
                queue: capacity.queue,
            }),
            loops: scenario.traffic.loop_per_mix_per_s * unit_s,
            user_dummies: users as f64 * scenario.traffic.dummy_per_user_per_s * unit_s,
            mix_dummies: scenario.traffic.dummy_per_mix_per_s * unit_s,
            unwatched: match route {
                Route::Stratified | Route::Cascade => adversary.unwatched_mixes_per_layer,
                Route::Free => layers * adversary.unwatched_mixes_per_layer,
            },
            dark: adversary.unwatched_layers,
            flood: adversary.flood_per_s * unit_s,
            drop: adversary.drop,
            hold: adversary.delay_s / unit_s,
            receivers: scenario.flow.receivers,
            contacts: scenario.flow.contacts,
            popularity: scenario.flow.popularity,
            guesswork: scenario.flow.guesswork,
            games: scenario.flow.games,
            sender_rate: scenario.traffic.per_user_per_s() * unit_s,
            ..Self::default()
        };
        setup.window = scenario.flow.window_means * layers as f64 * setup.stay();
        (setup, unit_s)
    }

    /// Whether the fast case does: steady users, Poisson mixes in fixed layers, and nothing
    /// that the closed forms do not know but corrupt mixes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.route != Route::Free
            && self.placement == Placement::Greedy
            && self.users == Users::Steady
            && self.pool.is_none()
            && self.is_undisturbed()
            && self.watches_all()
            && self.links.is_none()
    }

    /// Whether users' packets meet nothing but mixes and links: no line, no loops of mixes, no
    /// dummies, and an adversary that only watches.
    pub(super) fn is_undisturbed(&self) -> bool {
        let active = self.corrupt > 0 && self.drop + self.hold > 0.0;
        let cover = self.loops + self.user_dummies + self.mix_dummies;
        self.capacity.is_none() && cover + self.flood == 0.0 && !active
    }

    /// Whether the adversary watches every link.
    #[must_use]
    pub fn watches_all(&self) -> bool {
        self.unwatched == 0 && self.dark == 0
    }

    /// Dummies per unit on the last links, where they look like packets that leave; those on
    /// links between mixes change nothing that the adversary is not told.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "mixes and layers are few")]
    pub fn last_dummies(&self) -> f64 {
        self.mix_dummies * self.mixes() as f64 / self.layers as f64
    }

    /// Mixes of the network.
    pub(super) fn mixes(&self) -> usize {
        match self.route {
            Route::Stratified | Route::Cascade => self.layers * self.width,
            Route::Free => self.width,
        }
    }

    /// The first pool of the last hop.
    #[inline]
    pub(super) fn last_hop(&self) -> usize {
        (self.layers - 1) * self.width
    }

    /// The mix that a pool belongs to, by its first pool.
    #[inline]
    pub(super) fn mix(&self, pool: usize) -> usize {
        match self.route {
            Route::Stratified | Route::Cascade => pool,
            Route::Free => pool % self.width,
        }
    }

    /// Mean number of batches (mean delays) between the targets of one pass: wide enough that
    /// they learn from different traffic, narrow enough that one cool-down serves all.
    pub(super) fn spacing(&self) -> f64 {
        if self.pool.is_some() { 2.0 } else { 4.0 }
    }

    /// The pool after `pool`, which is not of the last hop. In a cascade nothing is drawn.
    #[inline]
    pub(super) fn next(&self, pool: usize, route: &mut Stream) -> usize {
        let place = pool % self.width;
        let next = pool - place + self.width;
        match self.route {
            Route::Stratified => next + route.index(self.width),
            Route::Cascade => next + place,
            Route::Free if self.width == 1 => next,
            Route::Free => {
                let other = route.index(self.width - 1);
                next + other + usize::from(other >= place)
            }
        }
    }

    /// Which pools are corrupt.
    pub(super) fn corrupt_pools(&self, seed: u64, replication: u64) -> Vec<bool> {
        let (width, pools) = (self.width, self.width * self.layers);
        let choose = |entity: u64, count: usize, of: usize| {
            let stream = Stream::new(seed, replication, entity, Purpose::Corrupt);
            choose(stream, count, of)
        };
        match (self.placement, self.route) {
            (Placement::Greedy, _) => (0..pools).map(|pool| pool % width < self.corrupt).collect(),
            (_, Route::Free) => choose(SOURCE, self.corrupt, width).repeat(self.layers),
            (Placement::Random, _) => choose(SOURCE, self.corrupt * self.layers, pools),
            (Placement::Balanced, _) => (0..self.layers as u64)
                .flat_map(|layer| choose(layer, self.corrupt, width))
                .collect(),
        }
    }

    /// For each pool, the first of those that the adversary can't tell from it: itself, if its mix
    /// is watched or corrupt, else the first of its hop that is neither. Cascades are watched as a
    /// whole or not at all.
    pub(super) fn crowds(&self, seed: u64, replication: u64, corrupt: &[bool]) -> Vec<usize> {
        let width = self.width;
        let unwatched = |entity: u64| {
            let stream = Stream::new(seed, replication, entity, Purpose::Watch);
            choose(stream, self.unwatched, width)
        };
        let hops = 0..self.layers as u64;
        let unseen: Vec<bool> = match self.route {
            Route::Stratified => hops
                .flat_map(|hop| {
                    let dark = (self.dark >> hop) & 1 == 1;
                    if dark {
                        vec![true; width]
                    } else {
                        unwatched(hop)
                    }
                })
                .collect(),
            Route::Cascade | Route::Free => unwatched(SOURCE).repeat(self.layers),
        };
        let mut crowds: Vec<usize> = (0..width * self.layers).collect();
        for hop in (0..self.layers).map(|hop| hop * width) {
            let hidden = |pool: &usize| unseen[*pool] && !corrupt[*pool];
            let first = (hop..hop + width).find(hidden);
            for pool in (hop..hop + width).filter(hidden) {
                crowds[pool] = first.unwrap_or(pool);
            }
        }
        crowds
    }

    /// The receivers, and the contacts of senders.
    pub(super) fn contacts(&self) -> Contacts {
        Contacts::new(self.receivers, self.contacts, self.popularity)
    }

    /// Share of packets that links lose.
    pub(super) fn loss(&self) -> f64 {
        self.links.as_ref().map_or(0.0, |links| links.loss)
    }

    /// Mean number of users' packets in a Poisson mix, ρ.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    pub fn occupancy(&self) -> f64 {
        let pool = self.rate / self.width as f64;
        match self.route {
            Route::Stratified | Route::Cascade => pool,
            Route::Free => pool * self.layers as f64,
        }
    }

    /// Replications that measure at least `targets` messages, in equal sections.
    #[must_use]
    pub fn replications(targets: u64) -> u64 {
        let passes = targets.div_ceil(LANES as u64).max(2);
        passes.next_multiple_of(passes.min(SECTIONS))
    }
}

/// Chooses `count` of so many places, each as likely as the other.
fn choose(mut stream: Stream, count: usize, of: usize) -> Vec<bool> {
    let mut places: Vec<usize> = (0..of).collect();
    for place in 0..count {
        let other = place + stream.index(of - place);
        places.swap(place, other);
    }
    let mut chosen = vec![false; of];
    for place in &places[..count] {
        chosen[*place] = true;
    }
    chosen
}
