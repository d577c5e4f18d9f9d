//! `cargo bench -p sphinx --bench constant_time`: does the time of an unwrap depend on secrets? A statistical
//! test after Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?" (2017).
//!
//! Two classes of measurements in random order, one of a fixed input, one of a fresh random one. Their
//! mean times are compared by Welch's t, slow outliers cut at the same time for both. |t| above
//! 4.5 speaks of a leak if a second run, of other inputs, says so again: then the bench fails (exit 1).
//! The positive control is a loop of twenty thousand steps that takes one more for each set bit of the
//! key, and is found out.
//!
//! | measured          | fixed or random                                                          |
//! |-------------------|--------------------------------------------------------------------------|
//! | open, keys        | the node's private key; fixed is all zeros                               |
//! | open, points      | α, and so the shared secret and all that is derived; fixed is one point  |
//! | finish            | the packet, and so blinding factor, stream, payload's keys and payload   |
//!
//! An input is made ready, and brought into the cache, before the clock starts. What is not measured:
//! building.
//!
//! What a passed test means: no leak was seen at this many measurements; docs/PERFORMANCE.md says how
//! small a one would have been. That there is none by construction, see the headers of `curve.rs` and
//! `lanes/`.

#![expect(clippy::print_stdout, reason = "what a benchmark is for")]

use std::{cell::RefCell, hint::black_box, time::Instant};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sphinx::{HEADER_LEN, Hop, Opened, Packet, Path, SecretKey, Verdicts, any_size};

const MEASUREMENTS: usize = 20_000;
/// Share of all measurements that is kept, the fastest.
const KEPT: f64 = 0.9;
const LEAK: f64 = 4.5;
/// Random packets, of which one is drawn a measurement.
const POOL: usize = 512;

type Header = [u8; HEADER_LEN];

#[expect(clippy::disallowed_methods, reason = "a benchmark needs a clock")]
fn now() -> Instant {
    Instant::now()
}

fn bytes<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Welch's t between inputs fixed and random: `ready` makes one of the class it is told (random if
/// true), `work` is timed. What is above [`LEAK`] is measured once more.
fn welch<T>(
    mut ready: impl FnMut(&mut ChaCha20Rng, bool) -> T,
    mut work: impl FnMut(&mut T),
) -> f64 {
    let mut once = |seed| welch_once(seed, &mut ready, &mut work);
    let t = once(1);
    if t.abs() < LEAK { t } else { once(2) }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share"
)]
fn welch_once<T>(
    seed: u64,
    ready: &mut impl FnMut(&mut ChaCha20Rng, bool) -> T,
    work: &mut impl FnMut(&mut T),
) -> f64 {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut times = Vec::with_capacity(MEASUREMENTS);
    for i in 0..MEASUREMENTS + 500 {
        let random = rng.next_u32() % 2 == 1;
        let mut input = black_box(ready(&mut rng, random));
        let start = now();
        work(&mut input);
        let time = start.elapsed().as_nanos() as f64;
        if i >= 500 {
            times.push((time, random));
        }
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times.truncate((KEPT * MEASUREMENTS as f64) as usize);
    let moments = [false, true].map(|random| {
        let of = times.iter().filter(|time| time.1 == random).map(|t| t.0);
        let of: Vec<f64> = of.collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        let spread = of.iter().map(|t| (t - mean).powi(2)).sum::<f64>();
        (mean, spread / (of.len() as f64 - 1.0) / of.len() as f64)
    });
    (moments[0].0 - moments[1].0) / (moments[0].1 + moments[1].1).sqrt()
}

/// Whether it speaks of a leak.
fn say(path: Path, what: &str, batch: usize, t: f64) -> bool {
    let leak = t.abs() >= LEAK;
    let word = if !leak { "no leak seen" } else { "LEAK?" };
    let batch = match batch {
        1 => "one at a time",
        _ => "eight",
    };
    println!(
        "{:<10} {what:<13} {batch:<14} t = {t:>8.2}   {word}",
        path.name()
    );
    leak
}

fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let headers: [Header; 8] = core::array::from_fn(|_| bytes(&mut rng));
    let secret = SecretKey::generate(&mut rng);
    let hop = Hop {
        address: [1; 32],
        key: secret.public(),
        delay_ns: 0,
    };
    let mut build = |_| sphinx::build(&mut rng, &[hop; 2], [0; 32], [0; 16], b"");
    let pool: Vec<Box<Packet>> = (0..POOL).map(&mut build).collect();
    let mut verdicts = Verdicts::with_capacity(8);
    let mut leaks = false;

    for path in Path::present() {
        let secret = secret.clone().on(path).expect("present");
        for batch in [1, 8] {
            let t = welch(
                |rng, random| {
                    let drawn = bytes(rng);
                    let key = SecretKey::from_bytes(if random { drawn } else { [0; 32] });
                    key.on(path).expect("present")
                },
                |key| {
                    any_size::open_headers(key, 0, &headers[..batch], &mut verdicts);
                    verdicts.clear();
                },
            );
            leaks |= say(path, "open, keys", batch, t);

            let fixed = headers[0];
            let t = welch(
                |rng, random| {
                    let drawn: [Header; 8] = core::array::from_fn(|_| bytes(rng));
                    if random { drawn } else { [fixed; 8] }
                },
                |headers| {
                    any_size::open_headers(&secret, 0, &headers[..batch], &mut verdicts);
                    verdicts.clear();
                },
            );
            leaks |= say(path, "open, points", batch, t);

            // Both classes in the same places, after the same reads and writes: addresses show in
            // times, too.
            let places = RefCell::new([(); 2].map(|()| vec![pool[0].clone(); batch]));
            let t = welch(
                |rng, random| {
                    let [packets, unused] = &mut *places.borrow_mut();
                    for (packet, unused) in packets.iter_mut().zip(unused) {
                        let drawn = &pool[rng.next_u32() as usize % POOL];
                        let both = [drawn, &pool[0]];
                        packet.clone_from(both[usize::from(!random)]);
                        unused.clone_from(both[usize::from(random)]);
                    }
                    let packets = packets.iter().map(|packet| &**packet);
                    sphinx::open(&secret, 0, packets, &mut verdicts);
                    let honest = |verdict: Result<Opened, _>| verdict.expect("honest");
                    verdicts.drain().map(honest).collect::<Vec<_>>()
                },
                |opened| {
                    let [packets, _] = &mut *places.borrow_mut();
                    let packets = packets.iter_mut().map(|packet| &mut **packet);
                    sphinx::finish_batch(opened.iter().zip(packets));
                },
            );
            leaks |= say(path, "finish", batch, t);
        }
    }
    let t = welch(
        |rng, random| {
            let drawn: [u8; 32] = bytes(rng);
            if random { drawn } else { [0; 32] }
        },
        |key| {
            let bits: u32 = key.iter().map(|byte| byte.count_ones()).sum();
            let mut x = 3u64;
            for _ in 0..20_000 + bits {
                x = black_box(x.wrapping_mul(x));
            }
        },
    );
    println!("{:<39} t = {t:>8.2}   control", "a step for each set bit");
    assert!(t.abs() > LEAK, "the control is found out");
    assert!(!leaks, "a time depends on a secret, in two runs");
}
