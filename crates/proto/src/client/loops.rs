//! Loops under way, and the loss of the path that they measure.
//!
//! Spec: docs/spec/client.md, rules CLI-6 and CLI-7.
//!
//! | quantity | unit, range                                                                   |
//! |----------|-------------------------------------------------------------------------------|
//! | due      | UTC ns: when the loop should be stored, by its own delays                     |
//! | stored   | UTC s: when the gateway stored a packet that was read                         |
//! | verdict  | returned or lost; the last [`VERDICTS`] are kept                              |
//! | loss     | probability; 95 % upper bound once [`VERDICTS_MIN`] loops were judged         |
//!
//! A loop counts as lost only when a packet stored [`PATIENCE`] or more after it was due has been
//! read, or when the mailbox was empty then: one that is slow, or flooded, loses no loop. One that was
//! due around numbers that the gateway left out gets no verdict (CLI-6).
//!
//! Not done here: alarms (`alarm`). A lost loop that comes late is counted as unknown.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{Time, calendar::Utc};

/// How much later than a loop's due time a packet must have been stored for the loop to be lost.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Loops on which the estimate rests.
pub(crate) const VERDICTS: usize = 1024;
/// Fewer say nothing: the prior holds.
pub(crate) const VERDICTS_MIN: usize = 100;
/// Loss of a path before it was measured: 1 % on each of five links (MSG-11).
pub const LOSS_PRIOR: f64 = 0.049;

/// One-sided 95 % of the normal distribution.
const Z: f64 = 1.645;

#[derive(Default)]
pub(crate) struct Loops {
    under_way: BTreeMap<[u8; 16], (Time, Utc)>,
    by_due: BTreeSet<(Utc, [u8; 16])>,
    lost: VecDeque<bool>,
    pub(crate) sent: u64,
    pub(crate) returned: u64,
    /// From when on an empty mailbox says that nothing is waiting in it: [`PATIENCE`] after its
    /// link came up.
    pub(crate) hears_from: Option<Time>,
}

impl Loops {
    /// A loop left at `now`; its own delays bring it to the mailbox at `due`. Of more than
    /// `loops_max` the one due first is forgotten without a verdict.
    pub(crate) fn sent(&mut self, id: [u8; 16], now: Time, due: Utc, loops_max: usize) {
        self.sent += 1;
        self.under_way.insert(id, (now, due));
        self.by_due.insert((due, id));
        if self.under_way.len() > loops_max
            && let Some((_, oldest)) = self.by_due.pop_first()
        {
            self.under_way.remove(&oldest);
        }
    }

    /// A loop came back at `now`: how long it took, or `None` if it is not under way.
    pub(crate) fn returned(&mut self, id: &[u8; 16], now: Time) -> Option<Duration> {
        let (sent, due) = self.under_way.remove(id)?;
        self.by_due.remove(&(due, *id));
        self.returned += 1;
        self.verdict(false);
        Some(now.since(sent))
    }

    /// Nothing that was stored before `upto` is left to be read: how many loops are lost by that
    /// (CLI-6).
    pub(crate) fn read(&mut self, upto: Utc) -> u64 {
        let mut lost = 0;
        while let Some((due, id)) = self.by_due.first().copied()
            && due.after(PATIENCE) <= upto
        {
            self.by_due.pop_first();
            self.under_way.remove(&id);
            self.verdict(true);
            lost += 1;
        }
        lost
    }

    /// Loops due up to `upto` and not yet judged say nothing, also if they still come: whether
    /// the mailbox could take them is not known. How many they are.
    pub(crate) fn excuse(&mut self, upto: Utc) -> u64 {
        let mut unjudged = 0;
        while let Some((due, id)) = self.by_due.first().copied()
            && due <= upto
        {
            self.by_due.pop_first();
            self.under_way.remove(&id);
            unjudged += 1;
        }
        unjudged
    }

    /// Those under way say nothing any more.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
        self.by_due.clear();
    }

    fn verdict(&mut self, lost: bool) {
        self.lost.push_back(lost);
        if self.lost.len() > VERDICTS {
            self.lost.pop_front();
        }
    }

    /// Loss of the path: 95 % upper bound (Wilson) of the last verdicts, or the prior (CLI-7).
    pub(crate) fn loss(&self) -> f64 {
        if self.lost.len() < VERDICTS_MIN {
            return LOSS_PRIOR;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 1024")]
        let [n, lost] = [
            self.lost.len() as f64,
            self.lost.iter().filter(|lost| **lost).count() as f64,
        ];
        let (p, z2) = (lost / n, Z * Z);
        let spread = (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        (p + z2 / (2.0 * n) + Z * spread) / (1.0 + z2 / n)
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn id(i: u8) -> [u8; 16] {
        [i; 16]
    }

    /// CLI-6
    #[test]
    fn a_loop_is_lost_only_by_a_packet_stored_well_after_it_was_due() {
        let mut loops = Loops::default();
        let at = |s: u64| Time::ZERO.after(S * u32::try_from(s).unwrap());
        loops.sent(id(1), at(0), Utc::from_secs(100), 10);
        loops.sent(id(2), at(1), Utc::from_secs(101), 10);
        assert_eq!(loops.read(Utc::from_secs(104)), 0);
        assert_eq!(loops.read(Utc::from_secs(105)), 1);
        assert_eq!(loops.returned(&id(1), at(7)), None, "a verdict stands");
        assert_eq!(loops.returned(&id(2), at(7)), Some(S * 6));
        assert_eq!(loops.returned(&id(2), at(7)), None, "each loop once");
        assert_eq!((loops.sent, loops.returned, loops.under_way()), (2, 1, 0));
        assert_eq!(loops.lost, [true, false]);
    }

    /// CLI-6
    #[test]
    fn a_loop_that_is_excused_gets_no_verdict() {
        let mut loops = Loops::default();
        for i in 0..4 {
            loops.sent(id(i), Time::ZERO, Utc::from_secs(100 + u64::from(i)), 10);
        }
        assert_eq!(loops.read(Utc::from_secs(105)), 1);
        assert_eq!(loops.excuse(Utc::from_secs(102)), 2);
        assert_eq!(loops.returned(&id(2), Time::ZERO), None);
        assert_eq!(loops.returned(&id(3), Time::ZERO), Some(Duration::ZERO));
        assert_eq!(loops.lost, [true, false]);
    }

    /// CLI-7
    #[test]
    fn the_loss_is_the_prior_until_loops_have_measured_it() {
        let mut loops = Loops::default();
        for i in 0..VERDICTS {
            if i < VERDICTS_MIN {
                assert_eq!(loops.loss(), LOSS_PRIOR);
            }
            loops.verdict(i % 20 == 0);
        }
        assert!((0.051..0.065).contains(&loops.loss()), "{}", loops.loss());
        (0..VERDICTS).for_each(|_| loops.verdict(false));
        assert!((0.0..0.003).contains(&loops.loss()));
        assert_eq!(loops.lost.len(), VERDICTS);
    }

    #[test]
    fn loops_under_way_are_bounded() {
        let mut loops = Loops::default();
        for i in 0..9 {
            loops.sent(id(i), Time::ZERO, Utc::from_secs(u64::from(i)), 4);
            assert!(loops.under_way() <= 4);
        }
        assert_eq!(loops.returned(&id(0), Time::ZERO), None);
        assert!(loops.returned(&id(8), Time::ZERO).is_some());
    }
}
