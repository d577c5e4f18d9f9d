//! What a run found: the one shape that both engines fill and that the summary, the report
//! and the tests read.
//!
//! | part     | what                                                                    |
//! |----------|-------------------------------------------------------------------------|
//! | figures  | estimates with standard error, n, and what theory expects, if anything    |
//! | counts   | exact numbers (packets, targets, drops), no error                         |
//! | plots    | data and reference curves, drawn by [`crate::plot`] as they stand         |
//! | failures | what makes the run fail (a safety violation); empty when all is well      |
//! | trace    | hash of everything that happened, where an engine keeps one               |
//!
//! Invariant: a function of scenario and seed alone, whatever the number of threads.

use std::collections::BTreeMap;

use crate::stats::Estimate;

/// Names of all figures that runs have, of both engines: a sweep can be planned for no other.
pub const FIGURES: [&str; 50] = [
    "bayes_vulnerability_mean",
    "calibration_gap_bits",
    "contact_calibration_gap_bits",
    "contact_entropy_mean_bits",
    "contact_entropy_p01_bits",
    "contact_entropy_p05_bits",
    "contact_entropy_p50_bits",
    "effective_set_mean_packets",
    "entropy_mean_bits",
    "entropy_p01_bits",
    "entropy_p05_bits",
    "entropy_p50_bits",
    "entropy_unwatched_bits",
    "first_alarm_s",
    "first_hold_s",
    "guesswork_mean_packets",
    "latency_mean_ms",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p999_ms",
    "latency_p99_ms",
    "log_loss_mean_bits",
    "loop_latency_mean_ms",
    "loop_latency_p50_ms",
    "loop_latency_p95_ms",
    "loop_latency_p99_ms",
    "loopix_delta",
    "loopix_epsilon_mean",
    "message_latency_mean_ms",
    "message_latency_p50_ms",
    "message_latency_p95_ms",
    "message_latency_p99_ms",
    "min_entropy_mean_bits",
    "mix_bytes_per_s",
    "mix_packets_per_s",
    "occupancy_mean_packets",
    "occupancy_variance_packets2",
    "pass_entropy_least_mean_bits",
    "pass_entropy_p01_bits",
    "pass_entropy_p05_bits",
    "pass_entropy_p50_bits",
    "receiver_degree_mean",
    "receiver_entropy_mean_bits",
    "receiver_entropy_p01_bits",
    "receiver_entropy_p05_bits",
    "receiver_entropy_p50_bits",
    "renyi2_mean_bits",
    "unlinkability_advantage_mean",
    "user_upstream_bytes_per_s",
];

/// One estimated number.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Stable name, the unit last: `entropy_mean_bits`.
    pub name: String,
    /// What a person calls it: "Shannon entropy over packets, mean".
    pub label: String,
    /// Value, standard error, sample size.
    pub estimate: Estimate,
    /// What theory says of it, where it does.
    pub expected: Option<Expected>,
}

/// What theory says of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    /// A closed form gives exactly this.
    Equals(f64),
    /// A closed form bounds it from above.
    AtMost(f64),
}

/// Beginnings of the names of figures that are shares, from 0 to 1.
const SHARES: [&str; 12] = [
    "auc",
    "bayes_vulnerability",
    "chance",
    "cross_auc",
    "cross_tpr",
    "found_",
    "friends_found",
    "loopix_delta",
    "named_",
    "receiver_degree",
    "tpr_",
    "unlinkability_advantage",
];

impl Figure {
    /// The 95 % interval, within what the figure can be: only a calibration gap can be negative.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        let (low, high) = self.estimate.interval();
        if self.name.ends_with("gap_bits") {
            return (low, high);
        }
        let share = SHARES.iter().any(|begin| self.name.starts_with(begin));
        let most = if share { 1.0 } else { f64::INFINITY };
        (low.clamp(0.0, most), high.clamp(0.0, most))
    }

    /// Standard errors between the value and its closed form, if it has one and the value is known.
    #[must_use]
    pub fn z(&self) -> Option<f64> {
        if self.estimate.more {
            return None;
        }
        match self.expected? {
            Expected::Equals(value) => Some(self.estimate.z(value)),
            Expected::AtMost(_) => None,
        }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A polyline.
    Line,
    /// A thin dashed polyline, for what theory says.
    Reference,
    /// Bars from zero, centred on x, of unit width of the x grid.
    Bars,
    /// Dots.
    Dots,
    /// Whiskers: points come in pairs of one x, low and high.
    Intervals,
    /// An area around the series before it, in its colour: points come in pairs as well.
    Band,
}

/// Points of one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Legend entry; none if empty.
    pub name: String,
    /// How to draw it.
    pub mark: Mark,
    /// In increasing x.
    pub points: Vec<(f64, f64)>,
}

/// One picture, with the table that stands beneath it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Heading.
    pub title: String,
    /// One or two sentences on how to read it.
    pub caption: String,
    /// X axis with its unit.
    pub x_label: String,
    /// Y axis with its unit.
    pub y_label: String,
    /// What is drawn, references last.
    pub series: Vec<Series>,
    /// Head of the table beneath; empty for none.
    pub table_head: Vec<String>,
    /// Rows of the table beneath: the exact figures.
    pub table_rows: Vec<Vec<String>>,
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Estimates, in the order of the report.
    pub figures: Vec<Figure>,
    /// Exact counts by name.
    pub counts: BTreeMap<String, u64>,
    /// Pictures, in the order of the report.
    pub plots: Vec<Plot>,
    /// What went wrong, one line each. A run with any exits with 1.
    pub failures: Vec<String>,
    /// Hash of the trace, in hexadecimal.
    pub trace: Option<String>,
    /// Each measured message, in order; the flow engine's alone.
    pub messages: Vec<crate::flow::Target>,
}

impl Outcome {
    /// The figure called `name`.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

/// Why a run gave no [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The scenario or the command asks for what cannot be: exit code 2.
    Usage(String),
    /// Failed while running: exit code 1.
    Failed(String),
}

impl core::fmt::Display for RunError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) => f.write_str(message),
        }
    }
}

impl core::error::Error for RunError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_stay_within_what_figures_can_be() {
        let interval = |name: &str, value: f64| {
            let sections = [value - 0.5, value + 0.5, value];
            let estimate = Estimate::from_sections(value, 3, &sections);
            let (name, label, expected) = (name.to_owned(), String::new(), None);
            Figure {
                name,
                label,
                estimate,
                expected,
            }
            .interval()
        };
        assert_eq!(interval("tpr_at_1e-2", 0.998).1, 1.0);
        assert_eq!(interval("entropy_mean_bits", 0.1).0, 0.0);
        assert!(interval("entropy_mean_bits", 0.9).1 > 1.0);
        assert!(interval("calibration_gap_bits", 0.1).0 < 0.0);
    }
}
