//! Which of the points measured is chosen: by the anonymity over users, not over packets, which may be
//! many more.
//!
//! | claim of a point      | when                                                               |
//! |-----------------------|--------------------------------------------------------------------|
//! | mean entropy over users, as measured | of up to [`USERS_MAX`](super::measured::USERS_MAX) users |
//! | that over packets or log₂ users, whichever is less | of more: at most this can be claimed  |
//!
//! Of two claims one is the greater by more than [`TIE_BITS`] and two standard errors of the difference.
//! Among points of deployed layers none of whose claims is beaten by the greatest, the fastest is chosen.

use std::ops::Range;

use super::{
    Point,
    measured::{Layered, Measured},
};
use crate::stats::Estimate;

/// What two claims must differ by at least, in bits, for one to be the greater; and by two standard errors.
pub const TIE_BITS: f64 = 0.1;

/// A point that the flow engine measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finalist {
    /// What was measured.
    pub point: Point,
    /// As which network.
    pub network: Layered,
    /// Its entropy.
    pub entropy: Measured,
}

impl Finalist {
    /// log₂ of the users: what nobody's anonymity among them exceeds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    pub fn users_bits(&self) -> f64 {
        (self.network.users as f64).log2()
    }

    /// What is claimed of it, see the header.
    #[must_use]
    pub fn claim(&self) -> Estimate {
        let Measured {
            mean, over_users, ..
        } = self.entropy;
        over_users.unwrap_or(Estimate {
            value: mean.value.min(self.users_bits()),
            ..mean
        })
    }

    /// Whether its claim is greater than that of `other`.
    fn beats(&self, other: &Self) -> bool {
        let [one, other] = [self, other].map(Self::claim);
        let errors = one.standard_error.hypot(other.standard_error);
        one.value - other.value > TIE_BITS.max(2.0 * errors)
    }
}

/// The chosen and the best of `finalists`, of which the first `deployed` have deployed layers and stand
/// by rising latency.
pub(super) fn choose(finalists: &[Finalist], deployed: usize) -> (usize, usize) {
    let most = |all: Range<usize>| {
        let claim = |at: &usize| finalists[*at].claim().value;
        all.max_by(|a, b| claim(a).total_cmp(&claim(b)))
    };
    let top = most(0..deployed).expect("a front has points");
    let chosen = (0..deployed).find(|at| !finalists[top].beats(&finalists[*at]));
    let chosen = chosen.expect("none beats itself");
    let other = most(deployed..finalists.len());
    let better = other.filter(|at| finalists[*at].beats(&finalists[top]));
    (chosen, better.unwrap_or(chosen))
}

#[cfg(test)]
mod tests {
    use super::{super::Candidate, *};

    /// A finalist of 1000 users, with bits over users and their error, and over packets.
    fn one(layers: u32, users: (f64, f64), packets: f64) -> Finalist {
        let candidate = Candidate {
            layers,
            ..Candidate::new(layers, [1.0, 0.1], 1.0, (0, 0.8))
        };
        let with = |value, standard_error| Estimate {
            standard_error,
            ..Estimate::exact(value)
        };
        Finalist {
            point: Point {
                candidate,
                latency_p95_s: 1.0,
                bound_bits: packets,
            },
            network: Layered {
                layers,
                width: 5,
                corrupt: 1,
                delay_mean_ms: 1,
                users: 1000,
                payload_uhz: candidate.payload_uhz.into(),
                loops_uhz: candidate.loops_uhz.into(),
            },
            entropy: Measured {
                mean: with(packets, 0.01),
                p05: None,
                over_users: Some(with(users.0, users.1)),
            },
        }
    }

    /// The fastest of those alike over users, however many more packets the slower ones have; what is less
    /// by more than chance is not chosen, nor is another number of layers called better by chance.
    #[test]
    fn more_packets_than_users_choose_nothing() {
        let sure = |bits, packets| one(3, (bits, 0.01), packets);
        let slower = [sure(9.2, 11.0), sure(9.62, 13.0), sure(9.70, 15.0)];
        let with = |other: Finalist| choose(&[&slower[..], &[other]].concat(), 3);
        assert_eq!(with(one(4, (9.75, 0.01), 19.0)), (1, 1));
        assert_eq!(with(one(4, (9.9, 0.01), 9.9)), (1, 3));
        assert_eq!(with(one(4, (9.9, 0.2), 9.9)), (1, 1));
        // Where errors are wide, no more can be told apart.
        let wide = slower.map(|one| {
            let mut wide = one;
            wide.entropy.over_users = one.entropy.over_users.map(|bits| Estimate {
                standard_error: 0.2,
                ..bits
            });
            wide
        });
        assert_eq!(choose(&wide, 3), (0, 0));
    }

    /// Above what can be measured, users bound what packets claim.
    #[test]
    fn no_claim_exceeds_the_users() {
        let mut many = one(3, (9.0, 0.01), 15.0);
        many.entropy.over_users = None;
        assert!((many.claim().value - 1000_f64.log2()).abs() < 1e-12);
        many.network.users = 1_000_000_000;
        assert!((many.claim().value - 15.0).abs() < 1e-12);
    }
}
