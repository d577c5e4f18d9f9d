//! What a profile can be expected to give: how long a message takes, and the least that hides it.
//!
//! | quantity   | unit  | what                                                                     |
//! |------------|-------|--------------------------------------------------------------------------|
//! | latency    | s     | of a one-packet message between two idle clients of this profile          |
//! | others     | count | packets that nodes' own loops keep in each mix, on the mean (LOOP-1)       |
//! | alone      | 0..1  | share of packets that meet no other in any of the three mixes, with those  |
//! |            |       | alone                                                                      |
//!
//! Latency is W + M + D: W exponential of mean 1/λP, until the next payload slot; M the sum of three
//! exponential delays; D uniform below 1/μD, until the recipient's next tick. Left out, and in
//! networks like the defaults' far below these: links, gateways' and clients' disks, losses, and
//! what waits before the message.
//!
//! A packet is alone in a mix if it finds none there and none comes while it stays: with arrivals
//! at rate ρ a mean delay that is e^−ρ · 1/(1 + ρ). Not claimed: that those who are met are equally
//! likely, nor anything of an attack over many messages (docs/THREAT_MODEL.md).

use proto::directory::{Params, Profile, params::NODE_LOOPS_IN_MIX};
use serde::{Deserialize, Serialize};

/// Mixes on a route.
const MIXES: i32 = 3;
/// Points at which the two parts that are not W are taken.
const STEPS: u32 = 64;

/// How long a message takes, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// On the mean.
    pub mean_s: f64,
    /// Half are faster.
    pub p50_s: f64,
    /// 95 of 100 are faster.
    pub p95_s: f64,
}

/// The least anonymity: that of a network in which nobody else is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Other packets in each mix, on the mean.
    pub others_in_mix: f64,
    /// Share of packets that meet no other one on their way.
    pub alone: f64,
}

/// Expected latency; none for a profile without payload slots.
#[must_use]
pub fn latency(params: &Params, profile: &Profile) -> Option<Latency> {
    if profile.payload_uhz == 0 || profile.downstream_uhz == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let gap_s = |uhz: u64| 1e6 / uhz as f64;
    let (slot_s, tick_s) = (gap_s(profile.payload_uhz), gap_s(profile.downstream_uhz));
    let delay_s = params.delay_mean().as_secs_f64();
    let points = || (0..STEPS).map(|i| (f64::from(i) + 0.5) / f64::from(STEPS));
    let mixes: Vec<f64> = points().map(|p| delay_s * erlang_3(p)).collect();
    let within = |t: f64| {
        let each = mixes
            .iter()
            .flat_map(|m| points().map(move |u| m + u * tick_s));
        let share = each.map(|x| -(-(t - x).max(0.0) / slot_s).exp_m1());
        share.sum::<f64>() / f64::from(STEPS * STEPS)
    };
    let mean_s = slot_s + f64::from(MIXES) * delay_s + tick_s / 2.0;
    let quantile = |p| root(mean_s * 20.0, |t| within(t) < p);
    Some(Latency {
        mean_s,
        p50_s: quantile(0.5),
        p95_s: quantile(0.95),
    })
}

/// The floor that the loops of nodes give by themselves.
#[must_use]
pub fn floor() -> Floor {
    let others = NODE_LOOPS_IN_MIX;
    Floor {
        others_in_mix: others,
        alone: ((-others).exp() / (1.0 + others)).powi(MIXES),
    }
}

/// The quantile of a sum of three exponentials of mean 1.
fn erlang_3(p: f64) -> f64 {
    root(100.0, |x| 1.0 - (-x).exp() * (1.0 + x + x * x / 2.0) < p)
}

/// Where `below` ends, from 0 to `most`.
fn root(most: f64, below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    /// Against the law played out: 100 000 messages of each profile.
    #[test]
    fn latency_is_that_of_the_law_played_out() {
        let params = Params::default();
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut uniform = || f64::from(rng.next_u32()) / 2f64.powi(32);
        let gap_s = |uhz: u64| 1e6 / f64::from(u32::try_from(uhz).unwrap());
        for name in ["interactive", "messaging", "frugal"] {
            let (_, profile) = params.profile(name).unwrap();
            let said = latency(&params, profile).unwrap();
            let delay_s = params.delay_mean().as_secs_f64();
            let mut played: Vec<f64> = (0..100_000)
                .map(|_| {
                    let mut exponential = |mean: f64| -mean * (1.0 - uniform()).ln();
                    let wait = exponential(gap_s(profile.payload_uhz));
                    let mixes: f64 = (0..3).map(|_| exponential(delay_s)).sum();
                    wait + mixes + uniform() * gap_s(profile.downstream_uhz)
                })
                .collect();
            played.sort_by(f64::total_cmp);
            let mean = played.iter().sum::<f64>() / 1e5;
            for (said, played) in [
                (said.mean_s, mean),
                (said.p50_s, played[50_000]),
                (said.p95_s, played[95_000]),
            ] {
                assert!(
                    (said / played - 1.0).abs() < 0.02,
                    "{name}: {said} {played}"
                );
            }
        }
    }

    /// Against a mix played out: who finds nobody and is joined by nobody.
    #[test]
    fn the_floor_is_that_of_a_mix_played_out() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let mut exponential = || -(1.0 - f64::from(rng.next_u32()) / 2f64.powi(32)).ln();
        let trials = 200_000;
        let alone = (0..trials).filter(|_| {
            // The last arrival before it, and all that stay longer than they are old.
            let mut age = exponential() / NODE_LOOPS_IN_MIX;
            while age < 40.0 {
                if exponential() > age {
                    return false;
                }
                age += exponential() / NODE_LOOPS_IN_MIX;
            }
            exponential() < exponential() / NODE_LOOPS_IN_MIX
        });
        let share = f64::from(u32::try_from(alone.count()).unwrap()) / f64::from(trials);
        let said = floor().alone.cbrt();
        assert!((share / said - 1.0).abs() < 0.06, "{share} {said}");
    }
}
