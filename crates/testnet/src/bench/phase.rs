//! What a phase of `bench node` found, and the statistics behind it.
//!
//! The load process makes one of each phase and tells it in a JSON line; `bench node` prints them.

use serde::{Deserialize, Serialize};

/// A node that forwards less of what is offered has fallen behind. (Packets that it still holds when
/// the offer ends make up a few hundredths.)
const KEEPS_UP: f64 = 0.93;
/// Tries with an offer under which the node fell behind: whoever shares the machine may have made it
/// do so once.
pub(super) const TRIES: usize = 3;

/// What one phase found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Phase {
    /// `warm-up`, `capacity` or `load`.
    pub name: String,
    /// Share of the capacity; 0 where it was not known.
    pub load: f64,
    /// Packets offered per second.
    pub offered_per_s: f64,
    /// Packets forwarded per second while packets were offered.
    pub forwarded_per_s: f64,
    /// Packets offered.
    pub offered: u64,
    /// Packets that came.
    pub forwarded: u64,
    /// CPU of the node per packet forwarded, in µs.
    pub cpu_us: f64,
    /// Median of the time added to the sampled delay, in ms.
    pub added_p50_ms: f64,
    /// Its 99 % quantile, in ms.
    pub added_p99_ms: f64,
    /// Distance of the realised holding times from the exponential law.
    pub ks_distance: f64,
    /// Packets behind quantiles and distance.
    pub tracked: u64,
    /// 99 % quantile of how late the load process itself was, in ms.
    pub late_p99_ms: f64,
}

impl Phase {
    /// Share of the packets offered that did not come.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    #[must_use]
    pub fn lost(&self) -> f64 {
        1.0 - self.forwarded as f64 / self.offered.max(1) as f64
    }

    /// Whether as much went out as came in.
    pub(super) fn keeps_up(&self) -> bool {
        self.forwarded_per_s >= KEEPS_UP * self.offered_per_s
    }

    /// The distance that as many draws of the law itself exceed once in twenty times (Kolmogorov).
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    #[must_use]
    pub fn chance(&self) -> f64 {
        1.358 / (self.tracked.max(1) as f64).sqrt()
    }
}

/// The phase of `phases` with the median of what was forwarded; `None` if there are none.
pub(super) fn median<'a>(phases: impl IntoIterator<Item = &'a Phase>) -> Option<&'a Phase> {
    let mut phases: Vec<_> = phases.into_iter().collect();
    phases.sort_by(|a, b| a.forwarded_per_s.total_cmp(&b.forwarded_per_s));
    phases.get(phases.len() / 2).copied()
}

/// Packets per second that the node forwards when more are offered: the median of the last
/// `TRIES` phases that looked for it; 0 before there are any.
#[must_use]
pub fn capacity(phases: &[Phase]) -> f64 {
    let tries = phases.iter().rev().filter(|phase| phase.name == "capacity");
    median(tries.take(TRIES)).map_or(0.0, |phase| phase.forwarded_per_s)
}

/// Sorts and takes a quantile; 0 of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index below the length"
)]
pub(super) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * q) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

/// Kolmogorov–Smirnov distance of `values` from the exponential law of mean 1.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
pub(super) fn distance_from_exponential(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    values
        .iter()
        .enumerate()
        .map(|(i, x)| {
            let law = 1.0 - (-x.max(0.0)).exp();
            (law - i as f64 / n)
                .abs()
                .max((law - (i + 1) as f64 / n).abs())
        })
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_sees_a_shifted_and_a_cut_law() {
        let exact = |shift: f64| -> Vec<f64> {
            (0..10_000)
                .map(|i| -(1.0 - (f64::from(i) + 0.5) / 10_000.0).ln() + shift)
                .collect()
        };
        assert!(distance_from_exponential(&mut exact(0.0)) < 1e-3);
        assert!(distance_from_exponential(&mut exact(0.1)) > 0.09);
        let mut cut = exact(0.0);
        cut.iter_mut().for_each(|x| *x = x.min(1.0));
        assert!(distance_from_exponential(&mut cut) > 0.3);
    }

    #[test]
    fn one_stall_is_not_the_capacity() {
        let phase = |name: &str, forwarded_per_s| Phase {
            name: name.to_owned(),
            offered_per_s: 60_000.0,
            forwarded_per_s,
            ..Phase::default()
        };
        let climb = [
            phase("warm-up", 2e3),
            phase("capacity", 5e4),
            phase("capacity", 3e4),
            phase("capacity", 4e4),
            phase("capacity", 4.2e4),
            phase("load", 1e4),
        ];
        assert_eq!(capacity(&climb).to_bits(), 4e4f64.to_bits());
        assert_eq!(capacity(&climb[..1]).to_bits(), 0f64.to_bits());
        assert!(phase("capacity", 5.9e4).keeps_up());
        assert!(!phase("capacity", 5e4).keeps_up());
    }

    #[test]
    fn quantiles_of_few_and_none() {
        assert_eq!(quantile(&mut [], 0.5).to_bits(), 0f64.to_bits());
        assert_eq!(
            quantile(&mut [3.0, 1.0, 2.0], 0.5).to_bits(),
            2f64.to_bits()
        );
        assert_eq!(
            quantile(&mut [3.0, 1.0, 2.0], 0.99).to_bits(),
            3f64.to_bits()
        );
    }
}
