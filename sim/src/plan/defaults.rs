//! How far the network's default profiles stand from the front.
//!
//! A profile spends `T = λP + λL + μD` frames a second. Its *rivals* spend as many, send as many
//! loops (which are what notices an (n−1) attack), confirm as often, and differ in the load
//! `ρ = (λP + λL) / μD` of the mailbox; bits grow with ρ, latency first falls and then grows.
//!
//! | gain      | most bits more, by the limit for large pools, that a rival has at the profile's own p95 |
//! |-----------|----------------------------------------------------------------------------------|
//! | shared    | with the delay of the network: 0 if the profile is on the front                  |
//! | alone     | with a mean delay of its own, as if the network had no other profile             |
//!
//! Bits are those over packets; of how many users there are, no more than log₂ users can be had, and
//! [`Front::users_bits`] is what is left of the gain alone where both ends of it are cut there.
//!
//! Loads in steps of 0.01 are tried, up to [`LOAD_MAX`] as for profiles. A profile above
//! it has no latency by this law, which takes every payload slot for a message to a user.

use proto::directory::{Params, Profile};

use super::{
    Budgets, DEPLOYED, FRAME_BYTES, Given,
    latency::{LOAD_MAX, Mailbox, Way},
};
use crate::{closed::network_limit_bits, report::short};

/// What each default profile of the network is for: the budgets that it answers, at the network's
/// delay, with as many loops as it is to notice an (n−1) attack by, and with what its mailbox must
/// carry ("The default profiles and the plan" in docs/SIMULATOR.md). `docs/plans/NAME.{json,toml}` are the plans.
pub const ANSWERS: [(&str, Budgets); 4] = [
    ("interactive", answer((0.42, 13.3e9), 10_000, 2.0, 1.0)),
    ("messaging", answer((8.0, 345e6), 100_000, 0.1, 1.0)),
    // Inbound of at most 0.047 /s for 0.05 slots.
    ("frugal", answer((130.0, 28.2e6), 100_000, 0.01, 0.94)),
    // Streams' peers send less than they get.
    ("service", answer((0.34, 86e9), 1_000, 5.0, 0.75)),
];

const fn answer(
    (latency_p95_s, bytes_per_day): (f64, f64),
    users: u64,
    loops_per_s: f64,
    inbound: f64,
) -> Budgets {
    Budgets {
        latency_p95_s,
        bytes_per_day,
        users,
        corrupt: 0.2,
        links_s: 0.0,
        given: Given {
            delay_mean_ms: Some(50),
            loops_per_s: Some(loops_per_s),
            inbound,
        },
    }
}

/// Latency (95 % quantile, s), bytes a day and bound (bits over packets) of a profile for what `budgets` are
/// for. `None`: its mailbox would not keep up with the budgets' inbound (load above 0.8).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "rates below 2^53")]
pub fn costs(profile: &Profile, delay_mean_ms: u32, budgets: &Budgets) -> Option<[f64; 3]> {
    let [payload, loops, down] = [
        profile.payload_uhz,
        profile.loops_uhz,
        profile.downstream_uhz,
    ]
    .map(|uhz| uhz as f64 / 1e6);
    let load = (payload * budgets.given.inbound + loops) / down;
    let delay_mean_s = f64::from(delay_mean_ms) / 1e3;
    let way = Way {
        payload_per_s: payload,
        layers: DEPLOYED,
        delay_mean_s,
        downstream_per_s: down,
    };
    let frames = payload + loops + down + 1e3 / f64::from(profile.confirm_ms);
    let users_per_s = budgets.users as f64 * (payload + loops);
    (load <= super::LOAD_PLANNED).then(|| {
        [
            way.quantile(&Mailbox::new(load), 0.95) + budgets.links_s,
            86_400.0 * f64::from(FRAME_BYTES) * frames,
            network_limit_bits(users_per_s, DEPLOYED as usize, delay_mean_s),
        ]
    })
}

/// Head of [`rows`].
pub const HEAD: [&str; 10] = [
    "profile",
    "MB/day",
    "load",
    "p95 s",
    "limit over packets",
    "log₂ users",
    "gain, shared delay",
    "gain, own delay",
    "within log₂ users",
    "own delay ms",
];

/// Where one profile stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Bytes of a user's links in a day, both directions.
    pub bytes_per_day: f64,
    /// Load of its mailbox if every payload slot carries a message to a user.
    pub load: f64,
    /// Limit of entropy over packets for large pools if all `users` have this profile, in bits.
    pub bound_bits: f64,
    /// log₂ users.
    pub users_bits: f64,
    /// Latency and gains; none above [`LOAD_MAX`].
    pub front: Option<Front>,
}

/// How far from the front.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Front {
    /// 95 % quantile of the latency of a one-packet message, in seconds.
    pub latency_p95_s: f64,
    /// Bits that the best rival gains with the delay of the network.
    pub shared_bits: f64,
    /// Bits that the best rival gains with a delay of its own.
    pub alone_bits: f64,
    /// The same, with log₂ users in place of what exceeds it.
    pub users_bits: f64,
    /// That delay, in seconds.
    pub alone_delay_s: f64,
}

/// Where the profiles of `params` stand in a network of `users`.
#[must_use]
pub fn standings(params: &Params, users: u64) -> Vec<Standing> {
    let rivals: Vec<(f64, Mailbox)> = (5..=90)
        .map(|load| {
            let load = f64::from(load) / 100.0;
            (load, Mailbox::new(load))
        })
        .collect();
    let profiles = params.profiles.iter();
    profiles
        .map(|profile| standing(params, profile, users, &rivals))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates below 2^53 and at most 1e9 users"
)]
fn standing(params: &Params, profile: &Profile, users: u64, rivals: &[(f64, Mailbox)]) -> Standing {
    let hz = |uhz: u64| uhz as f64 / 1e6;
    let [payload, loops] = [profile.payload_uhz, profile.loops_uhz].map(hz);
    let down = hz(profile.downstream_uhz);
    let (through, frames) = (payload + loops, payload + loops + down);
    let delay_mean_s = f64::from(params.delay_mean_ms) / 1e3;
    let load = through / down;
    let users = users as f64;
    let users_bits = users.log2();
    let bound_bits = network_limit_bits(users * through, DEPLOYED as usize, delay_mean_s);
    let way = |payload_per_s, downstream_per_s, delay_mean_s| Way {
        payload_per_s,
        layers: DEPLOYED,
        delay_mean_s,
        downstream_per_s,
    };
    let front = (load <= LOAD_MAX).then(|| {
        let own = way(payload, down, delay_mean_s).quantile(&Mailbox::new(load), 0.95);
        let mut front = Front {
            latency_p95_s: own,
            shared_bits: 0.0,
            alone_bits: 0.0,
            users_bits: 0.0,
            alone_delay_s: delay_mean_s,
        };
        for (load, mailbox) in rivals {
            let down = frames / (1.0 + load);
            let payload = frames - down - loops;
            if payload <= 0.0 {
                continue;
            }
            let keeps = |delay: f64| way(payload, down, delay).quantile(mailbox, 0.95) <= own;
            let more = ((payload + loops) / through).log2();
            if keeps(delay_mean_s) {
                front.shared_bits = front.shared_bits.max(more);
            }
            // The longest delay that keeps the latency; it is below the whole of it.
            let (mut low, mut high) = (0.0, own);
            for _ in 0..20 {
                let middle = f64::midpoint(low, high);
                if keeps(middle) {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            let gain = more + (low / delay_mean_s).log2();
            if low > 0.0 && gain > front.alone_bits {
                (front.alone_bits, front.alone_delay_s) = (gain, low);
            }
        }
        let among = |bits: f64| bits.min(users_bits);
        front.users_bits = among(bound_bits + front.alone_bits) - among(bound_bits);
        front
    });
    let confirmations = 1e3 / f64::from(profile.confirm_ms);
    Standing {
        name: profile.name.clone(),
        bytes_per_day: 86_400.0 * f64::from(FRAME_BYTES) * (frames + confirmations),
        load,
        bound_bits,
        users_bits,
        front,
    }
}

/// One row for each profile, under [`HEAD`].
#[must_use]
pub fn rows(standings: &[Standing]) -> Vec<Vec<String>> {
    let row = |one: &Standing| {
        let of = |show: &dyn Fn(&Front) -> String| one.front.as_ref().map_or("–".to_owned(), show);
        vec![
            one.name.clone(),
            format!("{:.1}", one.bytes_per_day / 1e6),
            format!("{:.3}", one.load),
            of(&|front| short(front.latency_p95_s)),
            format!("{:.2}", one.bound_bits),
            format!("{:.2}", one.users_bits),
            of(&|front| format!("{:.2}", front.shared_bits)),
            of(&|front| format!("{:.2}", front.alone_bits)),
            of(&|front| format!("{:.2}", front.users_bits)),
            of(&|front| format!("{:.0}", 1e3 * front.alone_delay_s)),
        ]
    };
    standings.iter().map(row).collect()
}
