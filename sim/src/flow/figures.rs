//! From observations to figures and plots.
//!
//! Latency is reported end to end: the time in mixes, plus one link more than there are layers.
//! Theory is drawn where it is exact: Erlang latency and Poisson pools for Poisson mixes, the
//! single-mix entropy for one honest Poisson mix; the network limit, an upper bound where at least two
//! packets enter in a mean delay.

mod bounds;
mod calibration;
mod cost;
mod distribution;
mod people;

use std::collections::BTreeMap;

use super::{
    LATENCY_STEPS, Pool, Route, Section, Setup, Users, posterior::Target, ratio, variance,
};
use crate::{
    closed,
    outcome::{Expected, Figure, Mark, Outcome, Plot, Series},
    report::show_z,
    scenario::Scenario,
    stats::{Estimate, Side, mean, quantile_groups},
};

/// Quantiles of latency that are reported, with their names.
const LATENCY_QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.95, "p95"),
    (0.99, "p99"),
    (0.999, "p999"),
];

/// Bars in a histogram.
const BARS: usize = 48;

struct Reader<'a> {
    scenario: &'a Scenario,
    setup: &'a Setup,
    unit_s: f64,
    sections: &'a [Section],
    all: Section,
    figures: Vec<Figure>,
}

pub(super) fn outcome(
    scenario: &Scenario,
    setup: &Setup,
    unit_s: f64,
    sections: &[Section],
) -> Outcome {
    let all = Section::sum(sections);
    let mut reader = Reader {
        scenario,
        setup,
        unit_s,
        sections,
        all,
        figures: Vec::new(),
    };
    reader.anonymity();
    reader.people();
    reader.games();
    reader.latency();
    reader.pools();
    reader.cost();
    let gaps = ["calibration_gap_bits", "contact_calibration_gap_bits"];
    let failures = gaps.iter().filter_map(|name| reader.miscalibrated(name));
    let failures = reader.nothing_measured().into_iter().chain(failures);
    let failures = failures.collect();
    let plots = [
        reader.latency_plot(),
        reader.entropy_plot(),
        reader.entropy_shares(),
        reader.occupancy_plot(),
    ];
    let counts = [
        ("events", reader.all.events),
        ("packets", reader.all.packets),
        ("targets", reader.all.targets.len() as u64),
        ("window_arrivals", reader.all.arrivals),
        ("window_exits", reader.all.exits),
    ];
    Outcome {
        counts: counts
            .map(|(name, n)| (name.to_owned(), n))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        plots: plots.into_iter().flatten().collect(),
        figures: reader.figures,
        failures,
        trace: None,
        messages: Vec::new(),
    }
}

impl Reader<'_> {
    fn push(&mut self, name: &str, label: &str, estimate: Estimate, expected: Option<Expected>) {
        let bound = self.bound(name);
        let words = match bound {
            Some(Side::AtLeast) => ", at least",
            Some(Side::AtMost) => ", at most",
            None => "",
        };
        self.figures.push(Figure {
            name: name.to_owned(),
            label: format!("{label}{words}"),
            estimate: Estimate { bound, ..estimate },
            expected,
        });
    }

    /// An estimator applied to all observations and to each section alone.
    fn estimate(&self, n: u64, estimator: impl Fn(&Section) -> f64) -> Estimate {
        // A section may have measured nothing, if links lose much.
        let parts = self.sections.iter().map(&estimator);
        let parts: Vec<f64> = parts.filter(|part| !part.is_nan()).collect();
        Estimate::from_sections(estimator(&self.all), n, &parts)
    }

    /// The `q`-quantile of what `of` finds in sections, pushed if there are enough observations.
    fn push_quantile(&mut self, names: (&str, &str), q: f64, of: impl Fn(&Section) -> Vec<f64>) {
        let sections: Vec<Vec<f64>> = self.sections.iter().map(of).collect();
        let n = sections.iter().map(Vec::len).sum::<usize>() as u64;
        if quantile_groups(1, n, q).is_some() {
            self.push(names.0, names.1, Estimate::quantile_of(q, &sections), None);
        }
    }

    /// The same of latency, in steps.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 steps")]
    fn latency_quantile(&self, q: f64) -> Option<Estimate> {
        let (all, n) = (&self.all.latency, self.all.latency.len());
        quantile_groups(1, n, q)?;
        let rank = |rank: u64| all.value_at_quantile((rank as f64 - 0.5) / n as f64);
        let counts = |value: f64| {
            let below = |section: &Section| {
                let latencies = section.latency.iter_recorded();
                let below = latencies.take_while(|step| step.value_iterated_to() as f64 <= value);
                below.map(|step| step.count_since_last_iteration()).sum()
            };
            let sections = self.sections.iter();
            sections
                .map(|one| (below(one), one.latency.len()))
                .collect()
        };
        Some(Estimate::quantile(q, n, |at| rank(at) as f64, counts))
    }

    fn of_targets(&self, metric: fn(&Target) -> f64) -> Estimate {
        let n = self.all.targets.len() as u64;
        self.estimate(n, |section| mean(&section.column(metric)))
    }

    /// Whether pools are Poisson(ρ).
    fn poisson_pools(&self) -> bool {
        let setup = self.setup;
        setup.pool.is_none()
            && setup.is_undisturbed()
            && setup.users == Users::Steady
            && setup.loss() == 0.0
    }

    /// Whether the time in mixes is Erlang, and links take a constant time.
    fn erlang(&self) -> bool {
        let setup = self.setup;
        let held = setup.corrupt > 0 && setup.hold > 0.0;
        setup.pool.is_none() && setup.links.is_none() && setup.capacity.is_none() && !held
    }

    /// Mean time in mixes, where it is known: Erlang's, or that of one pool mix.
    #[expect(clippy::cast_precision_loss, reason = "layers and batches are small")]
    fn mixing_mean(&self) -> Option<f64> {
        let setup = self.setup;
        if self.erlang() {
            return Some(setup.layers as f64);
        }
        let Pool {
            batch,
            kept,
            fraction,
        } = setup.pool?;
        let single = setup.layers == 1 && setup.is_undisturbed() && setup.links.is_none();
        let plain = setup.users == Users::Steady && fraction >= 1.0;
        let input = batch.map_or(setup.occupancy(), |batch| batch as f64);
        (single && plain).then(|| closed::pool_delay_batches(input, kept as f64, batch.is_none()))
    }

    /// The network limit, for Poisson mixes with enough packets to meet; that of one cascade where
    /// there are several.
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    fn limit(&self) -> Option<f64> {
        let cascades = match self.setup.route {
            Route::Stratified | Route::Free => 1.0,
            Route::Cascade => self.setup.width as f64,
        };
        let per_s = self.scenario.traffic.total_per_s() / cascades;
        let limit = closed::network_limit_bits(per_s, self.setup.layers, self.unit_s);
        let enough = per_s * self.unit_s >= closed::LIMIT_FROM;
        (enough && self.poisson_pools()).then_some(limit)
    }

    /// What is left to someone who watches no link inside, for Poisson mixes and steady users.
    fn unwatched(&self) -> Option<f64> {
        let setup = self.setup;
        let disturbed =
            setup.capacity.is_some() || setup.corrupt > 0 && setup.drop + setup.hold > 0.0;
        let known = setup.pool.is_none() && setup.users == Users::Steady && !disturbed;
        #[expect(clippy::cast_precision_loss, reason = "mixes are few")]
        let leaving = setup.rate + setup.loops * setup.mixes() as f64 + setup.last_dummies();
        (known && setup.links.is_none()).then(|| closed::unwatched_bits(leaving, setup.layers))
    }

    /// Whether the adversary is told what it does not see, so that it is a question how much.
    fn is_told(&self) -> bool {
        let dummies = self.setup.user_dummies + self.setup.mix_dummies;
        dummies > 0.0 || !self.setup.watches_all()
    }

    /// Entropy through one honest mix, where it is known exactly.
    #[expect(clippy::cast_precision_loss, reason = "batches fit in memory")]
    fn single_mix(&self) -> Option<f64> {
        let setup = self.setup;
        if setup.layers > 1
            || setup.corrupt > 0
            || setup.capacity.is_some()
            || setup.loss() + setup.flood + setup.user_dummies > 0.0
            || !setup.watches_all()
        {
            return None;
        }
        match setup.pool {
            None => (setup.users == Users::Steady).then(|| {
                closed::single_poisson_mix(setup.occupancy() + setup.loops + setup.mix_dummies)
                    .entropy
            }),
            Some(Pool {
                batch: Some(batch),
                kept,
                ..
            }) => Some(closed::threshold_pool_bits(batch as f64, kept as f64)),
            Some(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts fit in memory")]
    fn anonymity(&mut self) {
        let expected = match self.single_mix() {
            Some(bits) => Some(Expected::Equals(bits)),
            None if self.is_told() => self.unwatched().map(Expected::AtMost),
            None => self.limit().map(Expected::AtMost),
        };
        if let (true, Some(bits)) = (self.is_told(), self.unwatched()) {
            self.push(
                "entropy_unwatched_bits",
                "Shannon entropy over packets if no link inside were watched, computed",
                Estimate::exact(bits),
                None,
            );
        }
        let entropy = self.of_targets(|target| target.entropy);
        self.push(
            "entropy_mean_bits",
            "Shannon entropy over packets, mean",
            entropy,
            expected,
        );
        let label = "Shannon entropy over packets";
        self.quantiles("entropy", label, |target| target.entropy);
        let set = self.of_targets(|target| target.entropy.exp2());
        self.push(
            "effective_set_mean_packets",
            "Effective set 2^H, mean",
            set,
            None,
        );
        let min = self.of_targets(|target| target.min_entropy);
        let label = "Min-entropy over packets, mean";
        self.push("min_entropy_mean_bits", label, min, None);
        let renyi = self.of_targets(|target| target.renyi2);
        let label = "Rényi-2 entropy over packets, mean";
        self.push("renyi2_mean_bits", label, renyi, None);
        let bayes = self.of_targets(|target| (-target.min_entropy).exp2());
        self.push(
            "bayes_vulnerability_mean",
            "Bayes vulnerability: one guess is right",
            bayes,
            None,
        );
        if self.setup.guesswork {
            let guesses = self.of_targets(|target| target.guesswork);
            self.push("guesswork_mean_packets", "Guesswork, mean", guesses, None);
        }
        if self.setup.receivers > 0 {
            let limit = (self.setup.receivers as f64).log2();
            let over = self.of_targets(|target| target.receiver_entropy);
            self.push(
                "receiver_entropy_mean_bits",
                "Shannon entropy over receivers, mean",
                over,
                Some(Expected::AtMost(limit)),
            );
            let label = "Shannon entropy over receivers";
            self.quantiles("receiver_entropy", label, |target| target.receiver_entropy);
            let degree = Estimate {
                value: over.value / limit,
                standard_error: over.standard_error / limit,
                ..over
            };
            self.push(
                "receiver_degree_mean",
                "Degree of anonymity over receivers, mean",
                degree,
                Some(Expected::AtMost(1.0)),
            );
        }
        if self.setup.contacts > 0 {
            self.contacts();
        }
        let loss = self.of_targets(|target| target.log_loss);
        self.push(
            "log_loss_mean_bits",
            "Log-loss of the true exit, mean",
            loss,
            None,
        );
        let gap = self.gap(
            |target| target.log_loss - target.entropy,
            |target| target.varentropy,
        );
        self.push(
            "calibration_gap_bits",
            "Calibration: log-loss less entropy",
            gap,
            Some(Expected::Equals(0.0)),
        );
    }

    /// Seconds that links add to the time that was simulated: a constant delay shifts all
    /// clocks and is left out of it.
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    fn links_s(&self) -> f64 {
        let links = &self.scenario.links;
        if links.regions_s.is_empty() {
            links.delay_s * (self.setup.layers + 1) as f64
        } else {
            0.0
        }
    }

    fn latency(&mut self) {
        if self.all.latency.is_empty() {
            return;
        }
        let links = self.links_s();
        let layers = self.setup.layers;
        let ms = |units: f64, unit_s: f64| (units * unit_s + links) * 1e3;
        let unit_s = self.unit_s;
        let estimate =
            Section::estimate_sums(self.sections, self.all.exits, Section::latency_sums, ratio);
        let estimate = estimate.scaled(unit_s * 1e3, links * 1e3);
        let expected = self.mixing_mean();
        let expected = expected.map(|units| Expected::Equals(ms(units, unit_s)));
        self.push("latency_mean_ms", "Latency, mean", estimate, expected);
        for (q, name) in LATENCY_QUANTILES {
            let erlang = ms(closed::erlang_quantile(layers, 1.0, q), unit_s);
            let erlang = self.erlang().then_some(Expected::Equals(erlang));
            if let Some(steps) = self.latency_quantile(q) {
                let estimate = steps.scaled(unit_s * 1e3 / LATENCY_STEPS, links * 1e3);
                let label = format!("Latency, {} % arrive within", q * 100.0);
                self.push(&format!("latency_{name}_ms"), &label, estimate, erlang);
            }
        }
    }

    fn pools(&mut self) {
        let n: u64 = self.all.occupancy.iter().sum();
        if n == 0 {
            return;
        }
        let rho = self
            .poisson_pools()
            .then_some(Expected::Equals(self.setup.occupancy()));
        let estimate =
            Section::estimate_sums(self.sections, n, Section::occupancy_sums, |[n, sum, _]| {
                ratio([n, sum])
            });
        self.push(
            "occupancy_mean_packets",
            "Packets that an arrival finds in a mix, mean",
            estimate,
            rho,
        );
        let estimate = Section::estimate_sums(self.sections, n, Section::occupancy_sums, variance);
        self.push(
            "occupancy_variance_packets2",
            "The same, variance",
            estimate,
            rho,
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn latency_plot(&self) -> Option<Plot> {
        if self.all.latency.is_empty() {
            return None;
        }
        let links = self.links_s();
        let last = self.all.latency_quantile(0.9995);
        let grid = (0..=200).map(|i| last * f64::from(i) / 200.0);
        let total = self.all.latency.len() as f64;
        let mut steps = self.all.latency.iter_recorded().peekable();
        let (mut measured, mut reference) = (Vec::new(), Vec::new());
        let mut below = 0;
        for units in grid {
            while let Some(step) =
                steps.next_if(|step| step.value_iterated_to() as f64 <= units * LATENCY_STEPS)
            {
                below += step.count_since_last_iteration();
            }
            let x = (units * self.unit_s + links) * 1e3;
            measured.push((x, below as f64 / total));
            reference.push((x, closed::erlang_cdf(self.setup.layers, 1.0, units)));
        }
        let mut series = vec![Series {
            name: "simulated".to_owned(),
            mark: Mark::Line,
            points: measured,
        }];
        let mut about = "";
        if self.erlang() {
            about = " With Poisson mixes the time in the mixes is a sum of exponential times: the \
                     Erlang law.";
            series.push(Series {
                name: format!("Erlang({} stages)", self.setup.layers),
                mark: Mark::Reference,
                points: reference,
            });
        }
        let rows = self
            .figures
            .iter()
            .filter(|figure| figure.name.starts_with("latency_"));
        Some(Plot {
            title: "Latency from end to end".to_owned(),
            caption: format!("Share of packets that have arrived after a given time.{about}"),
            x_label: "latency (ms)".to_owned(),
            y_label: "share of packets".to_owned(),
            series,
            table_head: head("latency (ms)"),
            table_rows: rows.map(row).collect(),
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bins of a histogram"
    )]
    fn entropy_plot(&self) -> Option<Plot> {
        let mut column = self.all.column(|target| target.entropy);
        column.sort_unstable_by(f64::total_cmp);
        let (low, high) = (*column.first()?, *column.last()?);
        let width = ((high - low) / BARS as f64).max(1e-6);
        let mut bins = [0_u32; BARS];
        for entropy in &column {
            bins[(((entropy - low) / width) as usize).min(BARS - 1)] += 1;
        }
        let bars = bins.iter().enumerate().map(|(bin, count)| {
            let middle = low + (bin as f64 + 0.5) * width;
            (middle, f64::from(*count) / column.len() as f64)
        });
        let tallest = f64::from(bins.iter().copied().max()?) / column.len() as f64;
        let mut series = vec![Series {
            name: "messages".to_owned(),
            mark: Mark::Bars,
            points: bars.collect(),
        }];
        let mut upright = |name: String, x: f64| {
            series.push(Series {
                name,
                mark: Mark::Reference,
                points: vec![(x, 0.0), (x, tallest)],
            });
        };
        let average = mean(&column);
        upright(format!("mean {average:.3}"), average);
        let mut about = "";
        if let Some(limit) = self.limit() {
            upright(format!("limit {limit:.3}"), limit);
            about = " The limit is that of infinitely large pools, with no corrupt mix.";
        }
        let rows = self
            .figures
            .iter()
            .filter(|figure| figure.name.contains("entropy") || figure.name.contains("renyi2"));
        let helped = if self.is_helped() {
            " To be exact, the adversary is told more than it sees here (hops of free routes, loops, dummies, crowds of \
             unwatched mixes): the mean entropy is at least this, and one guess is right at most as often."
        } else {
            ""
        };
        Some(Plot {
            title: "Anonymity of messages".to_owned(),
            caption: format!(
                "Shannon entropy of the adversary's posterior over exit packets, one value \
                 per measured message.{about}{helped}"
            ),
            x_label: "entropy over packets (bits)".to_owned(),
            y_label: "share of messages".to_owned(),
            series,
            table_head: head("metric (bits)"),
            table_rows: rows.map(row).collect(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts fit in memory")]
    fn occupancy_plot(&self) -> Option<Plot> {
        let total: u64 = self.all.occupancy.iter().sum();
        let first = self.all.occupancy.iter().position(|n| *n > 0)?;
        let last = self.all.occupancy.len();
        // Wide pools are shown in steps of several packets.
        let step = (last - first).div_ceil(2 * BARS);
        let (mut bars, mut reference) = (Vec::new(), Vec::new());
        for from in (first..last).step_by(step) {
            let to = (from + step).min(last);
            let middle = from as f64 + (step - 1) as f64 / 2.0;
            let seen: u64 = self.all.occupancy[from..to].iter().sum();
            bars.push((middle, seen as f64 / total as f64));
            let expected =
                (from..from + step).map(|n| closed::poisson_pmf(self.setup.occupancy(), n as u64));
            reference.push((middle, expected.sum()));
        }
        let mut series = vec![Series {
            name: "simulated".to_owned(),
            mark: Mark::Bars,
            points: bars,
        }];
        if self.poisson_pools() {
            series.push(Series {
                name: format!("Poisson({:.3})", self.setup.occupancy()),
                mark: Mark::Dots,
                points: reference,
            });
        }
        let grouped = if step > 1 {
            format!(" Each bar covers {step} sizes.")
        } else {
            String::new()
        };
        let rows = self
            .figures
            .iter()
            .filter(|figure| figure.name.starts_with("occupancy_"));
        Some(Plot {
            title: "Pools of the mixes".to_owned(),
            caption: format!(
                "How many packets an arriving packet finds in its mix, over all mixes.{grouped}"
            ),
            x_label: "packets in the mix".to_owned(),
            y_label: "share of arrivals".to_owned(),
            series,
            table_head: head("pool (packets)"),
            table_rows: rows.map(row).collect(),
        })
    }
}

fn head(first: &str) -> Vec<String> {
    [first, "simulated", "standard error", "theory", "z"]
        .map(str::to_owned)
        .to_vec()
}

fn row(figure: &Figure) -> Vec<String> {
    let theory = match figure.expected {
        Some(Expected::Equals(value)) => format!("{value:.4}"),
        Some(Expected::AtMost(value)) => format!("≤ {value:.4}"),
        None => "–".to_owned(),
    };
    vec![
        figure.label.clone(),
        format!("{:.4}", figure.estimate.value),
        format!("{:.4}", figure.estimate.standard_error),
        theory,
        show_z(figure.z()),
    ]
}
