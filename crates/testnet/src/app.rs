//! An application of the demo: seals, hands to its Lacuna daemon, takes back, opens.
//!
//! A process of its own (`role app`), so that what the demo reports was opened outside of the
//! supervisor and outside of Lacuna. It talks to its daemon through the local API alone, as any
//! messenger would; commands come on standard input, reports go to standard output, one JSON
//! object a line.
//!
//! | plaintext   | bytes                                                         |
//! |-------------|---------------------------------------------------------------|
//! | number      | 8, big-endian: the supervisor's name for the message          |
//! | filling     | SHA-256 of (number, block) for each block of 32 bytes, cut    |
//!
//! A receiver therefore knows from the number alone what a plaintext must be; it reports whether
//! it is, and the supervisor compares what was reported with what it asked for.
//!
//! Deliberately not here: storage. The applications run through the demo; their daemons restart.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail};
use client::{
    api::{Code, Reply, Request, Response, Wait},
    base64,
    call::{Call, CallError},
    status::Status,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::seal::{Bundle, Sealer};

/// What the supervisor asks of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Publish an address and keys; answered by [`Report::Card`].
    Card,
    /// Begin a session with a peer, by its first one-time key.
    Meet {
        /// Our name for it.
        name: String,
        /// What it published.
        card: Card,
    },
    /// Take messages from the daemon from now on.
    Connect,
    /// Seal and send a message, with our address for the way back.
    Send {
        /// To whom.
        name: String,
        /// Number of the message.
        number: u64,
        /// Length of its plaintext, bytes, at least 8.
        bytes: usize,
    },
    /// The same with reply blocks, sealed by a throw-away identity that begins its session with
    /// the peer's second one-time key: the peer learns neither who wrote nor from where.
    SendUnnamed {
        /// To whom.
        name: String,
        /// Number of the message.
        number: u64,
        /// Length of its plaintext, bytes, at least 8.
        bytes: usize,
    },
    /// Answer a received message by its reply token.
    Answer {
        /// Number of the received message.
        to: u64,
        /// Number of the answer.
        number: u64,
        /// Length of its plaintext, bytes, at least 8.
        bytes: usize,
    },
    /// Report the daemon's status.
    Status,
}

/// What an application says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Report {
    /// What others need to write to it.
    Card(Card),
    /// The daemon hands messages out to it.
    Connected,
    /// The daemon went away; [`Command::Connect`] when it is back.
    Disconnected,
    /// A message is sealed and goes to the daemon now.
    Sealed {
        /// Its number.
        number: u64,
    },
    /// A message of ours reached a state.
    Progress {
        /// Its number.
        number: u64,
        /// The state.
        state: Wait,
    },
    /// A message was opened.
    Opened {
        /// Its number.
        number: u64,
        /// Length of its plaintext.
        bytes: usize,
        /// Whether it is the plaintext of its number.
        intact: bool,
        /// Whether its sender is someone we met.
        named: bool,
        /// Whether it can be answered.
        answerable: bool,
    },
    /// A message was handed out a second time.
    Again {
        /// Its number.
        number: u64,
    },
    /// The daemon went away before a message of ours was acked. It is queued, and goes on.
    Interrupted {
        /// Its number.
        number: u64,
    },
    /// The daemon's status.
    Status(Box<Status>),
    /// A command could not be done, or a message not be opened.
    Failed {
        /// Why.
        reason: String,
    },
}

/// An application's address and keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Where it is reached: `lacuna1…`.
    pub address: String,
    /// Its keys for end-to-end sessions.
    pub keys: Bundle,
}

/// The plaintext of message `number`, `bytes` long (at least 8).
#[must_use]
pub fn plaintext(number: u64, bytes: usize) -> Vec<u8> {
    let mut text = number.to_be_bytes().to_vec();
    for block in 0_u64.. {
        if text.len() >= bytes {
            break;
        }
        let hash = Sha256::new()
            .chain_update(number.to_be_bytes())
            .chain_update(block.to_be_bytes());
        text.extend(hash.finalize());
    }
    text.truncate(bytes.max(8));
    text
}

struct Arrived {
    body: String,
    reply: Option<String>,
    done: oneshot::Sender<()>,
}

enum Event {
    Command(Command),
    Arrived(Arrived),
    Report(Report),
    Closed,
}

struct App {
    socket: PathBuf,
    sealer: Sealer,
    /// Throw-away identities of unnamed messages.
    unnamed: Vec<Sealer>,
    peers: BTreeMap<String, Card>,
    /// Of received messages: sender's identity key and reply token, by number.
    answers: BTreeMap<u64, ([u8; 32], String)>,
    /// Of received messages: number, by the hash of the sealed body. Olm opens none twice, so a
    /// duplicate has to be told before.
    opened: BTreeMap<[u8; 32], u64>,
    events: mpsc::UnboundedSender<Event>,
}

/// Runs one application until its standard input ends.
///
/// # Errors
///
/// If standard output is gone.
pub async fn run(socket: PathBuf) -> anyhow::Result<()> {
    let (events, mut happened) = mpsc::unbounded_channel();
    // A thread of its own, not the runtime's: a read of standard input can't be called off.
    let heard = events.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let event = match serde_json::from_str(&line) {
                Ok(command) => Event::Command(command),
                Err(error) => Event::Report(failed(&error.into())),
            };
            let _closing = heard.send(event);
        }
        let _closing = heard.send(Event::Closed);
    });
    let mut app = App {
        socket,
        sealer: Sealer::new(),
        unnamed: Vec::new(),
        peers: BTreeMap::new(),
        answers: BTreeMap::new(),
        opened: BTreeMap::new(),
        events,
    };
    while let Some(event) = happened.recv().await {
        let report = match event {
            Event::Command(command) => match app.obey(command).await {
                Ok(report) => report,
                Err(error) => Some(failed(&error)),
            },
            Event::Arrived(arrived) => {
                let report = app.open(&arrived).unwrap_or_else(|error| failed(&error));
                say(&report);
                let _daemon_gone = arrived.done.send(()); // written out: now it is taken
                None
            }
            Event::Report(report) => Some(report),
            Event::Closed => return Ok(()),
        };
        if let Some(report) = report {
            say(&report);
        }
    }
    Ok(())
}

fn say(report: &Report) {
    shell::role::announce(report);
}

fn failed(error: &anyhow::Error) -> Report {
    let reason = format!("{error:#}");
    Report::Failed { reason }
}

impl App {
    async fn obey(&mut self, command: Command) -> anyhow::Result<Option<Report>> {
        match command {
            Command::Card => {
                let answer = self.ask(&Request::Address {}).await?;
                let Response::Address { address } = answer else {
                    bail!("asked for an address, got {answer:?}");
                };
                let keys = self.sealer.bundle(2);
                Ok(Some(Report::Card(Card { address, keys })))
            }
            Command::Meet { name, card } => {
                let key = card.keys.one_time.first();
                let key = *key.context("the card has no one-time key")?;
                self.sealer.begin(card.keys.identity, key)?;
                self.peers.insert(name, card);
                Ok(None)
            }
            Command::Connect => {
                let call = Call::open(&self.socket).await?;
                tokio::spawn(follow(call, self.events.clone()));
                Ok(None)
            }
            Command::Send {
                name,
                number,
                bytes,
            } => {
                let card = self.peers.get(&name).context("never met")?;
                let sealed = self
                    .sealer
                    .seal(card.keys.identity, &plaintext(number, bytes))?;
                let to = Some(card.address.clone());
                self.hand_over(number, to, None, Reply::Address, &sealed);
                Ok(None)
            }
            Command::SendUnnamed {
                name,
                number,
                bytes,
            } => {
                let card = self.peers.get(&name).context("never met")?;
                let key = *card
                    .keys
                    .one_time
                    .get(1)
                    .context("the card has one key only")?;
                let mut sealer = Sealer::new();
                sealer.begin(card.keys.identity, key)?;
                let sealed = sealer.seal(card.keys.identity, &plaintext(number, bytes))?;
                let to = Some(card.address.clone());
                self.unnamed.push(sealer);
                self.hand_over(number, to, None, Reply::Surbs(8), &sealed);
                Ok(None)
            }
            Command::Answer { to, number, bytes } => {
                let (identity, token) = self.answers.get(&to).context("nothing to answer")?;
                let sealed = self.sealer.seal(*identity, &plaintext(number, bytes))?;
                let token = Some(token.clone());
                self.hand_over(number, None, token, Reply::None, &sealed);
                Ok(None)
            }
            Command::Status => {
                let answer = self.ask(&Request::Status {}).await?;
                let Response::Status(status) = answer else {
                    bail!("asked for the status, got {answer:?}");
                };
                Ok(Some(Report::Status(status)))
            }
        }
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        Ok(Call::open(&self.socket).await?.ask(request).await?)
    }

    /// Gives a sealed message to the daemon, on a connection of its own, and reports how far it
    /// comes. A message without a way back is never acked.
    fn hand_over(
        &self,
        number: u64,
        to: Option<String>,
        reply_to: Option<String>,
        reply: Reply,
        sealed: &[u8],
    ) {
        let wait = if reply == Reply::None {
            Wait::Sent
        } else {
            Wait::Acked
        };
        let body = base64::encode(sealed);
        let request = Request::Send {
            to,
            reply_to,
            body,
            reply,
            wait,
        };
        let (socket, events) = (self.socket.clone(), self.events.clone());
        say(&Report::Sealed { number });
        tokio::spawn(async move {
            let tell = |report| events.send(Event::Report(report));
            let sent = async {
                let mut call = Call::open(&socket).await?;
                let mut answer = call.ask(&request).await?;
                while let Response::Progress { state, .. } = answer {
                    let _closing = tell(Report::Progress { number, state });
                    if state >= wait {
                        break;
                    }
                    answer = match call.next().await {
                        Err(CallError::Lost(_) | CallError::Refused(Code::Stopping, _)) => {
                            let _closing = tell(Report::Interrupted { number });
                            break;
                        }
                        answer => answer?,
                    };
                }
                anyhow::Ok(())
            };
            if let Err(error) = sent.await {
                let _closing = tell(failed(&error.context(format!("message {number}"))));
            }
        });
    }

    fn open(&mut self, arrived: &Arrived) -> anyhow::Result<Report> {
        let sealed = base64::decode(&arrived.body).context("a body is Base64")?;
        let hash = Sha256::digest(&sealed).into();
        if let Some(number) = self.opened.get(&hash) {
            return Ok(Report::Again { number: *number });
        }
        let mut sealers = core::iter::once(&mut self.sealer).chain(&mut self.unnamed);
        let opened = sealers.find_map(|sealer| sealer.open(&sealed).ok());
        let (identity, text) = opened.context("a message that none of our sessions opens")?;
        let number = text
            .first_chunk()
            .context("a plaintext of less than 8 bytes")?;
        let number = u64::from_be_bytes(*number);
        self.opened.insert(hash, number);
        if let Some(token) = &arrived.reply {
            self.answers.insert(number, (identity, token.clone()));
        }
        Ok(Report::Opened {
            number,
            bytes: text.len(),
            intact: text == plaintext(number, text.len()),
            named: self
                .peers
                .values()
                .any(|card| card.keys.identity == identity),
            answerable: arrived.reply.is_some(),
        })
    }
}

/// Takes messages from the daemon until it goes away.
async fn follow(mut call: Call, events: mpsc::UnboundedSender<Event>) {
    let request = Request::Receive {
        follow: true,
        timeout_s: None,
    };
    if call.say(&request).await.is_ok() {
        let _closing = events.send(Event::Report(Report::Connected));
    }
    while let Ok(answer) = call.next().await {
        let Response::Message {
            id, body, reply, ..
        } = answer
        else {
            continue; // `ok` to a `taken`
        };
        let (done, opened) = oneshot::channel();
        let _closing = events.send(Event::Arrived(Arrived { body, reply, done }));
        if opened.await.is_err() || call.say(&Request::Taken { id }).await.is_err() {
            break;
        }
    }
    let _closing = events.send(Event::Report(Report::Disconnected));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plaintext_follows_from_its_number() {
        assert_eq!(plaintext(7, 1_000_000).len(), 1_000_000);
        assert_eq!(plaintext(7, 40), plaintext(7, 100)[..40]);
        assert_ne!(plaintext(7, 40)[8..], plaintext(8, 40)[8..]);
        assert_eq!(plaintext(7, 0), 7_u64.to_be_bytes());
    }
}
