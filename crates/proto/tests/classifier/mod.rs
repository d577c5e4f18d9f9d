//! A classifier for attack tests: naive Bayes over binned features, judged by the area under its ROC curve.
//!
//! Numbers are cut into 16 bins of equal weight, a byte is its two halves, of 16 values each: a feature whose own law differs
//! between classes moves it. Left out are those that differ no more than chance lets them (by Pearson's statistic; one in
//! some twenty does), so that hundreds don't drown a few. It does not see what shows in two features together only, as that
//! one equals the other, unless a test makes a feature of it; nor, of a number that is nearly always the same, a greater one in
//! less than a sixteenth of what it is trained on. It is trained on every fourth sample and judged on the others, once: judged
//! the other way round as well, both would err alike (what the one takes for a sign is what the samples of the other happen to
//! have), and the mean would be no surer than one.
//!
//! | figure       | what                                                                        |
//! |--------------|-----------------------------------------------------------------------------|
//! | area         | how often a sample of the first class scores higher, ties half; 0.5 is chance  |
//! | lower, upper | one-sided 95 % ends of it, by the spread of the samples judged (DeLong's)     |
//!
//! Of 10 000 samples a class an area at chance strays by 0.0047, so the upper end passes 0.52 once in 200 draws; of 12 000,
//! once in 700.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::thread;

const BINS: usize = 16;
/// One sample in so many is trained on.
const TRAINS: usize = 4;
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
    /// Of the halves of bytes.
    halves: Vec<[f64; BINS]>,
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
            let [a, b] = classes.map(|class| {
                let mut counts = vec![[0.0; BINS]; width];
                for sample in class {
                    for (feature, counts) in counts.iter_mut().enumerate() {
                        counts[bins(sample, feature)] += 1.0;
                    }
                }
                counts
            });
            a.iter().zip(&b).map(|(a, b)| odds([a, b])).collect()
        };
        Self {
            numbers: odds(cuts.len(), &|sample, i| bin(&cuts[i], sample.numbers[i])),
            halves: odds(2 * first.bytes.len(), &|sample, i| {
                halves(sample.bytes[i / 2])[i % 2]
            }),
            cuts,
        }
    }

    fn score(&self, sample: &Sample) -> f64 {
        let numbers = sample.numbers.iter().zip(&self.cuts).zip(&self.numbers);
        let numbers: f64 = numbers
            .map(|((number, cuts), odds)| odds[bin(cuts, *number)])
            .sum();
        let halves = sample.bytes.iter().copied().flat_map(halves);
        let halves = halves.zip(&self.halves).map(|(half, odds)| odds[half]);
        numbers + halves.sum::<f64>()
    }
}

/// By what each bin of a feature is likelier in the first class; nothing, if the feature differs no more than chance lets it.
fn odds(counts: [&[f64; BINS]; 2]) -> [f64; BINS] {
    let all = counts.map(|counts| counts.iter().sum::<f64>());
    // Pearson's statistic, and its degrees of freedom.
    let (mut apart, mut free) = (0.0, -1.0);
    for here in counts[0].iter().zip(counts[1]).map(|(a, b)| [a, b]) {
        let both = here[0] + here[1];
        free += f64::from(both > 0.0);
        for (count, all_own) in here.into_iter().zip(all).filter(|_| both > 0.0) {
            let expected = both * all_own / (all[0] + all[1]);
            apart += (count - expected).powi(2) / expected;
        }
    }
    // Nothing is impossible: one more in each bin.
    let share = |class: usize, bin: usize| (counts[class][bin] + 1.0) / (all[class] + BINS as f64);
    let differs = apart > free + 2.0 * (2.0 * free).sqrt();
    core::array::from_fn(|bin| {
        if differs {
            (share(0, bin) / share(1, bin)).ln()
        } else {
            0.0
        }
    })
}

fn halves(byte: u8) -> [usize; 2] {
    [byte >> 4, byte & 15].map(usize::from)
}

fn bin(cuts: &[f32], value: f32) -> usize {
    cuts.partition_point(|cut| *cut <= value)
}

/// An area under the ROC curve, and its one-sided 95 % ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) lower: f64,
    pub(crate) area: f64,
    pub(crate) upper: f64,
}

impl core::fmt::Display for Area {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { lower, area, upper } = self;
        write!(f, "{area:.4} ({lower:.4} to {upper:.4})")
    }
}

/// How often a score of `first` is higher than one of `second`, ties half. Its variance is that of what each score wins.
fn area(first: &[f64], second: &[f64]) -> Area {
    let mut all: Vec<(f64, bool)> = first.iter().map(|score| (*score, true)).collect();
    all.extend(second.iter().map(|score| (*score, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let counts = [first.len() as f64, second.len() as f64];
    let (mut below, mut sums) = ([0.0; 2], [[0.0; 2]; 2]);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let own = equal.iter().filter(|(_, first)| *first).count() as f64;
        let here = [own, equal.len() as f64 - own];
        for class in [0, 1] {
            let other = 1 - class;
            let beats = (below[other] + here[other] / 2.0) / counts[other];
            sums[class][0] += here[class] * beats;
            sums[class][1] += here[class] * beats * beats;
        }
        below = [below[0] + here[0], below[1] + here[1]];
    }
    let variance = |class: usize| {
        let (n, [sum, squares]) = (counts[class], sums[class]);
        ((squares - sum * sum / n) / (n - 1.0)).max(0.0) / n
    };
    let (area, spread) = (
        sums[0][0] / counts[0],
        Z * (variance(0) + variance(1)).sqrt(),
    );
    Area {
        lower: area - spread,
        area,
        upper: area + spread,
    }
}

/// How well a classifier that is trained on some samples tells the others apart.
pub(crate) fn told_apart(first: &[Sample], second: &[Sample]) -> Area {
    let trains = |class: &[Sample], is: bool| -> Vec<usize> {
        (0..class.len())
            .filter(|i| i.is_multiple_of(TRAINS) == is)
            .collect()
    };
    let some = [first, second].map(|class| {
        let some = trains(class, true).into_iter();
        some.map(|i| &class[i]).collect::<Vec<&Sample>>()
    });
    let bayes = Bayes::train([&some[0], &some[1]]);
    let [first, second] = [first, second].map(|class| {
        let others = trains(class, false).into_iter();
        others.map(|i| bayes.score(&class[i])).collect::<Vec<f64>>()
    });
    area(&first, &second)
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
