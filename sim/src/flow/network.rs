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
//! **Dummies on one link.** A user's ends at its first mix. The adversary sees it come, as likely a
//! dummy as any other packet, and is told when one of those a mix was sent has ended, after an
//! exponential wait of its own, never which: the mean share of the pool, with those that wait so,
//! leaves for a sink. (Each packet is a dummy by a coin of its own, which may as well be thrown when
//! it leaves the pool; a message is none, so what the sink has taken is divided out.) A mix's on a
//! last link joins the pool and leaves like a loop. Which packets between mixes were dummies it is
//! told once they have ended: nothing would be exact if it had to keep in mind how many are real.
//!
//! **Mixes that are not watched.** Of those of one layer it is told when a packet comes to one of
//! them or goes, not to or from which: they are one pool, a *crowd* ([`Setup::crowds`]).
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
    /// Loop of a mix, or its dummy on a last link.
    Loop,
    /// A user's dummy: it ends at its first mix, and waits there as if it were a packet.
    Dummy,
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
    /// Whose mean share a pool has ([`Setup::crowds`]).
    crowds: Vec<usize>,
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
            crowds: Vec::new(),
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
        let mut ending = Clock::new(self.setup.user_dummies, stream(Purpose::UserDummy));
        let mut padding = Clock::new(self.setup.last_dummies(), stream(Purpose::MixDummy));
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
            let injected = u64::min(loops.next.min(flood.next), ending.next.min(padding.next));
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
                self.inject(loops.place(mixes), section);
            } else if padding.next == self.now {
                let place = padding.place(self.setup.width);
                self.inject(self.setup.last_hop() + place, section);
            } else if ending.next == self.now {
                ending.advance();
                self.enter(Kind::Dummy, false, section);
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
        self.crowds = self.setup.crowds(seed, replication, &corrupt);
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

    /// A mix puts a packet of its own into its pool.
    fn inject(&mut self, index: usize, section: &mut Section) {
        let id = self.packet(Kind::Loop, false);
        self.admit(id, index, section);
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
        let corrupt = self.mixes[index].corrupt;
        if packet.kind == Kind::Dummy {
            if corrupt {
                return self.lose(id);
            }
        } else {
            let machine = &mut self.mixes[self.setup.mix(index)];
            if observing && packet.kind == Kind::User {
                section.saw(machine.held);
            }
            machine.held += 1;
        }
        if packet.kind != Kind::Known && !corrupt {
            let crowd = &mut self.mixes[self.crowds[index]];
            crowd.mean.join(packet.shares.take().as_deref());
        }
        let mix = &mut self.mixes[index];
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
        let packet = &mut self.packets[id as usize];
        let (known, dummy) = (packet.kind == Kind::Known, packet.kind == Kind::Dummy);
        self.mixes[self.setup.mix(index)].held -= u32::from(!dummy);
        let corrupt = self.mixes[index].corrupt;
        let mut spent = None;
        let mut hold = 0;
        if corrupt {
            hold = ticks(self.setup.hold);
            if self.setup.drop > 0.0 && !known && self.corrupt.coin(self.setup.drop) {
                return self.lose(id);
            }
        } else if !known {
            let crowd = &mut self.mixes[self.crowds[index]];
            let shares = crowd.mean.part(self.setup.sabotage);
            packet.shares = shares.map(|(shares, surprise)| {
                spent = Some(surprise);
                Box::new(shares)
            });
        }
        if dummy {
            return self.lose(id);
        }
        let from = self.region(index);
        if index >= self.setup.last_hop() {
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
mod tests;
