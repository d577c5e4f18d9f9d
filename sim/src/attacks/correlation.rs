//! Flow correlation by likelihood ratio (Danezis 2004): which flow out carries this flow in?
//!
//! Score of an output x₁ … xₙ for an input with times tⱼ: Σ ln(w T C(xᵢ) + 1 − w), where C is the input,
//! normalised, convolved with the delay's density d = Erlang(L, 1/mean), and w the flow's share of the
//! packets. Pairs that belong together are held against pairs that do not.
//! A second attacker knows no law: it counts packets in bins and takes the largest correlation
//! coefficient over lags (cross-correlation, as Levine et al. 2004).
//!
//! *Shaped*: as deployed. The client sends in slots of a Poisson process whether or not it has anything
//! to send, and receives at a constant rate; the attacker sees neither flow.

use super::{WORK_MAX, bound, chance_from, estimate, figure, line, plot, replicate};
use crate::{
    outcome::{Mark, Outcome, RunError, Series},
    random::Stream,
    stats::{Estimate, quantile_groups},
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Correlation {
    /// Mixes on the way.
    pub layers: u32,
    /// Mean delay of each, in seconds.
    pub delay_mean_s: f64,
    /// Packets of the flow per second.
    pub flow_per_s: f64,
    /// Packets of others on the output per second.
    pub noise_per_s: f64,
    /// Length of the observation, in seconds.
    pub seconds: f64,
    /// Whether client links are shaped.
    pub shaped: bool,
    /// Pairs of each kind.
    pub replications: u64,
}

/// Times and bins of one pair, at most: some hundred megabytes for each thread.
const HELD_MAX: f64 = 1e7;

/// Scores of one pair that belongs together and of one that does not.
type Pair = (f64, f64);

fn poisson_times(rate: f64, seconds: f64, stream: &mut Stream) -> Vec<f64> {
    let (mut at, mut times) = (0.0, Vec::new());
    loop {
        at += stream.exponential() / rate;
        if at >= seconds {
            return times;
        }
        times.push(at);
    }
}

impl Correlation {
    /// Whether it fits into memory and patience.
    #[expect(clippy::cast_precision_loss, reason = "replications are few")]
    fn check(&self) -> Result<(), RunError> {
        let packets = (self.flow_per_s + self.noise_per_s) * self.seconds;
        let bins = self.seconds / self.bin_s();
        let what = "packets and bins of time in one observation";
        let lower = "--flow-per-s, --noise-per-s or --seconds, or take longer delays";
        bound(what, packets + bins, HELD_MAX, lower)?;
        // Each packet that comes is held against all that may have become it, each bin against each lag.
        let near = self.flow_per_s * self.reach_s().min(self.seconds);
        let steps = packets * (1.0 + near) + bins * (1.0 + 2.0 * f64::from(self.layers).sqrt());
        let lower = "--flow-per-s, --noise-per-s, --seconds or --replications";
        bound(
            "steps",
            2.0 * steps * self.replications as f64,
            WORK_MAX,
            lower,
        )
    }

    /// Beyond which no delay is looked for.
    fn reach_s(&self) -> f64 {
        self.delay_mean_s * (f64::from(self.layers) + 30.0)
    }

    /// Width of a bin: the delay's standard deviation.
    fn bin_s(&self) -> f64 {
        self.delay_mean_s * f64::from(self.layers).sqrt()
    }

    fn delay(&self, stream: &mut Stream) -> f64 {
        (0..self.layers)
            .map(|_| stream.exponential() * self.delay_mean_s)
            .sum()
    }

    /// Density of Erlang(L, 1/mean) at `t` > 0.
    fn density(&self, t: f64) -> f64 {
        let x = t / self.delay_mean_s;
        let mut term = (-x).exp() / self.delay_mean_s;
        for k in 1..self.layers {
            term *= x / f64::from(k);
        }
        term
    }

    /// The input as seen, and the output as seen.
    fn flow(&self, stream: &mut Stream) -> (Vec<f64>, Vec<f64>) {
        let sent = poisson_times(self.flow_per_s, self.seconds, stream);
        let mut came: Vec<f64> = sent.iter().map(|at| at + self.delay(stream)).collect();
        came.retain(|at| *at < self.seconds);
        came.extend(poisson_times(self.noise_per_s, self.seconds, stream));
        came.sort_by(f64::total_cmp);
        if !self.shaped {
            return (sent, came);
        }
        // What is seen of the input is a Poisson process that does not depend on it; of the
        // output, ticks.
        let slots = poisson_times(self.flow_per_s, self.seconds, stream);
        let rate = self.flow_per_s + self.noise_per_s;
        let phase = stream.uniform();
        let ticks = (0u32..).map(|i| (f64::from(i) + phase) / rate);
        (slots, ticks.take_while(|at| *at < self.seconds).collect())
    }

    #[expect(clippy::cast_precision_loss, reason = "packets in memory")]
    fn score(&self, sent: &[f64], came: &[f64]) -> f64 {
        let w = self.flow_per_s / (self.flow_per_s + self.noise_per_s);
        let reach = self.reach_s();
        let mut first = 0;
        let mut score = 0.0;
        for x in came {
            while sent.get(first).is_some_and(|t| *t < x - reach) {
                first += 1;
            }
            let near = sent[first..].iter().take_while(|t| *t < x);
            let density: f64 = near.map(|t| self.density(x - t)).sum();
            let normalised = density / (sent.len().max(1) as f64);
            score += (w * normalised * self.seconds + 1.0 - w).ln();
        }
        score
    }

    /// Largest correlation of counts in bins as wide as the delay's standard deviation, over lags
    /// up to twice the mean delay.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bins of an observation"
    )]
    fn cross(&self, sent: &[f64], came: &[f64]) -> f64 {
        let width = self.bin_s();
        let bins = ((self.seconds / width).ceil() as usize).max(2);
        let lags = (2.0 * f64::from(self.layers).sqrt()).ceil() as usize;
        let count = |times: &[f64]| {
            let mut counts = vec![0.0; bins];
            for at in times {
                counts[((at / width) as usize).min(bins - 1)] += 1.0;
            }
            let mean = counts.iter().sum::<f64>() / bins as f64;
            counts.iter_mut().for_each(|count| *count -= mean);
            counts
        };
        let (a, b) = (count(sent), count(came));
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
        let product = |lag: usize| a.iter().zip(&b[lag..]).map(|(a, b)| a * b).sum::<f64>();
        let best = (0..=lags.min(bins - 1)).map(product);
        best.fold(f64::NEG_INFINITY, f64::max) / norm(&a) / norm(&b)
    }

    /// Scores by likelihood ratio, and by cross-correlation.
    fn pair(&self, stream: &mut Stream) -> [Pair; 2] {
        let (sent, came) = self.flow(stream);
        let (_, other) = self.flow(stream);
        [
            (self.score(&sent, &came), self.score(&sent, &other)),
            (self.cross(&sent, &came), self.cross(&sent, &other)),
        ]
    }

    /// All pairs, by likelihood ratio and by cross-correlation.
    fn pairs(&self, seed: u64) -> [Vec<Vec<Pair>>; 2] {
        let both = replicate(seed, self.replications, |stream| self.pair(stream));
        let one = |at: usize| {
            let section = |section: &Vec<[Pair; 2]>| section.iter().map(|pair| pair[at]).collect();
            both.iter().map(section).collect()
        };
        [one(0), one(1)]
    }
}

/// Area under the ROC curve: the probability that a true pair scores higher, ties half.
#[expect(clippy::cast_precision_loss, reason = "pairs in memory")]
fn area(pairs: &[Pair]) -> f64 {
    let mut all: Vec<(f64, bool)> = pairs
        .iter()
        .flat_map(|(own, other)| [(*own, true), (*other, false)])
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let own = equal.iter().filter(|(_, own)| *own).count() as f64;
        let others = equal.len() as f64 - own;
        wins += own * (below + others / 2.0);
        below += others;
    }
    wins / (pairs.len() as f64).powi(2)
}

/// Share of true pairs found when at most a share `false_rate` of the others is taken for true.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pairs in memory"
)]
fn found_at(pairs: &[Pair], false_rate: f64) -> f64 {
    let mut others: Vec<f64> = pairs.iter().map(|(_, other)| *other).collect();
    others.sort_by(|a, b| b.total_cmp(a));
    let threshold = others[((others.len() as f64 * false_rate) as usize).min(others.len() - 1)];
    pairs.iter().filter(|(own, _)| *own > threshold).count() as f64 / pairs.len() as f64
}

/// The same with its error, from parts that have enough of the others; none if all have too few.
fn rate_found(pairs: &[Vec<Pair>], false_rate: f64) -> Option<Estimate> {
    let all = pairs.iter().map(Vec::len).sum::<usize>() as u64;
    let groups = quantile_groups(pairs.len(), all, false_rate)?;
    let joined = pairs.chunks(pairs.len().div_ceil(groups));
    let joined: Vec<Vec<Pair>> = joined.map(<[_]>::concat).collect();
    Some(estimate(&joined, |part| found_at(part, false_rate)))
}

/// The 95 % interval of a share of `n` pairs found: Wilson's, which takes the threshold as given, or that of the spread
/// between parts, which has the threshold's own error but may be of few parts. The wider end of both.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pairs in memory"
)]
fn band(found: &Estimate) -> (f64, f64) {
    let wilson = Estimate::share((found.value * found.n as f64).round() as u64, found.n).interval();
    let spread = found.interval();
    (
        spread.0.min(wilson.0).max(0.0),
        spread.1.max(wilson.1).min(1.0),
    )
}

fn auc_and_rate_of(pairs: &[Vec<Pair>]) -> (Estimate, Estimate) {
    (
        estimate(pairs, area),
        estimate(pairs, |all| found_at(all, 0.01)),
    )
}

/// AUC, and the rate found at a false positive rate of 1 %, by likelihood ratio.
#[must_use]
pub fn auc_and_rate(settings: &Correlation, seed: u64) -> (Estimate, Estimate) {
    auc_and_rate_of(&settings.pairs(seed)[0])
}

/// The same by cross-correlation.
#[must_use]
pub fn cross_auc_and_rate(settings: &Correlation, seed: u64) -> (Estimate, Estimate) {
    auc_and_rate_of(&settings.pairs(seed)[1])
}

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if it would take too much memory or time.
pub fn run(settings: &Correlation, seed: u64) -> Result<Outcome, RunError> {
    settings.check()?;
    let rates = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
    let mut least = 1.0;
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    let names = [("", "likelihood ratio"), ("cross_", "cross-correlation")];
    for ((prefix, name), pairs) in names.into_iter().zip(settings.pairs(seed)) {
        let found = |rate: f64| rate_found(&pairs, rate);
        for (figure_name, label, value) in [
            (
                "auc",
                "area under the ROC curve",
                Some(estimate(&pairs, area)),
            ),
            ("tpr_at_1e-2", "found at 1 % false", found(0.01)),
            ("tpr_at_1e-3", "found at 0.1 % false", found(0.001)),
        ] {
            let (name, label) = (format!("{prefix}{figure_name}"), format!("{label}, {name}"));
            figures.extend(value.map(|value| figure(&name, &label, value, None)));
        }
        let curve: Vec<(f64, Estimate)> = rates
            .iter()
            .filter_map(|rate| Some((*rate, found(*rate)?)))
            .collect();
        least = curve.first().map_or(1.0, |(rate, _)| *rate);
        let ends = |(rate, found): &(f64, Estimate)| {
            let (low, high) = band(found);
            [(*rate, low), (*rate, high)]
        };
        let around = curve.iter().flat_map(ends).chain([(1.0, 1.0); 2]).collect();
        let points = curve.iter().map(|(rate, found)| (*rate, found.value));
        series.push(line(name, points.chain([(1.0, 1.0)]).collect()));
        series.push(Series {
            name: "95 %".to_owned(),
            mark: Mark::Band,
            points: around,
        });
    }
    series.push(chance_from(least));
    Ok(Outcome {
        figures,
        plots: vec![plot(
            "Who belongs to whom",
            "Share of true pairs found, over the share of other pairs taken for true. Bands are 95 % at each point: \
             Wilson's, or that of the spread between sections where it is wider.",
            ["false positive rate", "true positive rate"],
            series,
        )],
        ..Outcome::default()
    })
}
