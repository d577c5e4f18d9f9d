//! Any network, packet by packet, with exact posteriors: every strategy, route, link and
//! adversary of [`Setup`]. Networks of Poisson mixes with nothing else run in `poisson`,
//! several times as fast.
//!
//! A packet *enters* from a user, crosses a link, perhaps waits in a *line* for the mix to
//! process it, is *admitted* to the mix's pool, *departs*, crosses the next link, and in the end
//! *leaves*. Poisson mixes hold each packet an exponential time; the others send a batch when
//! full, or once per unit of time, all together and from the last hop to the first, so that a
//! packet passes one mix each time.
//!
//! **Why the posterior is exact.** The adversary follows every packet along links and lines,
//! where bits and order do not change. In a pool all packets are alike to it, whatever the
//! strategy, so one mean share per target describes them (see `poisson`). It is told more than
//! it would see: when a mix adds a loop to its pool (not which packet leaves as that loop), and
//! how many hops a packet has behind it. Told less, it would know less: anonymity with loops or
//! free routes is a lower bound. Packets that links lose, lines refuse or corrupt mixes drop
//! take their shares out of the world (`posterior`). The adversary's own packets are known to
//! it everywhere: they fill batches and lines and hide nothing.
//!
//! | quantity | unit                                        |
//! |----------|---------------------------------------------|
//! | time     | ticks of `agenda`                           |
//! | packet   | 32 bytes, 24 more while it waits; shares (64 bytes) only where marked |
//!
//! **Start.** Poisson mixes start empty and run for as long as the last of the earlier packets
//! would need (probability of a longer way below 10⁻⁸). Batching ones start with the packets
//! that stay, threshold mixes of the first layer at a uniform point of their cycle, deeper ones
//! just after a batch (so that in a cascade the batches of all layers coincide), timed ones at a
//! uniform phase; they too run until the packets of the start are gone ([`Setup::warm_up`]), of
//! which nobody knows when they were sent. They have no closed form to start from: an
//! approximation whose error dies out geometrically.

use super::{
    agenda::{Agenda, ORIGIN, Waiting, after, ticks, units},
    pool::Mix,
    posterior::{LANES, Lanes, Posterior},
    section::Section,
    setup::{Links, Pool, Setup},
    source::{Clock, Source},
};
use crate::{
    metrics::surprise,
    random::{Purpose, SOURCE, Stream},
};

/// What waits in the agenda, in place of the target that a packet of the fast case is.
const DEPART: Option<usize> = None;
const ARRIVE: Option<usize> = Some(0);
const ADMIT: Option<usize> = Some(1);

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    /// A user's that was there at the start: how long it has been on its way is not known.
    Early,
    /// Loop of a mix.
    Loop,
    /// The adversary's.
    Known,
}

#[derive(Debug)]
struct Packet {
    born: u64,
    /// Its own shares on links, in lines and in corrupt mixes; `None` stands for all zero.
    shares: Option<Box<Lanes>>,
    target: Option<u8>,
    kind: Kind,
}

/// One network, for one replication at a time.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    setup: &'a Setup,
    links: Links,
    mixes: Vec<Mix>,
    packets: Vec<Packet>,
    vacant: Vec<u32>,
    agenda: Agenda,
    posterior: Posterior,
    route: Stream,
    link: Stream,
    corrupt: Stream,
    receiver: Stream,
    now: u64,
    chosen: usize,
    /// Beginning and end of the window.
    window: (u64, u64),
}

impl<'a> Network<'a> {
    #[expect(clippy::cast_precision_loss, reason = "at most 32 layers")]
    pub(crate) fn new(setup: &'a Setup) -> Self {
        let stream = |purpose| Stream::new(0, 0, SOURCE, purpose);
        Self {
            setup,
            links: setup.links.clone().unwrap_or_default(),
            mixes: Vec::new(),
            packets: Vec::new(),
            vacant: Vec::new(),
            agenda: Agenda::new(setup.rate * setup.layers as f64),
            posterior: Posterior::new(setup.contacts(), setup.guesswork),
            route: stream(Purpose::Route),
            link: stream(Purpose::Link),
            corrupt: stream(Purpose::Corrupt),
            receiver: stream(Purpose::Receiver),
            now: ORIGIN,
            chosen: 0,
            window: (ORIGIN, ORIGIN),
        }
    }

    /// Runs one replication: warm-up, a window for latency and occupancy, then [`LANES`]
    /// targets until each has less than the residual left.
    pub(crate) fn replicate(&mut self, seed: u64, replication: u64, section: &mut Section) {
        let stream = |purpose| Stream::new(seed, replication, SOURCE, purpose);
        let opens = after(ORIGIN, self.setup.warm_up());
        self.window = (opens, after(opens, self.setup.window));
        let mut source = Source::new(self.setup, seed, replication, self.window.1);
        let mut coin = stream(Purpose::Target);
        let chance = 1.0 / (self.setup.spacing() * self.setup.rate);
        let mixes = self.setup.mixes();
        #[expect(clippy::cast_precision_loss, reason = "mixes are few")]
        let looping = self.setup.loops * mixes as f64;
        let mut loops = Clock::new(looping, stream(Purpose::Loop));
        let mut flood = Clock::new(self.setup.flood, stream(Purpose::Flood));
        let mut batch = self.start(seed, replication);
        self.route = stream(Purpose::Route);
        self.link = stream(Purpose::Link);
        self.corrupt = stream(Purpose::Corrupt);
        self.receiver = stream(Purpose::Receiver);
        self.posterior.renew(&mut stream(Purpose::Contact));
        while self.chosen < LANES || !self.posterior.finished(self.setup.residual) {
            let first = if self.chosen == 0 {
                source.first_target
            } else {
                u64::MAX
            };
            let entering = source.next.min(first);
            let inside = self.agenda.next_at();
            let injected = loops.next.min(flood.next);
            self.now = entering.min(inside).min(injected).min(batch);
            section.events += 1;
            if batch == self.now {
                batch = after(batch, 1.0);
                for index in (0..self.mixes.len()).rev() {
                    self.send_batch(index, section);
                }
            } else if inside == self.now {
                self.happen(section);
            } else if entering == self.now {
                let chosen = first == self.now
                    || (self.now > self.window.1 && self.chosen < LANES && coin.coin(chance));
                if first != self.now {
                    source.advance();
                }
                section.packets += 1;
                section.arrivals += u64::from(self.observing());
                self.enter(Kind::User, chosen, section);
            } else if loops.next == self.now {
                let index = loops.stream.index(mixes);
                loops.advance();
                let id = self.packet(Kind::Loop, false);
                self.admit(id, index, section);
            } else {
                flood.advance();
                self.enter(Kind::Known, false, section);
            }
        }
        section.measure(self.posterior.take());
    }

    /// Fills the mixes; returns when timed ones send for the first time, in the end of time for
    /// others.
    fn start(&mut self, seed: u64, replication: u64) -> u64 {
        self.agenda.clear();
        self.packets.clear();
        self.vacant.clear();
        self.mixes.clear();
        (self.now, self.chosen) = (ORIGIN, 0);
        let corrupt = self.setup.corrupt_pools(seed, replication);
        for (index, corrupt) in corrupt.into_iter().enumerate() {
            let stream = |purpose| Stream::new(seed, replication, index as u64, purpose);
            let mut mix = Mix::new(corrupt, stream);
            if let Some(pool) = self.setup.pool {
                let phase = match pool.batch {
                    Some(batch) if index < self.setup.width => stream(Purpose::Start).index(batch),
                    _ => 0,
                };
                for _ in 0..pool.kept + phase {
                    let id = self.packet(Kind::Early, false);
                    mix.batch.push(id);
                    mix.held += 1;
                    if !corrupt {
                        mix.mean.join(None);
                    }
                }
            }
            self.mixes.push(mix);
        }
        match self.setup.pool {
            Some(Pool { batch: None, .. }) => {
                let phase = Stream::new(seed, replication, SOURCE, Purpose::Start).uniform();
                after(ORIGIN, phase)
            }
            _ => u64::MAX,
        }
    }

    fn observing(&self) -> bool {
        (self.window.0..self.window.1).contains(&self.now)
    }

    /// A new packet; the next target, if it is `chosen`.
    fn packet(&mut self, kind: Kind, chosen: bool) -> u32 {
        let mut packet = Packet {
            born: self.now,
            shares: None,
            target: None,
            kind,
        };
        if chosen {
            let mut certain = [0.0; LANES];
            certain[self.chosen] = 1.0;
            packet.shares = Some(Box::new(certain));
            packet.target = u8::try_from(self.chosen).ok();
            self.chosen += 1;
        }
        if let Some(id) = self.vacant.pop() {
            self.packets[id as usize] = packet;
            id
        } else {
            self.packets.push(packet);
            u32::try_from(self.packets.len() - 1).expect("below 2^32 packets")
        }
    }

    /// A user or the adversary sends a packet to the first hop.
    fn enter(&mut self, kind: Kind, chosen: bool, section: &mut Section) {
        let id = self.packet(kind, chosen);
        let index = self.route.index(self.setup.width);
        let region = self.link.index(self.links.regions.len());
        self.send(id, region, index, 0, section);
    }

    fn region(&self, pool: usize) -> usize {
        pool % self.setup.width % self.links.regions.len()
    }

    /// The time of a link from `from` to `to`; `None` if it loses the packet.
    fn cross(&mut self, from: usize, to: usize) -> Option<u64> {
        let Links {
            regions,
            jitter,
            loss,
        } = &self.links;
        if *loss > 0.0 && self.link.coin(*loss) {
            return None;
        }
        let mut delay = regions[from][to];
        if *jitter > 0.0 {
            delay += jitter * self.link.uniform();
        }
        Some(ticks(delay))
    }

    /// A packet goes to a pool from a region, after `hold`.
    fn send(&mut self, id: u32, from: usize, index: usize, hold: u64, section: &mut Section) {
        let Some(delay) = self.cross(from, self.region(index)) else {
            return self.lose(id);
        };
        let away = hold.saturating_add(delay);
        if away == 0 {
            self.arrive(id, index, section);
        } else {
            self.wait(ARRIVE, id, index, self.now.saturating_add(away));
        }
    }

    fn wait(&mut self, what: Option<usize>, id: u32, index: usize, until: u64) {
        self.agenda
            .push(Waiting::new(until, self.now, index, what, id));
    }

    /// What waited for this moment.
    fn happen(&mut self, section: &mut Section) {
        let Some(waiting) = self.agenda.pop() else {
            return;
        };
        let (id, index) = (waiting.slot, waiting.mix());
        match waiting.target() {
            ARRIVE => self.arrive(id, index, section),
            ADMIT => self.admit(id, index, section),
            _ => self.depart(id, index, section),
        }
    }

    /// A packet comes to a mix: it may have to wait in line.
    fn arrive(&mut self, id: u32, index: usize, section: &mut Section) {
        let Some(capacity) = self.setup.capacity else {
            return self.admit(id, index, section);
        };
        // With free routes, a mix has one line for all hops.
        let machine = &mut self.mixes[self.setup.mix(index)];
        let free = machine.free_at.max(self.now);
        #[expect(clippy::cast_precision_loss, reason = "queues are short")]
        let most = capacity.queue as f64 * capacity.service;
        if units(free - self.now) > most {
            return self.lose(id);
        }
        let done = after(free, capacity.service);
        machine.free_at = done;
        self.wait(ADMIT, id, index, done);
    }

    fn admit(&mut self, id: u32, index: usize, section: &mut Section) {
        let observing = self.observing();
        let packet = &mut self.packets[id as usize];
        let machine = &mut self.mixes[self.setup.mix(index)];
        if observing && packet.kind == Kind::User {
            section.saw(machine.held);
        }
        machine.held += 1;
        let mix = &mut self.mixes[index];
        if packet.kind != Kind::Known && !mix.corrupt {
            mix.mean.join(packet.shares.take().as_deref());
        }
        let Some(pool) = self.setup.pool else {
            let until = after(self.now, mix.delay.exponential());
            return self.wait(DEPART, id, index, until);
        };
        mix.batch.push(id);
        if pool
            .batch
            .is_some_and(|batch| mix.batch.len() == batch + pool.kept)
        {
            self.send_batch(index, section);
        }
    }

    /// All but those kept leave a batching mix.
    fn send_batch(&mut self, index: usize, section: &mut Section) {
        let Some(Pool { kept, fraction, .. }) = self.setup.pool else {
            return;
        };
        for id in self.mixes[index].leaving(kept, fraction) {
            section.events += 1;
            self.depart(id, index, section);
        }
    }

    fn depart(&mut self, id: u32, index: usize, section: &mut Section) {
        self.mixes[self.setup.mix(index)].held -= 1;
        let mix = &mut self.mixes[index];
        let packet = &mut self.packets[id as usize];
        let known = packet.kind == Kind::Known;
        let mut spent = None;
        let mut hold = 0;
        if mix.corrupt {
            hold = ticks(self.setup.hold);
            if self.setup.drop > 0.0 && !known && self.corrupt.coin(self.setup.drop) {
                return self.lose(id);
            }
        } else if !known {
            let shares = mix.mean.part(self.setup.sabotage);
            packet.shares = shares.map(|(shares, surprise)| {
                spent = Some(surprise);
                Box::new(shares)
            });
        }
        let from = self.region(index);
        if index >= (self.setup.layers - 1) * self.setup.width {
            self.leave(id, from, hold, spent, section);
        } else {
            let next = self.setup.next(index, &mut self.mixes[index].route);
            self.send(id, from, next, hold, section);
        }
    }

    /// A packet leaves the network; `spent` is what its shares add to the entropy.
    fn leave(
        &mut self,
        id: u32,
        from: usize,
        hold: u64,
        spent: Option<Lanes>,
        section: &mut Section,
    ) {
        let to = self.link.index(self.links.regions.len());
        let Some(delay) = self.cross(from, to) else {
            return self.lose(id);
        };
        let observing = self.observing();
        let packet = &mut self.packets[id as usize];
        if observing && packet.kind == Kind::User {
            section.exits += 1;
            let away = hold.saturating_add(delay);
            section.latency_units(units((self.now - packet.born).saturating_add(away)));
        }
        if let Some(shares) = packet.shares.take() {
            let spent = spent.unwrap_or_else(|| shares.map(surprise));
            let target = packet.target.map(usize::from);
            self.posterior
                .leave(&shares, &spent, target, &mut self.receiver);
        }
        self.vacant.push(id);
    }

    fn lose(&mut self, id: u32) {
        let packet = &mut self.packets[id as usize];
        let target = packet.target.map(usize::from);
        self.posterior.lose(packet.shares.take().as_deref(), target);
        self.vacant.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        closed,
        flow::{Capacity, Route, study},
        stats::mean,
    };

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
                    ..Pool::default()
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
                ..Pool::default()
            }),
            ..Setup::default()
        };
        for section in study(&setup, 4, 2, &|_| ()) {
            assert!(mean(&section.column(|target| target.entropy)).abs() < 1e-12);
        }
    }

    /// Five come, and five of 25 leave: most of them were there at the start.
    #[test]
    fn packets_of_the_start_have_no_latency() {
        let setup = Setup {
            rate: 5.0,
            pool: Some(Pool {
                kept: 20,
                ..Pool::default()
            }),
            ..Setup::default()
        };
        let mut network = Network::new(&setup);
        let mut section = Section::default();
        network.start(1, 0);
        network.window = (ORIGIN, u64::MAX);
        for _ in 0..5 {
            network.now += ticks(0.1);
            network.enter(Kind::User, false, &mut section);
        }
        network.send_batch(0, &mut section);
        assert_eq!(section.events, 5);
        assert!(section.exits < 5 && section.exits == section.latency.len());
        assert!(section.latency_mean() < 0.5 || section.exits == 0);
    }

    /// What has left, what is lost and what is inside sum to one for every target, whatever
    /// links, lines, loops and the adversary do.
    #[test]
    fn no_mass_is_made_or_lost_unseen() {
        let everything = Setup {
            layers: 3,
            width: 2,
            corrupt: 1,
            rate: 20.0,
            window: 1.0,
            links: Some(Links {
                regions: vec![vec![0.0, 0.2], vec![0.1, 0.0]],
                jitter: 0.1,
                loss: 0.1,
            }),
            capacity: Some(Capacity {
                service: 0.05,
                queue: 3,
            }),
            loops: 2.0,
            flood: 5.0,
            drop: 0.2,
            hold: 0.3,
            ..Setup::default()
        };
        for (route, pool) in [
            (Route::Stratified, None),
            (Route::Free, None),
            (
                Route::Cascade,
                Some(Pool {
                    kept: 2,
                    fraction: 0.5,
                    ..Pool::default()
                }),
            ),
        ] {
            let setup = Setup {
                route,
                pool,
                ..everything.clone()
            };
            let mut network = Network::new(&setup);
            let mut section = Section::default();
            network.start(7, 0);
            for step in 0..4000_u64 {
                network.now += ticks(0.05);
                network.enter(
                    Kind::User,
                    step >= 1000 && network.chosen < LANES,
                    &mut section,
                );
                while network.agenda.next_at() <= network.now {
                    network.happen(&mut section);
                }
                if step % 20 == 0 && pool.is_some() {
                    for index in (0..network.mixes.len()).rev() {
                        network.send_batch(index, &mut section);
                    }
                }
                let mut mass = network.posterior.total();
                let own = network
                    .packets
                    .iter()
                    .filter_map(|packet| packet.shares.as_deref());
                for shares in own
                    .copied()
                    .chain(network.mixes.iter().map(|mix| mix.mean.mass()))
                {
                    for (sum, share) in mass.iter_mut().zip(shares) {
                        *sum += share;
                    }
                }
                for (lane, mass) in mass.into_iter().enumerate() {
                    let expected = if lane < network.chosen { 1.0 } else { 0.0 };
                    assert!((mass - expected).abs() < 1e-9, "lane {lane}: {mass}");
                }
            }
            assert_eq!(network.chosen, LANES);
            assert!(network.posterior.finished(1e-6));
        }
    }
}
