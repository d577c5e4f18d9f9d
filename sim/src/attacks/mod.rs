//! Attacks over many rounds, simulated: what one message's entropy does not show.
//!
//! | module           | attack                                                    | ATTACKS |
//! |------------------|-----------------------------------------------------------|---------|
//! | [`disclosure`]   | statistical disclosure: who are one sender's friends?      | t03     |
//! | [`least_squares`] | least-squares disclosure: who are everyone's friends?     | t03     |
//! | [`intersection`] | who was online whenever the target was?                    | t03     |
//! | [`correlation`]  | which flow out belongs to which flow in?                   | t04     |
//! | [`blending`]     | (n−1): block all but one, against loops and a detector     | t01     |
//! | [`receiving`]    | does a mailbox gateway see that a mailbox is written to?   | g01     |
//! | [`resend`]       | whom is one sender writing to, by blocking and watching?   | t08     |
//! | [`pause`]        | the same, by throttling until a client pauses              | t11     |
//! | [`flood`]        | a flooded mailbox, whose loops come late                   | t11     |
//! | [`path`]         | does one packet of a user meet corrupt mixes alone?        | t10     |
//!
//! Each is a pure function of its settings and a seed. Replications are cut into [`SECTIONS`]
//! sections, merged in order, so that threads do not matter; errors are those of sections.

pub mod blending;
pub mod correlation;
pub mod disclosure;
pub mod flood;
pub mod intersection;
pub mod least_squares;
pub mod path;
pub mod pause;
pub mod receiving;
pub mod resend;

use rayon::prelude::*;

use crate::{
    outcome::{Expected, Figure, Mark, Plot, RunError, Series},
    random::{Purpose, Stream},
    report::short,
    stats::{Estimate, mean, quantile},
};

/// Sections of a study.
pub const SECTIONS: u64 = 32;

/// Steps that a study may take in all: minutes.
const WORK_MAX: f64 = 1e11;

/// Refuses a study whose `what`, `here`, is above `most`, and says what to lower.
fn bound(what: &str, here: f64, most: f64, lower: &str) -> Result<(), RunError> {
    if here <= most {
        return Ok(());
    }
    let here = short(here);
    Err(RunError::Usage(format!(
        "{here} {what}: must be at most {most:e}; lower {lower}"
    )))
}

/// Runs `one_of` for every replication, in order; `replications` are rounded up to whole sections.
fn replicate<T: Send>(
    seed: u64,
    replications: u64,
    one_of: impl Fn(&mut Stream) -> T + Sync,
) -> Vec<Vec<T>> {
    let share = replications.div_ceil(SECTIONS).max(1);
    let section = |section: u64| {
        let one = |i| {
            one_of(&mut Stream::new(
                seed,
                section * share + i,
                0,
                Purpose::Attack,
            ))
        };
        (0..share).map(one).collect()
    };
    (0..SECTIONS).into_par_iter().map(section).collect()
}

/// An estimator over all replications, with its error from sections.
fn estimate<T: Clone>(sections: &[Vec<T>], estimator: impl Fn(&[T]) -> f64) -> Estimate {
    let all: Vec<T> = sections.concat();
    let each: Vec<f64> = sections.iter().map(|section| estimator(section)).collect();
    Estimate::from_sections(estimator(&all), all.len() as u64, &each)
}

fn mean_of(sections: &[Vec<f64>]) -> Estimate {
    estimate(sections, mean)
}

/// An estimator of rounds or times, infinite for the attacks that gave up after `most`, as if they had ended then; if
/// that makes it too small, it is known to be more. And the share that gave up.
fn until(sections: &[Vec<f64>], most: f64, estimator: impl Fn(&[f64]) -> f64) -> [Estimate; 2] {
    let ended = each(sections, |at| at.min(most));
    let found = Estimate {
        more: estimator(&sections.concat()).is_infinite(),
        ..estimate(&ended, estimator)
    };
    [found, share_of(&each(sections, |at| at.is_infinite()))]
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// `of` each replication.
fn each<T, U>(sections: &[Vec<T>], of: impl Fn(&T) -> U) -> Vec<Vec<U>> {
    sections
        .iter()
        .map(|section| section.iter().map(&of).collect())
        .collect()
}

/// How often it happens, of independent replications.
fn share_of(sections: &[Vec<bool>]) -> Estimate {
    let all = sections.iter().flatten();
    let happened = all.clone().filter(|happened| **happened).count();
    Estimate::share(happened as u64, all.count() as u64)
}

fn figure(name: &str, label: &str, estimate: Estimate, expected: Option<f64>) -> Figure {
    Figure {
        name: name.to_owned(),
        label: label.to_owned(),
        estimate,
        expected: expected.map(Expected::Equals),
    }
}

/// Lines and references over one axis, with every point in the table beneath, and its band if it has one.
fn plot(title: &str, caption: &str, axes: [&str; 2], series: Vec<Series>) -> Plot {
    let is_band = |one: &Series| one.mark == Mark::Band;
    let banded = series.iter().any(is_band);
    let mut table_rows = Vec::new();
    for (at, one) in series.iter().enumerate().filter(|(_, one)| !is_band(one)) {
        let band = series.get(at + 1).filter(|next| is_band(next));
        for (point, (x, y)) in one.points.iter().enumerate() {
            let mut row = vec![one.name.clone(), short(*x), short(*y)];
            if banded {
                let ends = band.map_or(&[][..], |band| &band.points[2 * point..2 * point + 2]);
                row.extend(
                    [0, 1].map(|end| ends.get(end).map_or("–".to_owned(), |end| short(end.1))),
                );
            }
            table_rows.push(row);
        }
    }
    let ends: &[&str] = if banded { &["low", "high"] } else { &[] };
    let head = ["line", axes[0], axes[1]]
        .into_iter()
        .chain(ends.iter().copied());
    Plot {
        title: title.to_owned(),
        caption: caption.to_owned(),
        x_label: axes[0].to_owned(),
        y_label: axes[1].to_owned(),
        table_head: head.map(str::to_owned).collect(),
        table_rows,
        series,
    }
}

/// A rising curve of false and true rates from the false rate `least` on, where what is found at less stands: the axis
/// is logarithmic, since an attacker with many to choose from can't afford a false rate that a linear one would show.
fn roc_from(least: f64, curve: impl IntoIterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut from = vec![(least, 0.0_f64)];
    for (wrong, found) in curve {
        if wrong <= least {
            from[0].1 = from[0].1.max(found);
        } else {
            from.push((wrong, found));
        }
    }
    from
}

/// What guessing finds, on such an axis.
fn chance_from(least: f64) -> Series {
    let rates = core::iter::successors(Some(1.0), |rate| Some(rate / 1.5));
    let rates = rates.take_while(|rate| *rate > 1.2 * least).chain([least]);
    let mut points: Vec<(f64, f64)> = rates.map(|rate| (rate, rate)).collect();
    points.reverse();
    reference("chance", points)
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series {
        name: name.to_owned(),
        mark: Mark::Line,
        points,
    }
}

fn reference(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series {
        name: name.to_owned(),
        mark: Mark::Reference,
        points,
    }
}
