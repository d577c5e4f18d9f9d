//! One mix of `network`: what it holds, and the share that each packet of it has.
//!
//! All packets of an honest mix are alike to the adversary, before and after some leave; so one
//! mean share per target describes them:
//!
//! - arrival of a packet with share `q`: `mean += (q − mean) / (n + 1)`, `n += 1`
//! - departure: the packet takes `mean`; `n −= 1`; the mean of the rest is unchanged
//!
//! Invariant: `n · mean` is the mass of each target that the mix holds. The adversary's own
//! packets are held but not counted in `n`.

use super::{poisson::Sabotage, posterior::LANES, posterior::Lanes};
use crate::{
    metrics::surprise,
    random::{Purpose, Stream},
};

/// The mean share of alike packets.
#[derive(Debug)]
pub(super) struct Mean {
    n: u32,
    /// Whether `mean` is not all zero.
    marked: bool,
    mean: Lanes,
    /// [`surprise`] of `mean`, if it has been asked for since `mean` changed.
    spent: Option<Lanes>,
}

impl Mean {
    /// A packet comes; `None` stands for shares that are all zero.
    #[inline]
    pub(super) fn join(&mut self, shares: Option<&Lanes>) {
        self.n += 1;
        if self.marked || shares.is_some() {
            let weight = 1.0 / f64::from(self.n);
            for (mean, q) in self.mean.iter_mut().zip(shares.unwrap_or(&[0.0; LANES])) {
                *mean += (q - *mean) * weight;
            }
            self.marked = true;
            self.spent = None;
        }
    }

    /// A packet goes: its shares, and their [`surprise`].
    #[inline]
    pub(super) fn part(&mut self, sabotage: Sabotage) -> Option<(Lanes, Lanes)> {
        self.n -= 1;
        if !self.marked {
            return None;
        }
        let mut shares = self.mean;
        if sabotage == Sabotage::QuarterShare && self.n > 0 {
            for (mean, share) in self.mean.iter_mut().zip(&mut shares) {
                *share *= 0.25;
                *mean += (*mean - *share) / f64::from(self.n);
            }
            return Some((shares, shares.map(surprise)));
        }
        let spent = *self.spent.get_or_insert_with(|| shares.map(surprise));
        if self.n == 0 {
            // Nothing is left that could hold a share.
            (self.marked, self.mean, self.spent) = (false, [0.0; LANES], None);
        }
        Some((shares, spent))
    }

    /// Mass of each target that is held.
    #[cfg(test)]
    pub(super) fn mass(&self) -> Lanes {
        self.mean.map(|mean| mean * f64::from(self.n))
    }
}

/// A mix.
#[derive(Debug)]
pub(super) struct Mix {
    pub(super) corrupt: bool,
    pub(super) mean: Mean,
    /// Packets held, the adversary's as well; with free routes, of all hops, at the first.
    pub(super) held: u32,
    /// Those that wait for a batch.
    pub(super) batch: Vec<u32>,
    /// When it has processed all that stand in line.
    pub(super) free_at: u64,
    pub(super) delay: Stream,
    pub(super) route: Stream,
    choice: Stream,
}

impl Mix {
    /// An empty mix with its random streams.
    pub(super) fn new(corrupt: bool, stream: impl Fn(Purpose) -> Stream) -> Self {
        Self {
            corrupt,
            mean: Mean {
                n: 0,
                marked: false,
                mean: [0.0; LANES],
                spent: None,
            },
            held: 0,
            batch: Vec::new(),
            free_at: 0,
            delay: stream(Purpose::Delay),
            route: stream(Purpose::Route),
            choice: stream(Purpose::Pool),
        }
    }

    /// Takes those that leave out of the batch, chosen at random and in random order: a share
    /// `fraction` of all, rounded down, but none of the last `kept`. Packets of a pool are alike, so
    /// their order must tell nothing: where they meet a batch that is nearly full, or a line, it decides.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "packets fit in memory"
    )]
    pub(super) fn leaving(&mut self, kept: usize, fraction: f64) -> Vec<u32> {
        let all = self.batch.len();
        let share = (all as f64 * fraction) as usize;
        let stay = all - share.min(all.saturating_sub(kept));
        for place in (stay..all).rev() {
            let other = self.choice.index(place + 1);
            self.batch.swap(place, other);
        }
        self.batch.split_off(stay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SOURCE;

    /// A packet comes, a dummy is told to have ended, or a packet goes on.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Seen {
        Comes,
        Ends,
        Leaves,
    }

    /// By Bayes' rule, over all ways in which packets may have become what was seen: the
    /// probability that the packet which came as number `target` is each of those that left.
    /// The others are dummies with probability `dummy`; whoever is inside is next alike.
    fn by_enumeration(seen: &[Seen], target: usize, dummy: f64) -> Vec<f64> {
        fn ways(
            seen: &[Seen],
            inside: &mut Vec<usize>,
            (came, left): (usize, usize),
            (target, dummy): (usize, f64),
            weight: f64,
            found: &mut Vec<f64>,
            place: Option<usize>,
        ) {
            let Some((first, rest)) = seen.split_first() else {
                if let Some(place) = place {
                    found[place] += weight;
                }
                return;
            };
            if *first == Seen::Comes {
                inside.push(came);
                ways(
                    rest,
                    inside,
                    (came + 1, left),
                    (target, dummy),
                    weight,
                    found,
                    place,
                );
                inside.pop();
                return;
            }
            let ends = *first == Seen::Ends;
            for at in 0..inside.len() {
                let chance = match (inside[at] == target, ends) {
                    // The target is no dummy.
                    (true, true) => continue,
                    (true, false) => 1.0,
                    (false, true) => dummy,
                    (false, false) => 1.0 - dummy,
                };
                let packet = inside.remove(at);
                let place = if packet == target { Some(left) } else { place };
                let next = (came, left + usize::from(!ends));
                let weight = weight * chance;
                ways(rest, inside, next, (target, dummy), weight, found, place);
                inside.insert(at, packet);
            }
        }
        let leave = seen.iter().filter(|event| **event == Seen::Leaves).count();
        let mut found = vec![0.0; leave];
        ways(
            seen,
            &mut Vec::new(),
            (0, 0),
            (target, dummy),
            1.0,
            &mut found,
            None,
        );
        let all: f64 = found.iter().sum();
        found.iter().map(|weight| weight / all).collect()
    }

    /// The mean share, with what dummies took divided out, is Bayes' rule, whatever share of the
    /// packets are dummies.
    #[test]
    fn dummies_that_end_in_a_pool_are_tracked_exactly() {
        let mut random = Stream::new(5, 0, SOURCE, Purpose::Pool);
        let mut compared = 0;
        for _ in 0..300 {
            let (mut seen, mut inside, mut came) = (Vec::new(), 0, 0);
            while came < 6 || inside > 0 {
                if came < 6 && (inside == 0 || random.coin(0.6)) {
                    seen.push(Seen::Comes);
                    (inside, came) = (inside + 1, came + 1);
                } else {
                    let ends = random.coin(0.4);
                    seen.push(if ends { Seen::Ends } else { Seen::Leaves });
                    inside -= 1;
                }
            }
            let target = random.index(3);
            let mut mean = Mix::new(false, |purpose| Stream::new(1, 0, SOURCE, purpose)).mean;
            let (mut came, mut shares, mut sunk) = (0, Vec::new(), 0.0);
            for event in &seen {
                if *event == Seen::Comes {
                    let certain = [1.0; LANES];
                    mean.join((came == target).then_some(&certain));
                    came += 1;
                    continue;
                }
                let share = mean
                    .part(Sabotage::None)
                    .map_or(0.0, |(shares, _)| shares[0]);
                if *event == Seen::Ends {
                    sunk += share;
                } else {
                    shares.push(share);
                }
            }
            let arrived = 1.0 - sunk;
            if arrived < 1e-9 {
                // As it was seen, the target cannot have left.
                continue;
            }
            for dummy in [0.2, 0.7] {
                for (share, exact) in shares.iter().zip(by_enumeration(&seen, target, dummy)) {
                    assert!((share / arrived - exact).abs() < 1e-9, "{seen:?} {target}");
                }
            }
            compared += 1;
        }
        assert!(compared > 200, "{compared}");
    }

    /// Each of those that leave is in each place equally often.
    #[test]
    fn packets_leave_in_random_order() {
        for (all, kept) in [(4, 0), (5, 1), (9, 5)] {
            let mut mix = Mix::new(false, |purpose| Stream::new(3, 0, SOURCE, purpose));
            let (mut found, rounds) = (vec![[0_u32; 4]; all], 20_000);
            for _ in 0..rounds {
                mix.batch = (0..u32::try_from(all).expect("few")).collect();
                let left = mix.leaving(kept, 1.0);
                assert_eq!((left.len(), mix.batch.len()), (4, kept));
                for (place, id) in left.iter().enumerate() {
                    found[*id as usize][place] += 1;
                }
            }
            let expected = f64::from(rounds) / f64::from(u32::try_from(all).expect("few"));
            for counted in found.iter().flatten() {
                let z = (f64::from(*counted) - expected) / expected.sqrt();
                assert!(z.abs() < 4.0, "{all} {kept}: {found:?}");
            }
        }
    }
}
