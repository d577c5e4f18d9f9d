//! What belongs to the network, not to a node: epochs, delays, profiles, limits.
//!
//! Spec: docs/spec/directory.md, rule DIR-2; docs/spec/loops.md, LOOP-1. Every number carries its unit last; rates are whole
//! microhertz, so that the canonical encoding has no floating point.
//!
//! | field              | default  | unit, range                                          |
//! |--------------------|----------|------------------------------------------------------|
//! | `epoch_s`          | 10 800   | s, 90 to 86 400                                      |
//! | `epochs`           | 8        | epochs of a period, 1 to 64; keys are for twice that |
//! | `delay_mean_ms`    | 50       | ms per mix, 1 to 60 000                              |
//! | `expiry_s`         | 1 209 600| s a mailbox keeps a packet, 60 to 90 days            |
//! | `profiles`         | five     | 1 to 16, see [`Profile`]                             |
//!
//! Invariant of checked parameters: a quarter epoch leaves room for a client's switch between two
//! keys (EPO-3), whatever the delays.

use core::{fmt, ops::RangeInclusive, time::Duration};

use minicbor::{Decode, Encode};

/// Holding times above this many means are refused: the 1 - 10^-12 quantile of the exponential.
pub const DELAY_CAP_MEANS: f64 = 27.6;

/// Name of the profile that nodes loop with; no network can give it to another (LOOP-1).
pub const NODE_PROFILE: &str = "node";
/// Its place in a hello: beyond all of [`PROFILES_MAX`].
pub const NODE_PROFILE_INDEX: u8 = u8::MAX;
/// How many times its rate a node may loop at after an alarm (LOOP-1).
pub const LOOPS_RAISED_MOST: u64 = 4;
/// Packets that loops of nodes alone keep in a mix, in thousandths (LOOP-1).
const POOL_MILLI: u64 = 2_200;
/// Packets that the nodes' own loops keep in each mix, on the mean (LOOP-1).
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub const NODE_LOOPS_IN_MIX: f64 = POOL_MILLI as f64 / 1e3;

/// The network's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Params {
    /// Length of a key epoch, in seconds.
    #[n(0)]
    pub epoch_s: u32,
    /// Epochs of a period; a document carries keys for twice as many.
    #[n(1)]
    pub epochs: u16,
    /// Mean of the exponential delay at each mix, in milliseconds.
    #[n(2)]
    pub delay_mean_ms: u32,
    /// How long a mailbox keeps a packet, in seconds.
    #[n(3)]
    pub expiry_s: u32,
    /// The named traffic profiles; a client picks one by name.
    #[n(4)]
    pub profiles: Vec<Profile>,
}

/// The traffic of one kind of client. Profiles differ in rates only, never in delays.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Profile {
    /// Its name, at most 16 characters of `a-z0-9-`.
    #[n(0)]
    pub name: String,
    /// Payload slots (λP), in microhertz.
    #[n(1)]
    pub payload_uhz: u64,
    /// Loops (λL), in microhertz.
    #[n(2)]
    pub loops_uhz: u64,
    /// Downstream frames (μD), in microhertz.
    #[n(3)]
    pub downstream_uhz: u64,
    /// Time between two confirmation ticks, in milliseconds.
    #[n(4)]
    pub confirm_ms: u32,
}

/// Which rule of DIR-2 the parameters break; `Display` names the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// `epoch_s` is out of range.
    EpochLength,
    /// `epochs` is out of range.
    Epochs,
    /// `delay_mean_ms` is out of range.
    DelayMean,
    /// A packet may be under way for longer than a switch between two keys allows.
    SwitchRoom,
    /// `expiry_s` is out of range.
    Expiry,
    /// There is no profile, or more than 16.
    Profiles,
    /// The profile of this index has an unusable name, or one that another has.
    ProfileName(u8),
    /// The profile of this index has rates or ticks out of range.
    ProfileRates(u8),
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EpochLength => f.write_str("epoch_s must be 90 to 86400"),
            Self::Epochs => f.write_str("epochs must be 1 to 64"),
            Self::DelayMean => f.write_str("delay_mean_ms must be 1 to 60000"),
            Self::SwitchRoom => f.write_str(
                "epoch_s is too short for delay_mean_ms: an eighth of it must exceed 5 s and \
                 82.8 mean delays",
            ),
            Self::Expiry => f.write_str("expiry_s must be 60 to 7776000"),
            Self::Profiles => f.write_str("there must be 1 to 16 profiles"),
            Self::ProfileName(i) => write!(
                f,
                "the name of profile {i} must be its own, 1 to 16 characters of a-z 0-9 -, and not `{NODE_PROFILE}`"
            ),
            Self::ProfileRates(i) => write!(
                f,
                "profile {i} needs rates up to 10000 per second, downstream_uhz at least \
                 loops_uhz / 0.8 and above 0, confirm_ms 100 to 3600000"
            ),
        }
    }
}

impl core::error::Error for ParamsError {}

/// Whether a profile may be called so.
#[must_use]
pub fn is_profile_name(name: &str) -> bool {
    let usable = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=16).contains(&name.len()) && name.bytes().all(usable)
}

/// Most profiles of a network.
pub const PROFILES_MAX: usize = 16;
/// Longest mean delay at a mix, in milliseconds.
pub const DELAY_MEAN_MS_MAX: u32 = 60_000;
/// Highest rate of a profile, per second.
pub const RATE_MAX_HZ: u32 = 10_000;
/// The same in microhertz.
const RATE_MAX_UHZ: u64 = RATE_MAX_HZ as u64 * 1_000_000;
/// Shortest and longest epoch, in seconds.
pub const EPOCH_S: RangeInclusive<u32> = 90..=86_400;
/// Fewest and most epochs of a period.
pub const EPOCHS: RangeInclusive<u16> = 1..=64;

impl Params {
    /// Whether every number is in its range (DIR-2).
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ParamsError> {
        let rule = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        rule(EPOCH_S.contains(&self.epoch_s), ParamsError::EpochLength)?;
        rule(EPOCHS.contains(&self.epochs), ParamsError::Epochs)?;
        rule(
            (1..=DELAY_MEAN_MS_MAX).contains(&self.delay_mean_ms),
            ParamsError::DelayMean,
        )?;
        let eighth = Duration::from_secs(self.epoch_s.into()) / 8; // grace less two skews, or less
        rule(eighth > self.transit(), ParamsError::SwitchRoom)?;
        rule(
            (60..=90 * 86_400).contains(&self.expiry_s),
            ParamsError::Expiry,
        )?;
        let count = self.profiles.len();
        rule((1..=PROFILES_MAX).contains(&count), ParamsError::Profiles)?;
        for (i, profile) in (0u8..).zip(&self.profiles) {
            let first = self.profile(&profile.name).map(|(at, _)| at);
            let own = first == Some(i) && profile.name != NODE_PROFILE;
            let named = is_profile_name(&profile.name) && own;
            rule(named, ParamsError::ProfileName(i))?;
            rule(profile.rates_are_usable(), ParamsError::ProfileRates(i))?;
        }
        Ok(())
    }

    /// Mean delay at each mix.
    #[must_use]
    pub fn delay_mean(&self) -> Duration {
        Duration::from_millis(self.delay_mean_ms.into())
    }

    /// Longest delay that a builder may ask of one mix; nodes drop what asks for more.
    #[must_use]
    pub fn delay_cap(&self) -> Duration {
        self.delay_mean().mul_f64(DELAY_CAP_MEANS)
    }

    /// Longest that a packet may be under way: three delay caps and 5 s.
    #[must_use]
    pub fn transit(&self) -> Duration {
        self.delay_cap() * 3 + Duration::from_secs(5)
    }

    /// How many packet keys a descriptor carries: one for each epoch of two periods.
    #[must_use]
    pub fn packet_keys(&self) -> usize {
        2 * usize::from(self.epochs)
    }

    /// How long a document holds: all epochs of two periods.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.epoch_s.into()) * 2 * u32::from(self.epochs)
    }

    /// The traffic of a node that loops through this network (LOOP-1): as many loops as leave
    /// 2.2 packets in each mix on the mean with no users at all, and a downstream that carries
    /// four times as many at a load of 0.8.
    ///
    /// A mix of one layer of `mixes / layers` sees the loops of all nodes shared among its layer:
    /// λ (mixes + gateways) layers / mixes a second, each for one mean delay.
    #[must_use]
    pub fn node_profile(&self, layers: usize, mixes: usize, gateways: usize) -> Profile {
        let [layers, mixes, nodes] = [layers, mixes, mixes + gateways].map(|n| n as u64);
        let through = u64::from(self.delay_mean_ms) * layers * nodes;
        let loops_uhz = (POOL_MILLI * 1_000_000 * mixes) / through.max(1);
        let loops_uhz = loops_uhz.clamp(1, RATE_MAX_UHZ / 5);
        Profile {
            name: NODE_PROFILE.to_owned(),
            payload_uhz: 0,
            loops_uhz,
            downstream_uhz: loops_uhz * LOOPS_RAISED_MOST * 5 / 4,
            confirm_ms: 1_000,
        }
    }

    /// The profile called `name`, and its index.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<(u8, &Profile)> {
        let mut named = (0..).zip(&self.profiles);
        named.find(|(_, profile)| profile.name == name)
    }
}

impl Profile {
    /// Most packets that one who keeps to it sends, in microhertz: a node after an alarm loops
    /// faster (LOOP-1).
    #[must_use]
    pub fn upstream_uhz(&self) -> u64 {
        let loops = if self.name == NODE_PROFILE {
            self.loops_uhz.saturating_mul(LOOPS_RAISED_MOST)
        } else {
            self.loops_uhz
        };
        self.payload_uhz.saturating_add(loops)
    }

    /// A mailbox drains only if its downstream outruns its loops (load 0.8 at most).
    fn rates_are_usable(&self) -> bool {
        let rates = [self.payload_uhz, self.loops_uhz, self.downstream_uhz];
        rates.into_iter().all(|rate| rate <= RATE_MAX_UHZ)
            && self.downstream_uhz > 0
            && self.downstream_uhz * 4 >= self.loops_uhz * 5
            && (100..=3_600_000).contains(&self.confirm_ms)
    }

    fn of(name: &str, rates_hz: [f64; 3], confirm_ms: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small positive constants of this file"
        )]
        let [payload_uhz, loops_uhz, downstream_uhz] = rates_hz.map(|hz| (hz * 1e6).round() as u64);
        Self {
            name: name.to_owned(),
            payload_uhz,
            loops_uhz,
            downstream_uhz,
            confirm_ms,
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            epoch_s: 10_800,
            epochs: 8,
            delay_mean_ms: 50,
            expiry_s: 14 * 86_400,
            profiles: vec![
                Profile::of("interactive", [20.0, 2.0, 40.0], 1_000),
                Profile::of("messaging", [0.5, 0.1, 1.0], 30_000),
                Profile::of("frugal", [0.05, 0.01, 1.0 / 14.0], 600_000),
                Profile::of("service", [200.0, 5.0, 200.0], 1_000),
                Profile::of("nym-like", [50.0, 5.0, 70.0], 1_000),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DIR-2
    #[test]
    fn the_defaults_hold_and_each_rule_is_told_apart() {
        assert_eq!(Params::default().check(), Ok(()));
        let with = |change: &dyn Fn(&mut Params)| {
            let mut params = Params::default();
            change(&mut params);
            params.check()
        };
        type Case<'a> = (&'a dyn Fn(&mut Params), ParamsError);
        let cases: [Case<'_>; 19] = [
            (&|p| p.epoch_s = 89, ParamsError::EpochLength),
            (&|p| p.epoch_s = 86_401, ParamsError::EpochLength),
            (&|p| p.epochs = 0, ParamsError::Epochs),
            (&|p| p.epochs = 65, ParamsError::Epochs),
            (&|p| p.delay_mean_ms = 0, ParamsError::DelayMean),
            (&|p| p.delay_mean_ms = 60_001, ParamsError::DelayMean),
            (
                &|p| (p.epoch_s, p.delay_mean_ms) = (90, 80),
                ParamsError::SwitchRoom,
            ),
            (&|p| p.expiry_s = 59, ParamsError::Expiry),
            (&|p| p.expiry_s = 7_776_001, ParamsError::Expiry),
            (&|p| p.profiles.clear(), ParamsError::Profiles),
            (
                &|p| p.profiles = vec![p.profiles[0].clone(); 17],
                ParamsError::Profiles,
            ),
            (
                &|p| p.profiles[1].name = p.profiles[0].name.clone(),
                ParamsError::ProfileName(1),
            ),
            (
                &|p| p.profiles[2].name = String::new(),
                ParamsError::ProfileName(2),
            ),
            (
                &|p| p.profiles[2].name = "Chat".into(),
                ParamsError::ProfileName(2),
            ),
            (
                &|p| p.profiles[0].name = "a".repeat(17),
                ParamsError::ProfileName(0),
            ),
            (
                &|p| p.profiles[3].name = NODE_PROFILE.into(),
                ParamsError::ProfileName(3),
            ),
            (
                &|p| p.profiles[0].downstream_uhz = 2_400_000,
                ParamsError::ProfileRates(0),
            ),
            (
                &|p| p.profiles[3].payload_uhz = RATE_MAX_UHZ + 1,
                ParamsError::ProfileRates(3),
            ),
            (
                &|p| p.profiles[4].confirm_ms = 99,
                ParamsError::ProfileRates(4),
            ),
        ];
        for (change, why) in cases {
            assert_eq!(with(change), Err(why));
        }
        assert_eq!(with(&|p| p.epoch_s = 90), Ok(()));
        assert_eq!(with(&|p| p.profiles[0].downstream_uhz = 2_500_000), Ok(()));
    }

    /// LOOP-1: λ = 2.2 / (delay (layers + gateways / width)), and it passes DIR-2 apart from its name.
    #[test]
    fn loops_of_nodes_alone_keep_two_packets_in_a_mix() {
        for (mean_ms, layers, width, gateways) in [(50, 3, 3, 2), (15, 3, 100, 30), (200, 1, 1, 1)]
        {
            let params = Params {
                delay_mean_ms: mean_ms,
                ..Params::default()
            };
            let profile = params.node_profile(layers, layers * width, gateways);
            let [layers, width, gateways] = [layers, width, gateways].map(|n| n as f64);
            let expected_hz = 2.2 / (f64::from(mean_ms) / 1e3 * (layers + gateways / width));
            let hz = profile.loops_uhz as f64 / 1e6;
            assert!((hz / expected_hz - 1.0).abs() < 1e-5, "{hz}");
            assert!(profile.rates_are_usable());
            assert_eq!(profile.payload_uhz, 0);
            assert_eq!(profile.downstream_uhz, profile.loops_uhz * 5);
            assert_eq!(profile.upstream_uhz(), profile.loops_uhz * 4);
        }
        assert_eq!(Params::default().profiles[0].upstream_uhz(), 22_000_000);
        let none = Params::default().node_profile(0, 0, 0);
        assert!(
            none.rates_are_usable(),
            "a document without mixes is none, but harms nothing"
        );
    }

    #[test]
    fn the_cap_is_far_in_the_tail() {
        let params = Params::default();
        assert_eq!(params.delay_cap(), Duration::from_millis(1_380));
        assert_eq!(params.transit(), Duration::from_millis(9_140));
    }
}
