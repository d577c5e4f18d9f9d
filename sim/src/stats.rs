//! Estimates with their errors.
//!
//! A run is cut into *sections*: equal shares of its independent replications, fixed by the
//! scenario and never by the number of threads. Every estimator, linear or not, is computed
//! once from all data (the value) and once from each section (its spread gives the standard
//! error): `se² = Σ(xₛ − x̄)² / S(S−1)`. One method serves means, quantiles and variances,
//! and correlation inside a replication cannot shrink an error. (Sectioning: Asmussen and
//! Glynn, *Stochastic Simulation*, III.5.) Where sections are short or unlike in weight and what is
//! estimated is a ratio or a variance, it is computed from all but one of them instead: the jackknife
//! (ibid., III.5b).

/// The 97.5 % quantile of the normal law.
const NORMAL_975: f64 = 1.959_963_985;

/// How far from an expected 0 a value may be without chance: the mass that is left when a target is
/// finished, and rounding. In batches every posterior is uniform, and there is nothing but this.
const ROUNDING: f64 = 1e-6;

/// On which side of the value what is meant lies, where an adversary was told more than it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At least the value: a lower bound is estimated.
    AtLeast,
    /// At most the value.
    AtMost,
}

/// A value with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// From all data.
    pub value: f64,
    /// Standard error; 0 for what is computed and not estimated.
    pub standard_error: f64,
    /// Observations behind the value: messages, packets or arrivals; 0 if computed.
    pub n: u64,
    /// Sections behind the standard error.
    pub sections: usize,
    /// Whether the value is a share of `n` independent trials: its interval is Wilson's, which
    /// does not shrink to nothing when all or none succeed.
    pub trials: bool,
    /// Whether what is meant is more than the value: some of the observations were given up.
    pub more: bool,
    /// The 95 % interval where it is not even about the value: a quantile's. An end is infinite where
    /// there are too few observations on its side.
    pub ends: Option<(f64, f64)>,
    /// If only a bound is estimated: which.
    pub bound: Option<Side>,
}

impl Estimate {
    /// A computed number, without error.
    #[must_use]
    pub fn exact(value: f64) -> Self {
        Self {
            value,
            standard_error: 0.0,
            n: 0,
            sections: 0,
            trials: false,
            more: false,
            ends: None,
            bound: None,
        }
    }

    /// How many of `n` independent trials succeed: `part` did. NaN without trials.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub fn share(part: u64, n: u64) -> Self {
        let p = part as f64 / n as f64;
        Self {
            value: p,
            standard_error: (p * (1.0 - p) / n as f64).sqrt(),
            n,
            sections: usize::try_from(n).unwrap_or(usize::MAX),
            trials: true,
            more: false,
            ends: None,
            bound: None,
        }
    }

    /// The `q`-quantile, with the interval that holds whatever the law: `rank` is the observation of
    /// that rank from below, the first being 1, and `sections` says how many observations each section
    /// has up to a value and in all.
    ///
    /// Of independent observations those up to the true quantile are binomial, and the ends are the
    /// order statistics that count allows (Cornish-Fisher, exact ranks from ten on). What correlates
    /// inside a section makes the count scatter more: the spread between sections says how much
    /// (Woodruff 1952). The standard error is that of a normal law with this interval.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks in memory, below 2^53"
    )]
    pub fn quantile(
        q: f64,
        n: u64,
        rank: impl Fn(u64) -> f64,
        sections: impl FnOnce(f64) -> Vec<(u64, u64)>,
    ) -> Self {
        let value = rank(rank_of(q, n));
        let mut full = sections(value);
        full.retain(|(_, n)| *n > 0);
        let (all, count) = (n as f64, full.len() as f64);
        let below = full.iter().map(|(below, _)| *below as f64).sum::<f64>() / all;
        let squares = full
            .iter()
            .map(|(some, n)| (*some as f64 - below * *n as f64).powi(2));
        let spread = squares.sum::<f64>() * count / (count - 1.0);
        let scatter = if below < 1.0 && full.len() > 1 {
            (spread / (all * below * (1.0 - below))).max(1.0)
        } else {
            1.0
        };
        let t = student_975(full.len().saturating_sub(1));
        let alone = all / scatter;
        let middle = alone * q + (t * t - 1.0) / 6.0 * (1.0 - 2.0 * q) + 0.5;
        let half = t * (alone * q * (1.0 - q)).sqrt();
        let low = (scatter * (middle - half)).floor();
        let high = (scatter * (middle + half)).ceil();
        let low = if low >= 1.0 {
            rank(low as u64)
        } else {
            f64::NEG_INFINITY
        };
        let high = if high <= all {
            rank(high as u64)
        } else {
            f64::INFINITY
        };
        let width = match (low.is_finite(), high.is_finite()) {
            (true, true) => (high - low) / 2.0,
            (true, false) => value - low,
            (false, true) => high - value,
            (false, false) => f64::NAN,
        };
        Self {
            value,
            standard_error: width / t,
            n,
            sections: full.len(),
            trials: false,
            more: false,
            ends: Some((low, high)),
            bound: None,
        }
    }

    /// The same of `sections`, lists of observations.
    #[must_use]
    pub fn quantile_of(q: f64, sections: &[Vec<f64>]) -> Self {
        let mut sorted = sections.concat();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = |section: &Vec<f64>, value: f64| {
            let below = section.iter().filter(|x| **x <= value).count();
            (below as u64, section.len() as u64)
        };
        Self::quantile(
            q,
            sorted.len() as u64,
            |rank| of_rank(&sorted, rank),
            |value| {
                sections
                    .iter()
                    .map(|section| count(section, value))
                    .collect()
            },
        )
    }

    /// In other units: `factor` (above 0) times as much, and `shift` more.
    #[must_use]
    pub fn scaled(self, factor: f64, shift: f64) -> Self {
        let of = |x: f64| x * factor + shift;
        Self {
            value: of(self.value),
            standard_error: self.standard_error * factor,
            ends: self.ends.map(|(low, high)| (of(low), of(high))),
            ..self
        }
    }

    /// `value` from all `n` observations, and what each section alone would say.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "sections are few")]
    pub fn from_sections(value: f64, n: u64, sections: &[f64]) -> Self {
        let count = sections.len() as f64;
        let mean = sections.iter().sum::<f64>() / count;
        let squares: f64 = sections.iter().map(|x| (x - mean).powi(2)).sum();
        let error = (squares / (count * (count - 1.0))).sqrt();
        let noise = 1e-14 * value.abs().max(1.0);
        Self {
            value,
            standard_error: if error < noise { 0.0 } else { error },
            n,
            sections: sections.len(),
            trials: false,
            more: false,
            ends: None,
            bound: None,
        }
    }

    /// `value` from all sections, and what all but each one would say: the jackknife,
    /// `se² = (S−1)/S Σ(xₛ − x̄)²`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "sections are few")]
    pub fn jackknife(value: f64, n: u64, without: &[f64]) -> Self {
        let spread = Self::from_sections(value, n, without);
        Self {
            standard_error: spread.standard_error * (without.len() as f64 - 1.0),
            ..spread
        }
    }

    /// The 95 % interval: by Student's t with one degree of freedom less than sections; of a
    /// share of trials by Wilson (1927); of a quantile its own.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        if let Some(ends) = self.ends {
            return ends;
        }
        if self.trials {
            return self.wilson();
        }
        let half = if self.standard_error == 0.0 {
            0.0
        } else {
            self.standard_error * student_975(self.sections.saturating_sub(1))
        };
        (self.value - half, self.value + half)
    }

    /// The shares `p` from which the value is `NORMAL_975` standard deviations `√(p(1−p)/n)` away.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    fn wilson(&self) -> (f64, f64) {
        let (p, n, z2) = (self.value, self.n as f64, NORMAL_975 * NORMAL_975);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = NORMAL_975 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }

    /// Standard errors between the value and `expected`; 0 for less than a ten-millionth of
    /// it, which is what finishing a target at a residual mass leaves open, and for less than a
    /// millionth where 0 is expected.
    #[must_use]
    pub fn z(&self, expected: f64) -> f64 {
        let difference = self.value - expected;
        let without_chance = if expected == 0.0 {
            ROUNDING
        } else {
            1e-7 * expected.abs()
        };
        if difference.abs() <= without_chance {
            0.0
        } else if self.trials {
            binomial_score(self.value, self.n, expected)
        } else {
            difference / self.standard_error
        }
    }
}

/// The 97.5 % quantile of Student's t with `freedom` degrees of freedom: exact for 1 and 2,
/// else by the Cornish-Fisher series (Abramowitz and Stegun 26.7.5), within 0.5 %.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "degrees of freedom are few")]
pub fn student_975(freedom: usize) -> f64 {
    const Z: f64 = NORMAL_975;
    match freedom {
        0 => f64::INFINITY,
        1 => 12.706_205,
        2 => 4.302_653,
        _ => {
            let v = freedom as f64;
            let (z3, z5, z7, z9) = (Z.powi(3), Z.powi(5), Z.powi(7), Z.powi(9));
            Z + (z3 + Z) / (4.0 * v)
                + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * v * v)
                + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / (384.0 * v.powi(3))
                + (79.0 * z9 + 776.0 * z7 + 1482.0 * z5 - 1920.0 * z3 - 945.0 * Z)
                    / (92_160.0 * v.powi(4))
        }
    }
}

/// The normal deviate as unlikely as Student's `t` with `freedom` degrees of freedom, to a few
/// per cent (Wallace 1959): what looks like many standard errors may not be when they are
/// estimated from few sections. NaN stays NaN; without freedom nothing is unlikely.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "degrees of freedom are few")]
pub fn normal_score(t: f64, freedom: usize) -> f64 {
    if freedom == 0 || t == 0.0 {
        return 0.0;
    }
    let v = freedom as f64;
    let size = (v * (t * t / v).ln_1p()).sqrt() * (8.0 * v + 1.0) / (8.0 * v + 3.0);
    size.copysign(t)
}

/// The normal deviate as unlikely as a share `found` of `n` trials of probability `p`, by the exact
/// tail with half of what is as far (mid-p): no spread is needed, so that none and all have one.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn binomial_score(found: f64, n: u64, p: f64) -> f64 {
    if found < p {
        return -binomial_score(1.0 - found, n, 1.0 - p);
    }
    let n = n as f64;
    let hits = (found * n).round();
    // Stirling's series: ln k! to 0.05 %.
    let factorial = |k: f64| match k {
        0.0 => 0.0,
        _ => k * k.ln() - k + 0.5 * (core::f64::consts::TAU * k).ln() + 1.0 / (12.0 * k),
    };
    let ways = factorial(n) - factorial(hits) - factorial(n - hits);
    let misses = if hits < n {
        (n - hits) * (-p).ln_1p()
    } else {
        0.0
    };
    let (mut term, mut sum, mut k) = (1.0, 0.5, hits);
    while k < n && term > 1e-12 * sum {
        term *= (n - k) / (k + 1.0) * p / (1.0 - p);
        sum += term;
        k += 1.0;
    }
    let tail = ways + hits * p.ln() + misses + sum.ln();
    // Abramowitz and Stegun 26.2.23, within 0.0005.
    let t = (-2.0 * tail.min(-core::f64::consts::LN_2)).sqrt();
    if t.is_infinite() {
        return t; // what cannot be has happened
    }
    let high = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let low = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - high / low).max(0.0)
}

/// The rank of the `q`-quantile of `n` observations, the first being 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into memory"
)]
fn rank_of(q: f64, n: u64) -> u64 {
    // Rounding must not pass a whole number.
    ((q * n as f64 * (1.0 - 1e-12)).ceil() as u64).max(1)
}

/// How many of `sections` (consecutive ones joined) to estimate a `q`-quantile from, when there
/// are `n` observations in all: each should have some ten beyond the quantile, and four are the
/// least that show a spread. None if there are not ten beyond it in all: such a quantile says more
/// of chance than of what was measured.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sections are few"
)]
pub fn quantile_groups(sections: usize, n: u64, q: f64) -> Option<usize> {
    // Rounding must not put ten below ten.
    let wanted = (n as f64 * q.min(1.0 - q) / 10.0 + 1e-9) as usize;
    (wanted > 0).then(|| wanted.clamp(4.min(sections), sections))
}

/// The mean of `values`; NaN if there are none.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The `q`-quantile of `sorted` (ascending): the least value that a share `q` does not exceed.
/// NaN if there are none.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    of_rank(sorted, rank_of(q, sorted.len() as u64))
}

/// The observation of `rank`, the first of `sorted` (ascending) being 1; NaN if there is none.
#[must_use]
pub fn of_rank(sorted: &[f64], rank: u64) -> f64 {
    let at = usize::try_from(rank).unwrap_or(0).checked_sub(1);
    at.and_then(|at| sorted.get(at).copied())
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_quantiles_meet_the_tables() {
        for (freedom, table) in [
            (1, 12.7062),
            (2, 4.3027),
            (3, 3.1824),
            (5, 2.5706),
            (10, 2.2281),
            (30, 2.0423),
            (63, 1.9983),
        ] {
            let value = student_975(freedom);
            assert!((value / table - 1.0).abs() < 5e-3, "{freedom}: {value}");
        }
    }

    #[test]
    fn few_sections_make_a_deviate_less_unlikely() {
        // Two-sided tails 0.1560 (exact: 2 atan(1/4) / π), 0.05 and 0.05.
        for (t, freedom, normal) in [(4.0, 1, 1.4187), (-2.2281, 10, -1.96), (1.9983, 63, 1.96)] {
            let found = normal_score(t, freedom);
            assert!(
                (found / normal - 1.0).abs() < 0.05,
                "{t} {freedom}: {found}"
            );
        }
    }

    #[test]
    fn sections_give_the_textbook_standard_error() {
        let estimate = Estimate::from_sections(2.5, 40, &[1.0, 2.0, 3.0, 4.0]);
        // Sample standard deviation 1.290994 over the square root of 4.
        assert!((estimate.standard_error - 0.645_497).abs() < 1e-6);
        assert!((estimate.z(2.5)).abs() < 1e-12);
        let noise = Estimate {
            value: 3e-15,
            standard_error: 4e-17,
            ..estimate
        };
        assert!(noise.z(0.0).abs() < 1e-12);
        let (low, high) = estimate.interval();
        assert!((high - low - 2.0 * 0.645_497 * student_975(3)).abs() < 1e-5);
    }

    /// Of a mean, it is the textbook's.
    #[test]
    fn the_jackknife_of_a_mean_is_its_standard_error() {
        let sections = [1.0, 2.0, 3.0, 4.0];
        let without = sections.map(|one| (10.0 - one) / 3.0);
        let found = Estimate::jackknife(2.5, 4, &without).standard_error;
        assert!((found - 0.645_497).abs() < 1e-6, "{found}");
    }

    /// Newcombe 1998, table I (method 3), to its four digits.
    #[test]
    fn shares_have_wilsons_interval() {
        for (part, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let found = Estimate::share(part, n).interval();
            for (found, printed) in [(found.0, low), (found.1, high)] {
                assert!((found - printed).abs() < 5.1e-5, "{part}/{n}: {found}");
            }
        }
        let (low, high) = Estimate::share(20, 20).interval();
        assert!((1.0 - low - 0.1611).abs() < 5.1e-5 && (high - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_quantile_needs_ten_observations_beyond_it() {
        for (n, q, groups) in [
            (999, 0.01, None),
            (1000, 0.01, Some(4)),
            (1000, 0.99, Some(4)),
            (19, 0.5, None),
            (20, 0.5, Some(4)),
            (3200, 0.05, Some(16)),
            (1_000_000, 0.5, Some(64)),
        ] {
            assert_eq!(quantile_groups(64, n, q), groups, "{n} {q}");
        }
    }

    /// Ranks by exact binomial sums.
    #[test]
    fn quantiles_have_order_statistics_for_ends() {
        for (n, q, ends) in [
            (100, 0.5, (40.0, 61.0)),
            (400, 0.05, (12.0, 30.0)),
            (1000, 0.01, (4.0, 18.0)),
            (1000, 0.99, (983.0, 997.0)),
        ] {
            let sections: Vec<Vec<f64>> = (1..=n).map(|at| vec![f64::from(at)]).collect();
            let found = Estimate::quantile_of(q, &sections);
            assert_eq!(found.interval(), ends, "{n} {q}");
            // The same told eight times is no more, but for the rank inside an observation.
            let eight: Vec<Vec<f64>> = sections.iter().map(|one| one.repeat(8)).collect();
            let (low, high) = Estimate::quantile_of(q, &eight).interval();
            assert!((low - ends.0).abs() <= 1.0, "{n} {q}: {low}");
            assert!((high - ends.1).abs() <= 1.0, "{n} {q}: {high}");
        }
        let few: Vec<Vec<f64>> = (1..=60).map(|at| vec![f64::from(at)]).collect();
        let (low, high) = Estimate::quantile_of(0.05, &few).interval();
        assert!(low.is_infinite() && high < 10.0, "{low} {high}");
    }

    /// Messages of which 4.5 % are at 0 and the rest about 10: the interval covers the true twentieth,
    /// the least of those, in 95 % of runs, though few runs have more than 5 % at 0.
    #[test]
    fn beside_an_atom_intervals_cover() {
        let mut stream = crate::random::Stream::new(1, 0, 0, crate::random::Purpose::Attack);
        let truth = 9.0 + 2.0 * (0.05 - 0.045) / 0.955;
        let covers = (0..400).filter(|_| {
            let mut one = || match stream.coin(0.045) {
                true => 0.0,
                false => 9.0 + 2.0 * stream.uniform(),
            };
            let sections: Vec<Vec<f64>> =
                (0..64).map(|_| (0..8).map(|_| one()).collect()).collect();
            let (low, high) = Estimate::quantile_of(0.05, &sections).interval();
            low <= truth && truth <= high
        });
        let covers = covers.count();
        assert!((375..=396).contains(&covers), "{covers} of 400");
    }

    /// Tails by hand: 2⁻¹⁰ / 2 (3.2972); of 100 coins more than 60, and half of 60 (1.9951); one hit of
    /// 4.1 · 10⁻⁶ expected; e⁻² / 2 for none of 2 expected (1.4925 with 1000 trials).
    #[test]
    fn shares_are_as_unlikely_as_binomial_tails() {
        for (part, n, p, z) in [
            (10, 10, 0.5, 3.2972),
            (0, 10, 0.5, -3.2972),
            (60, 100, 0.5, 1.9951),
            (1, 4096, 1e-9, 4.607),
            (0, 1000, 0.002, -1.4925),
            (5, 10, 0.5, 0.0),
            (10, 10, 1.0, 0.0),
        ] {
            let found = Estimate::share(part, n).z(p);
            assert!((found - z).abs() < 5e-3, "{part}/{n} {p}: {found}");
        }
        let impossible = [
            Estimate::share(1, 10).z(0.0),
            -Estimate::share(9, 10).z(1.0),
        ];
        assert_eq!(impossible, [f64::INFINITY; 2]);
    }

    #[test]
    fn quantiles_are_order_statistics() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        for (q, expected) in [
            (0.01, 1.0),
            (0.05, 5.0),
            (0.5, 50.0),
            (0.99, 99.0),
            (1.0, 100.0),
        ] {
            assert!((quantile(&sorted, q) - expected).abs() < 1e-12);
        }
        assert!(quantile(&[], 0.5).is_nan());
    }
}
