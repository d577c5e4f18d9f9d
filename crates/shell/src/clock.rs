//! The only place in the workspace that reads a clock.
//!
//! | reading            | system clock      | unit                        | used for                 |
//! |--------------------|-------------------|-----------------------------|--------------------------|
//! | [`Clock::now`]     | `CLOCK_MONOTONIC` | ns since the clock started  | everything machines time |
//! | [`Clock::utc`]     | the calendar      | ns since 1970               | epochs, certificates     |
//! | [`worked`]         | the thread's own  | processor time it has had   | the self-check           |
//!
//! The first two are tied together only by [`Clock::calendar`], which drivers hand to machines again
//! and again: when an operator or NTP sets the calendar, delays in flight are not touched.

use core::time::Duration;
use std::time::SystemTime;

use proto::{
    Time,
    calendar::{Calendar, Utc},
};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Maps the system's monotonic clock to the machines' [`Time`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Timespec,
}

impl Clock {
    /// A clock that reads zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: read() }
    }

    /// One that was started so long ago.
    #[cfg(test)]
    pub(crate) fn started(ago: Duration) -> Self {
        let ago = Timespec::try_from(ago).expect("short");
        Self {
            start: read() - ago,
        }
    }

    /// The time now. A link stamps each packet with it as soon as its last byte is read.
    #[must_use]
    pub fn now(self) -> Time {
        let elapsed = Duration::try_from(read() - self.start).expect("the clock is monotonic");
        Time::ZERO.after(elapsed)
    }

    /// The calendar now; 1970 on a system whose calendar stands before it.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one calendar of the process"
    )]
    pub fn utc(self) -> Utc {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Utc::default().after(since.unwrap_or_default())
    }

    /// What UTC is at the time that is now: an input of machines that know epochs.
    #[must_use]
    pub fn calendar(self) -> Calendar {
        Calendar {
            at: self.now(),
            utc: self.utc(),
        }
    }

    /// What the system's clock reads at `at`.
    pub(crate) fn timespec(self, at: Time) -> Timespec {
        let since = Timespec::try_from(Duration::from_nanos(at.as_nanos()));
        self.start + since.expect("584 years fit")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one clock of the process"
)]
fn read() -> Timespec {
    clock_gettime(ClockId::Monotonic)
}

/// The processor time that this thread has had: it stands still while others have the processor.
///
/// # Panics
///
/// Never: it is not negative.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is timed by it that happens in the world"
)]
#[must_use]
pub fn worked() -> Duration {
    let had = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
    had.expect("a thread's time is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_zero_and_never_goes_back() {
        let clock = Clock::start();
        let times: Vec<Time> = (0..1000).map(|_| clock.now()).collect();
        assert!(times.is_sorted());
        assert!(times[0].since(Time::ZERO) < Duration::from_secs(10));
    }

    #[test]
    fn the_calendar_ties_utc_to_time() {
        let clock = Clock::start();
        let calendar = clock.calendar();
        let (before, later) = (clock.utc(), calendar.utc(clock.now()));
        let apart = before.0.abs_diff(later.0);
        assert!(apart < 1_000_000_000, "{apart} ns");
        assert!(before > Utc::from_secs(1_600_000_000));
    }
}
