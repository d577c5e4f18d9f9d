//! What a node finds out about its processor before it starts: which path computes packets, how fast.
//!
//! | quantity | unit, range                                                                    |
//! |----------|--------------------------------------------------------------------------------|
//! | path     | a word of the setting `crypto_path`: `best`, or one of `sphinx::Path`'s names   |
//! | rate     | packets per second of one processor, opened and finished in batches: by the     |
//! |          | thread's processor time, so that what else runs there does not count, and the   |
//! |          | best of [`WINDOWS`], since others' use of caches can only make it look slower    |
//!
//! The rate is of cryptography alone: links, journal and mixing come on top
//! (docs/PERFORMANCE.md has what a whole node carries). Not done here: choosing another path because
//! of what was measured.

use core::{num::NonZeroUsize, time::Duration};
use std::thread::available_parallelism;

use chacha20::ChaCha20Rng;
use proto::directory::SelfCheck;
use rand_core::SeedableRng;
use serde_json::{Value, json};
use sphinx::{Hop, Packet, Path, PathAbsent, SecretKey, Verdicts};

use crate::{clock::worked, entropy, metrics::Metrics};

/// Stretches of processor time in which the rate is measured, at most.
pub const WINDOWS: u32 = 5;
/// How long each is at least: a batch, if that is longer. Short, for many nodes may start on one
/// processor, and long enough for some batches.
const WINDOW: Duration = Duration::from_millis(5);
/// Packets of a batch, as many as a node's thread takes at most.
pub const BATCH: usize = crate::peeler::BATCH_MAX;

/// Why a setting names no path that this node could use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No such word.
    #[error("crypto_path is {0:?}; it must be best, portable, assembly, avx2 or lanes")]
    Unknown(String),
    /// Not on this processor.
    #[error("crypto_path: {0}; set crypto_path to \"best\"")]
    Absent(PathAbsent),
}

/// The path that `word` names.
///
/// # Errors
///
/// If it names none, or one that this processor lacks.
pub fn path(word: &str) -> Result<Path, PathError> {
    match word {
        "best" => Ok(Path::best()),
        _ => named(word, Path::require),
    }
}

/// How many threads open packets by a setting `threads`: as many as processors, if it is 0.
#[must_use]
pub fn threads(setting: usize) -> NonZeroUsize {
    let processors = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(setting).unwrap_or_else(processors)
}

/// The path of that name, if `require` finds it on the processor.
fn named(
    word: &str,
    require: impl FnOnce(Path) -> Result<Path, PathAbsent>,
) -> Result<Path, PathError> {
    let path = Path::ALL.into_iter().find(|path| path.name() == word);
    let path = path.ok_or_else(|| PathError::Unknown(word.to_owned()))?;
    require(path).map_err(PathError::Absent)
}

/// What was found, for the log, `/status` and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The path that is used.
    pub path: Path,
    /// Packets per second that one processor opens on it.
    pub rate_per_s: f64,
}

impl Measured {
    /// On `path`, now; the log hears of the processor's other paths too, and whether one of them is
    /// faster than the one that should be.
    ///
    /// # Panics
    ///
    /// As [`rate`].
    #[must_use]
    pub fn now(path: Path) -> Self {
        let others = Path::present().filter(|other| *other != path);
        let others: Vec<Self> = others.map(Self::of).collect();
        for Self { path, rate_per_s } in &others {
            tracing::info!(path = path.name(), rate_per_s, "a path that is not used");
        }
        // The last, when the processor is awake.
        let measured = Self::of(path);
        if let Some(faster) = measured.outdone(&others) {
            tracing::warn!(
                path = path.name(),
                rate_per_s = measured.rate_per_s,
                faster = faster.path.name(),
                faster_rate_per_s = faster.rate_per_s,
                "the path that should be the fastest is not: set crypto_path to the faster one"
            );
        }
        measured
    }

    fn of(path: Path) -> Self {
        let rate_per_s = rate(path).round();
        Self { path, rate_per_s }
    }

    /// The fastest of `others`, if this is on [`Path::best`] and slower. Whoever forces another path
    /// knows that.
    fn outdone(self, others: &[Self]) -> Option<Self> {
        let fastest = others.iter().copied();
        let fastest = fastest.max_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s))?;
        (self.path == Path::best() && fastest.rate_per_s > self.rate_per_s).then_some(fastest)
    }

    /// As the node's descriptor says it (DIR-4), on `threads` threads.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and whole; what is above its type saturates"
    )]
    #[must_use]
    pub fn said(&self, threads: NonZeroUsize) -> SelfCheck {
        let threads = u16::try_from(threads.get()).unwrap_or(u16::MAX);
        SelfCheck::new(self.path, (self.rate_per_s as u32).max(1), threads)
    }

    /// As `/status` says it.
    #[must_use]
    pub fn status(&self) -> Value {
        json!({"path": self.path.name(), "rate_per_s": self.rate_per_s})
    }

    /// As the gauge `lacuna_crypto_rate`, whose reason is the path.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and whole"
    )]
    pub fn show(&self, metrics: &Metrics) {
        let cell = metrics.cell("lacuna_crypto_rate", self.path.name());
        cell.set(self.rate_per_s as u64);
    }
}

/// Packets per second that one processor opens and finishes on `path`, measured now for some
/// milliseconds or a batch, on packets to a key of its own.
///
/// # Panics
///
/// If the processor lacks the path: [`path`] gives none such.
#[must_use]
pub fn rate(path: Path) -> f64 {
    let mut unwrap = Unwrap::on(path).expect("a path of this processor");
    best(worked, || unwrap.batch())
}

/// Packets per second of the best window by the clock `now`, each `batch` being [`BATCH`] of them.
fn best(mut now: impl FnMut() -> Duration, mut batch: impl FnMut()) -> f64 {
    let start = now();
    let (mut from, mut best) = (start, 0.0f64);
    while from - start < WINDOW * WINDOWS {
        let mut done = 0u32;
        let to = loop {
            batch();
            done += u32::try_from(BATCH).expect("few");
            let to = now();
            if to - from >= WINDOW {
                break to;
            }
        };
        best = best.max(f64::from(done) / (to - from).as_secs_f64());
        from = to;
    }
    best
}

/// A batch of packets to a key of its own, to be opened and finished again and again.
pub struct Unwrap {
    secret: SecretKey,
    fresh: Vec<Packet>,
    packets: Vec<Packet>,
    verdicts: Verdicts,
}

impl core::fmt::Debug for Unwrap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Unwrap(..)")
    }
}

impl Unwrap {
    /// Packets for a key computed on `path`.
    ///
    /// # Errors
    ///
    /// [`PathAbsent`] on this processor.
    pub fn on(path: Path) -> Result<Self, PathAbsent> {
        let mut rng = ChaCha20Rng::from_seed(entropy::seed());
        let secret = SecretKey::generate(&mut rng);
        let hop = |secret: &SecretKey| Hop {
            address: [0; 32],
            key: secret.public(),
            delay_ns: 0,
        };
        let route = [hop(&secret), hop(&SecretKey::generate(&mut rng))];
        let fresh: Vec<Packet> = (0..BATCH)
            .map(|_| *sphinx::build(&mut rng, &route, [0; 32], [0; 16], b""))
            .collect();
        Ok(Self {
            secret: secret.on(path)?,
            packets: fresh.clone(),
            fresh,
            verdicts: Verdicts::with_capacity(BATCH),
        })
    }

    /// Opens and finishes all [`BATCH`] packets once.
    ///
    /// # Panics
    ///
    /// If one does not open.
    pub fn batch(&mut self) {
        self.packets.copy_from_slice(&self.fresh);
        sphinx::open(&self.secret, 0, &self.packets, &mut self.verdicts);
        let opened = self.verdicts.iter().map(|verdict| {
            let verdict = verdict.as_ref();
            verdict.expect("its own packets open")
        });
        sphinx::finish_batch(opened.zip(&mut self.packets));
        self.verdicts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_paths() {
        assert_eq!(path("best"), Ok(Path::best()));
        for each in Path::ALL {
            assert_eq!(named(each.name(), Ok), Ok(each));
            assert_eq!(path(each.name()).is_ok(), each.require().is_ok());
            // As on a processor that lacks it.
            let error = named(each.name(), |path| Err(PathAbsent(path))).unwrap_err();
            assert_eq!(error, PathError::Absent(PathAbsent(each)));
            let text = error.to_string();
            assert!(text.contains(each.name()) && text.contains("set crypto_path to \"best\""));
        }
        let error = path("fastest").unwrap_err().to_string();
        assert!(
            error.contains("fastest") && error.contains("assembly"),
            "{error}"
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "few")]
    fn batches_per_s(n: f64) -> f64 {
        n * BATCH as f64
    }

    /// Another program that has the caches most of the time does not make it look slow.
    #[test]
    fn one_quiet_window_is_enough() {
        let rate_when_busy = |busy: fn(u64) -> bool| {
            let clock = core::cell::Cell::new(0u64);
            let now = || Duration::from_micros(clock.get());
            let batch = || clock.set(clock.get() + if busy(clock.get()) { 5_000 } else { 250 });
            best(now, batch)
        };
        let quiet = batches_per_s(4_000.0);
        assert!((rate_when_busy(|_| false) - quiet).abs() < 1e-6);
        assert!((rate_when_busy(|us| us >= 5_000) - quiet).abs() < 1e-6);
        assert!((rate_when_busy(|us| !(10_000..15_000).contains(&us)) - quiet).abs() < 1e-6);
        assert!((rate_when_busy(|_| true) - batches_per_s(200.0)).abs() < 1e-6);
    }

    /// Nor does one that has the processor: each batch waits here until another thread has had ten
    /// times as much of it.
    #[test]
    fn what_others_have_of_the_processor_does_not_count() {
        const OWN: Duration = Duration::from_millis(1);
        let work = |time: Duration| {
            let from = worked();
            while worked() - from < time {}
        };
        let alone = best(worked, || work(OWN));
        let shared = best(worked, || {
            work(OWN);
            let other = std::thread::spawn(move || work(OWN * 10));
            other.join().unwrap();
        });
        println!("alone {alone:.0}, shared {shared:.0} packets/s");
        assert!(alone <= batches_per_s(1_000.0) && alone > batches_per_s(300.0));
        assert!(shared > alone / 3.0, "{shared} {alone}");
    }

    #[test]
    fn a_best_path_that_is_not_is_told() {
        let of = |path, rate_per_s| Measured { path, rate_per_s };
        let slow = of(Path::best(), 100.0);
        let others = [of(Path::Portable, 90.0), of(Path::Lanes, 110.0)];
        assert_eq!(slow.outdone(&others), Some(others[1]));
        assert_eq!(slow.outdone(&others[..1]), None);
        assert_eq!(slow.outdone(&[]), None);
        // Forced.
        assert_eq!(of(Path::Portable, 1.0).outdone(&others), None);
    }

    #[test]
    fn a_rate_is_measured_on_every_path() {
        for path in Path::present() {
            let rate = rate(path);
            println!("path {}: {rate:.0} packets/s", path.name());
            assert!(rate > 10.0);
        }
    }
}
