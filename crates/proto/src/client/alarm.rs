//! What a client does when too many of its loops are lost.
//!
//! Spec: docs/spec/loops.md, rules LOOP-4 to LOOP-7, LOOP-11, LOOP-12.
//!
//! | stage    | after                           | what it does                                    |
//! |----------|---------------------------------|-------------------------------------------------|
//! | calm     | [`CALM`] without an alarm       | nothing                                         |
//! | moved    | an alarm                        | enters by another gateway                       |
//! | warned   | another one, or no other gateway| says so                                         |
//! | paused   | another one, and a node says    | payload slots send drops, for one to two minutes |
//! |          | that it loses loops too         |                                                  |
//!
//! Every step comes at a uniform instant of the [`JITTER`] after its alarm, and none within
//! [`REST`] of another; loops sent before a step say nothing afterwards. A node (profile `node`)
//! takes no such steps: it loops four times as fast for [`RAISED`] instead.
//!
//! Invariant: nothing here moves a payload slot; a pause changes what they carry (CLI-2).

use core::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::{Client, ClientEvent, LOSS_PRIOR, cover};
use crate::{
    Time,
    directory::{
        Consensus, Profile,
        params::{LOOPS_RAISED_MOST, NODE_PROFILE},
    },
    mix::HOLD,
    watch::{Detector, Watch},
};

/// Mean time between two false alarms at the loss before it is measured (LOOP-4).
const RUN: Duration = Duration::from_secs(30 * 86_400);
/// Fewer loops would take too long to say anything: 1 in 20 s.
const LOOPS_MIN_UHZ: u64 = 50_000;
/// Loss that a mix is tuned for when its own loops are cut off.
const CUT_OFF: f64 = 0.95;
/// From the first time that the mailbox link is up: a network that starts loses loops.
const WARM_UP: Duration = Duration::from_secs(30);
/// Longest from an alarm to its step.
const JITTER: Duration = Duration::from_secs(30);
/// Least time from a step until loops count again.
const REST: Duration = Duration::from_secs(15);
/// Shortest pause; the longest is twice that.
const PAUSE: Duration = Duration::from_secs(60);
/// Least time between the beginnings of two pauses.
const PAUSES: Duration = Duration::from_secs(600);
/// How long the alarm of a node counts beside the own ones.
const CONFIRMED: Duration = Duration::from_secs(600);
/// Without an alarm for so long, all is forgotten.
const CALM: Duration = Duration::from_secs(3600);
/// How long a node loops faster.
const RAISED: Duration = Duration::from_secs(600);

/// Without a verdict for so long a client is blind.
const BLIND: Duration = Duration::from_secs(120);
/// The same where loops are few, in loops.
const BLIND_LOOPS: u32 = 20;

/// How far a client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing is wrong.
    #[default]
    Calm,
    /// It enters by another gateway than it did.
    Moved,
    /// It has told its owner.
    Warned,
    /// Payload slots send drops.
    Paused,
}

/// How a client watches its loops, for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Watching {
    /// The test; none: too few loops, or no place for a test between natural loss and an attack.
    pub detector: Option<Detector>,
    /// Loss at which its mean run between false alarms is 30 days at least.
    pub natural: f64,
    /// Loss that it is tuned for.
    pub attacked: f64,
    /// Alarms since the start.
    pub alarms: u64,
    /// How far the client has gone.
    pub stage: Stage,
    /// When a loop last said something: a calm that is older is none (LOOP-12).
    pub judged: Option<Time>,
}

impl Watching {
    /// Mean loops between two false alarms, and mean loops until an attack is noticed.
    #[must_use]
    pub fn run_lengths(&self) -> Option<(f64, f64)> {
        let detector = self.detector?;
        let run = |loss| detector.run_length(loss);
        Some((run(self.natural), run(self.attacked)))
    }

    /// Whether at `now` no loop has said anything for two minutes (or 20 loops' time of `profile`), of
    /// a client that has looped since `began`: it may look calm, and is blind (LOOP-12).
    #[must_use]
    pub fn is_blind(&self, profile: &Profile, began: Time, now: Time) -> bool {
        let loops = Duration::from_secs(1_000_000)
            / u32::try_from(profile.loops_uhz.max(1)).unwrap_or(u32::MAX);
        let silent = now.since(self.judged.map_or(began, |judged| judged.max(began)));
        silent > BLIND.max(loops * BLIND_LOOPS)
    }
}

pub(crate) struct Alarms {
    watch: Watch,
    natural: f64,
    attacked: f64,
    rng: ChaCha20Rng,
    pub(crate) stage: Stage,
    /// Alarms since the start.
    pub(crate) raised: u64,
    /// When the step that an alarm brings is taken.
    step_at: Option<Time>,
    /// Loops judged before say nothing; none until the client has warmed up.
    rest_until: Option<Time>,
    /// When the pause, or a node's faster loops, end.
    ends_at: Option<Time>,
    calm_at: Option<Time>,
    next_pause: Time,
    /// Until when a node's loops are lost too, as one has said.
    confirmed_until: Option<Time>,
    judged: Option<Time>,
}

impl Alarms {
    pub(crate) fn new(seed: [u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(stream);
        Self {
            watch: Watch::default(),
            natural: 0.0,
            attacked: 0.0,
            rng,
            stage: Stage::Calm,
            raised: 0,
            step_at: None,
            rest_until: None,
            ends_at: None,
            calm_at: None,
            next_pause: Time::ZERO,
            confirmed_until: None,
            judged: None,
        }
    }

    /// The mailbox link is up: once, and never again, that gives some time to warm up. (Were it for
    /// every new link, whoever can cut links would keep the test asleep.)
    pub(crate) fn warm_up(&mut self, now: Time) {
        self.rest_until.get_or_insert(now.after(WARM_UP));
    }

    /// A node says of itself that its loops are lost (LOOP-11).
    pub(crate) fn confirm(&mut self, now: Time) {
        self.confirmed_until = Some(now.after(CONFIRMED));
    }

    pub(crate) fn watching(&self) -> Watching {
        Watching {
            detector: self.watch.detector(),
            natural: self.natural,
            attacked: self.attacked,
            alarms: self.raised,
            stage: self.stage,
            judged: self.judged,
        }
    }

    pub(crate) fn next(&self) -> Option<Time> {
        [self.step_at, self.ends_at, self.calm_at]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Natural loss, and the one to tune for (LOOP-4). `is_mix`: all its loops pass one mix, its own.
fn losses(consensus: &Consensus, is_mix: bool) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let width = consensus
        .layers
        .iter()
        .map(Vec::len)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    // What is lost when one mix of the widest layer lets nothing through.
    let one_cut = LOSS_PRIOR + (1.0 - LOSS_PRIOR) / width;
    if is_mix {
        (one_cut, CUT_OFF)
    } else {
        (LOSS_PRIOR, one_cut.min(CUT_OFF))
    }
}

impl Client {
    /// A document is taken: watch by it.
    pub(super) fn tune(&mut self) {
        let Some((consensus, (_, profile))) = self.consensus.as_ref().zip(self.profile.as_ref())
        else {
            return self.alarms.watch.tune(None);
        };
        let (natural, attacked) = losses(consensus, self.config.via.is_some());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let loops = RUN.as_secs_f64() * profile.loops_uhz as f64 / 1e6;
        let enough = profile.loops_uhz >= LOOPS_MIN_UHZ;
        let detector = enough.then(|| Detector::new(natural, attacked, loops));
        (self.alarms.natural, self.alarms.attacked) = (natural, attacked);
        self.alarms.watch.tune(detector.flatten());
    }

    fn is_node(&self) -> bool {
        self.config.profile == NODE_PROFILE
    }

    /// A loop came back or is lost.
    pub(super) fn judged(&mut self, lost: bool) {
        let now = self.now;
        self.alarms.judged = Some(now);
        let awake = self.alarms.rest_until.is_some_and(|until| until <= now);
        if !awake || !self.alarms.watch.verdict(lost) {
            return;
        }
        self.alarms.raised += 1;
        self.event(ClientEvent::LoopAlarm);
        let is_node = self.is_node();
        let alarms = &mut self.alarms;
        alarms.calm_at = Some(now.after(CALM));
        if is_node {
            alarms.ends_at = Some(now.after(RAISED));
            alarms.rest_until = Some(now.after(HOLD + REST));
            self.loops.forget();
            return self.set_rates();
        }
        let wait = JITTER.mul_f64(cover::uniform(&mut alarms.rng));
        alarms.step_at = Some(now.after(wait.max(Duration::from_nanos(1))));
        alarms.rest_until = Some(now.after(JITTER + REST));
    }

    /// How many times its profile's rate this client loops at.
    pub(super) fn loops_raised(&self) -> u64 {
        let raised = self.is_node() && self.alarms.ends_at.is_some();
        if raised { LOOPS_RAISED_MOST } else { 1 }
    }

    /// Whether payload slots must not carry anything (LOOP-7).
    pub(super) fn is_paused(&self) -> bool {
        self.alarms.stage == Stage::Paused
    }

    /// Does what has fallen due.
    pub(super) fn alarms_due(&mut self) {
        let now = self.now;
        let due = |at: &mut Option<Time>| at.take_if(|at| *at <= now);
        if due(&mut self.alarms.calm_at).is_some() {
            self.alarms.stage = Stage::Calm;
        }
        if due(&mut self.alarms.ends_at).is_some() {
            if self.alarms.stage == Stage::Paused {
                self.alarms.stage = Stage::Warned;
            }
            self.set_rates();
        }
        if let Some(at) = due(&mut self.alarms.step_at) {
            self.step(at);
            self.loops.forget();
        }
    }

    /// Goes one stage further (LOOP-6, LOOP-7, LOOP-11).
    fn step(&mut self, at: Time) {
        let stage = match self.alarms.stage {
            Stage::Calm => {
                if self.enter_elsewhere() {
                    Stage::Moved
                } else {
                    Stage::Warned
                }
            }
            Stage::Moved => Stage::Warned,
            // LOOP-11: else whoever can cut this client's line could ask by it whose messages stop.
            Stage::Warned
                if at >= self.alarms.next_pause
                    && self.alarms.confirmed_until.is_some_and(|until| at < until) =>
            {
                let length = PAUSE.mul_f64(1.0 + cover::uniform(&mut self.alarms.rng));
                self.alarms.ends_at = Some(at.after(length));
                self.alarms.next_pause = at.after(PAUSES);
                Stage::Paused
            }
            same @ (Stage::Warned | Stage::Paused) => same,
        };
        if stage != self.alarms.stage {
            self.alarms.stage = stage;
            self.event(ClientEvent::Alarmed(stage));
        }
    }
}
