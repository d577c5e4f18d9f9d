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

/// The 95 % interval of an entropy: not below 0.
fn ends(bits: &Estimate) -> (f64, f64) {
    let (low, high) = bits.interval();
    (low.max(0.0), high)
}

impl Finalist {
    /// Whether corrupt paths, which hide nothing, are so near a twentieth that it is chance whether p05 is theirs.
    #[expect(clippy::cast_precision_loss, reason = "few messages")]
    fn decides_p05(&self) -> bool {
        let scatter = (0.05_f64 * 0.95 / self.entropy.mean.n as f64).sqrt();
        (self.network.corrupt_paths() - 0.05).abs() < 3.0 * scatter
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
                    let (low, high) = ends(&p05);
                    let between = format!("{low:.2} to {high:.2}");
                    if one.decides_p05() {
                        between // chance decides which end it is
                    } else {
                        format!("{:.2} ({between})", p05.value)
                    }
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
        let p05 = chosen.entropy.p05.filter(|_| !chosen.decides_p05());
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
        type Bits = fn(&Finalist) -> Option<Estimate>;
        let mean: Bits = |one| Some(one.entropy.mean);
        let p05: Bits = |one| one.entropy.p05.filter(|_| !one.decides_p05());
        let at = |one: &Finalist, bits: f64| (one.point.latency_p95_s, bits);
        let finalists = || self.finalists.iter().filter(deployed);
        let measured = |bits: Bits| -> Vec<(f64, f64)> {
            let found = finalists().filter_map(|one| Some(at(one, bits(one)?.value)));
            found.collect()
        };
        let whiskers = [mean, p05]
            .into_iter()
            .flat_map(|bits| finalists().filter_map(move |one| Some((one, ends(&bits(one)?)))));
        let whiskers = whiskers.filter(|(_, (_, high))| high.is_finite());
        let whiskers = whiskers.flat_map(|(one, (low, high))| [at(one, low), at(one, high)]);
        let chosen = &self.finalists[self.chosen];
        let mut series = vec![
            ("measured, mean", Mark::Dots, measured(mean)),
            ("measured, p05", Mark::Dots, measured(p05)),
            ("95 %", Mark::Intervals, whiskers.collect()),
            (
                "chosen, mean",
                Mark::Dots,
                vec![at(chosen, chosen.entropy.mean.value)],
            ),
            ("limit, ½ of the bytes", Mark::Line, of(&self.cheaper[0])),
            ("limit, ¼ of the bytes", Mark::Line, of(&self.cheaper[1])),
            ("limit", Mark::Reference, of(&self.front)),
        ];
        let cheaper = match self.cheaper.each_ref().map(Vec::is_empty) {
            [false, false] => "within the bytes and a half and a quarter of them",
            [false, true] => "within the bytes and a half of them; a quarter is not enough",
            [true, _] => "within the bytes; half of them are not enough",
        };
        series.retain(|(_, _, points)| !points.is_empty());
        Plot {
            title: "Latency, anonymity and bytes within the budgets".to_owned(),
            caption: format!(
                "Lines: the front of three layers, on which no other parameters of the grid are \
                 both faster and more anonymous by the limit for large pools, {cheaper}. Dots: \
                 measured with the corrupt mixes, p05 where it is not chance whether corrupt paths \
                 make it. Of all: {}.",
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
