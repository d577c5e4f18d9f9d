//! Schedules for the gateway, and the comparison with its model.
//!
//! A gateway talks with a store, so a schedule is not drawn but played: drawn (or fuzzed) are acts
//! of clients, of the clock, of the packets that come, and of a store that lags, refuses, talks
//! without being asked and fails. The calls that a play makes are the schedule.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use proto::{
    LinkId, Machine, MailboxId, Time,
    directory::Profile,
    gateway::{Gateway, Input, Kept, Limits, Output},
    wire::{FRAME_LEN, Frame, Purpose},
};

use super::{
    fixture::{
        NETWORK, Owner, SEED, START_S, Store, calendar_at, confirm, consensus, exporter, linked,
        node, notice, packet, peeled, relayed,
    },
    model::Model,
};

/// Gaps of a few nanoseconds, so that ticks often coincide with calls or miss them by one.
fn profile(name: &str, up_gap_ns: u64, down_gap_ns: u64, confirm_ms: u32) -> Profile {
    let uhz = |gap: u64| 1_000_000_000_000_000u64.checked_div(gap).unwrap_or(0);
    let up = uhz(up_gap_ns) / 5 * 4;
    Profile {
        name: name.to_owned(),
        payload_uhz: up / 2,
        loops_uhz: up / 2,
        downstream_uhz: uhz(down_gap_ns),
        confirm_ms,
    }
}

/// Documents: two periods with different first layers, and profiles that move, change and go.
fn document(which: u8) -> Input {
    let fast = profile("fast", 10, 5, 0);
    let slow = profile("slow", 20, 8, 1);
    let quiet = profile("quiet", 0, 0, 1);
    Input::Consensus(match which {
        0 => consensus(1, &[1, 2], vec![fast, slow, quiet]),
        1 => {
            let quiet = profile("quiet", 0, 4, 1);
            consensus(1, &[1, 2], vec![fast, slow, quiet])
        }
        2 => {
            let fast = profile("fast", 8, 10, 0);
            consensus(2, &[2, 3], vec![quiet, slow, fast])
        }
        _ => {
            let slow = profile("slow", 10, 0, 1);
            consensus(3, &[4], vec![slow, fast])
        }
    })
}

#[derive(Clone, Debug)]
pub(crate) enum Forgery {
    None,
    Exporter,
    Mailbox,
    Key,
}

/// What somebody does. Links are picked from those that are up, or are unknown.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Document(u8),
    Utc(u64),
    Link(Purpose, u8),
    Unlink(u64),
    /// The newest link goes, and an owner comes on a new one.
    Return(u8, u8),
    Packets(u64, u8, u8),
    /// Any bytes at the start of a frame.
    Bytes(u64, Purpose, Vec<u8>),
    /// Cursors count from the last number that was sent, less two.
    Confirm(u64, Vec<(u16, u64)>, Vec<(u8, u16, Forgery)>),
    Peeled(u8, bool, u8),
    Answer(u8),
    Refuse,
    /// An answer of the store that nothing asked for.
    Unasked(u8, u64, u64),
    /// Another gateway on the store opens a mailbox, puts a packet there, or is confirmed all that
    /// is there.
    Elsewhere(u8, u8),
    StoreFails,
    /// A notice, as heard by the driver; told apart by this byte.
    Notice(u8),
    Wake,
}

/// One call of a driver: an input, or `None` for a wake.
pub(crate) type Call = (Time, Option<Input>);

/// Calls once, then drains.
fn drained(gateway: &mut Gateway, now: Time, input: Option<Input>) -> Vec<Output> {
    match input {
        Some(input) => gateway.handle(now, input),
        None => gateway.wake(now),
    }
    core::iter::from_fn(|| gateway.poll()).collect()
}

/// Plays acts against a machine and a store; keeps the calls.
pub(crate) struct Play {
    gateway: Gateway,
    store: Store,
    asked: VecDeque<Output>,
    calls: Vec<Call>,
    now: Time,
    links: u64,
    up: Vec<(LinkId, Purpose)>,
    /// The last number sent on each slot, of whatever link: a client remembers what it has.
    sent: BTreeMap<u16, u64>,
    packets: u64,
}

impl Play {
    /// A gateway with one mailbox link; if `ready`, with all that it needs, and a store that held
    /// two mailboxes when it started, one of them with two packets.
    pub(crate) fn new(limits: Limits, ready: bool) -> Self {
        let mut play = Self {
            gateway: new(limits),
            store: Store::default(),
            asked: VecDeque::new(),
            calls: Vec::new(),
            now: Time::ZERO,
            links: 0,
            up: Vec::new(),
            sent: BTreeMap::new(),
            packets: 0,
        };
        if ready {
            let owners: Vec<MailboxId> = (1..=6).map(|i| Owner::new(i).mailbox()).collect();
            for owner in &owners {
                play.store.boxes.insert(*owner, Vec::new());
            }
            for name in 1_000_000..1_000_002 {
                play.store.put(owners[0], START_S, packet(name));
            }
            play.act(0, Act::Utc(START_S));
            play.act(0, Act::Document(0));
            play.input(Input::Registered(vec![(owners[0], 2), (owners[1], 0)]));
        }
        play.act(0, Act::Link(Purpose::Mailbox, 0));
        play
    }

    /// The calls that were made.
    pub(crate) fn into_calls(self) -> Vec<Call> {
        self.calls
    }

    fn call(&mut self, input: Option<Input>) {
        self.calls.push((self.now, input.clone()));
        for output in drained(&mut self.gateway, self.now, input) {
            match output {
                Output::Close { link } => self.up.retain(|(up, _)| *up != link),
                Output::Frame { frame, .. } => {
                    let last = self.sent.entry(frame.slot()).or_default();
                    *last = frame.numbers().0.max(*last);
                }
                Output::Relay { .. } | Output::Dropped(_) | Output::Event(_) => {}
                for_store => self.asked.push_back(for_store),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.call(Some(input));
    }

    /// One of the links for `purpose`, and now and then one that nobody knows.
    fn link(&self, pick: u64, purpose: Purpose) -> LinkId {
        let mut fitting = self.up.iter().filter(|(_, its)| *its == purpose).rev();
        let picked = fitting.nth(usize::try_from(pick).unwrap());
        picked.map_or(LinkId(1_000_000), |(link, _)| *link)
    }

    /// Somebody does something, `gap_ns` after the act before.
    pub(crate) fn act(&mut self, gap_ns: u64, act: Act) {
        self.now = self.now.after(Duration::from_nanos(gap_ns));
        match act {
            Act::Wake => self.call(None),
            Act::Document(which) => self.input(document(which)),
            Act::Utc(utc_s) => self.input(calendar_at(self.now, utc_s)),
            Act::Link(purpose, profile) => {
                self.links += 1;
                self.up.push((LinkId(self.links), purpose));
                self.input(linked(LinkId(self.links), purpose, profile));
            }
            Act::Return(owner, profile) => {
                let open = (owner, u16::from(owner % 4), Forgery::None);
                self.act(0, Act::Unlink(0));
                self.act(0, Act::Link(Purpose::Mailbox, profile));
                self.act(0, Act::Confirm(0, Vec::new(), vec![open]));
                self.act(0, Act::Answer(20));
            }
            Act::Unlink(pick) => {
                let all = self.up.len();
                let which = usize::try_from(pick).unwrap();
                let link = if which < all {
                    self.up.remove(all - 1 - which).0
                } else {
                    LinkId(0)
                };
                self.input(Input::Unlinked { link });
            }
            Act::Packets(link, to, n) => {
                for _ in 0..n {
                    self.packets += 1;
                    let link = self.link(link, Purpose::Entry);
                    self.input(relayed(link, node(to), self.packets));
                }
            }
            Act::Bytes(link, purpose, bytes) => {
                let link = self.link(link, purpose);
                let mut frame = Box::new([0; FRAME_LEN]);
                frame
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(place, byte)| *place = byte);
                let frame = Frame::from_bytes(frame);
                self.input(Input::Frame { link, frame });
            }
            Act::Confirm(link, cursors, opens) => {
                let link = self.link(link, Purpose::Mailbox);
                let cursors = cursors.into_iter().map(|(slot, ahead)| {
                    let sent = self.sent.get(&slot).copied().unwrap_or(0);
                    (slot, sent.saturating_add(ahead).saturating_sub(2))
                });
                let cursors = cursors.collect();
                let opens = opens.into_iter().map(|(owner, slot, forgery)| {
                    let (owner, exporter) = (Owner::new(owner), exporter(link));
                    match forgery {
                        Forgery::None => owner.open(slot, &exporter),
                        Forgery::Exporter => owner.open(slot, &[0; 32]),
                        Forgery::Mailbox => {
                            owner.open_of(&Owner::new(1).mailbox(), slot, &exporter)
                        }
                        Forgery::Key => {
                            let mut open = owner.open(slot, &exporter);
                            open.key = Owner::new(1).open(slot, &exporter).key;
                            open.key[31] ^= 1;
                            open
                        }
                    }
                });
                self.input(confirm(link, cursors, opens));
            }
            Act::Peeled(to, delayed, n) => {
                for _ in 0..n {
                    self.packets += 1;
                    let mut came = peeled(self.now, Owner::new(to).mailbox(), self.packets);
                    came.delay = Duration::from_nanos(delayed.into());
                    self.input(Input::Peeled(came));
                }
            }
            Act::Answer(n) => {
                for _ in 0..n {
                    let asked = self.asked.pop_front();
                    for input in asked
                        .map(|asked| self.store.answer(asked))
                        .unwrap_or_default()
                    {
                        self.input(input);
                    }
                }
            }
            Act::Refuse => {
                let next = self
                    .asked
                    .iter()
                    .position(|ask| matches!(ask, Output::Store { .. }));
                let asked = next.and_then(|next| self.asked.remove(next));
                if let Some(Output::Store { mailbox, .. }) = asked {
                    self.input(Input::Refused { mailbox });
                }
            }
            Act::Unasked(of, seq, packets) => {
                let mailbox = Owner::new(of).mailbox();
                let all = (0..packets % 5).map(|i| Kept {
                    seq: seq.saturating_add(i),
                    stored_at_s: START_S.saturating_add(seq.saturating_mul(1_000)),
                    packet: packet(seq),
                });
                self.input(match packets % 4 {
                    0 => Input::Stored { mailbox, seq },
                    1 => Input::Removed { mailbox, packets },
                    2 => Input::Opened {
                        mailbox,
                        openings: seq,
                    },
                    _ => Input::Peeked {
                        mailbox,
                        packets: all.collect(),
                    },
                });
            }
            Act::Elsewhere(of, what) => {
                let mailbox = Owner::new(of).mailbox();
                self.store.boxes.entry(mailbox).or_default();
                match what {
                    0 => drop(self.store.open(mailbox)),
                    1 => {
                        self.packets += 1;
                        self.store.put(mailbox, START_S, packet(self.packets));
                    }
                    _ => self.store.boxes.entry(mailbox).or_default().clear(),
                }
                let change = self.store.change(mailbox);
                self.input(Input::Changed(vec![change]));
            }
            Act::StoreFails => self.input(Input::StoreFailed),
            Act::Notice(n) => self.input(notice(n)),
        }
    }
}

pub(crate) fn new(limits: Limits) -> Gateway {
    Gateway::new(limits, NETWORK, SEED)
}

/// When `link` first sends a frame, found on a machine of its own that is played the same calls.
fn first_tick(limits: Limits, calls: &[Call], link: LinkId) -> Time {
    let mut twin = new(limits);
    for (now, input) in calls {
        drained(&mut twin, *now, input.clone());
    }
    loop {
        let at = twin.next_wake().expect("the link ticks");
        let outputs = drained(&mut twin, at, None);
        let its = |out: &Output| matches!(out, Output::Frame { link: l, .. } if *l == link);
        if outputs.iter().any(its) {
            return at;
        }
    }
}

/// Plays `calls`, and then at most `wakes_max` wakes, to a machine and to the model.
///
/// # Panics
///
/// If they disagree anywhere, or if a link first ticks later than a period after it came up.
pub(crate) fn agree(limits: Limits, mut calls: Vec<Call>, wakes_max: usize) {
    let (mut gateway, mut model) = (new(limits), Model::new(limits));
    let most = calls.len() + wakes_max;
    let mut i = 0;
    while i < most {
        if i == calls.len() {
            let Some(at) = gateway.next_wake() else { break };
            calls.push((at, None));
        }
        let (now, input) = calls[i].clone();
        let outputs = drained(&mut gateway, now, input.clone());
        assert_eq!(outputs, model.call(now, input));
        i += 1;
        for (link, period) in model.unknown_phases() {
            let first = first_tick(limits, &calls[..i], link);
            let phase = first.since(now).as_nanos();
            assert!((1..=u128::from(period)).contains(&phase), "phase {phase}"); // GW-12
            model.set_phase(link, first);
        }
        assert_eq!(gateway.next_wake(), model.next_wake());
    }
}
