//! A classifier for attack tests: naive Bayes over binned features, judged by the area under its ROC curve.
//!
//! Numbers are cut into 16 bins of equal weight, bytes by their upper half: any feature whose law differs between
//! classes moves it. It is trained on one half of the samples and judged on the other, both ways.
//!
//! | figure | what                                                                         |
//! |--------|------------------------------------------------------------------------------|
//! | area   | how often a sample of the first class scores higher, ties half; 0.5 is chance   |
//! | upper  | one-sided 95 % end of it, by the variance at chance                            |

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::thread;

const BINS: usize = 16;
/// One-sided 95 % of the normal distribution.
const Z: f64 = 1.645;

/// What an observer has of one thing.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Times and names.
    pub(crate) numbers: Vec<f32>,
    pub(crate) bytes: Vec<u8>,
}

/// For each feature, how much likelier each bin is in the first class: logarithms.
struct Bayes {
    cuts: Vec<Vec<f32>>,
    numbers: Vec<[f64; BINS]>,
    bytes: Vec<[f64; BINS]>,
}

impl Bayes {
    fn train(classes: [&[&Sample]; 2]) -> Self {
        let first = classes[0][0];
        let cuts: Vec<Vec<f32>> = (0..first.numbers.len())
            .map(|feature| {
                let all = classes.iter().copied().flatten();
                let mut all: Vec<f32> = all.map(|sample| sample.numbers[feature]).collect();
                all.sort_by(f32::total_cmp);
                (1..BINS).map(|bin| all[all.len() * bin / BINS]).collect()
            })
            .collect();
        let odds = |width: usize, bins: &dyn Fn(&Sample, usize) -> usize| {
            // Nothing is impossible: one in each bin to begin with.
            let counts = classes.map(|class| {
                let mut counts = vec![[1.0; BINS]; width];
                for sample in class {
                    for (feature, counts) in counts.iter_mut().enumerate() {
                        counts[bins(sample, feature)] += 1.0;
                    }
                }
                (counts, (class.len() + BINS) as f64)
            });
            let [(a, all_a), (b, all_b)] = &counts;
            let ratio = |feature: usize, bin: usize| {
                ((a[feature][bin] / all_a) / (b[feature][bin] / all_b)).ln()
            };
            (0..width)
                .map(|feature| core::array::from_fn(|bin| ratio(feature, bin)))
                .collect()
        };
        Self {
            numbers: odds(cuts.len(), &|sample, i| bin(&cuts[i], sample.numbers[i])),
            bytes: odds(first.bytes.len(), &|sample, i| {
                usize::from(sample.bytes[i] >> 4)
            }),
            cuts,
        }
    }

    fn score(&self, sample: &Sample) -> f64 {
        let numbers = sample.numbers.iter().zip(&self.cuts).zip(&self.numbers);
        let numbers: f64 = numbers
            .map(|((number, cuts), odds)| odds[bin(cuts, *number)])
            .sum();
        let bytes = sample.bytes.iter().zip(&self.bytes);
        numbers
            + bytes
                .map(|(byte, odds)| odds[usize::from(byte >> 4)])
                .sum::<f64>()
    }
}

fn bin(cuts: &[f32], value: f32) -> usize {
    cuts.partition_point(|cut| *cut <= value)
}

/// Area under the ROC curve: how often a sample of the first class scores higher, ties half.
fn area(first: &[f64], second: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = first.iter().map(|score| (*score, true)).collect();
    all.extend(second.iter().map(|score| (*score, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let own = equal.iter().filter(|(_, first)| *first).count() as f64;
        let others = equal.len() as f64 - own;
        wins += own * (below + others / 2.0);
        below += others;
    }
    wins / (first.len() as f64 * second.len() as f64)
}

/// The area of a classifier that is trained on one half and judged on the other, both ways; and the upper end of it.
pub(crate) fn told_apart(first: &[Sample], second: &[Sample]) -> [f64; 2] {
    let halves = |class: &'_ [Sample], half: usize| -> Vec<usize> {
        (0..class.len()).filter(|i| i % 2 == half).collect()
    };
    let areas = [0, 1].map(|half| {
        let pick = |class, half| -> Vec<&Sample> {
            halves(class, half).into_iter().map(|i| &class[i]).collect()
        };
        let bayes = Bayes::train([&pick(first, half), &pick(second, half)]);
        let scores = |class| -> Vec<f64> {
            let judged = pick(class, 1 - half);
            judged
                .into_iter()
                .map(|sample| bayes.score(sample))
                .collect()
        };
        area(&scores(first), &scores(second))
    });
    let mean = (areas[0] + areas[1]) / 2.0;
    [mean, mean + spread(first.len(), second.len())]
}

/// `run` of each, at once: networks and views have nothing to do with each other, and a machine has more than one
/// processor.
pub(crate) fn at_once<T: Send, R: Send>(
    all: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    thread::scope(|scope| {
        let run = &run;
        let started: Vec<_> = all
            .into_iter()
            .map(|one| scope.spawn(move || run(one)))
            .collect();
        let ended = started.into_iter().map(|one| one.join());
        ended.map(|one| one.expect("it has said why")).collect()
    })
}

/// The lower end of an area, from so many samples a class.
pub(crate) fn lower(area: f64, samples: usize) -> f64 {
    area - spread(samples, samples)
}

fn spread(first: usize, second: usize) -> f64 {
    Z * ((1.0 / first as f64 + 1.0 / second as f64) / 12.0).sqrt()
}
