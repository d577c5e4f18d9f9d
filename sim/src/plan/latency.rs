//! How long a message of one packet takes, as a distribution: computed, not simulated.
//!
//! Three independent waits are added, nothing being lost:
//!
//! | wait            | law                                                              |
//! |-----------------|------------------------------------------------------------------|
//! | payload slot    | exponential, rate λP (CLI-3)                                     |
//! | L mixes         | Erlang(L), mean m each                                           |
//! | mailbox         | first come, first served, one frame each 1/μD (GW-12, GW-13)     |
//!
//! The first two have a closed sum. The mailbox is the slotted queue `Q' = max(Q − 1, 0) + A`
//! with `A ~ Poisson(load)`, whose stationary law follows from how often each length is
//! passed upwards and downwards; who comes a share u after a tick leaves after `1 − u` periods and one more for each packet before it.
//!
//! Approximations: arrivals at a mailbox are taken as Poisson; u takes `STEPS` values, which
//! moves a quantile by at most half a step of a period.

use crate::closed::poisson_pmf;

/// Values of u within a period.
const STEPS: u32 = 10;
/// Highest load whose queue is followed.
pub const LOAD_MAX: f64 = 0.9;
/// Longest queue that is followed; at a load of 0.9 longer ones have a mass below 1e-8.
const QUEUE: usize = 100;
/// Mass of the longest waits that is counted as "longer than anything".
const TAIL: f64 = 1e-6;

/// Law of the wait in a mailbox, in periods of its downstream.
#[derive(Clone, Debug)]
pub struct Mailbox(Vec<(f64, f64)>);

impl Mailbox {
    /// At `load` packets per period, from 0 to [`LOAD_MAX`].
    #[must_use]
    pub fn new(load: f64) -> Self {
        // Pr[at least n arrive].
        let mut least: Vec<f64> = (0..QUEUE as u64).map(|n| poisson_pmf(load, n)).collect();
        let none = least[0];
        for n in (0..QUEUE - 1).rev() {
            least[n] += least[n + 1];
        }
        // As often up past n − 1, from 0 or any shorter queue, as down from n to n − 1.
        let mut queue = vec![1.0 - load];
        for n in 1..QUEUE {
            let from = |found: usize| queue[found] * least[n + 1 - found.max(1)];
            let crossed: f64 = (0..n).map(from).sum();
            queue.push(crossed / none);
        }
        // What a tick leaves behind: it takes one of those it finds.
        let mut behind = queue.split_off(1);
        behind[0] += queue[0];
        let mut waits = Vec::new();
        let mut total = 0.0;
        for (before, periods) in (0..QUEUE).zip(0_u32..) {
            for step in (0..STEPS).rev() {
                let u = (f64::from(step) + 0.5) / f64::from(STEPS);
                let mut mass = 0.0;
                for (new, n) in (0..=before).zip(0..) {
                    let left = behind.get(before - new).copied().unwrap_or(0.0);
                    mass += left * poisson_pmf(load * u, n);
                }
                mass /= f64::from(STEPS);
                total += mass;
                waits.push((f64::from(periods) + 1.0 - u, mass));
            }
            if total > 1.0 - TAIL {
                break;
            }
        }
        Self(waits)
    }

    /// Mean wait, in periods.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().map(|(wait, mass)| wait * mass).sum()
    }
}

/// Rates of one message's way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Payload slots per second, > 0.
    pub payload_per_s: f64,
    /// Mixes on the way, from 1 to 8.
    pub layers: u32,
    /// Mean delay of each mix, in seconds, > 0.
    pub delay_mean_s: f64,
    /// Downstream frames per second, > 0.
    pub downstream_per_s: f64,
}

impl Way {
    /// Pr[slot and mixes take at most `t` seconds]. With rates λ and μ = 1/m and z = (μ − λ) t:
    /// `Erlang(t) − (μ t)^L g(z) e^(−λt)`, `g(z) = ∫₀¹ s^(L−1)/(L−1)! e^(−zs) ds`, by its series
    /// near 0.
    #[must_use]
    pub fn sent_and_mixed(&self, t: f64) -> f64 {
        if t <= 0.0 {
            return 0.0;
        }
        let (slots, steps) = (self.payload_per_s * t, t / self.delay_mean_s);
        // Σ x^j / j! over j < L, and L − 1 factorial.
        let (partial, factorial) = (
            |x: f64| {
                let terms = (0..self.layers).scan(1.0, |term, j| {
                    let this = *term;
                    *term *= x / f64::from(j + 1);
                    Some(this)
                });
                terms.sum::<f64>()
            },
            (1..self.layers).map(f64::from).product::<f64>(),
        );
        let gone = (-steps).exp();
        let erlang = 1.0 - gone * partial(steps);
        let z = steps - slots;
        let power = i32::try_from(self.layers).expect("a few layers");
        let late = if z.abs() < 1.0 {
            let (mut term, mut sum) = (1.0, 0.0);
            for k in 0..20 {
                sum += term / (factorial * f64::from(k + self.layers));
                term *= -z / f64::from(k + 1);
            }
            (-slots).exp() * sum
        } else {
            ((-slots).exp() - gone * partial(z)) / z.powi(power)
        };
        (erlang - steps.powi(power) * late).clamp(0.0, 1.0)
    }

    /// Pr[the message takes at most `t` seconds].
    #[must_use]
    pub fn within(&self, mailbox: &Mailbox, t: f64) -> f64 {
        let waits = mailbox.0.iter();
        waits
            .map(|(periods, mass)| mass * self.sent_and_mixed(t - periods / self.downstream_per_s))
            .sum()
    }

    /// The time that a share `q` (in 0..0.999) of messages does not exceed, in seconds, to 1e-6
    /// relative.
    #[must_use]
    pub fn quantile(&self, mailbox: &Mailbox, q: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.delay_mean_s);
        while self.within(mailbox, high) < q {
            (low, high) = (high, high * 2.0);
        }
        for _ in 0..20 {
            let middle = f64::midpoint(low, high);
            if self.within(mailbox, middle) < q {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closed::{erlang_cdf, erlang_quantile};

    const WAY: Way = Way {
        payload_per_s: 2.0,
        layers: 3,
        delay_mean_s: 0.1,
        downstream_per_s: 4.0,
    };

    /// Against direct integration over the payload wait, on both sides of equal rates and there.
    #[test]
    fn the_closed_sum_is_the_integral() {
        let rates = [0.5, 9.0, 9.999_99, 10.0, 10.5, 40.0, 1000.0];
        for (layers, payload_per_s) in [1, 2, 3, 5].iter().flat_map(|l| rates.map(|r| (*l, r))) {
            let way = Way {
                payload_per_s,
                layers,
                ..WAY
            };
            for t in [0.05, 0.3, 1.0, 3.0] {
                let (parts, mut sum) = (20_000_u32, 0.0);
                let step = t / f64::from(parts);
                for i in 0..parts {
                    let x = f64::from(i) * step;
                    let mass = (-payload_per_s * x).exp() - (-payload_per_s * (x + step)).exp();
                    let left = t - x - step / 2.0;
                    sum += mass * erlang_cdf(layers as usize, way.delay_mean_s, left);
                }
                let closed = way.sent_and_mixed(t);
                assert!(
                    (closed - sum).abs() < 2e-5,
                    "{layers} {payload_per_s} {t}: {closed} {sum}"
                );
            }
        }
    }

    /// Mean of a slotted queue: half a period until the tick, and ρ/2(1 − ρ) periods of queue
    /// (M/D/1).
    #[test]
    fn a_mailbox_waits_like_a_queue_with_constant_service() {
        for load in [0.0, 0.2, 0.5, 0.8, LOAD_MAX] {
            let expected = 0.5 + load / (2.0 * (1.0 - load));
            let mean = Mailbox::new(load).mean();
            assert!((mean - expected).abs() < 2e-3, "{load}: {mean} {expected}");
        }
    }

    #[test]
    fn a_fast_slot_and_a_fast_mailbox_leave_the_mixes() {
        let way = Way {
            payload_per_s: 1e5,
            downstream_per_s: 1e5,
            ..WAY
        };
        let mailbox = Mailbox::new(0.2);
        for q in [0.5, 0.95] {
            let (found, mixes) = (way.quantile(&mailbox, q), erlang_quantile(3, 0.1, q));
            assert!((found / mixes - 1.0).abs() < 1e-3, "{found} {mixes}");
            assert!(WAY.quantile(&mailbox, q) > found);
        }
    }
}
