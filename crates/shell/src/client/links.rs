//! Keeps the client's links alive.
//!
//! Spec: docs/spec/link.md; PROTOCOL rules LNK-6, LNK-7, LNK-9 are enforced by [`crate::link`].
//!
//! | link    | to                              | up                    | down              |
//! |---------|---------------------------------|-----------------------|-------------------|
//! | entry   | the gateway the machine chose   | packets               | nothing           |
//! | mailbox | a gateway that holds mailboxes  | confirmation ticks    | packets, dummies  |
//!
//! | quantity        | value                                                                   |
//! |-----------------|-------------------------------------------------------------------------|
//! | queue           | [`QUEUE`] frames; a tick that finds one waiting is skipped and counted  |
//! | redial          | after 0.25 to 0.5 s, doubling up to 30 s                                |
//! | silence         | a mailbox link without a frame for three ticks and 15 s is dead         |
//!
//! The waits start over only after a link that held, as the machine reckons it ([`HELD`]): a gateway that restarts should not
//! cost its clients half a minute, but one that refuses them lets the link up before it ends it.
//! Deliberately not here: which gateway (the machine's choice) and what the frames mean.

use core::time::Duration;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use proto::{
    Time,
    client::{HELD, Input},
    directory::Profile,
    wire::{Frame, Hello, Purpose, WIRE_VERSION},
};
use tokio::sync::{mpsc, watch};

use crate::{
    entropy::Backoff,
    link::{Dialler, Link, LinkError, NotSent, Outbox, Target},
};

/// Frames that wait for a link: what a client writes at once, a loop and a payload. More would let
/// frames that were late leave in a burst.
const QUEUE: usize = 2;
const REDIAL_FIRST: Duration = Duration::from_millis(500);
const REDIAL_MOST: Duration = Duration::from_secs(30);

/// Where a link goes, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) target: Target,
    /// Index of the profile in the consensus.
    pub(super) profile: u8,
    /// Longest silence of a mailbox link.
    pub(super) silence: Duration,
}

/// Longest silence of a mailbox link of `profile`.
pub(super) fn silence(profile: &Profile) -> Duration {
    let ticks_s = 3_000_000 / profile.downstream_uhz.max(1);
    Duration::from_secs(ticks_s.min(86_400) + 15)
}

/// One of the links, as the machine's driver and the status see it.
#[derive(Debug)]
pub struct Port {
    purpose: Purpose,
    outbox: Mutex<Option<Outbox>>,
    known: watch::Sender<Known>,
    /// Frames written, and read, since the start.
    frames: [AtomicU64; 2],
}

/// A link that nobody keeps any more is down, however that came.
struct Falls<'a>(&'a Port);

impl Drop for Falls<'_> {
    fn drop(&mut self) {
        self.0.fell();
    }
}

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether it can be written.
    pub up: bool,
    /// How often it came up.
    pub made: u64,
    /// Why the last attempt failed; empty after one that did not.
    pub trouble: String,
    /// Attempts that failed since it was last up.
    pub failed: u64,
    /// Since when it has been down, once it was up or an attempt failed.
    pub down_since: Option<Time>,
}

impl Port {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            outbox: Mutex::default(),
            known: watch::Sender::default(),
            frames: Default::default(),
        }
    }

    fn is_entry(&self) -> bool {
        self.purpose == Purpose::Entry
    }

    /// Whether the link takes what a client writes at once.
    pub(super) fn has_room(&self) -> bool {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.as_ref().is_some_and(Outbox::is_free)
    }

    /// Writes a frame; never waits.
    pub(super) fn send(&self, frame: Frame) -> Result<(), NotSent> {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.as_ref().ok_or(NotSent::Down)?.send(frame)?;
        self.frames[0].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Frames written, and read, since the start.
    #[must_use]
    pub fn frames(&self) -> [u64; 2] {
        self.frames
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// What is known of the link, and when that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Closes the link; it is made anew.
    pub(super) fn close(&self) {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbox) = &*outbox {
            outbox.close();
        }
    }

    pub(super) fn set(&self, outbox: Option<Outbox>) {
        *self.outbox.lock().unwrap_or_else(PoisonError::into_inner) = outbox;
    }

    /// Keeps the link to whatever `destination` names, until `destination` or `inbox` closes.
    pub(super) async fn keep(
        &self,
        dialler: Dialler,
        patience: Duration,
        mut destination: watch::Receiver<Option<Destination>>,
        inbox: mpsc::Sender<Input>,
    ) {
        let _is_down_then = Falls(self);
        let mut backoff = Backoff::new(REDIAL_FIRST, REDIAL_MOST);
        loop {
            let Ok(to) = destination
                .wait_for(Option::is_some)
                .await
                .map(|to| to.clone())
            else {
                return;
            };
            let Some(to) = to else { return };
            // Waits below end early when the destination changes.
            let other = Some(to.clone());
            let mut moved = destination.clone();
            let moved = moved.wait_for(|now| *now != other);
            let lasted = tokio::select! {
                moved = moved => match moved {
                    Ok(_) => Ok(()),
                    Err(_closed) => return,
                },
                lasted = self.serve(&dialler, patience, &to, &inbox, &mut backoff) => lasted,
                () = inbox.closed() => return,
            };
            let was_up = self.fell();
            // An entry that can't be reached is news as well (CLI-29).
            let gateway = to.target.id;
            let down = if self.is_entry() {
                (was_up || lasted.is_err()).then_some(Input::EntryDown { gateway })
            } else {
                was_up.then_some(Input::MailboxDown { gateway })
            };
            if let Some(down) = down
                && inbox.send(down).await.is_err()
            {
                return;
            }
            if let Err(error) = lasted {
                tracing::info!(link = ?self.purpose, %error, "a link ended");
                let now = dialler.clock.now();
                self.known.send_modify(|known| {
                    known.trouble = error.to_string();
                    known.failed += u64::from(!was_up);
                    known.down_since.get_or_insert(now);
                });
                let mut moved = destination.clone();
                tokio::select! {
                    () = tokio::time::sleep(backoff.wait()) => {}
                    moved = moved.wait_for(|now| *now != other) => if moved.is_err() { return },
                    () = inbox.closed() => return,
                }
            } else {
                backoff.reset(); // another gateway
                self.known.send_modify(|known| {
                    known.trouble.clear();
                    (known.failed, known.down_since) = (0, None);
                });
            }
        }
    }

    /// Notes that it is down; whether it was up.
    fn fell(&self) -> bool {
        let was_up = self.known.borrow().up;
        if was_up {
            self.set(None);
            self.known.send_modify(|known| known.up = false);
        }
        was_up
    }

    /// Dials, and carries frames until the link ends.
    async fn serve(
        &self,
        dialler: &Dialler,
        patience: Duration,
        to: &Destination,
        inbox: &mpsc::Sender<Input>,
        backoff: &mut Backoff,
    ) -> Result<(), LinkError> {
        let hello = Hello {
            version: WIRE_VERSION,
            purpose: self.purpose,
            profile: to.profile,
        };
        let dialled = tokio::time::timeout(patience, dialler.dial(&to.target, hello)).await;
        let link: Link = dialled.unwrap_or(Err(LinkError::PeerSlow("dial")))?;
        let began = dialler.clock.now();
        let ended = self.carry(link, to, inbox).await;
        if dialler.clock.now().since(began) >= HELD {
            backoff.reset();
        }
        ended
    }

    /// Carries frames until the link ends.
    async fn carry(
        &self,
        link: Link,
        to: &Destination,
        inbox: &mpsc::Sender<Input>,
    ) -> Result<(), LinkError> {
        let exporter = link.peer.exporter;
        let (outbox, mut reader) = link.start(QUEUE);
        self.set(Some(outbox));
        self.known.send_modify(|known| {
            known.up = true;
            known.made += 1;
            known.trouble.clear();
            (known.failed, known.down_since) = (0, None);
        });
        let gateway = to.target.id;
        let up = if self.is_entry() {
            Input::EntryUp { gateway }
        } else {
            reader.set_idle(Some(to.silence));
            Input::MailboxUp { gateway, exporter }
        };
        let stopping = |_| LinkError::Closed;
        inbox.send(up).await.map_err(stopping)?;
        loop {
            let (_, frame) = reader.frame().await?;
            self.frames[1].fetch_add(1, Ordering::Relaxed);
            if self.is_entry() {
                return Err(LinkError::PeerMisbehaved("an entry says nothing"));
            }
            let input = Input::Frame { gateway, frame };
            inbox.send(input).await.map_err(stopping)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::{
        NetworkId, NodeId,
        directory::{LinkCertificate, Params},
    };
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        clock::Clock,
        link::{certificate_frame, take},
        tls,
    };

    const NETWORK: NetworkId = NetworkId([7; 32]);

    /// Keys of a gateway, of it and of its links.
    fn keys() -> [SigningKey; 2] {
        [2, 102].map(|seed| SigningKey::from_bytes(&[seed; 32]))
    }

    /// That gateway, where it listens.
    fn there(listener: &TcpListener) -> Destination {
        let [id, link_key] = keys().map(|key| key.verifying_key().to_bytes());
        Destination {
            target: Target {
                id: NodeId(id),
                address: listener.local_addr().unwrap().to_string(),
                link_key: Some(link_key),
            },
            profile: 0,
            silence: Duration::from_secs(15),
        }
    }

    fn dialler(clock: Clock) -> Dialler {
        Dialler {
            network: NETWORK,
            key: None,
            clock,
        }
    }

    /// Who said where it goes is gone, and with it whoever reads: it must not be dialled for ever.
    #[tokio::test]
    async fn a_link_that_nobody_wants_any_more_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = Port::new(Purpose::Entry);
        let (wanted, destination) = watch::channel(Some(there(&listener)));
        let (inbox, _inputs) = mpsc::channel(16);
        let mut kept =
            core::pin::pin!(port.keep(dialler(Clock::start()), HELD, destination, inbox));
        let _dialled = tokio::select! {
            dialled = listener.accept() => dialled.unwrap(),
            () = &mut kept => unreachable!("it is wanted"),
        };
        drop(wanted);
        tokio::select! {
            _again = listener.accept() => panic!("it is dialled again"),
            () = kept => {}
        }
    }

    #[tokio::test]
    async fn a_link_that_nobody_keeps_any_more_is_down() {
        let port = Port::new(Purpose::Entry);
        port.known.send_modify(|known| known.up = true);
        let (_wanted, destination) = watch::channel(None);
        let (inbox, _inputs) = mpsc::channel(16);
        tokio::select! {
            biased;
            () = port.keep(dialler(Clock::start()), HELD, destination, inbox) => unreachable!(),
            () = tokio::task::yield_now() => {}
        }
        assert!(!port.watch().borrow().up);
    }

    /// The link comes up each time and is closed at once.
    #[tokio::test]
    async fn a_gateway_that_refuses_is_dialled_less_and_less() {
        let clock = Clock::start();
        let [identity, key] = keys();
        let link_key = key.verifying_key().to_bytes();
        let now_s = clock.utc().as_secs();
        let validity = now_s - 60..now_s + 60;
        let certificate = LinkCertificate::sign(&NETWORK, &identity, link_key, validity);
        let certificate = certificate_frame(&certificate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = there(&listener);
        let gateway = async {
            let mut dialled = Vec::new();
            for _ in 0..3 {
                let (socket, _) = listener.accept().await.unwrap();
                dialled.push(clock.now());
                let config = tls::server(&key, tls::Admit::Anyone);
                let taken = take(socket, config, &certificate, |_| true, clock).await;
                assert!(taken.is_ok());
            }
            dialled
        };
        let port = Port::new(Purpose::Entry);
        let (_destination, destination) = watch::channel(Some(to));
        let (inbox, _inputs) = mpsc::channel(16);
        let dialled = tokio::select! {
            dialled = gateway => dialled,
            () = port.keep(dialler(clock), HELD, destination, inbox) => unreachable!("it is wanted"),
        };
        let second = dialled[2].since(dialled[1]);
        assert!(second >= REDIAL_FIRST, "twice the first: {second:?}");
        assert!(port.watch().borrow().made >= 2, "it was up");
    }

    #[test]
    fn silence_allows_for_the_slowest_profile() {
        let params = Params::default();
        for (name, expected_s) in [("interactive", 15), ("messaging", 18), ("frugal", 56)] {
            let (_, profile) = params.profile(name).unwrap();
            assert_eq!(silence(profile).as_secs(), expected_s, "{name}");
        }
    }

    #[test]
    fn a_frame_without_a_link_is_refused_at_once() {
        let port = Port::new(Purpose::Entry);
        let frame = Frame::new(proto::wire::Kind::Packet, 0, [0; 32]);
        assert_eq!(port.send(frame), Err(NotSent::Down));
    }
}
