//! One random stream for each (seed, replication, entity, purpose).
//!
//! With one generator for all, each draw would shift every later one, and a sweep that adds a
//! mix would compare unrelated runs. Here the key of a ChaCha8 stream spells out all four, so
//! no two streams meet, what did not change draws what it drew before, and the order in which
//! threads run replications cannot matter. ChaCha8 because a stream must be addressable by
//! key, pass every statistical test and be fast; it hides nothing here.
//!
//! | key bytes | field       | unit                                   |
//! |-----------|-------------|----------------------------------------|
//! | 0..8      | seed        | big-endian                             |
//! | 8..16     | replication | from 0                                 |
//! | 16..24    | entity      | a mix's index, or [`SOURCE`]           |
//! | 24        | purpose     | [`Purpose`]                            |
//! | 25..32    | "lcnflow"   | separates these from the packet engine |

use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rand_distr::{Binomial, Distribution, Exp1, Poisson};

/// The entity that stands for all users.
pub const SOURCE: u64 = u64::MAX;

/// What a stream is drawn for. Numbers are fixed: changing one changes every golden result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Times between packets of the source.
    Gap = 1,
    /// The coins that choose targets.
    Target = 2,
    /// The next mix.
    Route = 3,
    /// How long a packet waits.
    Delay = 4,
    /// What a mix holds when the run starts.
    Start = 5,
    /// Who stays in a pool.
    Pool = 6,
    /// Whom a packet is for.
    Receiver = 7,
    /// Everything in a simulated attack.
    Attack = 8,
    /// The options of a swarm's network.
    Swarm = 9,
    /// How long a link takes, and whether it loses the packet.
    Link = 10,
    /// Which mixes are corrupt, and what those drop.
    Corrupt = 11,
    /// The loops of mixes.
    Loop = 12,
    /// The adversary's own packets.
    Flood = 13,
    /// When users come and go.
    Online = 14,
    /// Whom a user writes to.
    Contact = 15,
    /// Pairs of messages, for unlinkability.
    Pair = 16,
    /// Dummies on the links of users.
    UserDummy = 17,
    /// Dummies on the links of mixes.
    MixDummy = 18,
    /// Which mixes' links are watched.
    Watch = 19,
}

/// A stream of random numbers.
#[derive(Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of these four.
    #[must_use]
    pub fn new(seed: u64, replication: u64, entity: u64, purpose: Purpose) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        key[8..16].copy_from_slice(&replication.to_be_bytes());
        key[16..24].copy_from_slice(&entity.to_be_bytes());
        key[24] = purpose as u8;
        key[25..].copy_from_slice(b"lcnflow");
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Exponential with mean 1.
    #[inline]
    pub fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.0)
    }

    /// Poisson with this mean (0 gives 0).
    ///
    /// # Panics
    ///
    /// If the mean is negative or not finite.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a Poisson count of packets in memory"
    )]
    pub fn poisson(&mut self, mean: f64) -> usize {
        if mean == 0.0 {
            return 0;
        }
        let law = Poisson::new(mean).expect("the scenario bounds it");
        law.sample(&mut self.0) as usize
    }

    /// How many of `n` succeed, each with probability `p`.
    ///
    /// # Panics
    ///
    /// If `p` is no probability.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        let law = Binomial::new(n, p).expect("a probability");
        law.sample(&mut self.0)
    }

    /// Uniform in `0..n` for `n ≥ 1`, from one draw; the bias is below `n / 2⁶⁴`.
    #[inline]
    pub fn index(&mut self, n: usize) -> usize {
        let wide = u128::from(self.0.next_u64()) * (n as u128);
        usize::try_from(wide >> 64).expect("below n")
    }

    /// Uniform in 0..1.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "the 53 bits that an f64 holds")]
    pub fn uniform(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64) * (1.0 / 9_007_199_254_740_992.0)
    }

    /// True with probability `p`.
    #[inline]
    pub fn coin(&mut self, p: f64) -> bool {
        self.uniform() < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_makes_another_stream() {
        let first = |seed, replication, entity, purpose| {
            Stream::new(seed, replication, entity, purpose).0.next_u64()
        };
        let base = first(1, 2, 3, Purpose::Gap);
        assert_eq!(base, first(1, 2, 3, Purpose::Gap));
        for other in [
            first(2, 2, 3, Purpose::Gap),
            first(1, 3, 3, Purpose::Gap),
            first(1, 2, 4, Purpose::Gap),
            first(1, 2, 3, Purpose::Delay),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn an_index_is_uniform() {
        let mut stream = Stream::new(1, 0, 0, Purpose::Route);
        let mut seen = [0_i32; 7];
        for _ in 0..70_000 {
            seen[stream.index(7)] += 1;
        }
        // Standard deviation 92.6.
        assert!(seen.iter().all(|n| (n - 10_000).abs() < 400), "{seen:?}");
    }
}
