//! Whom packets are for, and what an adversary makes of it who knows a sender's contacts.
//!
//! Receivers are drawn by popularity, the r-th with weight `r^−s` (`s = 0`: all alike); each
//! target's sender has `k` contacts, drawn the same way, and writes to one of them, uniformly.
//! The adversary knows the contacts of the target's sender alone, and how popular each receiver
//! is. To it a packet for receiver `r` with share `p` is the target with weight
//! `p · m_r / (k · popularity_r)`, `m_r` being how often `r` is among the contacts: Bayes' rule,
//! exact since all other receivers are independent draws.
//!
//! Deliberately not here: an adversary who knows everybody's contacts, whose posterior is a
//! permanent.

use super::posterior::LANES;
use crate::{
    metrics::{shannon_bits, varentropy_bits2},
    random::Stream,
};

/// Receivers, and the contacts of each target's sender.
#[derive(Clone, Debug)]
pub(crate) struct Contacts {
    /// Sum of the weights of all receivers up to each; empty if all are alike.
    sums: Vec<f64>,
    receivers: usize,
    each: usize,
    of: [Vec<usize>; LANES],
    /// To whom each target went.
    written: [usize; LANES],
}

impl Contacts {
    #[expect(clippy::cast_precision_loss, reason = "receivers are few")]
    pub(super) fn new(receivers: usize, each: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=receivers).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self {
            sums: if exponent == 0.0 {
                Vec::new()
            } else {
                sums.collect()
            },
            receivers,
            each,
            of: core::array::from_fn(|_| Vec::new()),
            written: [0; LANES],
        }
    }

    /// How many there are.
    pub(super) fn receivers(&self) -> usize {
        self.receivers
    }

    /// Anybody, by popularity.
    fn anybody(&self, random: &mut Stream) -> usize {
        let Some(all) = self.sums.last() else {
            return random.index(self.receivers);
        };
        let at = random.uniform() * all;
        self.sums.partition_point(|sum| *sum <= at)
    }

    /// Probability that a packet is for `receiver`.
    #[expect(clippy::cast_precision_loss, reason = "receivers are few")]
    fn popularity(&self, receiver: usize) -> f64 {
        let Some(all) = self.sums.last() else {
            return 1.0 / self.receivers as f64;
        };
        let before = receiver
            .checked_sub(1)
            .map_or(0.0, |place| self.sums[place]);
        (self.sums[receiver] - before) / all
    }

    /// New senders with new contacts, for the targets of one pass.
    pub(super) fn renew(&mut self, random: &mut Stream) {
        for lane in 0..LANES {
            self.of[lane] = (0..self.each).map(|_| self.anybody(random)).collect();
        }
    }

    /// For whom a packet is that leaves: target number `target`, if any.
    #[inline]
    pub(super) fn receiver(&mut self, target: Option<usize>, random: &mut Stream) -> usize {
        match target {
            Some(lane) if self.each > 0 => {
                let contacts = &self.of[lane];
                self.written[lane] = contacts[random.index(contacts.len())];
                self.written[lane]
            }
            _ => self.anybody(random),
        }
    }

    /// What is known of the receiver, given the contacts of target `lane` and what share `mass` each
    /// receiver got of it. Zeros without contacts.
    pub(super) fn known(&self, lane: usize, mass: impl Fn(usize) -> f64) -> Known {
        let mut contacts = self.of[lane].clone();
        contacts.sort_unstable();
        let (who, mut shares): (Vec<usize>, Vec<f64>) = contacts
            .chunk_by(|a, b| a == b)
            .map(|same| {
                #[expect(clippy::cast_precision_loss, reason = "contacts are few")]
                let times = same.len() as f64;
                (same[0], mass(same[0]) * times / self.popularity(same[0]))
            })
            .unzip();
        let all: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= all);
        let right = who.iter().position(|who| *who == self.written[lane]);
        Known {
            entropy: shannon_bits(&shares),
            varentropy: varentropy_bits2(&shares),
            log_loss: right.map_or(0.0, |place| -shares[place].log2()),
        }
    }
}

/// Over the receivers that a sender may have written to.
pub(super) struct Known {
    /// Shannon entropy, bits.
    pub(super) entropy: f64,
    /// Variance of the log-loss, bits².
    pub(super) varentropy: f64,
    /// −log₂ of the probability of the right one.
    pub(super) log_loss: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, SOURCE};

    #[test]
    fn receivers_are_drawn_by_popularity() {
        let mut random = Stream::new(1, 0, SOURCE, Purpose::Contact);
        for exponent in [0.0, 1.2] {
            let contacts = Contacts::new(5, 0, exponent);
            let all: f64 = (0..5).map(|receiver| contacts.popularity(receiver)).sum();
            assert!((all - 1.0).abs() < 1e-12);
            let mut seen = [0.0; 5];
            for _ in 0..50_000 {
                seen[contacts.anybody(&mut random)] += 1.0 / 50_000.0;
            }
            for (receiver, seen) in seen.iter().enumerate() {
                let expected = contacts.popularity(receiver);
                assert!(
                    (seen - expected).abs() < 0.01,
                    "{receiver}: {seen} {expected}"
                );
            }
        }
    }
}
