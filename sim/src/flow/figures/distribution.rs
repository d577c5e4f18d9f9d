//! How anonymity is spread over messages: the few that have little hide in a histogram.

use super::{Reader, Series};
use crate::{
    outcome::{Mark, Plot},
    report::short,
};

/// Points of the curve for each decade of shares.
const PER_DECADE: u32 = 40;
/// Shares in the table, of which each stands for this many messages at least.
const SHARES: [f64; 10] = [1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
const LEAST: f64 = 10.0;

impl Reader<'_> {
    /// Share of messages whose entropy is at most x.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts fit in memory"
    )]
    pub(super) fn entropy_shares(&self) -> Option<Plot> {
        let mut column = self.all.column(|target| target.entropy);
        column.sort_unstable_by(f64::total_cmp);
        let n = column.len() as f64;
        column.first()?;
        let at = |share: f64| column[((share * n).ceil() as usize).clamp(1, column.len()) - 1];
        let steps = (n.log10() * f64::from(PER_DECADE)).ceil() as u32;
        let points = (0..=steps).rev().map(|step| {
            let share = 10_f64.powf(-f64::from(step) / f64::from(PER_DECADE));
            let share = share.max(1.0 / n);
            (at(share), share)
        });
        let rows = SHARES
            .into_iter()
            .filter(|share| share * n >= LEAST)
            .map(|share| vec![short(share), format!("{:.4}", at(share))]);
        Some(Plot {
            title: "Messages with little anonymity".to_owned(),
            caption: "Share of the measured messages whose entropy over exit packets is at most x."
                .to_owned(),
            x_label: "entropy (bits)".to_owned(),
            y_label: "share of messages".to_owned(),
            series: vec![Series {
                name: "simulated".to_owned(),
                mark: Mark::Line,
                points: points.collect(),
            }],
            table_head: ["share of messages", "entropy at most (bits)"]
                .map(str::to_owned)
                .to_vec(),
            table_rows: rows.collect(),
        })
    }
}
