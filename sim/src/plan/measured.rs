//! Entropy of a layered network with corrupt mixes as the flow engine measures it: for `plan` and
//! `capacity` alike.

use crate::{
    flow,
    outcome::RunError,
    report::short,
    scenario::{IN_FLIGHT_MIN, Scenario},
    stats::Estimate,
};

/// A network all of whose users send alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layered {
    /// Mixes that a packet passes.
    pub layers: u32,
    /// Mixes of each layer.
    pub width: u32,
    /// Corrupt ones of each layer.
    pub corrupt: u32,
    /// Mean delay of each mix, in milliseconds.
    pub delay_mean_ms: u32,
    /// Users online.
    pub users: u64,
    /// λP, in microhertz.
    pub payload_uhz: u64,
    /// λL, in microhertz.
    pub loops_uhz: u64,
}

/// Most users over whom entropy is measured: what a packet may be for takes 64 bytes for each.
pub const USERS_MAX: u64 = 1_000_000;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Mean entropy over packets of a message, in bits.
    pub mean: Estimate,
    /// Entropy over packets that a twentieth of messages falls short of, in bits; none of fewer than 200.
    pub p05: Option<Estimate>,
    /// Mean entropy over users of a message, in bits, as if each packet that leaves were for one drawn
    /// uniformly, who is known to the adversary; none of one user, nor of more than [`USERS_MAX`].
    pub over_users: Option<Estimate>,
}

/// How many of `width` mixes are a share `corrupt`, from 0 to 0.9, of them: the nearest whole number,
/// at least one if any are.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a layer"
)]
pub fn corrupt_of(width: u32, corrupt: f64) -> u32 {
    let bad = (f64::from(width) * corrupt).round() as u32;
    if corrupt > 0.0 { bad.max(1) } else { 0 }
}

impl Layered {
    /// Share of paths on which every mix is corrupt: those hide nothing.
    #[must_use]
    pub fn corrupt_paths(&self) -> f64 {
        let share = f64::from(self.corrupt) / f64::from(self.width);
        (0..self.layers).map(|_| share).product()
    }

    /// Packets in flight, on average.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users and 1e10 µHz")]
    pub fn in_flight(&self) -> f64 {
        let sent_per_s = (self.payload_uhz + self.loops_uhz) as f64 / 1e6;
        let way_s = f64::from(self.layers) * f64::from(self.delay_mean_ms) / 1e3;
        self.users as f64 * sent_per_s * way_s
    }

    /// Measures `messages` of them.
    ///
    /// # Errors
    ///
    /// Too few packets in flight; those of the flow engine.
    #[expect(clippy::cast_precision_loss, reason = "at most 1e10 µHz")]
    pub fn measure(
        &self,
        messages: u32,
        seed: u64,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Measured, RunError> {
        let in_flight = self.in_flight();
        if in_flight < IN_FLIGHT_MIN {
            return Err(RunError::Usage(format!(
                "--users {}: they keep {} packets in flight with a mean delay of {} ms, and fewer than \
                 {IN_FLIGHT_MIN} cannot be measured: plan for more users, or looser budgets",
                self.users,
                short(in_flight),
                self.delay_mean_ms
            )));
        }
        let per_s = |uhz: u64| uhz as f64 / 1e6;
        let counted = (2..=USERS_MAX).contains(&self.users);
        let text = format!(
            "version = 1\n[network]\nlayers = {}\nmixes_per_layer = {}\n\
             [mix]\ndelay_mean_ms = {}.0\n\
             [traffic]\nusers = {}\npayload_per_user_per_s = {:.6}\nloop_per_user_per_s = {:.6}\n\
             [adversary]\ncorrupt_mixes_per_layer = {}\n\
             [flow]\ntargets = {messages}\nwindow_means = 0.0\nreceivers = {}\n",
            self.layers,
            self.width,
            self.delay_mean_ms,
            self.users,
            per_s(self.payload_uhz),
            per_s(self.loops_uhz),
            self.corrupt,
            if counted { self.users } else { 0 },
        );
        let scenario = Scenario::parse(&text).map_err(|why| RunError::Usage(why.to_string()))?;
        let outcome = flow::run(&scenario, seed, progress)?;
        if let Some(why) = outcome.failures.first() {
            return Err(RunError::Failed(why.clone()));
        }
        let of = |name: &str| outcome.figure(name).map(|figure| figure.estimate);
        Ok(Measured {
            mean: of("entropy_mean_bits").expect("measured in every run"),
            p05: of("entropy_p05_bits"),
            over_users: of("receiver_entropy_mean_bits"),
        })
    }
}
