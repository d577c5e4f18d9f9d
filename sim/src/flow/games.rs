//! Two games on a network of Poisson mixes: who of two wrote to whom, and which of two senders
//! a message is from.
//!
//! **Third-party unlinkability.** Two messages enter at the same moment and are for R1 and R2;
//! the adversary sees which two packets arrive there, and guesses which is which. Its advantage
//! `|2 Pr[right] − 1|`, the total variation distance of the two worlds, is the mean of
//! `|Pr[one way] − Pr[other way]|` given all that it saw. That posterior is exact: `joint[i][j]`
//! is the probability of everything seen so far with the first message in place `i` and the
//! second in place `j`. A departure from a pool of `n` is either of them with probability `1/n`
//! each; a packet that arrives anywhere else is neither. (Two marginal posteriors would not do:
//! both may put their mass on one packet.)
//!
//! **ε of Loopix.** Two senders send as users do, and the adversary knows each of their packets
//! where it enters. Of a packet that leaves an honest mix of the last layer (every two mean delays,
//! the next one) it knows the expected share of either sender's messages in it, `p0` and `p1`;
//! `ε = |ln(p0 / p1)|`, and `δ` is the probability that one of the two is impossible. Loopix
//! (Piotrowska et al. 2017, 4.1.3 and figure 5) does not say when senders have something to send;
//! here either has a message at regular times, one for [`SLOTS`] of its slots on average, which
//! waits in line for the next of them: a Poisson process at a user's rate, whose other slots carry
//! cover. The network has run for ten such messages.
//!
//! Exponential delays have no memory, so no packet needs a time: the next event is an arrival
//! with probability λ / (λ + N), else any of the N packets in flight moves on. This is the
//! *chain*, an independent way to the same law as `poisson` and `network`.
//!
//! | quantity | shape                                                                    |
//! |----------|--------------------------------------------------------------------------|
//! | place    | a pool, or from [`Chain::pools`] on one packet in a corrupt mix           |
//! | joint    | places × places, grows with the packets that corrupt mixes hold           |
//!
//! Links must take one constant time and lose nothing, users must be steady, and the adversary
//! may only watch: [`playable`].

use super::{
    section::Section,
    setup::{Setup, Users},
};
use crate::random::{Purpose, SOURCE, Stream};

/// Games of each kind in one replication.
pub(super) const GAMES: u64 = 8;

/// Mean delays between two messages of which ε is taken.
const BETWEEN: f64 = 2.0;

/// Slots of a sender for each of its messages, on average: the line is short, and half is cover.
const SLOTS: f64 = 2.0;

/// What a place holds that is not one of the two messages.
const NOBODY: usize = usize::MAX;

/// Whether these games are defined for a network.
pub(super) fn playable(setup: &Setup) -> bool {
    setup.pool.is_none()
        && setup.users == Users::Steady
        && setup.links.is_none()
        && setup.capacity.is_none()
        && setup.user_dummies + setup.mix_dummies == 0.0
        && setup.watches_all()
        && setup.flood + setup.drop + setup.hold == 0.0
}

/// Plays [`GAMES`] of each kind.
pub(super) fn replicate(setup: &Setup, seed: u64, replication: u64, section: &mut Section) {
    let corrupt = setup.corrupt_pools(seed, replication);
    let mut random = Stream::new(seed, replication, SOURCE, Purpose::Pair);
    for _ in 0..GAMES {
        let mut chain = Chain::new(setup, &corrupt, &mut random);
        section.advantages.push(unlink(&mut chain, &mut random));
    }
    labels(setup, &corrupt, &mut random, section);
}

/// Packets by pool, in an order of events that needs no times.
struct Chain<'a> {
    setup: &'a Setup,
    corrupt: &'a [bool],
    held: Vec<u32>,
    flying: u64,
}

/// What happens next.
enum Event {
    /// A packet comes to a pool: a user's from outside, or else a loop of the mix.
    Enter(usize, bool),
    /// One of the packets in a pool, by its number there, moves to a pool or leaves.
    Move(usize, u32, Option<usize>),
}

impl<'a> Chain<'a> {
    /// A chain in its stationary state: pools hold independent Poisson numbers of packets.
    fn new(setup: &'a Setup, corrupt: &'a [bool], random: &mut Stream) -> Self {
        let held = (0..corrupt.len()).map(|pool| random.poisson(setup.pool_mean(pool)));
        let held: Vec<u32> = held
            .map(|held| u32::try_from(held).expect("packets fit in memory"))
            .collect();
        Self {
            setup,
            corrupt,
            flying: held.iter().map(|held| u64::from(*held)).sum(),
            held,
        }
    }

    fn pools(&self) -> usize {
        self.held.len()
    }

    /// A packet enters; returns its pool.
    fn enter(&mut self, random: &mut Stream) -> usize {
        let pool = random.index(self.setup.width);
        self.add(pool);
        pool
    }

    fn add(&mut self, pool: usize) {
        self.held[pool] += 1;
        self.flying += 1;
    }

    /// The mean time to the next event, in mean delays.
    #[expect(clippy::cast_precision_loss, reason = "packets fit in memory")]
    fn pause(&self) -> f64 {
        1.0 / (self.entering() + self.flying as f64)
    }

    /// Packets that enter per mean delay, loops of mixes as well.
    #[expect(clippy::cast_precision_loss, reason = "mixes are few")]
    fn entering(&self) -> f64 {
        self.setup.rate + self.setup.loops * self.setup.mixes() as f64
    }

    /// The next event, which has happened to the counts when this returns.
    fn step(&mut self, random: &mut Stream) -> Event {
        let which = random.uniform();
        let entering = self.entering() * self.pause();
        if which < self.setup.rate * self.pause() {
            return Event::Enter(self.enter(random), true);
        }
        if which < entering {
            let pool = random.index(self.setup.mixes());
            self.add(pool);
            return Event::Enter(pool, false);
        }
        let flying = usize::try_from(self.flying).expect("packets fit in memory");
        let mut number = u32::try_from(random.index(flying)).expect("packets fit in memory");
        let mut pool = 0;
        while number >= self.held[pool] {
            number -= self.held[pool];
            pool += 1;
        }
        self.held[pool] -= 1;
        self.flying -= 1;
        let last = self.pools() - self.setup.width;
        let next = (pool < last).then(|| self.setup.next(pool, random));
        if let Some(next) = next {
            self.add(next);
        }
        Event::Move(pool, number, next)
    }
}

/// Where each of two messages may be, given all that was seen.
struct Pair {
    joint: Vec<Vec<f64>>,
    /// Places of packets in corrupt mixes: those in use by pool, and those that are free.
    items: Vec<Vec<usize>>,
    vacant: Vec<usize>,
    /// Where they are.
    truth: [usize; 2],
}

impl Pair {
    fn new(pools: usize) -> Self {
        Self {
            joint: vec![vec![0.0; pools]; pools],
            items: vec![Vec::new(); pools],
            vacant: Vec::new(),
            truth: [NOBODY; 2],
        }
    }

    /// The place of a packet that comes to `pool`.
    fn place(&mut self, pool: usize, corrupt: bool) -> usize {
        if !corrupt {
            return pool;
        }
        let place = self.vacant.pop().unwrap_or_else(|| {
            let place = self.joint.len();
            for row in &mut self.joint {
                row.push(0.0);
            }
            self.joint.push(vec![0.0; place + 1]);
            place
        });
        self.items[pool].push(place);
        place
    }

    /// The packet of a place of its own has gone on.
    fn vacate(&mut self, place: usize) {
        if place >= self.items.len() {
            self.vacant.push(place);
        }
    }

    /// Takes the parts in which the packet that departs, one of `n` in place `from`, is the
    /// first message (by place of the second) and in which it is the second (by place of the
    /// first). What stays is that it is neither.
    fn split(&mut self, from: usize, n: f64) -> [Vec<f64>; 2] {
        let both = self.joint[from][from];
        let first: Vec<f64> = self.joint[from].iter().map(|p| p / n).collect();
        let second: Vec<f64> = self.joint.iter().map(|row| row[from] / n).collect();
        for (p, part) in self.joint[from].iter_mut().zip(&first) {
            *p -= part;
        }
        for (row, part) in self.joint.iter_mut().zip(&second) {
            row[from] -= part;
        }
        // Both in one pool of one: impossible, but for rounding.
        self.joint[from][from] = (both * (1.0 - 2.0 / n)).max(0.0);
        [first, second]
    }

    fn join(&mut self, to: usize, [first, second]: [Vec<f64>; 2]) {
        for (p, part) in self.joint[to].iter_mut().zip(first) {
            *p += part;
        }
        for (row, part) in self.joint.iter_mut().zip(second) {
            row[to] += part;
        }
    }
}

/// One game of two messages: by how much one way is likelier than the other.
fn unlink(chain: &mut Chain<'_>, random: &mut Stream) -> f64 {
    let mut pair = Pair::new(chain.pools());
    for message in 0..2 {
        let pool = chain.enter(random);
        pair.truth[message] = pair.place(pool, chain.corrupt[pool]);
    }
    let [a, b] = pair.truth;
    pair.joint[a][b] = 1.0;
    // Of the message that is still inside, once one has arrived: by its place, if it is the
    // second, and if it is the first.
    let mut rest: Option<[Vec<f64>; 2]> = None;
    loop {
        let Event::Move(pool, number, next) = chain.step(random) else {
            continue;
        };
        let number = number as usize;
        let (from, n) = if chain.corrupt[pool] {
            if number >= pair.items[pool].len() {
                // Neither of the two; it may come to an honest pool, which counts it.
                continue;
            }
            let from = pair.items[pool].swap_remove(number);
            (from, 1.0)
        } else {
            (pool, f64::from(chain.held[pool] + 1))
        };
        // The first packets of a pool are the messages that are in it.
        let here = (0..2).filter(|message| pair.truth[*message] == from);
        let mover = if from >= chain.pools() {
            here.clone().next()
        } else {
            here.clone().nth(number)
        };
        let Some(next) = next else {
            if let Some(rest) = &mut rest {
                let likely = [rest[0][from] / n, rest[1][from] / n];
                if mover.is_some() {
                    return (likely[0] - likely[1]).abs() / (likely[0] + likely[1]);
                }
                for (part, likely) in rest.iter_mut().zip(likely) {
                    part[from] -= likely;
                }
            } else {
                let parts = pair.split(from, n);
                if let Some(mover) = mover {
                    pair.truth[mover] = NOBODY;
                    rest = Some(parts);
                }
            }
            pair.vacate(from);
            continue;
        };
        let to = pair.place(next, chain.corrupt[next]);
        let places = pair.joint.len();
        if let Some(rest) = &mut rest {
            for part in rest {
                part.resize(places, 0.0);
                let moved = part[from] / n;
                part[from] -= moved;
                part[to] += moved;
            }
        } else {
            let parts = pair.split(from, n);
            pair.join(to, parts);
        }
        if let Some(mover) = mover {
            pair.truth[mover] = to;
        }
        pair.vacate(from);
    }
}

/// The expected share of two senders' messages in each pool, and ε of packets that leave.
fn labels(setup: &Setup, corrupt: &[bool], random: &mut Stream, section: &mut Section) {
    let last = &corrupt[corrupt.len() - setup.width..];
    if setup.sender_rate <= 0.0 || last.iter().all(|corrupt| *corrupt) {
        return;
    }
    let mut chain = Chain::new(setup, corrupt, random);
    let mut mass = vec![[0.0; 2]; chain.pools()];
    // Packets in corrupt mixes keep their own.
    let mut own: Vec<Vec<[f64; 2]>> = chain
        .held
        .iter()
        .map(|n| vec![[0.0; 2]; *n as usize])
        .collect();
    let chance = setup.sender_rate / setup.rate;
    let (period, phase) = (SLOTS / setup.sender_rate, random.uniform());
    let mut sent = [0.0; 2];
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    let warm = 8.0 * setup.layers as f64 + 12.0 + 10.0 * period;
    let (mut now, mut due, mut taken) = (0.0, warm, 0);
    while taken < GAMES {
        now += chain.pause() * random.exponential();
        let (to, share, honest) = match chain.step(random) {
            Event::Enter(pool, users) => {
                let which = random.uniform() / chance;
                let slots = [users && which < 1.0, users && (1.0..2.0).contains(&which)];
                let written = (now / period + phase).floor();
                let mut share = [0.0; 2];
                for (sender, _) in slots.into_iter().enumerate().filter(|(_, slot)| *slot) {
                    if sent[sender] < written {
                        sent[sender] += 1.0;
                        share[sender] = 1.0;
                    }
                }
                (Some(pool), share, false)
            }
            Event::Move(pool, number, next) if corrupt[pool] => {
                (next, own[pool].swap_remove(number as usize), false)
            }
            Event::Move(pool, _, next) => {
                let left = chain.held[pool];
                let share = mass[pool].map(|mass| mass / f64::from(left + 1));
                mass[pool] = if left == 0 {
                    [0.0; 2]
                } else {
                    [mass[pool][0] - share[0], mass[pool][1] - share[1]]
                };
                (next, share, true)
            }
        };
        match to {
            Some(pool) if corrupt[pool] => own[pool].push(share),
            Some(pool) => {
                for (sum, share) in mass[pool].iter_mut().zip(share) {
                    *sum += share;
                }
            }
            None if now >= due && honest => {
                due = now + BETWEEN;
                taken += 1;
                section.labels += 1;
                if share[0] > 0.0 && share[1] > 0.0 {
                    section.epsilons.push((share[0] / share[1]).ln().abs());
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Route;

    /// Packets in flight at the start are as many as later on, loops of mixes with them.
    #[test]
    fn a_chain_starts_as_it_goes_on() {
        for route in [Route::Stratified, Route::Cascade, Route::Free] {
            let setup = Setup {
                route,
                layers: 3,
                width: 2,
                rate: 4.0,
                loops: 3.0,
                ..Setup::default()
            };
            let corrupt = vec![false; 6];
            let mut random = Stream::new(1, 0, SOURCE, Purpose::Pair);
            let chains = 400_u32;
            let mut held = [[0_u32; 3]; 2];
            for _ in 0..chains {
                let mut chain = Chain::new(&setup, &corrupt, &mut random);
                for moment in &mut held {
                    for (sum, pools) in moment.iter_mut().zip(chain.held.chunks(2)) {
                        *sum += pools.iter().sum::<u32>();
                    }
                    let mut now = 0.0;
                    loop {
                        now += chain.pause() * random.exponential();
                        if now > 15.0 {
                            break;
                        }
                        chain.step(&mut random);
                    }
                }
            }
            for (layer, start) in held[0].into_iter().enumerate() {
                let mean = 2.0 * setup.pool_mean(2 * layer) * f64::from(chains);
                for sum in [start, held[1][layer]] {
                    let z = (f64::from(sum) - mean) / mean.sqrt();
                    assert!(z.abs() < 4.0, "{route:?}, hop {layer}: {held:?} for {mean}");
                }
            }
        }
    }
}
