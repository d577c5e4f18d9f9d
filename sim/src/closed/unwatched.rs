//! What is left to someone who sees when packets enter and leave a network, and nothing inside.
//!
//! | quantity | unit                                     |
//! |----------|------------------------------------------|
//! | times    | mean delays of a mix                     |
//! | rate     | packets that leave per mean delay        |

use core::f64::consts::LN_2;

use super::network_limit_bits;

/// Step in a delay, and in the logarithm of the variable of Laplace transforms.
const STEP: f64 = 0.01;
const LOG_STEP: f64 = 0.05;

/// `E[H]` in bits of the message of an adversary who knows when it entered and when each packet
/// left, but watches no link inside: packet j is it with probability `f(t_j) / Σ f(t_k)`, f being
/// the density of a sum of `hops` exponential delays. The others leave as a Poisson process of
/// `rate` > 0 that does not depend on the message (displacement theorem), hence
///
/// `E[H] = E[ln(f(X) + Y)] − E[ln f(X)]` nats, X with density f, `Y = Σ f(t_k)` over the others,
///
/// `E[ln(f(X) + Y)] = ∫₀^∞ (e^(−s) − E[e^(−s f(X))] exp(−rate ∫ (1 − e^(−s f)))) ds / s`
///
/// (Frullani, Campbell). It exceeds what any adversary leaves who sees these times and more, and
/// tends to [`network_limit_bits`] from above as `rate` grows. Error of the sums: below 10⁻³ bits.
#[must_use]
pub fn unwatched_bits(rate: f64, hops: usize) -> f64 {
    let density = density(hops);
    // ∫ f ln f, with the rate taken out of the limit.
    let spread = network_limit_bits(1.0, hops, 1.0) * LN_2;
    let mut sum = 0.0;
    for step in -900_i32..=900 {
        let s = (f64::from(step) * LOG_STEP).exp();
        let (mut own, mut others) = (0.0, 0.0);
        for f in &density {
            let left = (-s * f).exp();
            own += f * left;
            others += 1.0 - left;
        }
        let both = own * STEP * (-rate * others * STEP).exp();
        sum += (-s).exp() - both;
    }
    (sum * LOG_STEP + spread) / LN_2
}

/// Density of Erlang(hops), mean 1 each, at the middles of steps, normed to one.
#[expect(clippy::cast_precision_loss, reason = "hops are few")]
fn density(hops: usize) -> Vec<f64> {
    let mut last = 0.0;
    let mut density = Vec::new();
    for step in 0.. {
        let x = (f64::from(step) + 0.5) * STEP;
        let f = (1..hops).fold((-x).exp(), |f, i| f * x / i as f64);
        if f < last && f < 1e-14 {
            break;
        }
        last = f;
        density.push(f);
    }
    let all = density.iter().sum::<f64>() * STEP;
    density.iter().map(|f| f / all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        closed::single_poisson_mix,
        random::{Purpose, SOURCE, Stream},
        stats::{Estimate, mean},
    };

    /// Against the posterior itself, over random traffic.
    #[test]
    fn the_integral_is_the_mean_of_the_posterior() {
        let mut random = Stream::new(3, 0, SOURCE, Purpose::Attack);
        for (rate, hops) in [(0.5_f64, 1_usize), (4.0, 1), (2.0, 3), (20.0, 5)] {
            let f = |x: f64| (1..hops).fold((-x).exp(), |f, i| f * x / i as f64);
            let mut bits = Vec::new();
            for _ in 0..20_000 {
                let own: f64 = (0..hops).map(|_| random.exponential()).sum();
                let mut p = vec![f(own)];
                let mut at = 0.0;
                loop {
                    at += random.exponential() / rate;
                    if at > 40.0 {
                        break;
                    }
                    p.push(f(at));
                }
                let all: f64 = p.iter().sum();
                bits.push(
                    p.iter()
                        .map(|p| crate::metrics::surprise(p / all))
                        .sum::<f64>(),
                );
            }
            let found = Estimate::from_sections(mean(&bits), 0, &bits);
            let expected = unwatched_bits(rate, hops);
            let z = (found.value - expected) / found.standard_error.max(1e-3);
            assert!(z.abs() < 4.0, "{rate} {hops}: {found:?} {expected}");
        }
    }

    #[test]
    fn it_exceeds_what_links_leave_and_tends_to_the_limit() {
        for rho in [0.1, 1.0, 10.0] {
            assert!(unwatched_bits(rho, 1) > single_poisson_mix(rho).entropy);
        }
        for hops in [1, 3, 5] {
            let over = unwatched_bits(1e4, hops) - network_limit_bits(1e4, hops, 1.0);
            assert!((0.0..2e-3).contains(&(over + 1e-3)), "{hops}: {over}");
        }
        // Nobody else: nothing is hidden.
        assert!(unwatched_bits(1e-4, 3) < 0.01);
    }
}
