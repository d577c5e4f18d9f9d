//! How surely messages arrive, and at what cost: many of them, on the packet engine, under loss.
//!
//! Each replication is a network of 3 × 3 mixes and 3 gateways with a script ([`crate::world::Script`]) of its own
//! seed. Real packets, the deployed machines.
//!
//! | figure                    | what                                                                        |
//! |---------------------------|-----------------------------------------------------------------------------|
//! | `arrived_share`           | delivered whole and unchanged / said: fails below [`ARRIVE`] if senders are gone, below 1 if not |
//! | `acked_share`             | known to their senders / said: fails below 1, if senders stay                |
//! | `packets_per_message`     | packets with a fragment, ack or probe / said                                  |
//! | `goodput_share`           | bytes of bodies delivered / bytes of those packets' frames; cover apart       |
//! | `latency_*_s`             | from the word to the delivery                                                 |
//! | `again`                   | deliveries beyond the first of each message: one fails unless its recipient crashed within two seconds of the one before (MSG-17) |
//!
//! Standard errors are from replications, one section each; unknown if there is only one. The longest
//! times are what was seen.
//!
//! Loss is per link and holds on five of a path's six: the last is a stream that ends rather than leave a frame out.

use core::time::Duration;

use proto::{client::fountain, wire::FRAME_LEN};
use rayon::prelude::*;

use crate::{
    outcome::{Expected, Figure, Outcome, RunError},
    random::{Purpose, Stream},
    scenario::{Scenario, keys::Value},
    stats::{Estimate, quantile},
    world::{Absence, Played, Sabotage, Script, Stay, play},
};

/// The share that must arrive when senders are gone after their first bursts (MSG-11).
pub const ARRIVE: f64 = 0.9999;
/// Bytes that an address adds to a block.
const RETURN_BYTES: usize = 97;
/// The packets of a batch's first bursts at most, unless one message needs more.
const BATCH_PACKETS: usize = 160;
/// How long an absence amid traffic lasts.
const SHORT: Duration = Duration::from_secs(20);

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Messages {
    /// Messages in all replications; rounded up to whole batches.
    pub messages: u64,
    /// Bytes of each.
    pub bytes: usize,
    /// How long senders stay.
    pub stay: Stay,
    /// Loss of each link, in parts per million.
    pub loss_ppm: u32,
    /// Payload slots of each client per second.
    pub payload_per_s: f64,
    /// Loops of each client per second.
    pub loops_per_s: f64,
    /// For how long recipients are away, from just before the first word; zero: not at all.
    pub offline: Duration,
    /// How often each recipient is killed amid the traffic, for 20 s.
    pub absences: u32,
    /// Time before the first word, in which loops measure the loss.
    pub warm_up: Duration,
    /// Clients of each network who speak, and who listen; one and one if all is one message.
    pub clients: (usize, usize),
    /// Independent networks, in which the messages are shared out.
    pub replications: u64,
}

impl Messages {
    /// Packets of a message's first bursts, before its sender's loops have measured the loss.
    fn burst(&self) -> usize {
        let length = self.bytes as u64;
        let bursts = (0..fountain::blocks(length)).map(|block| {
            let len = fountain::share(length, block) + RETURN_BYTES;
            fountain::first_burst(fountain::symbols(len), proto::client::LOSS_PRIOR) as usize
        });
        bursts.sum()
    }

    fn clients(&self) -> (usize, usize) {
        if self.messages == 1 {
            (1, 1)
        } else {
            self.clients
        }
    }

    fn scenario(&self) -> Result<Scenario, RunError> {
        let (senders, recipients) = self.clients();
        let counts = [
            ("network.gateways", 3),
            ("traffic.users", (senders + recipients) as u64),
            ("packet.loss_ppm", self.loss_ppm.into()),
        ];
        let reals = [
            ("links.delay_ms", 10.0),
            ("traffic.payload_per_user_per_s", self.payload_per_s),
            ("traffic.loop_per_user_per_s", self.loops_per_s),
        ];
        let values = counts.map(|(key, n)| (key, Value::Count(n)));
        let values = values
            .into_iter()
            .chain(reals.map(|(key, x)| (key, Value::Real(x))));
        let engine = ("engine", Value::Text("packet".into()));
        let mut scenario = Scenario::parse_with("version = 1\n", values.chain([engine]))
            .map_err(|why| RunError::Usage(why.to_string()))?;
        // Beyond what a scenario file allows: days, and a file of 100 MB.
        scenario.packet.message_bytes = self.bytes;
        scenario.packet.duration_s = self.span().as_secs_f64();
        Ok(scenario)
    }

    /// Longer than any run that succeeds.
    fn span(&self) -> Duration {
        let packets = self.burst() as f64 * self.each() as f64 / self.clients().0 as f64;
        let speaking = Duration::from_secs_f64(4.0 * packets / self.payload_per_s);
        self.offline + self.warm_up + speaking + Duration::from_secs(7200)
    }

    /// Messages of a replication.
    fn each(&self) -> u64 {
        self.messages.div_ceil(self.replications.max(1))
    }

    fn script(&self, seed: u64) -> Script {
        let (senders, recipients) = self.clients();
        let each = usize::try_from(self.each()).expect("the command bounds it");
        let own = each.div_ceil(senders);
        let batch = (BATCH_PACKETS / self.burst()).clamp(1, own);
        let first = self.warm_up + Duration::from_secs(2);
        let batches = own.div_ceil(batch);
        let mut absences = Vec::new();
        let recipients = senders..senders + recipients;
        if !self.offline.is_zero() {
            let when = first - Duration::from_secs(1)..first + self.offline;
            absences.extend(recipients.clone().map(|client| Absence {
                client,
                when: when.clone(),
            }));
        }
        let speaking = (batches * batch * self.burst()) as f64 / self.payload_per_s;
        let mut draw = Stream::new(seed, 0, 0, Purpose::Attack);
        for client in recipients {
            for number in 0..self.absences {
                let slice = speaking / f64::from(self.absences);
                let at = slice * (f64::from(number) + draw.uniform() / 2.0);
                let from = first + self.offline + Duration::from_secs_f64(at);
                let when = from..from + SHORT;
                absences.push(Absence { client, when });
            }
        }
        Script {
            senders,
            batches,
            batch,
            stay: self.stay,
            first,
            absences,
        }
    }
}

/// The whole study; `progress` is told each further share that is done, by any thread.
///
/// # Errors
///
/// [`RunError::Usage`] if the numbers make no network.
pub fn run(
    settings: &Messages,
    seed: u64,
    sabotage: Sabotage,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Outcome, RunError> {
    let scenario = settings.scenario()?;
    #[expect(clippy::cast_precision_loss, reason = "a few replications")]
    let one = |number: u64| {
        let seed = seed.wrapping_mul(1000).wrapping_add(number);
        let told = core::cell::Cell::new(0.0);
        let tell = |share: f64| {
            progress((share - told.replace(share)) / settings.replications as f64);
        };
        play(&scenario, seed, settings.script(seed), sabotage, &tell)
    };
    let numbers: Vec<u64> = (0..settings.replications).collect();
    let played: Result<Vec<Played>, RunError> = numbers.into_par_iter().map(one).collect();
    Ok(outcome(settings, &played?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages")]
fn total(played: &[Played], pick: fn(&Played) -> u64) -> f64 {
    played.iter().map(pick).sum::<u64>() as f64
}

/// The latency that a share `q` does not exceed, in seconds.
fn latency_s(played: &[Played], q: f64) -> f64 {
    let all = played.iter().flat_map(|one| &one.latencies_s);
    let mut all: Vec<f64> = all.copied().collect();
    all.sort_by(f64::total_cmp);
    quantile(&all, q)
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages")]
fn outcome(settings: &Messages, played: &[Played]) -> Outcome {
    let sum = |pick: fn(&Played) -> u64| played.iter().map(pick).sum::<u64>();
    let [said, delivered, acked, again, packets] = [
        sum(|one| one.said),
        sum(|one| one.delivered),
        sum(|one| one.acked),
        sum(|one| one.again),
        sum(|one| one.payload_packets),
    ];
    // Taken as independent, though messages of one network meet the same loss and absences.
    let share = |part: u64| Estimate::share(part, said);
    let over = |of: &dyn Fn(&[Played]) -> f64| {
        let sections: Vec<f64> = played.chunks(1).map(of).collect();
        Estimate::from_sections(of(played), said, &sections)
    };
    let latency = |q: f64| over(&|some| latency_s(some, q));
    let per_message = |some: &[Played]| {
        let [packets, said] = [
            total(some, |one| one.payload_packets),
            total(some, |one| one.said),
        ];
        packets / said
    };
    let goodput = |some: &[Played]| {
        let bodies = total(some, |one| one.delivered) * settings.bytes as f64;
        bodies / (total(some, |one| one.payload_packets) * FRAME_LEN as f64)
    };
    let stays = settings.stay == Stay::Always;
    let least = if stays { 1.0 } else { ARRIVE };
    let exact =
        |name: &str, label: &str, value: f64| figure(name, label, Estimate::exact(value), None);
    let plain = |name: &str, label: &str, estimate| figure(name, label, estimate, None);
    let mut outcome = Outcome {
        figures: vec![
            figure(
                "arrived_share",
                "Messages that arrive",
                share(delivered),
                Some(least),
            ),
            plain(
                "acked_share",
                "Messages that their senders know to have arrived",
                share(acked),
            ),
            plain(
                "packets_per_message",
                "Packets with content, per message",
                over(&per_message),
            ),
            plain(
                "goodput_share",
                "Bytes of messages per byte of these packets' frames",
                over(&goodput),
            ),
            plain("latency_p50_s", "Latency, p50 (s)", latency(0.5)),
            plain("latency_p95_s", "Latency, p95 (s)", latency(0.95)),
            plain("latency_p99_s", "Latency, p99 (s)", latency(0.99)),
            exact(
                "latency_max_s",
                "Latency, longest (s)",
                latency_s(played, 1.0),
            ),
            exact(
                "burst_max_s",
                "From the word until its first burst had left, longest (s)",
                played.iter().map(|one| one.burst_s).fold(0.0, f64::max),
            ),
            exact(
                "virtual_s",
                "Virtual time of all replications (s)",
                played.iter().map(|one| one.duration_s).sum(),
            ),
        ],
        ..Outcome::default()
    };
    for (name, count) in [
        ("said", said),
        ("delivered", delivered),
        ("acked", acked),
        ("again", again),
        ("payload_packets", packets),
        ("packets", sum(|one| one.packets)),
    ] {
        outcome.counts.insert(name.to_owned(), count);
    }
    outcome.failures = played
        .iter()
        .flat_map(|one| one.violations.clone())
        .collect();
    if (delivered as f64) < least * said as f64 {
        outcome
            .failures
            .push(format!("{delivered} of {said} messages arrived"));
    }
    if stays && acked < said {
        outcome
            .failures
            .push(format!("{acked} of {said} messages were acknowledged"));
    }
    outcome
}

fn figure(name: &str, label: &str, estimate: Estimate, at_least: Option<f64>) -> Figure {
    let wanted = at_least.map_or(String::new(), |least| format!("; at least {least}"));
    Figure {
        name: name.to_owned(),
        label: format!("{label}{wanted}"),
        estimate,
        expected: None::<Expected>,
    }
}
