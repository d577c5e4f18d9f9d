//! What a plan says: rows, figures, the picture of its front, and the file for an authority.

use std::fmt::Write as _;

use proto::directory::Params;

use super::{Budgets, Finalist, Given, Plan, Point};
use crate::{
    outcome::{Figure, Mark, Outcome, Plot, RunError, Series},
    report::short,
    stats::Estimate,
};

/// Head of [`Plan::rows`].
pub const HEAD: [&str; 11] = [
    "layers",
    "latency p95 s",
    "entropy bits",
    "p05 bits",
    "limit bits",
    "corrupt paths",
    "MB/day",
    "delay ms",
    "λP /s",
    "λL /s",
    "corrupt/mixes",
];

impl Budgets {
    /// The command that plans for them.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        let Given {
            delay_mean_ms,
            loops_per_s,
            inbound,
        } = self.given;
        let mut command = format!(
            "lacuna-sim plan --latency-p95 {}s --bytes-per-day {}B --users {} --corrupt {} \
             --seed {seed}",
            self.latency_p95_s, self.bytes_per_day, self.users, self.corrupt
        );
        if self.links_s > 0.0 {
            let _ = write!(command, " --links {}s", self.links_s);
        }
        if let Some(delay) = delay_mean_ms {
            let _ = write!(command, " --delay {delay}ms");
        }
        if let Some(loops) = loops_per_s {
            let _ = write!(command, " --loops {loops}");
        }
        if inbound.total_cmp(&Given::NOTHING.inbound).is_ne() {
            let _ = write!(command, " --inbound {inbound}");
        }
        command
    }
}

impl Plan {
    /// The finalists, one row each, under [`HEAD`].
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |one: &Finalist| {
            let candidate = one.point.candidate;
            let hz = |uhz: u32| short(f64::from(uhz) / 1e6);
            vec![
                candidate.layers.to_string(),
                format!("{:.3}", one.point.latency_p95_s),
                format!(
                    "{:.2} ± {:.2}",
                    one.entropy.mean.value, one.entropy.mean.standard_error
                ),
                one.entropy.p05.map_or("–".to_owned(), |p05| {
                    format!("{:.2} ± {:.2}", p05.value, p05.standard_error)
                }),
                format!("{:.2}", one.point.bound_bits),
                format!("{} %", short(100.0 * one.network.corrupt_paths())),
                format!("{:.1}", candidate.bytes_per_day() / 1e6),
                candidate.delay_mean_ms.to_string(),
                hz(candidate.payload_uhz),
                hz(candidate.loops_uhz),
                format!("{}/{}", one.network.corrupt, one.network.width),
            ]
        };
        self.finalists.iter().map(row).collect()
    }

    /// Whether another number of layers was measured as more anonymous, in one line.
    #[must_use]
    pub fn layers_note(&self) -> String {
        let [chosen, best] = [self.chosen, self.best].map(|at| &self.finalists[at]);
        let (layers, bits) = (best.point.candidate.layers, best.entropy.mean.value);
        if self.best == self.chosen {
            return format!("{layers} layers are the most anonymous of 2 to 5 as measured here");
        }
        format!(
            "with these budgets, users and corrupt mixes {layers} layers give {:.2} bits more in \
             the mean, and {} % of corrupt paths where {} layers have {} %, measured at one point \
             each; packets have {} today",
            bits - chosen.entropy.mean.value,
            short(100.0 * best.network.corrupt_paths()),
            chosen.point.candidate.layers,
            short(100.0 * chosen.network.corrupt_paths()),
            super::DEPLOYED
        )
    }

    /// Figures of the choice, and the picture of the front.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let chosen = &self.finalists[self.chosen];
        let candidate = chosen.point.candidate;
        let hz = |uhz: u32| f64::from(uhz) / 1e6;
        let figure = |(name, label, estimate): (&str, &str, Estimate)| Figure {
            name: name.to_owned(),
            label: label.to_owned(),
            estimate,
            expected: None,
        };
        let exact = [
            (
                "bound_bits",
                "Limit for large pools, no corrupt mix",
                chosen.point.bound_bits,
            ),
            (
                "corrupt_paths_share",
                "Paths corrupt throughout, computed",
                chosen.network.corrupt_paths(),
            ),
            (
                "latency_p95_s",
                "Latency, p95, computed",
                chosen.point.latency_p95_s,
            ),
            (
                "bytes_per_day",
                "Bytes a day, both directions",
                candidate.bytes_per_day(),
            ),
            ("layers", "Layers", candidate.layers.into()),
            (
                "delay_mean_ms",
                "Mean delay of a mix",
                candidate.delay_mean_ms.into(),
            ),
            (
                "payload_per_s",
                "Payload slots λP",
                hz(candidate.payload_uhz),
            ),
            ("loops_per_s", "Loops λL", hz(candidate.loops_uhz)),
            (
                "downstream_per_s",
                "Downstream μD",
                hz(candidate.downstream_uhz),
            ),
            (
                "confirm_ms",
                "Confirmation interval",
                candidate.confirm_ms.into(),
            ),
            (
                "mixes_per_layer",
                "Mixes per layer",
                chosen.network.width.into(),
            ),
            (
                "corrupt_per_layer",
                "Corrupt of them",
                chosen.network.corrupt.into(),
            ),
        ];
        let exact = exact.map(|(name, label, x)| (name, label, Estimate::exact(x)));
        let p05 = chosen.entropy.p05;
        let p05 = p05.map(|bits| ("entropy_p05_bits", "Shannon entropy, p05", bits));
        let mean = chosen.entropy.mean;
        let measured = [("entropy_mean_bits", "Shannon entropy, mean", mean)];
        Outcome {
            figures: measured
                .into_iter()
                .chain(p05)
                .chain(exact)
                .map(figure)
                .collect(),
            plots: vec![self.plot()],
            ..Outcome::default()
        }
    }

    fn plot(&self) -> Plot {
        let of = |front: &[Point]| -> Vec<(f64, f64)> {
            let points = front.iter();
            points
                .map(|one| (one.latency_p95_s, one.bound_bits))
                .collect()
        };
        let deployed = |one: &&Finalist| one.point.candidate.layers == super::DEPLOYED;
        let measured = |bits: fn(&Finalist) -> Option<f64>| -> Vec<(f64, f64)> {
            let all = self.finalists.iter().filter(deployed);
            all.filter_map(|one| Some((one.point.latency_p95_s, bits(one)?)))
                .collect()
        };
        let mut series = vec![
            (
                "measured, mean",
                Mark::Dots,
                measured(|one| Some(one.entropy.mean.value)),
            ),
            (
                "measured, p05",
                Mark::Dots,
                measured(|one| one.entropy.p05.map(|p05| p05.value)),
            ),
            ("limit, ½ of the bytes", Mark::Line, of(&self.cheaper[0])),
            ("limit, ¼ of the bytes", Mark::Line, of(&self.cheaper[1])),
            ("limit", Mark::Reference, of(&self.front)),
        ];
        series.retain(|(_, _, points)| !points.is_empty());
        Plot {
            title: "Latency, anonymity and bytes within the budgets".to_owned(),
            caption: format!(
                "Lines: the front of three layers, on which no other parameters of the grid are \
                 both faster and more anonymous by the limit for large pools, within the bytes and \
                 a half and a quarter of them. Dots: measured with the corrupt mixes. Of all: {}.",
                self.layers_note()
            ),
            x_label: "latency of a one-packet message, p95, in s".to_owned(),
            y_label: "entropy in bits".to_owned(),
            series: series
                .into_iter()
                .map(|(name, mark, points)| Series {
                    name: name.to_owned(),
                    mark,
                    points,
                })
                .collect(),
            table_head: HEAD.map(str::to_owned).to_vec(),
            table_rows: self.rows(),
        }
    }
}

/// `params` as the file that an authority reads, after `notes` as comments.
///
/// # Errors
///
/// Parameters that DIR-2 refuses: the grid holds none.
pub fn params_toml(params: &Params, notes: &str) -> Result<String, RunError> {
    let refused = |why: proto::directory::ParamsError| RunError::Failed(why.to_string());
    params.check().map_err(refused)?; // DIR-2
    let mut text = String::new();
    for note in notes.lines() {
        let _ = writeln!(text, "# {note}");
    }
    let _ = write!(
        text,
        "epoch_s = {}\nepochs = {}\ndelay_mean_ms = {}\nexpiry_s = {}\n",
        params.epoch_s, params.epochs, params.delay_mean_ms, params.expiry_s
    );
    for one in &params.profiles {
        let _ = write!(
            text,
            "\n[[profiles]]\nname = \"{}\"\npayload_uhz = {}\nloops_uhz = {}\n\
             downstream_uhz = {}\nconfirm_ms = {}\n",
            one.name, one.payload_uhz, one.loops_uhz, one.downstream_uhz, one.confirm_ms
        );
    }
    Ok(text)
}
