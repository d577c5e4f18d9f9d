//! What a test does to a world, so that its judges can say no: mistakes of disks, and attacks.
//!
//! Not done here: faults that any network has (loss, crashes); those belong to the scenario.

use core::time::Duration;

use proto::Time;

/// A mistake of the simulated disks, for positive controls: a judge that never says no proves
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Disks keep what they answered for.
    #[default]
    None,
    /// A crash takes a node's replay journal with it, and its keys stay.
    ForgetTags,
    /// A client's disk answers before it has written: what it answered for in its last seconds is lost in a
    /// crash.
    AnswerEarly,
    /// A client's disk is empty after a crash, or when it has been away.
    EmptyDisk,
    /// No mistake of a disk, but an (n−1) attack: from [`BLOCKED_AT`] on nothing reaches mix 0 but one packet, the
    /// target: the first that comes after [`TARGET_AT`].
    Block,
    /// The same, and mix 0 does not heed its own alarms.
    BlockUnheeded,
}

/// When [`Sabotage::Block`] begins.
pub const BLOCKED_AT: Duration = Duration::from_secs(40);

/// When the target of [`Sabotage::Block`] is let in: a hold has begun, and goes on for some time.
pub const TARGET_AT: Duration = Duration::from_secs(60);

impl Sabotage {
    /// Whether a packet to node `to` is taken from its link at `now`; `target` is when the one came that was not.
    pub(super) fn takes(self, now: Time, to: usize, target: &mut Option<Time>) -> bool {
        let blocks = matches!(self, Self::Block | Self::BlockUnheeded);
        let since = now.since(Time::ZERO);
        if !blocks || to != 0 || since < BLOCKED_AT {
            return false;
        }
        let is_target = since >= TARGET_AT && target.is_none();
        if is_target {
            *target = Some(now);
        }
        !is_target
    }
}
