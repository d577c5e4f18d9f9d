//! Loops under way, and the loss of the path that they measure.
//!
//! Spec: docs/spec/client.md, rules CLI-6 and CLI-7; docs/spec/loops.md, LOOP-12.
//!
//! | quantity | unit, range                                                                   |
//! |----------|-------------------------------------------------------------------------------|
//! | due      | UTC ns: when the loop should be stored, by its own delays                     |
//! | stored   | UTC s: when the gateway stored a packet that was read                         |
//! | verdict  | returned or lost; the last [`VERDICTS`] are kept                              |
//! | loss     | probability; 95 % upper bound once [`VERDICTS_MIN`] loops were judged         |
//!
//! A loop counts as lost only when a packet stored [`PATIENCE`] or more after it was due has been
//! read, or when the mailbox was empty then: one that is slow, or flooded, loses no loop (CLI-6).
//! Of one that an outage, a full mailbox or a mix that holds may have kept away there is no
//! verdict, whether it returns or not (CLI-6, LOOP-12): that is what [`Loops::excuse`] is for.
//!
//! Not done here: alarms (`alarm`). A lost loop that comes late is counted as unknown.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Client, ClientEvent};
use crate::{
    NodeId, Time,
    calendar::Utc,
    mix::{HOLD, HOLDS},
};

/// How much later than a loop's due time a packet must have been stored for the loop to be lost.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// From when the home's link is back, until others' links to that gateway must be, too: a mix dials for
/// 10 s and waits as long, TCP waits for 30 s (LNK-9).
const RELINK: Duration = Duration::from_secs(30);
/// Frames that a link may miss, besides [`PATIENCE`], before it was silent.
const MISSED: u64 = 3;
/// Loops on which the estimate rests.
pub(crate) const VERDICTS: usize = 1024;
/// Fewer say nothing: the prior holds.
pub(crate) const VERDICTS_MIN: usize = 100;
/// Loss of a path before it was measured: 1 % on each of five links (MSG-11).
pub const LOSS_PRIOR: f64 = 0.049;

/// One-sided 95 % of the normal distribution.
const Z: f64 = 1.645;

/// Where a loop goes, and when it should be stored by its own delays.
#[derive(Clone, Copy)]
pub(crate) struct Course {
    pub(crate) mixes: [NodeId; 3],
    pub(crate) delay: Duration,
    pub(crate) due: Utc,
}

/// A loop under way.
pub(crate) struct UnderWay {
    sent: Time,
    course: Course,
    /// Whether its return, or its loss, will say anything.
    is_judged: bool,
}

/// The link to the gateway of the mailbox that loops come to, while it is up.
struct Home {
    /// From when on an empty mailbox says that nothing is waiting in it: [`PATIENCE`] after its
    /// link came up.
    hears_from: Time,
    /// When it brought a frame, or came up.
    heard: Time,
}

#[derive(Default)]
pub(crate) struct Loops {
    under_way: BTreeMap<[u8; 16], UnderWay>,
    by_due: BTreeSet<(Utc, [u8; 16])>,
    lost: VecDeque<bool>,
    pub(crate) sent: u64,
    pub(crate) returned: u64,
    home: Option<Home>,
    /// The home's link was up, and is not.
    is_cut: bool,
    /// What is due before says nothing: others' links may not be back.
    says_from: Time,
    /// Mixes that hold: the minute in which each said so, and until when what leaves says nothing.
    holding: BTreeMap<NodeId, (u64, Time)>,
}

impl Loops {
    /// A loop left at `now`: whether it will be judged. Of more than `loops_max` the one due first is
    /// forgotten without a verdict.
    pub(crate) fn sent(
        &mut self,
        id: [u8; 16],
        now: Time,
        course: Course,
        loops_max: usize,
    ) -> bool {
        self.sent += 1;
        let holds = |mix| self.holding.get(mix).is_some_and(|(_, until)| now < *until);
        let is_blind = self.is_cut || now.after(course.delay) < self.says_from;
        let is_judged = !is_blind && !course.mixes.iter().any(holds);
        let loop_ = UnderWay {
            sent: now,
            course,
            is_judged,
        };
        self.under_way.insert(id, loop_);
        self.by_due.insert((course.due, id));
        if self.under_way.len() > loops_max
            && let Some((_, oldest)) = self.by_due.pop_first()
        {
            self.under_way.remove(&oldest);
        }
        is_judged
    }

    /// A loop came back at `now`: how long it took, and whether that says anything; `None` if it is
    /// not under way.
    pub(crate) fn returned(&mut self, id: &[u8; 16], now: Time) -> Option<(Duration, bool)> {
        let loop_ = self.under_way.remove(id)?;
        self.by_due.remove(&(loop_.course.due, *id));
        self.returned += 1;
        if loop_.is_judged {
            self.verdict(false);
        }
        Some((now.since(loop_.sent), loop_.is_judged))
    }

    /// Nothing that was stored before `upto` is left to be read: how many loops are lost by that
    /// (CLI-6).
    pub(crate) fn read(&mut self, upto: Utc) -> u64 {
        let mut lost = 0;
        while let Some((due, id)) = self.by_due.first().copied()
            && due.after(PATIENCE) <= upto
        {
            self.by_due.pop_first();
            let loop_ = self.under_way.remove(&id);
            if loop_.is_some_and(|loop_| loop_.is_judged) {
                self.verdict(true);
                lost += 1;
            }
        }
        lost
    }

    /// Those under way that are `such` get no verdict: how many would have got one.
    pub(crate) fn excuse(&mut self, such: impl Fn(&UnderWay) -> bool) -> u64 {
        let mut excused = 0;
        for loop_ in self.under_way.values_mut() {
            if loop_.is_judged && such(loop_) {
                loop_.is_judged = false;
                excused += 1;
            }
        }
        excused
    }

    /// The mailbox is another one, which was not opened yet.
    pub(crate) fn moved(&mut self) {
        self.forget();
        self.home = None;
    }

    /// Whether an empty mailbox says by now that nothing is waiting in it.
    pub(crate) fn hears(&self, now: Time) -> bool {
        self.home
            .as_ref()
            .is_some_and(|home| home.hears_from <= now)
    }

    /// Those under way say nothing any more.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
        self.by_due.clear();
    }

    fn verdict(&mut self, lost: bool) {
        self.lost.push_back(lost);
        if self.lost.len() > VERDICTS {
            self.lost.pop_front();
        }
    }

    /// Loss of the path: 95 % upper bound (Wilson) of the last verdicts, or the prior (CLI-7).
    pub(crate) fn loss(&self) -> f64 {
        if self.lost.len() < VERDICTS_MIN {
            return LOSS_PRIOR;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 1024")]
        let [n, lost] = [
            self.lost.len() as f64,
            self.lost.iter().filter(|lost| **lost).count() as f64,
        ];
        let (p, z2) = (lost / n, Z * Z);
        let spread = (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        (p + z2 / (2.0 * n) + Z * spread) / (1.0 + z2 / n)
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

impl Client {
    /// Loops under way that are `such` get no verdict (LOOP-12).
    fn excuse(&mut self, such: impl Fn(&UnderWay) -> bool) {
        for _ in 0..self.loops.excuse(such) {
            self.event(ClientEvent::LoopUnjudged);
        }
    }

    /// The home's link is up, and its mailbox was asked to be opened.
    pub(super) fn home_up(&mut self) {
        let now = self.now;
        if core::mem::take(&mut self.loops.is_cut) {
            self.loops.says_from = now.after(RELINK);
        }
        self.loops.home = Some(Home {
            hears_from: now.after(PATIENCE),
            heard: now,
        });
    }

    /// The home's link is down: what was due since it brought a frame may not have been stored.
    pub(super) fn home_down(&mut self) {
        self.loops.is_cut = true;
        if let Some(home) = self.loops.home.take() {
            self.excuse_due_since(home.heard);
        }
    }

    /// The home's link brings a frame. After a silence it is like one that was down: its gateway stood
    /// still, or was out of reach.
    pub(super) fn home_heard(&mut self) {
        let ticks_uhz = self.profile().map_or(0, |(_, it)| it.downstream_uhz);
        let now = self.now;
        let Some(home) = &mut self.loops.home else {
            return;
        };
        let before = core::mem::replace(&mut home.heard, now);
        let silence =
            PATIENCE + Duration::from_micros(MISSED * 1_000_000_000_000 / ticks_uhz.max(1));
        if now.since(before) > silence {
            self.excuse_due_since(before);
            self.loops.says_from = now.after(RELINK);
        }
    }

    fn excuse_due_since(&mut self, heard: Time) {
        if let Some(heard) = self.utc(heard) {
            let from = heard.before(PATIENCE);
            self.excuse(|loop_| loop_.course.due >= from);
        }
    }

    /// What the mailbox refused, or lost, came before `until`, and loops may be among it (CLI-6).
    pub(super) fn excuse_due_until(&mut self, until: Utc) {
        self.excuse(|loop_| loop_.course.due <= until);
    }

    /// The entry link is down: what was written to it just before may never have left.
    pub(super) fn entry_down(&mut self) {
        let now = self.now;
        self.excuse(|loop_| now.since(loop_.sent) <= PATIENCE);
    }

    /// A mix said in `minute` that its loops are lost, and so holds its output (MIX-6): what goes
    /// through it is late for that. It holds but once in [`HOLDS`]: what it says in between excuses
    /// nothing.
    pub(super) fn mix_holds(&mut self, mix: NodeId, minute: u64) {
        let rare = HOLDS.as_secs() / 60;
        let said = self.loops.holding.get(&mix);
        if said.is_some_and(|(said, _)| minute < said.saturating_add(rare)) {
            return;
        }
        let until = self.now.after(HOLD + PATIENCE);
        self.loops.holding.insert(mix, (minute, until));
        self.excuse(|loop_| loop_.course.mixes.contains(&mix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn id(i: u8) -> [u8; 16] {
        [i; 16]
    }

    fn course(due_s: u64) -> Course {
        Course {
            mixes: [1, 2, 3].map(|i| NodeId([i; 32])),
            delay: Duration::ZERO,
            due: Utc::from_secs(due_s),
        }
    }

    /// CLI-6
    #[test]
    fn a_loop_is_lost_only_by_a_packet_stored_well_after_it_was_due() {
        let mut loops = Loops::default();
        let at = |s: u64| Time::ZERO.after(S * u32::try_from(s).unwrap());
        loops.sent(id(1), at(0), course(100), 10);
        loops.sent(id(2), at(1), course(101), 10);
        assert_eq!(loops.read(Utc::from_secs(104)), 0);
        assert_eq!(loops.read(Utc::from_secs(105)), 1);
        assert_eq!(loops.returned(&id(1), at(7)), None, "a verdict stands");
        assert_eq!(loops.returned(&id(2), at(7)), Some((S * 6, true)));
        assert_eq!(loops.returned(&id(2), at(7)), None, "each loop once");
        assert_eq!((loops.sent, loops.returned, loops.under_way()), (2, 1, 0));
        assert_eq!(loops.lost, [true, false]);
    }

    /// CLI-7
    #[test]
    fn the_loss_is_the_prior_until_loops_have_measured_it() {
        let mut loops = Loops::default();
        for i in 0..VERDICTS {
            if i < VERDICTS_MIN {
                assert_eq!(loops.loss(), LOSS_PRIOR);
            }
            loops.verdict(i % 20 == 0);
        }
        assert!((0.051..0.065).contains(&loops.loss()), "{}", loops.loss());
        (0..VERDICTS).for_each(|_| loops.verdict(false));
        assert!((0.0..0.003).contains(&loops.loss()));
        assert_eq!(loops.lost.len(), VERDICTS);
    }

    /// CLI-6, LOOP-12: one that is excused is under way still, and says nothing.
    #[test]
    fn an_excused_loop_returns_without_a_verdict() {
        let mut loops = Loops::default();
        for (i, due_s) in [(1, 100), (2, 101), (3, 102)] {
            assert!(loops.sent(id(i), Time::ZERO, course(due_s), 10));
        }
        let late = |loop_: &UnderWay| loop_.course.due >= Utc::from_secs(101);
        assert_eq!([loops.excuse(late), loops.excuse(late)], [2, 0]);
        assert_eq!(
            loops.returned(&id(2), Time::ZERO),
            Some((Duration::ZERO, false))
        );
        assert_eq!(loops.read(Utc::from_secs(200)), 1);
        assert_eq!((loops.returned, loops.under_way()), (1, 0));
        assert_eq!(loops.lost, [true]);
    }

    #[test]
    fn loops_under_way_are_bounded() {
        let mut loops = Loops::default();
        for i in 0..9 {
            loops.sent(id(i), Time::ZERO, course(u64::from(i)), 4);
            assert!(loops.under_way() <= 4);
        }
        assert_eq!(loops.returned(&id(0), Time::ZERO), None);
        assert!(loops.returned(&id(8), Time::ZERO).is_some());
    }
}
