//! `cargo bench -p sphinx --bench timing`: does the time of an unwrap depend on the key? A statistical
//! test after Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?" (2017).
//!
//! Two classes of measurements in random order: one fixed key, or a fresh random one each time. Their
//! mean times are compared by Welch's t, slow outliers cut at the same time for both. |t| above
//! 4.5 would speak of a leak; noise alone stays below. The positive control is a loop that takes a step
//! more for each set bit of the key, and is found out. Not timed: finishing, and points that vary.
//!
//! What a passed test means: no leak was seen at this many measurements. That there is none by
//! construction, see the headers of `curve.rs` and `lanes/`.

#![expect(clippy::print_stdout, reason = "what a benchmark is for")]

use std::{hint::black_box, time::Instant};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sphinx::{HEADER_LEN, Path, SecretKey, any_size};

const MEASUREMENTS: usize = 40_000;
/// Share of all measurements that is kept, the fastest.
const KEPT: f64 = 0.9;
const LEAK: f64 = 4.5;

#[expect(clippy::disallowed_methods, reason = "a benchmark needs a clock")]
fn now() -> Instant {
    Instant::now()
}

fn key(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    key
}

/// Welch's t between keys fixed and random.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share"
)]
fn welch(mut work: impl FnMut([u8; 32])) -> f64 {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let fixed = [0; 32]; // as unlike a random one as can be
    let mut times = Vec::with_capacity(MEASUREMENTS);
    for i in 0..MEASUREMENTS + 500 {
        let class = rng.next_u32() % 2;
        let random = key(&mut rng);
        let key = if class == 0 { fixed } else { random };
        let start = now();
        work(black_box(key));
        let time = start.elapsed().as_nanos() as f64;
        if i >= 500 {
            times.push((time, class));
        }
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times.truncate((KEPT * MEASUREMENTS as f64) as usize);
    let moments = [0, 1].map(|class| {
        let of: Vec<f64> = times.iter().filter(|t| t.1 == class).map(|t| t.0).collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        let spread = of.iter().map(|t| (t - mean).powi(2)).sum::<f64>();
        (mean, spread / (of.len() as f64 - 1.0) / of.len() as f64)
    });
    (moments[0].0 - moments[1].0) / (moments[0].1 + moments[1].1).sqrt()
}

fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let headers: [[u8; HEADER_LEN]; 8] = core::array::from_fn(|_| {
        let mut header = [0; HEADER_LEN];
        rng.fill_bytes(&mut header);
        header
    });
    let mut verdicts = Vec::with_capacity(8);
    for path in Path::present() {
        for (batch, name) in [(1, "one at a time"), (8, "eight")] {
            let t = welch(|key| {
                let key = SecretKey::from_bytes(key).on(path).expect("present");
                any_size::open_headers(&key, 0, &headers[..batch], &mut verdicts);
                verdicts.clear();
            });
            let word = if t.abs() < LEAK {
                "no leak seen"
            } else {
                "LEAK?"
            };
            println!("{:<10} {name:<14} t = {t:>8.2}   {word}", path.name());
        }
    }
    let t = welch(|key| {
        let bits: u32 = key.iter().map(|byte| byte.count_ones()).sum();
        let mut x = 3u64;
        for _ in 0..2000 + bits {
            x = black_box(x.wrapping_mul(x));
        }
    });
    println!("{:<25} t = {t:>8.2}   control", "a step for each set bit");
    assert!(t.abs() > LEAK, "the control is found out");
}
