//! Who says what when.
//!
//! A scenario's own messages are said at uniform times by everyone to anyone. A [`Script`] is for studies of
//! messages, with senders who stay or leave and recipients who are away: the first `senders` users say messages
//! to the others, in batches. A batch is said once the first bursts of the one before have left, so outboxes are
//! never long, and a run of many messages takes the time that its packets need.
//!
//! | quantity | unit                                                                                |
//! |----------|-------------------------------------------------------------------------------------|
//! | batch    | messages that a sender says at once                                                 |
//! | stay     | when a sender is gone for good: its disk is erased, and whoever sits down next to say |
//! |          | the next batch knows nothing of it                                                  |
//! | absence  | of a recipient: its client is killed, its disk stays                                 |
//!
//! Loss lasts for the whole run. What is not complete [`SETTLE`] after the last word is lost.

use core::{ops::Range, time::Duration};

use proto::{
    Time,
    client::{self, Return, Target},
};
use rand::RngExt;

use super::{
    DOWN, LOOK, Sabotage, World,
    agenda::Event,
    setup::{self, Purpose, stream},
    store::Records,
    tally::{self, Name, Tally},
};
use crate::{outcome::RunError, scenario::Scenario};

/// How long after the last batch has left, and the last recipient is back, a run goes on for what is missing,
/// if senders are gone: many times what a packet needs, little enough for recipients to idle.
const SETTLE: Duration = Duration::from_secs(60);

/// How long a sender stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// To the end.
    Always,
    /// Until the first bursts of its batch have left (`State::Sent`).
    UntilSent,
    /// Until so many packets of its batch have left: what takes redundancy away, for positive controls.
    UntilPackets(u64),
}

/// A time during which a client is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Whose.
    pub client: usize,
    /// From the start of the run.
    pub when: Range<Duration>,
}

/// What is played in place of a scenario's own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Users who send, at least 1; the others, at least 1, receive.
    pub senders: usize,
    /// Batches of each.
    pub batches: usize,
    /// Messages of a batch.
    pub batch: usize,
    /// How long senders stay.
    pub stay: Stay,
    /// When the first batches are said.
    pub first: Duration,
    /// Who is away when.
    pub absences: Vec<Absence>,
}

/// What became of the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// Messages said.
    pub said: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages that their senders know to be delivered.
    pub acked: u64,
    /// Deliveries of a message that had been delivered before.
    pub again: u64,
    /// Packets that carried fragments, acks or probes.
    pub payload_packets: u64,
    /// All packets that clients sent.
    pub packets: u64,
    /// Times from the word until delivery, ascending, in seconds.
    pub latencies_s: Vec<f64>,
    /// The longest time from the word until its first burst had left, in seconds.
    pub burst_s: f64,
    /// Virtual time of the run, in seconds.
    pub duration_s: f64,
    /// Laws that were broken.
    pub violations: Vec<String>,
}

/// A script in a running world.
pub(super) struct Play {
    script: Script,
    /// Each sender's batches said, messages whose first burst has not left, packets of this batch.
    senders: Vec<(usize, usize, u64)>,
    /// When the last batch had left, or the last absence ends.
    last: Time,
}

impl Play {
    fn has_spoken(&self) -> bool {
        let all = self.script.batches;
        self.senders
            .iter()
            .all(|(said, unsent, _)| *said == all && *unsent == 0)
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self, at: Time, tally: &Tally) -> bool {
        if !self.has_spoken() {
            return false;
        }
        let (delivered, _) = tally.progress();
        match self.script.stay {
            Stay::Always => tally.is_complete(),
            Stay::UntilSent | Stay::UntilPackets(_) => {
                delivered == tally.fates.len() || at > self.last.after(SETTLE)
            }
        }
    }
}

/// Plays `script` in the network of `scenario`, from `seed`; `progress` is told the share of messages
/// delivered.
///
/// # Errors
///
/// [`RunError::Usage`] if the numbers make no network, or the script no sender or no recipient.
pub fn play(
    scenario: &Scenario,
    seed: u64,
    script: Script,
    sabotage: Sabotage,
    progress: &dyn Fn(f64),
) -> Result<Played, RunError> {
    let users = usize::try_from(scenario.traffic.users).unwrap_or(usize::MAX);
    if !(1..users).contains(&script.senders) {
        return Err(RunError::Usage(format!(
            "a script needs a sender and a recipient: {} of {users} users send",
            script.senders
        )));
    }
    let mut world = World::new(scenario, seed, setup::plan(scenario, seed)?);
    world.sabotage = sabotage;
    world.prepare(script);
    world.run(progress);
    Ok(world.played())
}

impl World<'_> {
    /// The scenario's messages: who says what to whom when, and who crashes when.
    pub(super) fn with_messages(mut self) -> Self {
        self.agenda.put(Time::ZERO.after(LOOK), Event::Sample);
        let (users, span) = (self.users, self.quiet.as_nanos());
        let settings = &self.scenario.packet;
        for client in 0..users {
            let entity = self.nodes.len() + client;
            let mut rng = stream(self.seed, entity, Purpose::Messages);
            for message in 0..settings.messages_per_user {
                let message = usize::try_from(message).expect("bounded by the scenario");
                let at = Time::from_nanos(rng.random_range(0..span));
                let others = users.saturating_sub(1).max(1);
                let to = (client + 1 + rng.random_range(0..others)) % users;
                let name = self.name(client, message);
                let body = tally::body(name, settings.message_bytes);
                let to = u32::try_from(to).expect("bounded by the scenario");
                self.tally.expect(name, to, &body);
                self.agenda.put(at, Event::Say { client, message });
            }
        }
        let mut rng = stream(self.seed, 0, Purpose::Crash);
        for _ in 0..settings.restarts {
            let at = Time::from_nanos(rng.random_range(span / 10..span / 10 * 9 + 1));
            let entity = rng.random_range(0..self.nodes.len() + users);
            self.agenda.put(at, Event::Crash(entity));
        }
        self
    }

    pub(super) fn name(&self, client: usize, message: usize) -> Name {
        let number = |n: usize| u32::try_from(n).expect("bounded by the scenario");
        Name {
            client: number(client),
            message: number(message),
        }
    }

    /// A client's application says a message of the script.
    pub(super) fn say(&mut self, client: usize, message: usize) {
        if self.seats[client].client.is_none() {
            let later = self.now.after(DOWN);
            return self.agenda.put(later, Event::Say { client, message });
        }
        let name = self.name(client, message);
        let fate = self.tally.fates.get_mut(&name).expect("in the script");
        fate.said.get_or_insert(self.now);
        let to = self.seats[fate.to as usize].identity.address();
        // Every other sender stays unknown and is acknowledged through reply blocks.
        let surbs = message % 2 == 1 && self.play.is_none();
        let input = client::Input::Send {
            ticket: message as u64,
            to: Target::Address(to),
            body: tally::body(name, self.scenario.packet.message_bytes),
            reply: if surbs {
                Return::Surbs(1)
            } else {
                Return::Address
            },
        };
        self.tell(client, input);
    }

    fn prepare(&mut self, script: Script) {
        let at = Time::ZERO.after(script.first);
        for client in 0..script.senders {
            let mut rng = stream(self.seed, self.nodes.len() + client, Purpose::Messages);
            for message in 0..script.batches * script.batch {
                let to = rng.random_range(script.senders..self.users);
                let name = self.name(client, message);
                let body = tally::body(name, self.scenario.packet.message_bytes);
                let to = u32::try_from(to).expect("bounded by the scenario");
                self.tally.expect(name, to, &body);
            }
            self.agenda.put(at, Event::Batch(client));
        }
        let mut last = at;
        for Absence { client, when } in &script.absences {
            let [from, until] = [when.start, when.end].map(|at| Time::ZERO.after(at));
            self.agenda.put(from, Event::Away(*client));
            let entity = self.nodes.len() + client;
            self.agenda.put(until, Event::Start(entity));
            last = last.max(until);
        }
        let senders = vec![(0, 0, 0); script.senders];
        self.play = Some(Play {
            script,
            senders,
            last,
        });
    }

    /// A sender says its next batch.
    pub(super) fn say_batch(&mut self, client: usize) {
        let play = self.play.as_mut().expect("its event");
        let (said, unsent, packets) = &mut play.senders[client];
        let batch = play.script.batch;
        let first = *said * batch;
        (*said, *unsent, *packets) = (*said + 1, batch, 0);
        for message in first..first + batch {
            self.agenda.put(self.now, Event::Say { client, message });
        }
    }

    /// The first burst of a message has left.
    pub(super) fn has_sent(&mut self, client: usize) {
        let Some(play) = &mut self.play else { return };
        let (_, unsent, _) = &mut play.senders[client];
        *unsent = unsent.saturating_sub(1);
        if *unsent == 0 {
            self.batch_left(client);
        }
    }

    /// A packet that carries something has left.
    pub(super) fn has_sent_packet(&mut self, client: usize) {
        let Some(play) = &mut self.play else { return };
        let Stay::UntilPackets(most) = play.script.stay else {
            return;
        };
        let Some((_, unsent, packets)) = play.senders.get_mut(client) else {
            return; // a recipient's ack
        };
        *packets += 1;
        if *packets == most && *unsent > 0 {
            *unsent = 0;
            self.batch_left(client);
        }
    }

    /// Nothing of a sender's batch is left to wait for: the next one, or someone else's.
    fn batch_left(&mut self, client: usize) {
        let play = self.play.as_mut().expect("its caller's");
        play.last = play.last.max(self.now);
        let more = play.senders[client].0 < play.script.batches;
        let mut at = self.now;
        if play.script.stay != Stay::Always {
            self.agenda.put(at, Event::Away(client));
            at = at.after(DOWN);
            if more {
                self.agenda.put(at, Event::Start(self.nodes.len() + client));
            }
        }
        if more {
            // Later than the start, which was put before it.
            self.agenda.put(at, Event::Batch(client));
        }
    }

    /// A client is gone from now on: a recipient for a while, a sender for good, with its disk.
    pub(super) fn go_away(&mut self, client: usize) {
        if self.seats[client].client.is_none() {
            return;
        }
        self.stop_client(client);
        self.starts[self.nodes.len() + client] += 1; // nothing under way to its disk arrives
        let senders = self.play.as_ref().map_or(0, |play| play.script.senders);
        if client < senders {
            self.seats[client].records = Records::default();
        }
    }

    fn played(&self) -> Played {
        let tally = &self.tally;
        let count = |name: &str| tally.counts.get(name).copied().unwrap_or(0);
        let (delivered, acked) = tally.progress();
        let fates = || tally.fates.values();
        let waits = |when: fn(&tally::Fate) -> Option<Time>| {
            let waits = fates().filter_map(move |fate| Some(when(fate)?.since(fate.said?)));
            waits.map(|wait| wait.as_secs_f64())
        };
        let mut latencies_s: Vec<f64> = waits(|fate| fate.delivered).collect();
        latencies_s.sort_by(f64::total_cmp);
        let payload_packets = count("PayloadSent");
        Played {
            said: fates().filter(|fate| fate.said.is_some()).count() as u64,
            delivered: delivered as u64,
            acked: acked as u64,
            again: tally.again,
            payload_packets,
            packets: payload_packets + count("DropSent") + count("LoopSent"),
            latencies_s,
            burst_s: waits(|fate| fate.sent).fold(0.0, f64::max),
            duration_s: self.now.since(Time::ZERO).as_secs_f64(),
            violations: tally.violations.clone(),
        }
    }
}
