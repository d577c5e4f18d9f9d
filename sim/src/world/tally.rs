//! What a run is judged by: every message, opened at its recipient and compared by hash.
//!
//! | law      | always                                                                       |
//! |----------|------------------------------------------------------------------------------|
//! | safety   | what is delivered is what was sent, to whom it was sent, and once            |
//! | progress | once faults have stopped, every message is delivered and acknowledged        |
//!
//! "Once": a recipient that crashed may be given again what it had not yet taken (its contract), which is
//! on its disk a moment after it was delivered; any other second delivery is a violation.

use core::time::Duration;
use std::collections::BTreeMap;

use proto::Time;
use sha2::{Digest, Sha256};

use crate::scenario::hexadecimal;

/// A disk knows after this time, at the latest, that the application has taken a message.
const TAKEN: Duration = Duration::from_secs(2);

/// A message of the run: who, which, to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The sender's number.
    pub(super) client: u32,
    /// Its message's number.
    pub(super) message: u32,
}

/// Bytes of a body: its name, then bytes that depend on it.
pub(super) fn body(name: Name, len: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(len + 32);
    body.extend_from_slice(&name.client.to_be_bytes());
    body.extend_from_slice(&name.message.to_be_bytes());
    while body.len() < len {
        let block = Sha256::digest(&body[body.len().saturating_sub(40)..]);
        body.extend_from_slice(&block);
    }
    body.truncate(len.max(8));
    body
}

/// The name that a body starts with.
fn name_of(body: &[u8]) -> Option<Name> {
    let (client, rest) = body.split_first_chunk()?;
    let (message, _) = rest.split_first_chunk()?;
    Some(Name {
        client: u32::from_be_bytes(*client),
        message: u32::from_be_bytes(*message),
    })
}

/// One message's fate.
pub(super) struct Fate {
    /// The recipient's number.
    pub(super) to: u32,
    hash: [u8; 32],
    /// When the application first said it.
    pub(super) said: Option<Time>,
    /// Whether the sender has it on its disk.
    pub(super) queued: bool,
    /// When its first burst had left.
    pub(super) sent: Option<Time>,
    /// When it was first delivered.
    pub(super) delivered: Option<Time>,
    /// When it was last delivered, and how often the recipient had crashed by then.
    last: (Time, usize),
    /// Whether the sender knows that.
    pub(super) acked: bool,
}

/// The run's book.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) fates: BTreeMap<Name, Fate>,
    delivered: usize,
    acked: usize,
    /// Deliveries beyond the first of a message, whether or not they are violations.
    pub(super) again: u64,
    pub(super) violations: Vec<String>,
    /// Events and drops by name.
    pub(super) counts: BTreeMap<String, u64>,
    /// Times from a loop's slot until it was read, in seconds.
    pub(super) loop_latencies_s: Vec<f64>,
    /// Packets held by each running mix at each look.
    pub(super) held: Vec<Vec<usize>>,
    /// Alarms of clients and of nodes' loops: whose seat, and when.
    pub(super) alarms: Vec<(usize, Time)>,
    /// Mixes that began to hold output back, and when.
    pub(super) holds: Vec<(usize, Time)>,
    /// When an attacker let its target into mix 0, and when packets left that mix from then on.
    pub(super) target: Option<Time>,
    pub(super) after_target: Vec<(usize, Time)>,
    trace: Sha256,
}

impl Tally {
    /// Enters a message that will be said.
    pub(super) fn expect(&mut self, name: Name, to: u32, body: &[u8]) {
        let fate = Fate {
            to,
            hash: Sha256::digest(body).into(),
            said: None,
            queued: false,
            sent: None,
            delivered: None,
            last: (Time::ZERO, 0),
            acked: false,
        };
        self.fates.insert(name, fate);
    }

    /// Counts something.
    pub(super) fn count(&mut self, what: impl core::fmt::Debug) {
        *self.counts.entry(format!("{what:?}")).or_default() += 1;
    }

    /// Counts something of the world's own.
    pub(super) fn count_named(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Adds what is written to a link, or delivered, to the trace: two runs that differ in any
    /// byte or time of it differ in its hash.
    pub(super) fn note(&mut self, at: Time, what: u8, from: u64, to: u64, bytes: &[u8]) {
        for word in [at.as_nanos(), u64::from(what), from, to, bytes.len() as u64] {
            self.trace.update(word.to_be_bytes());
        }
        self.trace.update(bytes);
    }

    /// The trace's hash, in hexadecimal.
    pub(super) fn trace(&self) -> String {
        hexadecimal(&self.trace.clone().finalize())
    }

    /// Judges a delivery to client `to`, which has crashed at these times so far.
    pub(super) fn delivered(&mut self, at: Time, to: u32, crashes: &[Time], body: &[u8]) {
        self.note(at, b'D', to.into(), crashes.len() as u64, body);
        let fate = name_of(body).and_then(|name| Some((name, self.fates.get_mut(&name)?)));
        let Some((name, fate)) = fate else {
            self.violations
                .push(format!("client {to} was given what nobody sent"));
            return;
        };
        let hash: [u8; 32] = Sha256::digest(body).into();
        let (last, before) = fate.last;
        let taken = |crash: &Time| crash.since(last) > TAKEN;
        let problem = if fate.hash != hash {
            Some("was changed on its way")
        } else if fate.to != to {
            Some("came to somebody else")
        } else if fate.delivered.is_some() && crashes.get(before).is_none_or(taken) {
            Some("was delivered twice")
        } else {
            None
        };
        if let Some(problem) = problem {
            self.violations.push(format!("{name:?} {problem}"));
        }
        match fate.delivered {
            Some(_) => self.again += 1,
            None => {
                fate.delivered = Some(at);
                self.delivered += 1;
            }
        }
        fate.last = (at, crashes.len());
    }

    /// The sender of a message knows that it is delivered.
    pub(super) fn acked(&mut self, name: Name) {
        let fate = self.fates.get_mut(&name).expect("in the script");
        if !core::mem::replace(&mut fate.acked, true) {
            self.acked += 1;
        }
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_complete(&self) -> bool {
        let all = self.fates.len();
        self.delivered == all && self.acked == all
    }

    /// Share of all messages that are delivered; 1 if there are none.
    #[expect(clippy::cast_precision_loss, reason = "counts of messages")]
    pub(super) fn share(&self) -> f64 {
        self.delivered as f64 / self.fates.len().max(1) as f64
    }

    /// Messages delivered, and messages known to be by their senders.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.delivered, self.acked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name {
        client: 3,
        message: 9,
    };

    fn tally() -> (Tally, Vec<u8>) {
        let mut tally = Tally::default();
        let body = body(NAME, 1000);
        tally.expect(NAME, 5, &body);
        (tally, body)
    }

    #[test]
    fn a_delivery_is_judged() {
        let at = Time::from_nanos(1);
        let (mut good, body) = tally();
        good.delivered(at, 5, &[], &body);
        good.delivered(at, 5, &[at], &body); // again, after a crash
        assert!(good.violations.is_empty());
        assert_eq!((good.progress(), good.again), ((1, 0), 1));
        assert!(!good.is_complete()); // not acked

        let mut changed = body.clone();
        changed[500] ^= 1;
        for (to, body, problem) in [
            (6, &body, "somebody else"),
            (5, &changed, "changed"),
            (5, &vec![9; 20], "nobody sent"),
        ] {
            let (mut bad, _) = tally();
            bad.delivered(at, to, &[], body);
            assert!(bad.violations[0].contains(problem));
        }
        good.delivered(at, 5, &[at], &body);
        assert!(good.violations[0].contains("twice"));
        // A crash long after the delivery explains none.
        let (mut late, body) = tally();
        late.delivered(at, 5, &[], &body);
        late.delivered(at, 5, &[at.after(2 * TAKEN)], &body);
        assert!(late.violations[0].contains("twice"));
        late.acked(NAME);
        assert!(late.is_complete());
    }
}
