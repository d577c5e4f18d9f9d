//! A stratified network (or cascades) of threshold, pool and timed mixes, with exact posteriors.
//!
//! A mix that holds `batch + kept` packets sends `batch` of them, chosen at random, at once
//! (`kept = 0`: a threshold mix); a timed one sends all above `kept` once per unit of time, all
//! mixes together, a packet one layer each time. All packets that it holds are alike to the adversary, so as
//! in `poisson` one mean share per target describes them, before and after a batch leaves.
//! Packets go to a uniformly chosen mix of the next layer, in no time.
//!
//! Time is counted in the time from batch to batch. Mixes start with `kept` packets; threshold
//! mixes of the first layer at a uniform point of their cycle, deeper ones just after a batch
//! (so that in a cascade the batches of all layers coincide), timed ones at a uniform phase. The
//! network runs for [`WARM_UP`] units per layer before anything is measured; targets are then
//! chosen as in `poisson`. Deeper layers of wide networks have no closed form to start from:
//! their warm-up is an approximation whose error dies out geometrically.

use super::{
    Pool, Setup,
    posterior::{LANES, Lanes, Posterior},
    section::Section,
};
use crate::{
    metrics::surprise,
    random::{Purpose, SOURCE, Stream},
};

/// Units of time per layer before the window opens.
const WARM_UP: f64 = 8.0;

/// Mean batches between the targets of one pass.
const SPACING: f64 = 2.0;

#[derive(Clone, Copy, Debug)]
struct Packet {
    born: f64,
    target: Option<usize>,
    /// Its own shares, in a corrupt mix; on a link, what it carries.
    shares: Option<Lanes>,
}

#[derive(Debug)]
struct Mix {
    packets: Vec<Packet>,
    corrupt: bool,
    marked: bool,
    mean: Lanes,
    choice: Stream,
    route: Stream,
}

/// One network, for one replication at a time.
#[derive(Debug)]
pub(crate) struct PoolNetwork<'a> {
    setup: &'a Setup,
    pool: Pool,
    mixes: Vec<Mix>,
    posterior: Posterior,
    now: f64,
    /// When timed mixes send next; the end of time for others.
    next_batch: f64,
    chosen: usize,
    observing: bool,
    receiver: Stream,
}

impl<'a> PoolNetwork<'a> {
    pub(crate) fn new(setup: &'a Setup, pool: Pool) -> Self {
        Self {
            setup,
            pool,
            mixes: Vec::new(),
            posterior: Posterior::new(setup.receivers, setup.guesswork),
            now: 0.0,
            next_batch: f64::INFINITY,
            chosen: 0,
            observing: false,
            receiver: Stream::new(0, 0, SOURCE, Purpose::Receiver),
        }
    }

    /// Runs one replication: warm-up, a window for latency and occupancy, then [`LANES`]
    /// targets until each has less than the residual left.
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    pub(crate) fn replicate(&mut self, seed: u64, replication: u64, section: &mut Section) {
        let stream = |purpose| Stream::new(seed, replication, SOURCE, purpose);
        let (mut gap, mut coin) = (stream(Purpose::Gap), stream(Purpose::Target));
        let mut route = stream(Purpose::Route);
        self.receiver = stream(Purpose::Receiver);
        self.start(seed, replication);
        let window = self.setup.layers as f64 * WARM_UP;
        let targets = window + self.setup.window;
        let mut next = gap.exponential() / self.setup.rate;
        while self.chosen < LANES || !self.posterior.finished(self.setup.residual) {
            let measuring = next >= targets;
            // The first target is an extra packet at a fixed time, as in `poisson`.
            let extra = measuring && self.chosen == 0;
            let at = if extra { targets } else { next };
            while self.next_batch <= at {
                self.observe(self.next_batch, window..targets);
                self.next_batch += 1.0;
                // From the last layer to the first: a packet passes one layer.
                for index in (0..self.mixes.len()).rev() {
                    self.send_batch(index, section);
                }
            }
            self.observe(at, window..targets);
            section.events += 1;
            section.packets += 1;
            section.arrivals += u64::from(self.observing);
            let chance = 1.0 / (SPACING * self.setup.rate);
            let chosen = extra || (measuring && self.chosen < LANES && coin.coin(chance));
            let mix = route.index(self.setup.width);
            self.enter(mix, chosen, section);
            if !extra {
                next += gap.exponential() / self.setup.rate;
            }
        }
        section.targets.extend(self.posterior.take());
    }

    fn observe(&mut self, at: f64, window: core::ops::Range<f64>) {
        self.now = at;
        self.observing = window.contains(&at);
    }

    fn enter(&mut self, mix: usize, chosen: bool, section: &mut Section) {
        let mut packet = Packet {
            born: self.now,
            target: None,
            shares: None,
        };
        if chosen {
            let mut certain = [0.0; LANES];
            certain[self.chosen] = 1.0;
            packet.shares = Some(certain);
            packet.target = Some(self.chosen);
            self.chosen += 1;
        }
        self.arrive(mix, packet, section);
    }

    fn start(&mut self, seed: u64, replication: u64) {
        (self.now, self.chosen) = (0.0, 0);
        self.next_batch = match self.pool.batch {
            Some(_) => f64::INFINITY,
            None => Stream::new(seed, replication, SOURCE, Purpose::Start).uniform(),
        };
        self.mixes.clear();
        for index in 0..self.setup.layers * self.setup.width {
            let stream = |purpose| Stream::new(seed, replication, index as u64, purpose);
            let phase = match self.pool.batch {
                Some(batch) if index < self.setup.width => stream(Purpose::Start).index(batch),
                _ => 0,
            };
            let held = self.pool.kept + phase;
            let packet = Packet {
                born: 0.0,
                target: None,
                shares: None,
            };
            self.mixes.push(Mix {
                packets: vec![packet; held],
                corrupt: index % self.setup.width < self.setup.corrupt,
                marked: false,
                mean: [0.0; LANES],
                choice: stream(Purpose::Pool),
                route: stream(Purpose::Route),
            });
        }
    }

    fn arrive(&mut self, index: usize, mut packet: Packet, section: &mut Section) {
        let mix = &mut self.mixes[index];
        let held = mix.packets.len();
        if self.observing {
            section.saw(u32::try_from(held).expect("packets fit in memory"));
        }
        if !mix.corrupt && (mix.marked || packet.shares.is_some()) {
            let q = packet.shares.take().unwrap_or([0.0; LANES]);
            #[expect(clippy::cast_precision_loss, reason = "packets fit in memory")]
            let weight = 1.0 / (held + 1) as f64;
            for (mean, q) in mix.mean.iter_mut().zip(q) {
                *mean += (q - *mean) * weight;
            }
            mix.marked = true;
        }
        mix.packets.push(packet);
        let held = mix.packets.len();
        if self
            .pool
            .batch
            .is_some_and(|batch| held == batch + self.pool.kept)
        {
            self.send_batch(index, section);
        }
    }

    /// All but those kept leave.
    fn send_batch(&mut self, index: usize, section: &mut Section) {
        let (width, kept) = (self.setup.width, self.pool.kept);
        let mix = &mut self.mixes[index];
        if mix.packets.len() <= kept {
            return;
        }
        // Those that stay are drawn to the front.
        for place in 0..kept {
            let other = place + mix.choice.index(mix.packets.len() - place);
            mix.packets.swap(place, other);
        }
        let leaving = mix.packets.split_off(kept);
        let shared = mix.marked.then_some(mix.mean);
        if kept == 0 {
            mix.marked = false;
            mix.mean = [0.0; LANES];
        }
        let corrupt = mix.corrupt;
        let spent = shared.map(|mean| mean.map(surprise));
        for packet in leaving {
            section.events += 1;
            let shares = if corrupt { packet.shares } else { shared };
            if index >= (self.setup.layers - 1) * width {
                if self.observing {
                    section.exits += 1;
                    section.latency_units(self.now - packet.born);
                }
                if let Some(shares) = shares {
                    let spent = match spent {
                        Some(spent) if !corrupt => spent,
                        _ => shares.map(surprise),
                    };
                    self.posterior
                        .leave(&shares, &spent, packet.target, &mut self.receiver);
                }
            } else {
                let next = self.setup.next(index, &mut self.mixes[index].route);
                self.arrive(next, Packet { shares, ..packet }, section);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{closed, flow::study, stats::mean};

    /// SIMULATOR 3.6, exact but for the residual: batches do not depend on chance.
    #[test]
    fn cascades_of_threshold_mixes_and_single_pools_meet_their_closed_forms() {
        for (layers, batch, kept, expected) in [
            (1, 64, 0, 6.0),
            (3, 64, 0, 6.0),
            (1, 100, 10, closed::threshold_pool_bits(100.0, 10.0)),
            (1, 20, 80, closed::threshold_pool_bits(20.0, 80.0)),
        ] {
            let setup = Setup {
                layers,
                rate: f64::from(batch),
                pool: Some(Pool {
                    batch: Some(usize::try_from(batch).unwrap()),
                    kept,
                }),
                ..Setup::default()
            };
            for section in study(&setup, 3, 2, &|_| ()) {
                for target in section.targets {
                    assert!((target.entropy - expected).abs() < 1e-6, "{target:?}");
                }
            }
        }
    }

    #[test]
    fn a_corrupt_pool_hides_nothing() {
        let setup = Setup {
            corrupt: 1,
            rate: 10.0,
            pool: Some(Pool {
                batch: Some(10),
                kept: 5,
            }),
            ..Setup::default()
        };
        for section in study(&setup, 4, 2, &|_| ()) {
            assert!(mean(&section.column(|target| target.entropy)).abs() < 1e-12);
        }
    }
}
