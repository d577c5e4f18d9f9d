//! Whether there is anything to say, and posteriors are what they claim to be: log-loss less entropy.

use super::{Reader, Target};
use crate::{
    report::short,
    stats::{Estimate, mean, normal_score},
    validate::Z_MAX,
};

impl Reader<'_> {
    /// Log-loss less entropy. Its error is at least what the posteriors themselves allow to chance: a
    /// rare outcome that none of the targets had leaves no trace in the spread between sections.
    #[expect(clippy::cast_precision_loss, reason = "targets fit in memory")]
    pub(super) fn gap(&self, metric: fn(&Target) -> f64, variance: fn(&Target) -> f64) -> Estimate {
        let gap = self.of_targets(metric);
        let chance = (mean(&self.all.column(variance)) / gap.n as f64).sqrt();
        Estimate {
            standard_error: gap.standard_error.max(chance),
            ..gap
        }
    }

    /// Says so if no message arrived, of which there would be anything to say.
    pub(super) fn nothing_measured(&self) -> Option<String> {
        let (setup, packets) = (self.setup, self.all.packets);
        let dropping = if setup.corrupt > 0 { setup.drop } else { 0.0 };
        self.all.targets.is_empty().then(|| {
            format!(
                "no message was measured: of {packets} packets none that was chosen arrived; links lose {} of what \
                 they carry (links.loss_ppm), {} of {} mixes at each hop are corrupt and drop {} of it (adversary.drop_ppm)",
                percent(setup.loss()),
                setup.corrupt,
                setup.width,
                percent(dropping),
            )
        })
    }

    /// Says so if posteriors are not what they claim to be: log-loss and entropy differ by more
    /// than chance allows. The bound is that of four normal standard errors, however few the sections.
    pub(super) fn miscalibrated(&self, name: &str) -> Option<String> {
        let gap = self.figures.iter().find(|figure| figure.name == name)?;
        let Estimate {
            value,
            standard_error,
            sections,
            ..
        } = gap.estimate;
        let z = normal_score(gap.z()?, sections.saturating_sub(1));
        (z.abs() > Z_MAX).then(|| {
            format!(
                "calibration failed: log-loss exceeds entropy by {value:.5} ± {standard_error:.5} bits \
                 (z {z:+.1}, allowed ±{Z_MAX}): the posteriors, and every figure from them, are wrong"
            )
        })
    }
}

fn percent(share: f64) -> String {
    format!("{} %", short(100.0 * share))
}
