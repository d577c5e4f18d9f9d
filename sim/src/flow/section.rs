//! What one section of a run observed: the raw material of every figure.
//!
//! | field     | shape                | unit                                                   |
//! |-----------|----------------------|--------------------------------------------------------|
//! | targets   | list                 | one [`Target`] per measured message                    |
//! | latency   | hdrhistogram         | [`LATENCY_UNIT`] of the unit of time, exits in the window |
//! | occupancy | counts by pool size  | arrivals that found this many packets (PASTA)          |
//! | gaps      | moments              | units of time between exits in the window              |
//! | users     | list                 | mean and least entropy of one user's [`LANES`](super::posterior::LANES) messages |
//! | advantages, epsilons | lists     | one number per game (`games`)                           |
//! | events    | count                | arrivals from the source and departures from mixes      |

use std::array;

use hdrhistogram::Histogram;

use super::posterior::Target;
use crate::stats::{Estimate, mean};

/// Resolution of latency: this many steps in one unit of time. Histograms are linear up to
/// eight units and keep four digits beyond.
pub const LATENCY_STEPS: f64 = 4096.0;

/// Observations of one section.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Measured messages, in order.
    pub targets: Vec<Target>,
    /// Mean and least entropy over the messages of each pass, which stand for a user's: they
    /// follow each other at a mean distance of some passes of the network.
    pub users: Vec<(f64, f64)>,
    /// Advantages of those who tell two pairs of correspondents apart, 0 to 1.
    pub advantages: Vec<f64>,
    /// Loopix's ε, where both senders are possible.
    pub epsilons: Vec<f64>,
    /// Packets of which ε was to be taken.
    pub labels: u64,
    /// Latency of the packets that left during windows, in steps.
    pub latency: Histogram<u64>,
    /// How many arrivals found a mix with this many packets, during windows.
    pub occupancy: Vec<u64>,
    /// Gaps between exits during windows.
    pub gaps: Gaps,
    /// Events of the whole section.
    pub events: u64,
    /// Packets that entered in the whole section.
    pub packets: u64,
    /// Packets that entered during windows.
    pub arrivals: u64,
    /// Packets that left during windows.
    pub exits: u64,
}

/// Moments of the gaps between exits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gaps {
    /// Gaps counted.
    pub count: u64,
    /// Σ g.
    pub sum: f64,
    /// Σ g².
    pub square: f64,
    /// Σ g g', over consecutive pairs.
    pub product: f64,
    /// Pairs counted.
    pub pairs: u64,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            users: Vec::new(),
            advantages: Vec::new(),
            epsilons: Vec::new(),
            labels: 0,
            latency: Histogram::new(4).expect("four digits are allowed"),
            occupancy: Vec::new(),
            gaps: Gaps::default(),
            events: 0,
            packets: 0,
            arrivals: 0,
            exits: 0,
        }
    }
}

impl Section {
    /// What was measured of the targets of one pass.
    pub(crate) fn measure(&mut self, targets: Vec<Target>) {
        let entropies: Vec<f64> = targets.iter().map(|target| target.entropy).collect();
        if !entropies.is_empty() {
            let least = entropies.iter().copied().fold(f64::INFINITY, f64::min);
            self.users.push((mean(&entropies), least));
        }
        self.targets.extend(targets);
    }

    /// An arrival found `held` packets.
    #[inline]
    pub(crate) fn saw(&mut self, held: u32) {
        let held = held as usize;
        if held >= self.occupancy.len() {
            self.occupancy.resize(held + 1, 0);
        }
        self.occupancy[held] += 1;
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a latency is positive and far below 2^50 steps"
    )]
    pub(crate) fn latency_units(&mut self, units: f64) {
        self.latency
            .record((units * LATENCY_STEPS + 0.5) as u64)
            .expect("the histogram grows");
    }

    /// A gap between exits, and the one before it (NaN if none).
    pub(crate) fn gap(&mut self, gap: f64, before: f64) {
        self.gaps.count += 1;
        self.gaps.sum += gap;
        self.gaps.square += gap * gap;
        if !before.is_nan() {
            self.gaps.product += gap * before;
            self.gaps.pairs += 1;
        }
    }

    /// Several sections as one.
    #[must_use]
    pub fn sum(sections: &[Self]) -> Self {
        let mut sum = Self::default();
        for section in sections {
            sum.absorb(section);
        }
        sum
    }

    /// Adds what another section observed.
    pub fn absorb(&mut self, other: &Self) {
        self.targets.extend_from_slice(&other.targets);
        self.users.extend_from_slice(&other.users);
        self.advantages.extend_from_slice(&other.advantages);
        self.epsilons.extend_from_slice(&other.epsilons);
        self.labels += other.labels;
        self.latency
            .add(&other.latency)
            .expect("the histogram grows");
        if self.occupancy.len() < other.occupancy.len() {
            self.occupancy.resize(other.occupancy.len(), 0);
        }
        for (sum, n) in self.occupancy.iter_mut().zip(&other.occupancy) {
            *sum += n;
        }
        self.gaps.count += other.gaps.count;
        self.gaps.sum += other.gaps.sum;
        self.gaps.square += other.gaps.square;
        self.gaps.product += other.gaps.product;
        self.gaps.pairs += other.gaps.pairs;
        self.events += other.events;
        self.packets += other.packets;
        self.arrivals += other.arrivals;
        self.exits += other.exits;
    }

    /// What `of` says of all `sections` together, with the spread between them.
    #[must_use]
    pub fn estimate(sections: &[Self], of: impl Fn(&Self) -> f64) -> Estimate {
        let parts: Vec<f64> = sections.iter().map(&of).collect();
        Estimate::from_sections(of(&Self::sum(sections)), 0, &parts)
    }

    /// What `of` says of the `sums` of all `sections` together, by the jackknife: for ratios and
    /// variances. A section is a few mean delays, and by how much its own mean differs from another's
    /// is part of the variance over all of them, but not of the variance inside any.
    #[must_use]
    pub fn estimate_sums<const N: usize>(
        sections: &[Self],
        n: u64,
        sums: impl Fn(&Self) -> [f64; N],
        of: impl Fn([f64; N]) -> f64,
    ) -> Estimate {
        let parts: Vec<[f64; N]> = sections.iter().map(sums).collect();
        let all: [f64; N] = array::from_fn(|at| parts.iter().map(|part| part[at]).sum());
        let without = parts
            .iter()
            .map(|part| of(array::from_fn(|at| all[at] - part[at])));
        Estimate::jackknife(of(all), n, &without.collect::<Vec<_>>())
    }

    /// Mean over targets; NaN without any.
    pub fn mean(&self, metric: impl Fn(&Target) -> f64) -> f64 {
        mean(&self.column(metric))
    }

    /// One number per target.
    pub fn column(&self, metric: impl Fn(&Target) -> f64) -> Vec<f64> {
        self.targets.iter().map(metric).collect()
    }

    /// Mean latency, in units of time; NaN if nothing left.
    #[must_use]
    pub fn latency_mean(&self) -> f64 {
        if self.latency.is_empty() {
            return f64::NAN;
        }
        self.latency.mean() / LATENCY_STEPS
    }

    /// The `q`-quantile of latency, in units of time; NaN if nothing left.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 steps")]
    pub fn latency_quantile(&self, q: f64) -> f64 {
        if self.latency.is_empty() {
            return f64::NAN;
        }
        self.latency.value_at_quantile(q) as f64 / LATENCY_STEPS
    }

    /// Latencies, in units of time: how many, and their sum.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub(crate) fn latency_sums(&self) -> [f64; 2] {
        let n = self.latency.len() as f64;
        [n, n * self.latency.mean() / LATENCY_STEPS]
    }

    /// Of what arrivals found: how many there were, the sum, and that of the squares.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub(crate) fn occupancy_sums(&self) -> [f64; 3] {
        let mut sums = [0.0; 3];
        for (held, count) in self.occupancy.iter().enumerate() {
            let (held, count) = (held as f64, *count as f64);
            sums[0] += count;
            sums[1] += held * count;
            sums[2] += held * held * count;
        }
        sums
    }

    /// How many arrivals there were, and how many found at most `held` packets.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub(crate) fn occupancy_below(&self, held: usize) -> [f64; 2] {
        let all: u64 = self.occupancy.iter().sum();
        let below: u64 = self.occupancy.iter().take(held + 1).sum();
        [all as f64, below as f64]
    }
}

/// Mean of `n` observations by their sum; a share by how many there are of it.
pub(crate) fn ratio([n, sum]: [f64; 2]) -> f64 {
    sum / n
}

/// Variance by [`Section::occupancy_sums`].
pub(crate) fn variance([n, sum, square]: [f64; 3]) -> f64 {
    square / n - (sum / n).powi(2)
}

impl Gaps {
    /// Standard deviation over mean; 1 for a Poisson process.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub fn variation(&self) -> f64 {
        let mean = self.sum / self.count as f64;
        (self.square / self.count as f64 - mean * mean).sqrt() / mean
    }

    /// Correlation of consecutive gaps; 0 for a Poisson process.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub fn lag1(&self) -> f64 {
        let mean = self.sum / self.count as f64;
        let variance = self.square / self.count as f64 - mean * mean;
        (self.product / self.pairs as f64 - mean * mean) / variance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Setup, study};

    /// 95 % intervals of what arrivals find in one mix and of latency hold the truth, over seeds, though a
    /// section is 8 mean delays. The control: by the variances inside sections, far fewer do.
    #[test]
    fn intervals_of_short_sections_cover() {
        let setup = Setup {
            rate: 5.0,
            window: 8.0,
            ..Setup::default()
        };
        let covers = |estimate: &Estimate, truth: f64| {
            let (low, high) = estimate.interval();
            u64::from((low..=high).contains(&truth))
        };
        let (first, runs) = (1000, 150);
        let mut covered = [0; 4];
        for seed in first..first + runs {
            let sections = study(&setup, seed, 64, &|_| ());
            let found = |of: fn([f64; 3]) -> f64| {
                Section::estimate_sums(&sections, 0, Section::occupancy_sums, of)
            };
            let latency = Section::estimate_sums(&sections, 0, Section::latency_sums, ratio);
            let inside = Section::estimate(&sections, |one| variance(one.occupancy_sums()));
            covered[0] += covers(&latency, 1.0);
            covered[1] += covers(&found(|[n, sum, _]| ratio([n, sum])), setup.rate);
            covered[2] += covers(&found(variance), setup.rate);
            covered[3] += covers(&inside, setup.rate);
        }
        let [rest @ .., inside] = covered;
        // 95 %, less what chance takes, and a variance that comes out small has a small error, too.
        for covered in rest {
            assert!(covered >= runs * 88 / 100, "{rest:?} {inside}");
        }
        assert!(inside < runs * 8 / 10, "{inside}");
    }
}
