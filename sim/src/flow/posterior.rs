//! What leaves the network tells of the targets.
//!
//! A pass tracks [`LANES`] targets side by side, one lane each. Every packet that leaves takes
//! its share `p` of each target's mass: the probability, given everything that the adversary
//! saw, that this packet is the target. From these shares the metrics of `crate::metrics` are
//! summed as they come; only guesswork and receivers need them kept.
//!
//! | field       | shape          | unit                                     |
//! |-------------|----------------|------------------------------------------|
//! | lanes       | [`LANES`] f64  | probability mass                         |
//! | entropy     | per lane       | bits                                     |
//! | kept        | per lane, list | probabilities, when guesswork is wanted  |
//! | receivers   | R × lanes      | probability mass, when R > 0             |
//!
//! Invariant: a lane's mass in the network and what has left sum to 1 from the moment its
//! target entered.

use super::contacts::Contacts;
use crate::{
    metrics::{guesswork, surprise},
    random::Stream,
};

/// Targets tracked side by side.
pub(crate) const LANES: usize = 8;

/// One number per target.
pub(crate) type Lanes = [f64; LANES];

/// The mass that may be left in the network when a target counts as finished.
pub(crate) const RESIDUAL: f64 = 1e-9;

/// What was measured of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Shannon entropy over exit packets, bits.
    pub entropy: f64,
    /// −log₂ of the largest share.
    pub min_entropy: f64,
    /// −log₂ of the sum of squared shares.
    pub renyi2: f64,
    /// −log₂ of the share of the packet that was the target; of all that is left in the network
    /// if the target is still there.
    pub log_loss: f64,
    /// Variance of the log-loss if the posterior is right, Σ p (log₂ p)² − H²: what chance alone
    /// may put between log-loss and entropy.
    pub varentropy: f64,
    /// Shannon entropy over receivers, bits; 0 if not measured.
    pub receiver_entropy: f64,
    /// The same to an adversary who knows the sender's contacts; 0 if not measured.
    pub contact_entropy: f64,
    /// −log₂ of the probability that it gives to the right receiver; 0 if not measured.
    pub contact_log_loss: f64,
    /// Variance of the latter, as `varentropy`; 0 if not measured.
    pub contact_varentropy: f64,
    /// Expected guesses among exit packets; 0 if not measured.
    pub guesswork: f64,
}

/// Sums over the packets that have left, per lane.
///
/// Packets that are lost on the way take their shares with them: the adversary sees that they
/// do not arrive. A message is measured only if it arrives, so shares are those of the packets
/// that do, divided by the mass `T` that they have together (`H = S/T + log₂ T`).
#[derive(Debug)]
pub(crate) struct Posterior {
    entropy: Lanes,
    /// Σ p (log₂ p)².
    surprise2: Lanes,
    square: Lanes,
    largest: Lanes,
    total: Lanes,
    lost: Lanes,
    missed: [bool; LANES],
    /// None while the target is in the network.
    log_loss: [Option<f64>; LANES],
    kept: Option<Vec<Vec<f64>>>,
    receivers: Vec<Lanes>,
    contacts: Contacts,
}

impl Posterior {
    pub(crate) fn new(contacts: Contacts, keep: bool) -> Self {
        let zero = [0.0; LANES];
        Self {
            entropy: zero,
            surprise2: zero,
            square: zero,
            largest: zero,
            total: zero,
            lost: zero,
            missed: [false; LANES],
            log_loss: [None; LANES],
            kept: keep.then(|| vec![Vec::new(); LANES]),
            receivers: vec![zero; contacts.receivers()],
            contacts,
        }
    }

    /// New senders with new contacts.
    pub(crate) fn renew(&mut self, random: &mut Stream) {
        self.contacts.renew(random);
    }

    /// A packet leaves with shares `p`, whose [`surprise`] per lane is `spent`; it is the
    /// target of lane `target`, if any.
    #[inline]
    pub(crate) fn leave(
        &mut self,
        p: &Lanes,
        spent: &Lanes,
        target: Option<usize>,
        receiver: &mut Stream,
    ) {
        for lane in 0..LANES {
            self.entropy[lane] += spent[lane];
            // Nothing is spent where p is 0.
            self.surprise2[lane] += spent[lane] * spent[lane] / p[lane].max(f64::MIN_POSITIVE);
            self.square[lane] += p[lane] * p[lane];
            self.largest[lane] = self.largest[lane].max(p[lane]);
            self.total[lane] += p[lane];
        }
        if let Some(target) = target {
            self.log_loss[target] = Some(-p[target].log2());
        }
        if !self.receivers.is_empty() {
            let to = self.contacts.receiver(target, receiver);
            for (sum, p) in self.receivers[to].iter_mut().zip(p) {
                *sum += p;
            }
        }
        if let Some(kept) = &mut self.kept {
            for (list, p) in kept.iter_mut().zip(p) {
                if *p > 0.0 {
                    list.push(*p);
                }
            }
        }
    }

    /// A packet with shares `p` is lost; it is the target of lane `target`, if any.
    pub(crate) fn lose(&mut self, p: Option<&Lanes>, target: Option<usize>) {
        for (sum, p) in self.lost.iter_mut().zip(p.unwrap_or(&[0.0; LANES])) {
            *sum += p;
        }
        if let Some(target) = target {
            self.missed[target] = true;
        }
    }

    /// Mass of each target that has left or is lost.
    #[cfg(test)]
    pub(crate) fn total(&self) -> Lanes {
        core::array::from_fn(|lane| self.total[lane] + self.lost[lane])
    }

    /// Whether no target has more than `residual` left in the network.
    pub(crate) fn finished(&self, residual: f64) -> bool {
        let mut gone = self.total.iter().zip(&self.lost);
        gone.all(|(total, lost)| total + lost >= 1.0 - residual)
    }

    /// What was measured of each target that arrived; everything starts anew.
    pub(crate) fn take(&mut self) -> Vec<Target> {
        for lane in 0..LANES {
            if self.lost[lane] > 0.0 {
                self.condition(lane);
            }
        }
        let targets = self.targets();
        let arrived = targets.into_iter().zip(self.missed);
        let arrived = arrived.filter(|(_, missed)| !missed).map(|(one, _)| one);
        let arrived = arrived.collect();
        *self = Self::new(self.contacts.clone(), self.kept.is_some());
        arrived
    }

    /// Divides the shares of a lane by the mass that arrived.
    fn condition(&mut self, lane: usize) {
        let total = self.total[lane];
        let bits = total.log2();
        self.surprise2[lane] =
            (self.surprise2[lane] + 2.0 * bits * self.entropy[lane]) / total + bits * bits;
        self.entropy[lane] = self.entropy[lane] / total + bits;
        self.square[lane] /= total * total;
        self.largest[lane] /= total;
        if let Some(loss) = &mut self.log_loss[lane] {
            *loss += bits;
        }
        for receiver in &mut self.receivers {
            receiver[lane] /= total;
        }
        for p in self.kept.iter_mut().flat_map(|kept| &mut kept[lane]) {
            *p /= total;
        }
        // What is left inside, as a share of what may yet arrive.
        self.total[lane] = total / (1.0 - self.lost[lane]);
    }

    fn targets(&mut self) -> [Target; LANES] {
        core::array::from_fn(|lane| self.target(lane))
    }

    fn target(&mut self, lane: usize) -> Target {
        let mass = |receiver: usize| self.receivers[receiver][lane];
        let known = self.contacts.known(lane, mass);
        let entropy = self.entropy[lane];
        Target {
            contact_entropy: known.entropy,
            contact_log_loss: known.log_loss,
            contact_varentropy: known.varentropy,
            entropy,
            varentropy: (self.surprise2[lane] - entropy * entropy).max(0.0),
            min_entropy: -self.largest[lane].log2(),
            renyi2: -self.square[lane].log2(),
            // A target still inside is one more outcome. Counted as 0, log-loss less entropy would
            // be a martingale: its mean 0 whenever one reads, and no early read-out ever seen.
            log_loss: self.log_loss[lane]
                .unwrap_or_else(|| -(1.0 - self.total[lane]).max(f64::EPSILON).log2()),
            receiver_entropy: self.receivers.iter().map(|sum| surprise(sum[lane])).sum(),
            guesswork: match &mut self.kept {
                Some(kept) => guesswork(&mut kept[lane]),
                None => 0.0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics,
        random::{Purpose, SOURCE},
    };

    #[test]
    fn the_running_sums_are_the_metrics_of_the_whole_posterior() {
        let p = [0.5, 0.25, 0.125, 0.0625, 0.0625];
        let mut receiver = Stream::new(1, 0, SOURCE, Purpose::Receiver);
        let mut posterior = Posterior::new(Contacts::new(1, 0, 0.0), true);
        for (number, share) in p.into_iter().enumerate() {
            assert!(!posterior.finished(RESIDUAL));
            let shares = [share; LANES];
            let target = (number == 2).then_some(3);
            posterior.leave(&shares, &shares.map(surprise), target, &mut receiver);
        }
        assert!(posterior.finished(RESIDUAL));
        let target = posterior.take()[3];
        for (value, expected) in [
            (target.entropy, metrics::shannon_bits(&p)),
            (target.min_entropy, metrics::min_entropy_bits(&p)),
            (target.renyi2, metrics::renyi2_bits(&p)),
            (target.log_loss, 3.0),
            (target.varentropy, metrics::varentropy_bits2(&p)),
            (target.guesswork, metrics::guesswork(&mut p.clone())),
            (target.receiver_entropy, 0.0),
        ] {
            assert!((value - expected).abs() < 1e-12, "{value} for {expected}");
        }
        assert!(!posterior.finished(RESIDUAL));
    }

    /// With packets lost, all is that of the posterior over those that arrive.
    #[test]
    fn a_loss_is_divided_out_of_every_sum() {
        let p = [0.5, 0.25, 0.125];
        let mut receiver = Stream::new(1, 0, SOURCE, Purpose::Receiver);
        let mut posterior = Posterior::new(Contacts::new(0, 0, 0.0), false);
        posterior.lose(Some(&[0.125; LANES]), None);
        for share in p {
            let shares = [share; LANES];
            posterior.leave(&shares, &shares.map(surprise), None, &mut receiver);
        }
        let (target, arrived) = (posterior.take()[0], p.map(|share| share / 0.875));
        for (value, expected) in [
            (target.entropy, metrics::shannon_bits(&arrived)),
            (target.varentropy, metrics::varentropy_bits2(&arrived)),
            (target.min_entropy, metrics::min_entropy_bits(&arrived)),
            (target.renyi2, metrics::renyi2_bits(&arrived)),
        ] {
            assert!((value - expected).abs() < 1e-12, "{value} for {expected}");
        }
    }

    #[test]
    fn a_target_still_inside_costs_what_is_left_inside() {
        let mut receiver = Stream::new(1, 0, SOURCE, Purpose::Receiver);
        let mut posterior = Posterior::new(Contacts::new(0, 0, 0.0), false);
        let shares = [0.75; LANES];
        posterior.leave(&shares, &shares.map(surprise), Some(1), &mut receiver);
        let targets = posterior.take();
        assert!((targets[0].log_loss - 2.0).abs() < 1e-12);
        assert!((targets[1].log_loss + 0.75_f64.log2()).abs() < 1e-12);
    }
}
