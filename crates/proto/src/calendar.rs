//! Calendar time as an input, and the epochs that it divides into.
//!
//! Spec: docs/spec/epochs.md, rules EPO-1 to EPO-6.
//!
//! | quantity   | unit            | value                                                    |
//! |------------|-----------------|----------------------------------------------------------|
//! | [`Utc`]    | ns since 1970   |                                                          |
//! | [`Epoch`]  | number          | period × epochs per period + index, never reused         |
//! | length     | s               | `epoch_s` of the consensus, 10 800 by default            |
//! | skew `s`   | s               | min(300, length / 16)                                    |
//! | grace `g`  | s               | length / 4                                               |
//! | key `e`    | opens           | from `start - s` to `end + g + s` (EPO-2)                |
//! | a client   | switches to `e` | at one instant drawn uniformly from                      |
//! |            |                 | [`start + s`, `start + g - s - transit`] (EPO-3)         |
//!
//! Machines know only [`Time`]; a driver tells them what UTC was at one of those times, again
//! whenever the two have drifted. After the last epoch that a consensus carries there is no
//! epoch at all, and everything stops closed (EPO-4).

use core::{ops::Range, time::Duration};

use crate::Time;

/// Nanoseconds since 1970-01-01 UTC, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc(pub u64);

impl Utc {
    /// From whole seconds since 1970.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// `self + span`, stopping at the end of representable time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// `self - span`, stopping at 1970.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What UTC was at one time of a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// A time of the driver's.
    pub at: Time,
    /// UTC at that time.
    pub utc: Utc,
}

impl Calendar {
    /// UTC at `time`.
    #[must_use]
    pub fn utc(self, time: Time) -> Utc {
        if time >= self.at {
            self.utc.after(time.since(self.at))
        } else {
            self.utc.before(self.at.since(time))
        }
    }

    /// The driver's time at `utc`; [`Time::ZERO`] if that was before the driver started.
    #[must_use]
    pub fn time(self, utc: Utc) -> Time {
        if utc >= self.utc {
            self.at.after(Duration::from_nanos(utc.0 - self.utc.0))
        } else {
            let back = self.utc.0 - utc.0;
            Time::from_nanos(self.at.as_nanos().saturating_sub(back))
        }
    }
}

/// Number of a key epoch; never reused within a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The epochs of one consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When its first epoch starts.
    pub valid_from: Utc,
    /// Length of an epoch, at least one second.
    pub length: Duration,
    /// Its first epoch.
    pub first: Epoch,
    /// How many epochs it carries keys for.
    pub count: u64,
    /// Longest that a packet may be under way: three delay caps and 5 s.
    pub transit: Duration,
}

impl Schedule {
    /// How far two honest clocks may differ (EPO-1).
    #[must_use]
    pub fn skew(&self) -> Duration {
        (self.length / 16).min(Duration::from_secs(300))
    }

    /// How long a key goes on opening after its epoch, skew apart (EPO-1).
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.length / 4
    }

    /// All epochs of this consensus.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + use<> {
        (self.first.0..self.first.0 + self.count).map(Epoch)
    }

    /// When `epoch` starts. Epochs before this consensus are reckoned back from its start, so that
    /// the keys of the period before close, and are erased, at the end of their own epochs.
    #[must_use]
    pub fn start(&self, epoch: Epoch) -> Utc {
        let index = u32::try_from(epoch.0.abs_diff(self.first.0)).unwrap_or(u32::MAX);
        let span = self.length.saturating_mul(index);
        if epoch < self.first {
            self.valid_from.before(span)
        } else {
            self.valid_from.after(span)
        }
    }

    /// The epoch at `utc`, or none before the first and after the last (EPO-4).
    #[must_use]
    pub fn at(&self, utc: Utc) -> Option<Epoch> {
        let into = utc.0.checked_sub(self.valid_from.0)?;
        let index = into / nanos(self.length);
        (index < self.count).then_some(Epoch(self.first.0 + index))
    }

    /// When the key of `epoch` opens packets (EPO-2).
    #[must_use]
    pub fn opens(&self, epoch: Epoch) -> Range<Utc> {
        let start = self.start(epoch);
        start.before(self.skew())..start.after(self.length + self.grace() + self.skew())
    }

    /// The instant at which a client whose draw is `uniform` in [0, 1) goes over to `epoch`, for
    /// forward packets and SURBs alike (EPO-3). The first epoch of a network has none before it,
    /// so it holds from its start.
    #[must_use]
    pub fn switch(&self, epoch: Epoch, uniform: f64) -> Utc {
        let start = self.start(epoch);
        if epoch == self.first {
            return start;
        }
        let room = self
            .grace()
            .saturating_sub(self.skew() * 2)
            .saturating_sub(self.transit);
        start.after(self.skew() + room.mul_f64(uniform.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule() -> Schedule {
        Schedule {
            valid_from: Utc::from_secs(1_000_000),
            length: HOUR * 3,
            first: Epoch(80),
            count: 16,
            transit: Duration::from_secs(10),
        }
    }

    #[test]
    fn utc_and_time_convert_both_ways() {
        let calendar = Calendar {
            at: Time::from_nanos(50),
            utc: Utc(1_000),
        };
        for (time, utc) in [(0, 950), (50, 1_000), (70, 1_020)] {
            assert_eq!(calendar.utc(Time::from_nanos(time)), Utc(utc));
            assert_eq!(calendar.time(Utc(utc)), Time::from_nanos(time));
        }
    }

    /// EPO-1, EPO-4
    #[test]
    fn epochs_follow_each_other_and_end() {
        let s = schedule();
        assert_eq!(s.skew(), Duration::from_secs(300));
        assert_eq!(s.grace(), Duration::from_secs(2700));
        for (secs, expected) in [
            (999_999, None),
            (1_000_000, Some(80)),
            (1_010_799, Some(80)),
            (1_010_800, Some(81)),
            (1_000_000 + 16 * 10_800 - 1, Some(95)),
            (1_000_000 + 16 * 10_800, None),
        ] {
            assert_eq!(s.at(Utc::from_secs(secs)), expected.map(Epoch), "{secs}");
        }
        assert_eq!(s.epochs().count(), 16);
    }

    /// EPO-2: the last key of the period before closes a grace and a skew after this one starts,
    /// and earlier ones an epoch earlier each.
    #[test]
    fn epochs_before_the_first_start_earlier() {
        let s = schedule();
        let closes = s.valid_from.after(s.grace() + s.skew());
        for (back, epoch) in (0..3).zip([79, 78, 77].map(Epoch)) {
            let ends = s.valid_from.before(s.length * back);
            assert_eq!(s.start(epoch), ends.before(s.length));
            assert_eq!(s.opens(epoch).end, closes.before(s.length * back));
        }
        assert_eq!(s.start(Epoch(0)), Utc::from_secs(1_000_000 - 80 * 10_800));
    }

    /// EPO-2, EPO-3: whoever switches when it may, even with a clock off by the skew, sends
    /// packets whose key is open while they are under way.
    #[test]
    fn a_switch_falls_inside_both_keys_windows() {
        let s = schedule();
        for uniform in [0.0, 0.5, 0.999_999] {
            let switch = s.switch(Epoch(81), uniform);
            for wrong_by in [-300i64, 300] {
                let real = Utc(switch.0.saturating_add_signed(wrong_by * 1_000_000_000));
                assert!(s.opens(Epoch(81)).contains(&real));
                assert!(s.opens(Epoch(80)).contains(&real.after(s.transit)));
            }
        }
        assert_eq!(s.switch(Epoch(80), 0.7), s.valid_from);
    }
}
