//! The one interface between protocol logic and whatever drives it.
//!
//! | party          | gives                          | takes                      |
//! |----------------|--------------------------------|----------------------------|
//! | driver (shell) | real time, frames from sockets | frames to write, events    |
//! | driver (sim)   | virtual time, frames from heap | frames to schedule, events |
//!
//! Laws every machine keeps, checked by `tests/laws.rs`:
//!
//! 1. **Monotone.** `now` never decreases from call to call (asserted).
//! 2. **Drain.** After `handle` or `wake`, the driver calls `poll` until `None`.
//! 3. **Progress.** Once drained at `now`, `next_wake()` is later than `now`, or `None`.
//! 4. **Harmless wake.** Waking early does nothing; waking late only delays.
//! 5. **Bounded.** No queue grows past a limit named in the machine's parameters.
//! 6. **Deterministic.** Equal construction and equal calls give equal outputs.

use core::time::Duration;

/// Time since the machine's driver started, in nanoseconds; monotonic, never wall-clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The instant at which the driver started.
    pub const ZERO: Self = Self(0);

    /// The time `nanos` nanoseconds after the driver started.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the driver started.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self + span`, stopping at the largest representable time (584 years).
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A protocol participant that performs no I/O.
pub trait Machine {
    /// What the driver brings: frames that arrived, commands from the owner.
    type Input;
    /// What the machine asks for: frames to send, events for the owner.
    type Output;

    /// Takes one input that arrived at `now`.
    fn handle(&mut self, now: Time, input: Self::Input);

    /// Does whatever has fallen due by `now`.
    fn wake(&mut self, now: Time);

    /// Returns the next effect to carry out, or `None` when drained.
    fn poll(&mut self) -> Option<Self::Output>;

    /// Returns when the driver must call `wake` next, if nothing arrives before.
    fn next_wake(&self) -> Option<Time>;
}
