//! A stratified network (or cascades) of Poisson mixes, packet by packet, with exact posteriors.
//!
//! Every mix holds each packet for an exponential time of mean 1 (the unit of time) and passes
//! it to a uniformly chosen mix of the next layer. Since such a time has no memory, each of the
//! `n` packets that a mix holds is equally likely to be the next to leave, whatever was seen
//! before; so the adversary who watches every link assigns the same share to each. A mix
//! therefore keeps one number per target, the *mean share* of the packets it holds:
//!
//! - arrival of a packet with share `q`: `mean += (q − mean) / (n + 1)`, `n += 1`
//! - departure: the packet takes `mean`; `n −= 1`; the mean of the rest is unchanged
//!
//! (Forward mass tracking: Piotrowska et al. 2017, 4.1.3; with the sum `M` instead of the mean a
//! departure would cost a multiplication per target.) A corrupt mix tells the adversary which
//! packet is which: there a packet keeps its own share.
//!
//! **Warm-up** is drawn from the closed form: each mix starts with Poisson(ρ) packets, whose
//! remaining time is exponential (no memory) and whose age in layer `l` (from 1) is
//! Erlang(l) (time reversal). **Choice of targets** has no bias: the first target is an extra
//! packet put into the stationary network at a fixed time, which by Slivnyak and Mecke is how a
//! typical packet sees it; after that each arrival is a target by a coin of its own, until
//! every lane has one. Looking back from the k-th target one finds k−1 targets at exponential
//! distances and before them a stationary network: what any member of a coin-thinned Poisson
//! stream finds. No lane is used twice in a pass, so none is ever missing.
//!
//! Links with a constant delay shift each layer's clock and change no posterior: the caller
//! adds them to the latency. Deliberately not here: other delay laws, for which this update is
//! only the marginal one.

use super::{
    Setup,
    agenda::{Agenda, ORIGIN, Waiting, after, ticks, units},
    posterior::{LANES, Lanes, Posterior},
    section::Section,
};
use crate::{
    metrics::surprise,
    random::{Purpose, SOURCE, Stream},
};

/// Packets without a share of their own.
const NO_SLOT: u32 = u32::MAX;

/// Ways to measure wrongly, for the positive control of `validate`: a check that cannot fail
/// proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Measure rightly.
    #[default]
    None,
    /// Read posteriors while 3 % of the mass is still in the network (Piotrowska's simulator).
    EarlyReadout,
    /// Take as targets the first arrivals after fixed times (MiXiM): they see small pools.
    FirstAfterFixedTime,
    /// Give each departure a quarter of its share, the rest to those that stay: no mass is lost,
    /// but posteriors are wrong. (A half would nearly keep log-loss less entropy at 0.)
    QuarterShare,
}

#[derive(Debug)]
struct Mix {
    held: u32,
    corrupt: bool,
    /// Whether `mean` is not all zero.
    marked: bool,
    /// Whether `spent` belongs to `mean`.
    fresh: bool,
    /// Mean share of the packets held.
    mean: Lanes,
    /// [`surprise`] of `mean`, kept between arrivals: every packet that leaves in between
    /// takes the same share.
    spent: Lanes,
    delay: Stream,
    route: Stream,
}

/// The shares that a packet carries along a link; `None` stands for all zero.
type Shares = Option<Lanes>;

/// One network, for one replication at a time.
#[derive(Debug)]
pub(crate) struct PoissonNetwork<'a> {
    setup: &'a Setup,
    mixes: Vec<Mix>,
    agenda: Agenda,
    /// Shares of packets held by corrupt mixes.
    arena: Vec<Lanes>,
    vacant: Vec<u32>,
    posterior: Posterior,
    gap: Stream,
    target: Stream,
    route: Stream,
    receiver: Stream,
    now: u64,
    next_arrival: u64,
    chosen: usize,
    observing: bool,
    last_exit: u64,
    last_gap: f64,
}

impl<'a> PoissonNetwork<'a> {
    #[expect(clippy::cast_precision_loss, reason = "at most 32 layers")]
    pub(crate) fn new(setup: &'a Setup) -> Self {
        let source = |purpose| Stream::new(0, 0, SOURCE, purpose);
        Self {
            setup,
            mixes: Vec::new(),
            agenda: Agenda::new(setup.rate * setup.layers as f64),
            arena: Vec::new(),
            vacant: Vec::new(),
            posterior: Posterior::new(setup.contacts(), setup.guesswork),
            gap: source(Purpose::Gap),
            target: source(Purpose::Target),
            route: source(Purpose::Route),
            receiver: source(Purpose::Receiver),
            now: ORIGIN,
            next_arrival: ORIGIN,
            chosen: 0,
            observing: false,
            last_exit: 0,
            last_gap: f64::NAN,
        }
    }

    /// Runs one replication: start from the closed form, a stationary window for latency and
    /// occupancy, then [`LANES`] targets until each has less than the residual left.
    pub(crate) fn replicate(&mut self, seed: u64, replication: u64, section: &mut Section) {
        self.start(seed, replication);
        self.observing = true;
        self.run_until(ORIGIN + ticks(self.setup.window), section);
        self.observing = false;
        let residual = match self.setup.sabotage {
            Sabotage::EarlyReadout => 0.03,
            Sabotage::None | Sabotage::FirstAfterFixedTime | Sabotage::QuarterShare => {
                self.setup.residual
            }
        };
        if self.setup.sabotage != Sabotage::FirstAfterFixedTime {
            self.enter(self.now, true);
            section.packets += 1;
        }
        while self.chosen < LANES || !self.posterior.finished(residual) {
            for _ in 0..16 {
                self.step(section);
            }
        }
        section.measure(self.posterior.take());
    }

    fn start(&mut self, seed: u64, replication: u64) {
        let stream = |entity, purpose| Stream::new(seed, replication, entity, purpose);
        let width = self.setup.width;
        self.agenda.clear();
        self.arena.clear();
        self.vacant.clear();
        self.mixes.clear();
        (self.now, self.chosen) = (ORIGIN, 0);
        (self.last_exit, self.last_gap) = (0, f64::NAN);
        for index in 0..self.setup.layers * width {
            let entity = index as u64;
            let mut start = stream(entity, Purpose::Start);
            let held = start.poisson(self.setup.occupancy());
            for _ in 0..held {
                let at = ORIGIN + ticks(start.exponential());
                let age: f64 = (0..=index / width).map(|_| start.exponential()).sum();
                let born = ORIGIN - ticks(age);
                self.agenda
                    .push(Waiting::new(at, born, index, None, NO_SLOT));
            }
            self.mixes.push(Mix {
                held: u32::try_from(held).expect("packets fit in memory"),
                corrupt: index % width < self.setup.corrupt,
                marked: false,
                fresh: false,
                mean: [0.0; LANES],
                spent: [0.0; LANES],
                delay: stream(entity, Purpose::Delay),
                route: stream(entity, Purpose::Route),
            });
        }
        self.gap = stream(SOURCE, Purpose::Gap);
        self.target = stream(SOURCE, Purpose::Target);
        self.route = stream(SOURCE, Purpose::Route);
        self.receiver = stream(SOURCE, Purpose::Receiver);
        self.posterior.renew(&mut stream(SOURCE, Purpose::Contact));
        self.next_arrival = self.arrival_after(ORIGIN);
    }

    fn arrival_after(&mut self, at: u64) -> u64 {
        after(at, self.gap.exponential() / self.setup.rate)
    }

    fn run_until(&mut self, end: u64, section: &mut Section) {
        while self.next_arrival.min(self.agenda.next_at()) < end {
            self.step(section);
        }
        self.now = end;
    }

    /// One arrival from the source, or one departure from a mix.
    #[inline]
    fn step(&mut self, section: &mut Section) {
        section.events += 1;
        if self.next_arrival <= self.agenda.next_at() {
            self.now = self.next_arrival;
            self.next_arrival = self.arrival_after(self.now);
            let chosen = !self.observing && self.chosen < LANES && self.chooses();
            if self.observing {
                section.arrivals += 1;
            }
            section.packets += 1;
            let mix = self.enter(self.now, chosen);
            if self.observing {
                section.saw(self.mixes[mix].held - 1);
            }
        } else if let Some(packet) = self.agenda.pop() {
            self.now = packet.at;
            self.depart(packet, section);
        }
    }

    /// Whether the source's packet of this moment becomes a target.
    fn chooses(&mut self) -> bool {
        if self.setup.sabotage == Sabotage::FirstAfterFixedTime {
            #[expect(clippy::cast_precision_loss, reason = "few lanes")]
            let due = self.setup.window + 12.0 * self.chosen as f64;
            return self.now >= ORIGIN + ticks(due);
        }
        self.target
            .coin(1.0 / (self.setup.spacing() * self.setup.rate))
    }

    /// A new packet goes to a mix of the first layer, whose index is returned.
    #[inline]
    fn enter(&mut self, born: u64, chosen: bool) -> usize {
        let mix = self.route.index(self.setup.width);
        let mut shares = None;
        let mut target = None;
        if chosen {
            let mut certain = [0.0; LANES];
            certain[self.chosen] = 1.0;
            shares = Some(certain);
            target = Some(self.chosen);
            self.chosen += 1;
        }
        self.arrive(mix, born, target, shares);
        mix
    }

    #[inline]
    fn arrive(&mut self, index: usize, born: u64, target: Option<usize>, shares: Shares) {
        let mix = &mut self.mixes[index];
        let at = self.now + ticks(mix.delay.exponential());
        mix.held += 1;
        let mut slot = NO_SLOT;
        if mix.corrupt {
            if let Some(shares) = shares {
                slot = self.vacant.pop().unwrap_or_else(|| {
                    self.arena.push([0.0; LANES]);
                    u32::try_from(self.arena.len() - 1).expect("below 2^32 marked packets")
                });
                self.arena[slot as usize] = shares;
            }
        } else if mix.marked || shares.is_some() {
            let q = shares.unwrap_or([0.0; LANES]);
            let weight = 1.0 / f64::from(mix.held);
            for (mean, q) in mix.mean.iter_mut().zip(q) {
                *mean += (q - *mean) * weight;
            }
            mix.marked = true;
            mix.fresh = false;
        }
        self.agenda
            .push(Waiting::new(at, born, index, target, slot));
    }

    #[inline]
    fn depart(&mut self, packet: Waiting, section: &mut Section) {
        let index = packet.mix();
        let layer_end = self.setup.layers * self.setup.width - self.setup.width;
        let mix = &mut self.mixes[index];
        mix.held -= 1;
        let shares = if mix.corrupt {
            (packet.slot != NO_SLOT).then(|| {
                self.vacant.push(packet.slot);
                self.arena[packet.slot as usize]
            })
        } else {
            let mut shares = mix.marked.then_some(mix.mean);
            if let (Sabotage::QuarterShare, Some(shares)) = (self.setup.sabotage, &mut shares)
                && mix.held > 0
            {
                for (mean, share) in mix.mean.iter_mut().zip(shares) {
                    *share *= 0.25;
                    *mean += (*mean - *share) / f64::from(mix.held);
                }
            }
            shares
        };
        if index >= layer_end {
            self.leave(index, packet, shares, section);
        } else {
            let next = self.setup.next(index, &mut mix.route);
            self.arrive(next, packet.born, packet.target(), shares);
            if self.observing {
                section.saw(self.mixes[next].held - 1);
            }
        }
        let mix = &mut self.mixes[index];
        if mix.held == 0 {
            // Nothing is left that could hold a share.
            mix.marked = false;
            mix.mean = [0.0; LANES];
        }
    }

    /// A packet leaves the network.
    #[inline]
    fn leave(&mut self, index: usize, packet: Waiting, shares: Shares, section: &mut Section) {
        if self.observing {
            section.exits += 1;
            section.latency_units(units(self.now - packet.born));
            let gap = units(self.now - self.last_exit);
            if self.last_exit != 0 {
                section.gap(gap, self.last_gap);
                self.last_gap = gap;
            }
            self.last_exit = self.now;
        }
        if let Some(shares) = shares {
            let mix = &mut self.mixes[index];
            let spent = if mix.corrupt || self.setup.sabotage == Sabotage::QuarterShare {
                shares.map(surprise)
            } else {
                if !mix.fresh {
                    mix.spent = mix.mean.map(surprise);
                    mix.fresh = true;
                }
                mix.spent
            };
            self.posterior
                .leave(&shares, &spent, packet.target(), &mut self.receiver);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has left and what is still held sum to one for every target, at every moment.
    #[test]
    fn no_mass_is_made_or_lost() {
        for corrupt in [0, 1] {
            let setup = Setup {
                layers: 3,
                width: 2,
                corrupt,
                rate: 20.0,
                window: 1.0,
                ..Setup::default()
            };
            let mut network = PoissonNetwork::new(&setup);
            let mut section = Section::default();
            network.start(7, 0);
            network.enter(network.now, true);
            for _ in 0..2000 {
                network.step(&mut section);
                let mut mass = network.posterior.total();
                for mix in &network.mixes {
                    for (sum, mean) in mass.iter_mut().zip(mix.mean) {
                        *sum += mean * f64::from(mix.held);
                    }
                }
                for (slot, shares) in network.arena.iter().enumerate() {
                    if !network.vacant.contains(&u32::try_from(slot).unwrap()) {
                        for (sum, share) in mass.iter_mut().zip(shares) {
                            *sum += share;
                        }
                    }
                }
                for (lane, mass) in mass.into_iter().enumerate() {
                    let expected = if lane < network.chosen { 1.0 } else { 0.0 };
                    assert!((mass - expected).abs() < 1e-12, "lane {lane}: {mass}");
                }
            }
            assert_eq!(network.chosen, LANES);
        }
    }
}
