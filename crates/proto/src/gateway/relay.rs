//! The entry half of a gateway: which mixes may come first, and how fast a client may send.
//!
//! Spec: docs/spec/gateway.md, rules GW-1 to GW-4, GW-17.
//!
//! | quantity | type           | unit, range                                                   |
//! |----------|----------------|---------------------------------------------------------------|
//! | gap      | `NonZeroU64`   | ns between two frames at a given rate; `None` for rate zero    |
//! | bucket   | [`Bucket`]     | frames, <= [`BURST`]                                          |
//!
//! An entry gateway is a relay on the link, not a Sphinx hop: it reads which mix comes first and
//! nothing else, so forward packets and replies are one thing to it.

use core::{num::NonZeroU64, time::Duration};
use std::sync::Arc;

use crate::{
    NodeId, Time,
    calendar::Utc,
    directory::{Consensus, Profile},
    wire::Purpose,
};

/// Frames that a client may send at once after a pause (GW-3).
///
/// An honest client's frames are a Poisson process, and networks bunch them. In a bucket that
/// fills exactly at their rate about one in 2 × `BURST` of them would find it empty; filling
/// [`HEADROOM`] faster, about one in 10¹³ does.
pub(super) const BURST: u32 = 64;

/// How much faster than the profile's rate a bucket fills, as a fraction (GW-3).
const HEADROOM: (u64, u64) = (5, 4);

/// Nanoseconds between two events at `rate_uhz`; none at rate zero.
fn gap_of(rate_uhz: u64) -> Option<NonZeroU64> {
    const NANOS_MICROHERTZ: u64 = 1_000_000_000_000_000;
    let gap = NANOS_MICROHERTZ.checked_div(rate_uhz)?;
    NonZeroU64::new(gap.max(1))
}

/// Time between two downstream ticks of a mailbox link with `profile`.
pub(super) fn downstream_gap(profile: &Profile) -> Option<NonZeroU64> {
    gap_of(profile.downstream_uhz)
}

/// Least mean time between two upstream frames of a link with `profile` (GW-3).
fn upstream_gap(purpose: Purpose, profile: &Profile) -> Option<NonZeroU64> {
    let (more, than) = HEADROOM;
    if purpose == Purpose::Entry {
        gap_of(profile.upstream_uhz().saturating_mul(more) / than)
    } else {
        let tick = Duration::from_millis(profile.confirm_ms.into()).as_nanos();
        let gap = u64::try_from(tick).unwrap_or(u64::MAX) / more * than;
        NonZeroU64::new(gap.max(1))
    }
}

/// A token bucket of [`BURST`] frames, kept as the time at which it will be full again.
pub(super) struct Bucket {
    gap: Option<NonZeroU64>,
    full: Time,
}

impl Bucket {
    /// A full bucket for a link with `profile`.
    pub(super) fn new(purpose: Purpose, profile: &Profile) -> Self {
        Self {
            gap: upstream_gap(purpose, profile),
            full: Time::ZERO,
        }
    }

    /// Fills at the rate of `profile` from now on.
    pub(super) fn pace(&mut self, purpose: Purpose, profile: &Profile) {
        self.gap = upstream_gap(purpose, profile);
    }

    /// Takes one frame out at `now`, if one is in (GW-3).
    pub(super) fn take(&mut self, now: Time) -> bool {
        let Some(gap) = self.gap.map(|gap| Duration::from_nanos(gap.get())) else {
            return false;
        };
        let full = self.full.max(now);
        let room = full.since(now) <= gap * (BURST - 1);
        if room {
            self.full = full.after(gap);
        }
        room
    }
}

/// The newest consensus, and the one before it while its packets may still be under way.
pub(super) struct Topology {
    current: Arc<Consensus>,
    previous: Option<Arc<Consensus>>,
}

impl Topology {
    pub(super) fn new(consensus: Arc<Consensus>) -> Self {
        Self {
            current: consensus,
            previous: None,
        }
    }

    /// Takes the next consensus; one of an earlier period changes nothing.
    pub(super) fn renew(&mut self, consensus: Arc<Consensus>) {
        if consensus.period > self.current.period {
            let before = core::mem::replace(&mut self.current, consensus);
            self.previous = Some(before);
        } else if consensus.period == self.current.period {
            self.current = consensus;
        }
    }

    /// Those in force at `utc`: at a period's edge, both (GW-2).
    fn in_force(&self, utc: Utc) -> impl Iterator<Item = &Consensus> {
        let edge = self.current.schedule();
        let edge = edge.start(edge.first).after(edge.grace() + edge.skew());
        let previous = self.previous.iter().filter(move |_| utc < edge);
        [&self.current]
            .into_iter()
            .chain(previous)
            .map(AsRef::as_ref)
    }

    /// Whether there is an epoch at `utc` (GW-17).
    pub(super) fn in_epoch(&self, utc: Utc) -> bool {
        self.in_force(utc)
            .any(|consensus| consensus.schedule().at(utc).is_some())
    }

    /// Whether `mix` stands in the first layer at `utc` (GW-2).
    pub(super) fn is_first(&self, mix: &NodeId, utc: Utc) -> bool {
        self.in_force(utc)
            .filter_map(|consensus| consensus.layers.first())
            .any(|layer| layer.binary_search(mix).is_ok())
    }

    /// The newest consensus.
    pub(super) fn current(&self) -> &Consensus {
        &self.current
    }
}
