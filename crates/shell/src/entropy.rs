//! The only place in the workspace that draws from the operating system's randomness.
//!
//! | what          | for                                                       |
//! |---------------|-----------------------------------------------------------|
//! | [`seed`]      | keys, and the seed that each machine gets at construction |
//! | [`uniform`]   | jitter of things that no machine decides: retries, fetches|

use core::time::Duration;

/// 32 fresh bytes.
///
/// # Panics
///
/// If the system has no randomness: nothing that follows could be safe.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "keys and first seeds come from here, and from nowhere else"
)]
pub fn seed() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    bytes
}

/// A number drawn uniformly from [0, 1), in steps of 2⁻³².
#[must_use]
pub fn uniform() -> f64 {
    let [a, b, c, d, ..] = seed();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// Waits between attempts: doubling, with jitter, so that the peers of a node that comes back do
/// not all call at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits between half and all of `first`, then of its double, up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        let next = first;
        Self { first, most, next }
    }

    /// How long to wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = (ceiling * 2).min(self.most);
        ceiling.mul_f64(0.5 + uniform() / 2.0)
    }

    /// Starts over: the last attempt went well.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_lie_in_range() {
        assert_ne!(seed(), seed());
        let draws: Vec<f64> = (0..1000).map(|_| uniform()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}"); // 11 standard errors
    }

    #[test]
    fn waits_double_up_to_the_most() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(500));
        for ceiling in [100, 200, 400, 500, 500] {
            let wait = backoff.wait();
            assert!((ms(ceiling / 2)..=ms(ceiling)).contains(&wait), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= ms(100));
    }
}
