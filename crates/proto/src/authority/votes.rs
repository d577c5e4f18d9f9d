//! The votes that an authority has seen.
//!
//! Spec: docs/spec/directory.md, rule DIR-7.
//!
//! | quantity | type          | unit, range                                           |
//! |----------|---------------|-------------------------------------------------------|
//! | votes    | per authority | ballots of different rounds, <= [`VOTES_KEPT`] each   |

use std::collections::{BTreeMap, VecDeque};

use crate::directory::{Ballot, Vote};

/// Most votes kept of one authority: its latest.
pub const VOTES_KEPT: usize = 4;

#[derive(Default)]
pub(super) struct Votes(BTreeMap<u8, VecDeque<Ballot>>);

impl Votes {
    /// Keeps a vote whose signature holds. If its authority has voted otherwise in that round,
    /// returns the other vote, which with this one is proof.
    pub(super) fn keep(&mut self, ballot: Ballot) -> Option<Ballot> {
        let kept = self.0.entry(ballot.vote.authority).or_default();
        let of_round = |held: &&Ballot| held.vote.round == ballot.vote.round;
        if let Some(held) = kept.iter().find(of_round) {
            return (held.hash != ballot.hash).then_some(*held);
        }
        kept.push_back(ballot);
        if kept.len() > VOTES_KEPT {
            kept.pop_front();
        }
        None
    }

    /// The votes for `hash` of one round, if they are at least `threshold`, sorted by authority.
    pub(super) fn certificate(&self, hash: &[u8; 32], threshold: usize) -> Option<Vec<Vote>> {
        let mut rounds: BTreeMap<u32, Vec<Vote>> = BTreeMap::new();
        for Ballot { vote, .. } in self.0.values().flatten().filter(|b| b.hash == *hash) {
            rounds.entry(vote.round).or_default().push(*vote);
        }
        rounds.into_values().find(|votes| votes.len() >= threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(authority: u8, round: u32) -> Ballot {
        Ballot {
            period: 1,
            hash: [5; 32],
            vote: Vote {
                authority,
                round,
                signature: [0; 64],
            },
        }
    }

    /// DIR-7
    #[test]
    fn votes_of_one_round_are_counted_and_each_once() {
        let mut votes = Votes::default();
        for (authority, round) in [(2, 7), (0, 7), (0, 7), (1, 8)] {
            assert_eq!(votes.keep(ballot(authority, round)), None);
        }
        assert_eq!(votes.certificate(&[5; 32], 3), None);
        assert_eq!(votes.certificate(&[6; 32], 1), None);
        let two = [ballot(0, 7).vote, ballot(2, 7).vote];
        assert_eq!(votes.certificate(&[5; 32], 2), Some(two.to_vec()));
    }

    #[test]
    fn an_authority_that_votes_in_many_rounds_fills_nothing() {
        let mut votes = Votes::default();
        for round in 0..100 {
            votes.keep(ballot(1, round));
        }
        assert_eq!(votes.0[&1].len(), VOTES_KEPT);
        let oldest = votes.certificate(&[5; 32], 1).unwrap();
        assert_eq!(oldest[0].round, 96);
    }
}
