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
pub const HEAD: [&str; 14] = [
    "layers",
    "latency p95 s",
    "bits over users",
    "log₂ users",
    "bits over packets",
    "their p05",
    "its 95 %",
    "limit over packets",
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
        let bits = |bits: Estimate| format!("{:.2} ± {:.2}", bits.value, bits.standard_error);
        let row = |one: &Finalist| {
            let candidate = one.point.candidate;
            let p05 = one.entropy.p05;
            let hz = |uhz: u32| short(f64::from(uhz) / 1e6);
            vec![
                candidate.layers.to_string(),
                format!("{:.3}", one.point.latency_p95_s),
                one.entropy.over_users.map_or("–".to_owned(), bits),
                format!("{:.2}", one.users_bits()),
                bits(one.entropy.mean),
                // Where chance decides which end of its interval it is, it is neither.
                p05.filter(|_| !one.decides_p05())
                    .map_or("–".to_owned(), |p05| format!("{:.2}", p05.value)),
                p05.map_or("–".to_owned(), |p05| {
                    let (low, high) = ends(&p05);
                    format!("{low:.2} to {high:.2}")
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

    /// The same, on their sides: the first row for the head, and a column for each finalist, as wide as
    /// a page has room for.
    fn columns(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let rows = self.rows();
        let line = |at: usize| -> Vec<String> {
            let cells = rows.iter().map(|row| row[at].clone());
            [HEAD[at].to_owned()].into_iter().chain(cells).collect()
        };
        let mut head = line(0);
        head[self.chosen + 1] += ", chosen";
        (head, (1..HEAD.len()).map(line).collect())
    }

    /// What the choice claims, in one line.
    #[must_use]
    pub fn claim_note(&self) -> String {
        let chosen = &self.finalists[self.chosen];
        let (claim, users_bits) = (chosen.claim(), chosen.users_bits());
        let of = match chosen.entropy.over_users {
            Some(_) => "bits over users, as measured",
            None => "bits over users at most, which are too many to measure",
        };
        format!(
            "{:.2} ± {:.2} {of}; log₂ users is {users_bits:.2}",
            claim.value, claim.standard_error
        )
    }

    /// Whether another number of layers was measured as more anonymous, in one line.
    #[must_use]
    pub fn layers_note(&self) -> String {
        let [chosen, best] = [self.chosen, self.best].map(|at| &self.finalists[at]);
        let layers = best.point.candidate.layers;
        if self.best == self.chosen {
            return format!(
                "no other number of layers, 2 to 5, is more anonymous than {layers} as measured here"
            );
        }
        format!(
            "with these budgets, users and corrupt mixes {layers} layers give {:.2} bits over users \
             more in the mean, and {} % of corrupt paths where {} layers have {} %, measured at one \
             point each; packets have {} today",
            best.claim().value - chosen.claim().value,
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
                "users_bits",
                "log₂ users: nobody is hidden among more",
                chosen.users_bits(),
            ),
            (
                "bound_bits",
                "Limit of entropy over packets for large pools, no corrupt mix",
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
        let p05 = p05.map(|bits| {
            (
                "entropy_p05_bits",
                "Shannon entropy over packets, p05",
                bits,
            )
        });
        let users = chosen.entropy.over_users;
        let name = "receiver_entropy_mean_bits";
        let users = users.map(|bits| (name, "Shannon entropy over users, mean", bits));
        let mean = chosen.entropy.mean;
        let mean = (
            "entropy_mean_bits",
            "Shannon entropy over packets, mean",
            mean,
        );
        Outcome {
            figures: users
                .into_iter()
                .chain([mean])
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
        let users: Bits = |one| one.entropy.over_users;
        let mean: Bits = |one| Some(one.entropy.mean);
        let p05: Bits = |one| one.entropy.p05.filter(|_| !one.decides_p05());
        let at = |one: &Finalist, bits: f64| (one.point.latency_p95_s, bits);
        let finalists = || self.finalists.iter().filter(deployed);
        let measured = |bits: Bits| -> Vec<(f64, f64)> {
            let found = finalists().filter_map(|one| Some(at(one, bits(one)?.value)));
            found.collect()
        };
        let whiskers = [users, mean, p05]
            .into_iter()
            .flat_map(|bits| finalists().filter_map(move |one| Some((one, ends(&bits(one)?)))));
        let whiskers = whiskers.filter(|(_, (_, high))| high.is_finite());
        let whiskers = whiskers.flat_map(|(one, (low, high))| [at(one, low), at(one, high)]);
        let chosen = &self.finalists[self.chosen];
        let mut series = vec![
            ("over users, mean", Mark::Dots, measured(users)),
            ("over packets, mean", Mark::Dots, measured(mean)),
            ("over packets, p05", Mark::Dots, measured(p05)),
            ("95 %", Mark::Intervals, whiskers.collect()),
            ("chosen", Mark::Dots, vec![at(chosen, chosen.claim().value)]),
            (
                "limit over packets, ½ of the bytes",
                Mark::Line,
                of(&self.cheaper[0]),
            ),
            (
                "limit over packets, ¼ of the bytes",
                Mark::Line,
                of(&self.cheaper[1]),
            ),
            ("limit over packets", Mark::Reference, of(&self.front)),
            ("log₂ users", Mark::Reference, self.all_users()),
        ];
        let cheaper = match self.cheaper.each_ref().map(Vec::is_empty) {
            [false, false] => "within the bytes and a half and a quarter of them",
            [false, true] => "within the bytes and a half of them; a quarter is not enough",
            [true, _] => "within the bytes; half of them are not enough",
        };
        series.retain(|(_, _, points)| !points.is_empty());
        let (table_head, table_rows) = self.columns();
        Plot {
            title: "Latency, anonymity and bytes within the budgets".to_owned(),
            caption: format!(
                "Lines: the front of three layers, on which no other parameters of the grid are \
                 both faster and more anonymous by the limit for large pools, {cheaper}. Dots: \
                 measured with the corrupt mixes, p05 where it is not chance whether corrupt paths \
                 make it. Chosen: the fastest than which none is more anonymous over users by what can \
                 be told apart; {}. Of all: {}.",
                self.claim_note(),
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
            table_head,
            table_rows,
        }
    }

    /// log₂ users, as wide as the front.
    fn all_users(&self) -> Vec<(f64, f64)> {
        let bits = self.finalists[self.chosen].users_bits();
        let ends = [self.front.first(), self.front.last()];
        let ends = ends.into_iter().flatten();
        ends.map(|point| (point.latency_p95_s, bits)).collect()
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
