//! What the demo found, as a table for a person and as JSON.
//!
//! The prediction beside the measured latency of small messages is of this model:
//!
//! | part                    | law                                                             |
//! |-------------------------|-----------------------------------------------------------------|
//! | wait for a payload slot | the i-th packet of a burst leaves at Gamma(i, 1/λP)              |
//! | three mixes             | Erlang(3, delay mean), drawn for each packet                    |
//! | wait for a mailbox tick | uniform over one tick, 1/μD (the queue is empty, the phase any) |
//!
//! A small message fits one packet and any packet of its burst carries it, so it arrives with the
//! first: min over i of (slot + mixes), plus the tick. One of a kind (burst 1) gives the sum. The
//! quantiles are drawn, 200 000 times from a fixed seed; Erlang alone is exact. Not in the model,
//! and so the difference that the table shows: acks that take a slot of the same sender's, links,
//! peeling, the mailbox's disk, processes that wait for a processor.
//!
//! | figure                  | who says so                                                     |
//! |-------------------------|-----------------------------------------------------------------|
//! | delivered … duplicated  | the receiving applications, by what they opened                 |
//! | latency                 | the supervisor's clock, when either application reports         |
//! | packets, real and cover | the clients that sent them: nobody else can tell them apart     |
//! | wire: frames and sizes  | the taps on links, outside every role ([`crate::proxy`])        |

use core::fmt::{self, Write as _};

use chacha20::ChaCha8Rng;
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::proxy::Seen;

/// Three quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
}

impl Quantiles {
    fn map(quantile: impl Fn(f64) -> f64) -> Self {
        Self {
            p50: quantile(0.50),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    }
}

/// Latency of small messages, measured and predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// As measured, from the hand-over to the sender's daemon to the opened plaintext.
    #[serde(flatten)]
    pub measured: Quantiles,
    /// How many messages were measured.
    pub samples: u64,
    /// The model above.
    pub predicted: Quantiles,
    /// Three mixes alone.
    pub erlang: Quantiles,
}

/// Packets that the clients say they put on their entry links, and frames that the taps saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// Fragments and acks.
    pub real: u64,
    /// Drops and loops.
    pub cover: u64,
    /// Of those, drops: payload slots with nothing to carry.
    pub drops: u64,
    /// Of those, loops.
    pub loops: u64,
    /// Loops that came back.
    pub loops_returned: u64,
    /// Frames seen by the taps on client links, all kinds, both directions.
    pub frames_on_client_links: u64,
    /// Frames seen by the taps between mixes, and between mixes and gateways.
    pub frames_on_node_links: u64,
}

/// Everything the demo found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Messages opened once by their recipient.
    pub delivered: u64,
    /// Messages never opened.
    pub lost: u64,
    /// Openings after the first.
    pub duplicated: u64,
    /// Latency of small messages.
    pub latency_ms: Latency,
    /// Packets on the clients' entry links.
    pub packets: Packets,
    /// Sizes of frames seen from outside, bytes.
    pub frame_sizes: Vec<usize>,
    /// What ended the run early, if something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Seconds that the 1 MB file took.
    pub file_s: f64,
    /// Seconds from the start of the first process to this report.
    pub total_s: f64,
}

impl Report {
    /// Whether every message was delivered exactly once, in frames of one size.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let whole = self.failure.is_none() && self.lost == 0;
        whole && self.duplicated == 0 && self.delivered > 0 && self.frame_sizes.len() == 1
    }

    /// Takes over what the taps saw.
    pub fn set_seen(&mut self, seen: &Seen) {
        self.packets.frames_on_client_links = seen.client.values().sum();
        self.packets.frames_on_node_links = seen.node.values().sum();
        self.frame_sizes = seen
            .client
            .keys()
            .chain(seen.node.keys())
            .copied()
            .collect();
        self.frame_sizes.sort_unstable();
        self.frame_sizes.dedup();
    }
}

/// The table for a person.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packets {
            real,
            cover,
            drops,
            loops,
            loops_returned,
            frames_on_client_links,
            frames_on_node_links,
        } = self.packets;
        let latency = &self.latency_ms;
        let mut sizes = String::new();
        for (n, size) in self.frame_sizes.iter().enumerate() {
            write!(sizes, "{}{size} B", if n == 0 { "" } else { ", " })?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "ended early: {failure}")?;
        }
        writeln!(
            f,
            "messages     delivered {}   lost {}   duplicated {}",
            self.delivered, self.lost, self.duplicated
        )?;
        writeln!(
            f,
            "             (as opened and checked by the receiving processes)"
        )?;
        writeln!(f)?;
        writeln!(f, "latency, ms  {:>26} {:>8} {:>8}", "p50", "p95", "p99")?;
        for (name, q) in [
            ("small messages, measured", latency.measured),
            ("predicted (*)", latency.predicted),
            ("three mixes alone (Erlang)", latency.erlang),
        ] {
            writeln!(
                f,
                "  {name:<28} {:>8.0} {:>8.0} {:>8.0}",
                q.p50, q.p95, q.p99
            )?;
        }
        writeln!(
            f,
            "  {} messages; 1 MB file: {:.1} s",
            latency.samples, self.file_s
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "packets      real {real}   cover {cover} (drops {drops}, loops {loops}, of which {loops_returned} are back)"
        )?;
        writeln!(
            f,
            "             (by the counters of the clients that sent them)"
        )?;
        writeln!(
            f,
            "wire         {frames_on_client_links} frames on client links, {frames_on_node_links} on node links; sizes: {sizes}"
        )?;
        writeln!(
            f,
            "             (by taps on every link of a client, a gateway or a mix)"
        )?;
        writeln!(f, "time         {:.1} s", self.total_s)?;
        writeln!(f)?;
        write!(
            f,
            "(*) first of a burst: payload slots at rate λP, Erlang over three mixes, one mailbox tick"
        )
    }
}

/// Quantiles of measured latencies, in nanoseconds.
///
/// # Panics
///
/// Never: the histogram's bounds are constants that it accepts.
#[must_use]
pub fn measured(latencies_ns: &[u64]) -> Quantiles {
    let mut histogram = Histogram::<u64>::new_with_bounds(1_000, 600_000_000_000, 3)
        .expect("constant bounds that the library accepts");
    for latency in latencies_ns {
        histogram.saturating_record(*latency);
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are kept")]
    Quantiles::map(|q| histogram.value_at_quantile(q) as f64 / 1e6)
}

/// The model's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Payload slots, 1/s.
    pub payload_hz: f64,
    /// Mailbox ticks, 1/s.
    pub downstream_hz: f64,
    /// Mean delay of one mix, ms.
    pub delay_mean_ms: f64,
    /// Packets of the first burst.
    pub burst: u32,
}

impl Model {
    /// Quantiles of the whole model.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        const DRAWS: usize = 200_000;
        let mut random = ChaCha8Rng::seed_from_u64(0x1ac);
        let mut drawn: Vec<f64> = (0..DRAWS).map(|_| self.draw(&mut random)).collect();
        drawn.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below 200 000"
        )]
        Quantiles::map(|q| drawn[(q * DRAWS as f64) as usize])
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        let (mut slot, mut first) = (0.0, f64::INFINITY);
        for _ in 0..self.burst.max(1) {
            slot += exponential(random, 1e3 / self.payload_hz);
            let mixes: f64 = (0..3)
                .map(|_| exponential(random, self.delay_mean_ms))
                .sum();
            first = first.min(slot + mixes);
        }
        first + random.random::<f64>() * 1e3 / self.downstream_hz
    }

    /// Quantiles of three mixes alone, by bisection of Erlang's distribution.
    #[must_use]
    pub fn erlang(&self) -> Quantiles {
        Quantiles::map(|q| {
            let (mut low, mut high) = (0.0, 100.0);
            for _ in 0..60 {
                let x: f64 = f64::midpoint(low, high);
                let below = 1.0 - (-x).exp() * (1.0 + x + x * x / 2.0);
                (low, high) = if below < q { (x, high) } else { (low, x) };
            }
            low * self.delay_mean_ms
        })
    }
}

fn exponential(random: &mut ChaCha8Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Model = Model {
        payload_hz: 20.0,
        downstream_hz: 40.0,
        delay_mean_ms: 50.0,
        burst: 1,
    };

    #[test]
    fn the_erlang_quantiles_are_the_textbook_ones() {
        let Quantiles { p50, p95, p99 } = MODEL.erlang();
        for (found, expected) in [(p50, 133.70), (p95, 314.79), (p99, 420.30)] {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
    }

    /// With λP and the mixes at one rate the sum before the tick is Erlang(4, 50 ms), whose
    /// median is 183.6 ms; the tick adds about half of its 25 ms.
    #[test]
    fn a_single_packet_is_the_sum_and_a_burst_is_faster() {
        let single = MODEL.quantiles();
        assert!((single.p50 - 196.0).abs() < 2.0, "{single:?}");
        let burst = Model { burst: 4, ..MODEL }.quantiles();
        assert!(burst.p50 < single.p50 && burst.p99 < single.p99);
    }

    #[test]
    fn the_histogram_keeps_three_digits() {
        let latencies: Vec<u64> = (1..=1000).map(|ms| ms * 1_000_000).collect();
        let Quantiles { p50, p95, p99 } = measured(&latencies);
        for (found, expected) in [(p50, 500.0), (p95, 950.0), (p99, 990.0)] {
            assert!((found - expected).abs() < 1.0, "{found} {expected}");
        }
    }

    #[test]
    fn only_everything_once_in_one_size_is_good() {
        let good = Report {
            delivered: 3,
            frame_sizes: vec![2432],
            ..Report::default()
        };
        assert!(good.is_good());
        for bad in [
            Report {
                lost: 1,
                ..good.clone()
            },
            Report {
                duplicated: 1,
                ..good.clone()
            },
            Report {
                frame_sizes: vec![386, 2432],
                ..good.clone()
            },
            Report::default(),
        ] {
            assert!(!bad.is_good());
        }
        let json = serde_json::to_value(&good).unwrap();
        for key in [
            "delivered",
            "lost",
            "duplicated",
            "latency_ms",
            "packets",
            "frame_sizes",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["latency_ms"].get("p99").is_some());
    }
}
