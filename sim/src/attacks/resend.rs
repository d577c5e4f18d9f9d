//! Confirmation by resending: block half of the gateways where the recipient may be, and watch
//! whether the target sends again; with a yes or no each time, a binary search finds the recipient's.
//!
//! | repair      | a message whose ack does not come                                        | seen on the link         |
//! |-------------|--------------------------------------------------------------------------|--------------------------|
//! | `immediate` | goes out again at once, beside the cover                                 | a burst if it was blocked |
//! | `slots`     | its repair waits a jittered back-off, then for payload slots             | the slots, as ever        |
//!
//! Of `slots` nothing can be found here, by construction: a slot is one frame, whatever it carries. What the study computes is what a
//! client that resends at once gives away. That the deployed client is the one of `slots` is tested on its machine
//! (`crates/proto/tests/attack_observers.rs`, t08).
//!
//! The link's frames are those of one Poisson process of payload slots and one of loops. A slot carries
//! what waits, else a drop. The attacker knows when the message is said, and takes a window from the ack's
//! timeout on; it takes for a resend more frames than half of one beyond the mean. That is the likelihood
//! ratio test, since counts of slots are Poisson.

use super::{WORK_MAX, bound, figure, line, plot, reference, replicate, share_of};
use crate::{
    outcome::{Outcome, RunError},
    random::Stream,
    stats::Estimate,
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Resend {
    /// Gateways where the recipient may be, ≥ 2.
    pub gateways: usize,
    /// Payload slots per second.
    pub payload_per_s: f64,
    /// Loops per second.
    pub loops_per_s: f64,
    /// Packets of the message, and of its repair.
    pub packets: usize,
    /// After how many seconds without its ack a message is sent again.
    pub timeout_s: f64,
    /// How long the attacker watches from then on, in seconds.
    pub window_s: f64,
    /// Searches, one after the other, whose votes are counted together.
    pub searches: usize,
    /// Independent attacks.
    pub replications: u64,
}

/// How a message that was not acknowledged is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// At once, beside the cover.
    Immediate,
    /// After a jittered back-off, in payload slots.
    Slots,
}

impl Repair {
    /// Both, in the order of the table.
    pub const ALL: [(&'static str, Repair); 2] =
        [("immediate", Repair::Immediate), ("slots", Repair::Slots)];
}

impl Resend {
    /// Frames on the target's link in the attacker's window, after a message that was blocked or not.
    fn frames(&self, repair: Repair, blocked: bool, stream: &mut Stream) -> usize {
        let end = self.timeout_s + self.window_s;
        let watched = |at: f64| (self.timeout_s..end).contains(&at);
        let mut frames = stream.poisson(self.loops_per_s * self.window_s);
        // The message waits for slots from time 0; its repair from the back-off on.
        let mut again_at = blocked.then(|| self.timeout_s * (1.0 + stream.uniform()));
        let mut waiting = self.packets;
        let mut at = 0.0;
        if repair == Repair::Immediate && again_at.take().is_some() {
            frames += self.packets;
        }
        loop {
            at += stream.exponential() / self.payload_per_s;
            if at >= end {
                return frames;
            }
            if again_at.is_some_and(|again| again <= at) {
                again_at = None;
                waiting += self.packets;
            }
            // A packet that waits goes, else a drop does: one frame either way.
            waiting = waiting.saturating_sub(1);
            frames += usize::from(watched(at));
        }
    }

    /// The gateway that searches vote for.
    #[expect(clippy::cast_precision_loss, reason = "counts in memory")]
    fn search(&self, repair: Repair, stream: &mut Stream) -> bool {
        let truth = stream.index(self.gateways);
        let usual = (self.payload_per_s + self.loops_per_s) * self.window_s;
        let mut votes = vec![0usize; self.gateways];
        for _ in 0..self.searches {
            let mut left: Vec<usize> = (0..self.gateways).collect();
            for i in 0..left.len() {
                left.swap(i, i + stream.index(self.gateways - i));
            }
            while left.len() > 1 {
                let half = left.split_off(left.len() / 2);
                let frames = self.frames(repair, half.contains(&truth), stream);
                if frames as f64 > usual + self.packets as f64 / 2.0 {
                    left = half;
                }
            }
            votes[left[0]] += 1;
        }
        let most = votes.iter().max().copied().unwrap_or(0);
        let first: Vec<usize> = (0..self.gateways).filter(|i| votes[*i] == most).collect();
        first[stream.index(first.len())] == truth
    }

    /// Whether it takes minutes at most.
    #[expect(clippy::cast_precision_loss, reason = "settings are bounded")]
    fn check(&self) -> Result<(), RunError> {
        let slots = self.payload_per_s * (self.timeout_s + self.window_s);
        let search = self.gateways as f64 + (self.gateways as f64).log2().ceil() * (slots + 1.0);
        // Half of them, a quarter … are played for the curve as well.
        let searches = 2.0 * self.searches as f64 * Repair::ALL.len() as f64;
        let steps = search * searches * self.replications as f64;
        let lower =
            "--payload-per-s, --timeout-s, --window-s, --searches, --gateways or --replications";
        bound("steps", steps, WORK_MAX, lower)
    }

    /// How often the recipient's gateway is found; by chance, in one of `gateways` attacks.
    #[must_use]
    pub fn found(&self, repair: Repair, seed: u64) -> Estimate {
        share_of(&replicate(seed, self.replications, |stream| {
            self.search(repair, stream)
        }))
    }
}

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if it would take too long.
#[expect(clippy::cast_precision_loss, reason = "a few thousand gateways")]
pub fn run(settings: &Resend, seed: u64) -> Result<Outcome, RunError> {
    settings.check()?;
    let chance = 1.0 / settings.gateways as f64;
    let up_to = |most: usize| {
        core::iter::successors(Some(1), |n| Some(2 * n)).take_while(move |n| *n < most)
    };
    let looks: Vec<usize> = up_to(settings.searches)
        .chain([settings.searches])
        .collect();
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, repair) in Repair::ALL {
        let found: Vec<Estimate> = looks
            .iter()
            .map(|searches| {
                Resend {
                    searches: *searches,
                    ..*settings
                }
                .found(repair, seed)
            })
            .collect();
        let expected = (repair == Repair::Slots).then_some(chance);
        figures.push(figure(
            &format!("found_{name}"),
            &format!("recipient's gateway found, repair: {name}"),
            *found.last().expect("one look at least"),
            expected,
        ));
        let points = looks.iter().zip(&found);
        let points = points.map(|(searches, found)| (*searches as f64, found.value));
        series.push(line(&format!("repair: {name}"), points.collect()));
    }
    let ends = [1.0, settings.searches as f64];
    series.push(reference("chance", ends.map(|x| (x, chance)).to_vec()));
    Ok(Outcome {
        figures,
        plots: vec![plot(
            "Recipient's gateway found",
            "Share of attacks that name the gateway, over binary searches whose votes are counted together.",
            ["searches", "share of attacks"],
            series,
        )],
        ..Outcome::default()
    })
}
