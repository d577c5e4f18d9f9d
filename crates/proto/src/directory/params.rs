//! What belongs to the network, not to a node: epochs, delays, profiles, limits.
//!
//! Spec: docs/spec/directory.md, rule DIR-2. Every number carries its unit last; rates are whole
//! microhertz, so that the canonical encoding has no floating point.
//!
//! | field              | default  | unit, range                                          |
//! |--------------------|----------|------------------------------------------------------|
//! | `epoch_s`          | 10 800   | s, 90 to 86 400                                      |
//! | `epochs`           | 8        | epochs of a period; keys are published for twice that|
//! | `delay_mean_ms`    | 50       | ms per mix, 1 to 60 000                              |
//! | `expiry_s`         | 1 209 600| s a mailbox keeps a packet (14 days)                 |
//! | `profiles`         | five     | see [`Profile`]                                      |

use core::time::Duration;

use minicbor::{Decode, Encode};

/// Holding times above this many means are refused: the 1 - 10^-12 quantile of the exponential.
pub const DELAY_CAP_MEANS: f64 = 27.6;

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

impl Params {
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

    /// The profile called `name`, and its index.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<(u8, &Profile)> {
        let mut named = (0..).zip(&self.profiles);
        named.find(|(_, profile)| profile.name == name)
    }
}

impl Profile {
    fn of(name: &str, rates_hz: [f64; 3], confirm_ms: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small positive constants of this file"
        )]
        let [payload_uhz, loops_uhz, downstream_uhz] =
            rates_hz.map(|hz| (hz * 1e6).round() as u64);
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
