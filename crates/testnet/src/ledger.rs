//! What was asked of the applications, and what they say became of it.
//!
//! | entry     | written when                                    | by                      |
//! |-----------|-------------------------------------------------|-------------------------|
//! | message   | the supervisor asks an application to send      | [`Ledger::expect`]      |
//! | sealed    | the sender hands it to its daemon               | the sender's report     |
//! | state     | queued, sent, acked                             | the sender's report     |
//! | opened    | the recipient has the plaintext, and it is ours | the recipient's report  |
//!
//! A message counts as delivered if its recipient, and no one else, opened exactly the plaintext
//! of its number. Everything else that anyone opened is a failure.

use std::collections::BTreeMap;

use anyhow::bail;
use client::api::Wait;
use proto::Time;

use crate::app::Report;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its latency is measured: nothing else waits for its sender's slots.
    Measured,
    /// Anything else.
    Other,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who is to open it.
    pub to: usize,
    /// Length of its plaintext, bytes.
    pub bytes: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// When its sender handed it over.
    pub sealed: Option<Time>,
    /// How far it is, as its sender's daemon says.
    pub state: Option<Wait>,
    /// When it was opened first.
    pub opened: Option<Time>,
    /// How often it was handed out to its recipient.
    pub times: u64,
}

/// All messages of a run, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: BTreeMap<u64, Message>,
}

impl Ledger {
    /// Notes that someone was asked to send a message of `bytes` to person `to`: its number.
    pub fn expect(&mut self, to: usize, bytes: usize, purpose: Purpose) -> u64 {
        let number = self.messages.len() as u64 + 1;
        let message = Message {
            to,
            bytes,
            purpose,
            sealed: None,
            state: None,
            opened: None,
            times: 0,
        };
        self.messages.insert(number, message);
        number
    }

    /// Notes what person `who` reported at `at`.
    ///
    /// # Errors
    ///
    /// If it reports a failure, or a plaintext that nobody was to open there.
    pub fn note(&mut self, who: usize, at: Time, report: &Report) -> anyhow::Result<()> {
        match report {
            Report::Sealed { number } => self.message(*number)?.sealed = Some(at),
            Report::Progress { number, state } => {
                let message = self.message(*number)?;
                message.state = message.state.max(Some(*state));
            }
            Report::Opened {
                number,
                bytes,
                intact,
                ..
            } => {
                let message = self.message(*number)?;
                if message.to != who || message.bytes != *bytes || !intact {
                    bail!("message {number} was opened, but not as it was sent");
                }
                message.opened.get_or_insert(at);
                message.times += 1;
            }
            Report::Again { number } => self.message(*number)?.times += 1,
            Report::Failed { reason } => bail!("an application failed: {reason}"),
            Report::Card(_)
            | Report::Connected
            | Report::Disconnected
            | Report::Interrupted { .. }
            | Report::Status(_) => {}
        }
        Ok(())
    }

    fn message(&mut self, number: u64) -> anyhow::Result<&mut Message> {
        match self.messages.get_mut(&number) {
            Some(message) => Ok(message),
            None => bail!("nobody was asked to send message {number}"),
        }
    }

    /// Whether `number` was opened.
    #[must_use]
    pub fn is_opened(&self, number: u64) -> bool {
        let message = self.messages.get(&number);
        message.is_some_and(|message| message.opened.is_some())
    }

    /// Whether `number` has come as far as `state`.
    #[must_use]
    pub fn has_reached(&self, number: u64, state: Wait) -> bool {
        let message = self.messages.get(&number);
        message.is_some_and(|message| message.state >= Some(state))
    }

    /// Seconds from the hand-over of `number` to its opening.
    #[must_use]
    pub fn seconds(&self, number: u64) -> Option<f64> {
        let message = self.messages.get(&number)?;
        Some(message.opened?.since(message.sealed?).as_secs_f64())
    }

    /// Delivered, lost, duplicated.
    #[must_use]
    pub fn outcome(&self) -> (u64, u64, u64) {
        let all = self.messages.values();
        all.fold((0, 0, 0), |(delivered, lost, duplicated), message| {
            let once = u64::from(message.times > 0);
            (
                delivered + once,
                lost + 1 - once,
                duplicated + message.times.saturating_sub(1),
            )
        })
    }

    /// Latencies of the measured messages, in nanoseconds.
    #[must_use]
    pub fn latencies_ns(&self) -> Vec<u64> {
        let measured = self
            .messages
            .values()
            .filter(|m| m.purpose == Purpose::Measured);
        measured
            .filter_map(|m| {
                let span = m.opened?.since(m.sealed?);
                u64::try_from(span.as_nanos()).ok()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(number: u64, bytes: usize, intact: bool) -> Report {
        Report::Opened {
            number,
            bytes,
            intact,
            named: true,
            answerable: false,
        }
    }

    #[test]
    fn what_was_not_opened_is_lost_and_what_came_again_is_duplicated() {
        let mut ledger = Ledger::default();
        let (first, second) = (
            ledger.expect(1, 64, Purpose::Measured),
            ledger.expect(1, 64, Purpose::Other),
        );
        assert_eq!(ledger.outcome(), (0, 2, 0));
        let at = Time::from_nanos;
        ledger
            .note(0, at(5), &Report::Sealed { number: first })
            .unwrap();
        ledger.note(1, at(9), &opened(first, 64, true)).unwrap();
        ledger
            .note(1, at(11), &Report::Again { number: first })
            .unwrap();
        assert_eq!(ledger.outcome(), (1, 1, 1));
        assert_eq!(ledger.latencies_ns(), [4]);
        assert!(ledger.is_opened(first) && !ledger.is_opened(second));
    }

    #[test]
    fn a_plaintext_must_be_the_one_that_was_sent_to_its_opener() {
        let mut ledger = Ledger::default();
        let number = ledger.expect(1, 64, Purpose::Other);
        for (who, report) in [
            (0, opened(number, 64, true)),
            (1, opened(number, 63, true)),
            (1, opened(number, 64, false)),
            (1, opened(number + 1, 64, true)),
            (
                1,
                Report::Failed {
                    reason: "no session".to_owned(),
                },
            ),
        ] {
            assert!(ledger.note(who, Time::ZERO, &report).is_err());
        }
    }
}
