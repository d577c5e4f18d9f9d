//! What a program that embeds the client holds.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use client::{Daemon, api::Wait, settings::Config};
//! use proto::client::{Return, Target};
//!
//! let config = Config::in_folder("/var/lib/wallet/lacuna".as_ref())?;
//! let lacuna = Daemon::start(config).await?;
//! lacuna.ready().await?; // off, bootstrapping, ready
//! let to = "lacuna1…".parse()?;
//! let mut sending = lacuna.send(Target::Address(to), b"sealed".to_vec(), Return::Address).await?;
//! sending.reached(Wait::Sent).await?;
//! let received = lacuna.receive().await?;
//! println!("{} bytes", received.body().len());
//! received.taken().await;
//! lacuna.stop().await?;
//! # Ok(()) }
//! ```
//!
//! Messages must be encrypted end to end by the program: Lacuna hides who talks to whom, and
//! nothing leaves this process by any other way.

use core::{fmt, time::Duration};
use std::sync::{Arc, PoisonError, atomic::Ordering};

use anyhow::bail;
use proto::{
    NodeId, Time,
    address::Address,
    client::{Delivery, Failure, Input, Limits, MessageId, ReplyToken, Return, Target},
    directory::{Consensus, consensus::LAYERS_MAX},
};
use shell::{
    client::{Known, Port},
    follow,
};

use crate::{
    daemon::Shared,
    expect,
    inbox::Lease,
    outbox::{SendError, Sending},
    status::{
        self, Former, Link, Measured, State, Status, Watch, bytes_per_day, entry_trouble,
        mailbox_bytes_per_day, mailbox_trouble,
    },
};

/// A running daemon. Clones are the same daemon; it stops when told to, not when dropped.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.status().state)
    }
}

impl Handle {
    /// Which of the three states it is in, and why it is not ready (empty if it is).
    #[must_use]
    pub fn state(&self) -> (State, String) {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            let why = shared.failure();
            return (
                State::Off,
                why.map_or_else(|| "stopped".to_owned(), |why| why.to_string()),
            );
        }
        let directory = shared.directory.borrow().clone();
        let consensus = match directory {
            follow::State::Ready(consensus) => consensus,
            follow::State::Bootstrapping => return (State::Bootstrapping, self.missing()),
            follow::State::Off => {
                return (
                    State::Off,
                    "the directory stopped closed; see the log".to_owned(),
                );
            }
        };
        let home = self.address().map(|address| address.gateway);
        if let Some(why) = unfit(&consensus, home) {
            return (State::Bootstrapping, why.to_owned());
        }
        let (entry, mailbox) = self.troubles();
        let mut down = Vec::new();
        if let Some(why) = entry {
            down.push(format!("the entry link is down: {why}"));
        }
        if let Some(why) = mailbox {
            down.push(format!("the mailbox link is down: {why}"));
        }
        if down.is_empty() {
            return (State::Ready, String::new());
        }
        (State::Bootstrapping, down.join("; "))
    }

    /// What is wrong with the entry link and with the mailbox link, in words.
    fn troubles(&self) -> (Option<String>, Option<String>) {
        let shared = &self.shared;
        let (entry, mailbox) = (shared.links.entry.watch(), shared.links.home().watch());
        let (entry, mailbox) = (entry.borrow(), mailbox.borrow());
        let now = shared.clock.now();
        let view = shared.links.view();
        (
            entry_trouble(&entry, &view.entrance, now),
            mailbox_trouble(&mailbox, entry.up, view.moving.refused, now),
        )
    }

    /// Why there is no consensus.
    fn missing(&self) -> String {
        let limit = Duration::from_secs(self.shared.config.bootstrap_timeout_s);
        if self.shared.clock.now().since(Time::ZERO) < limit {
            return "no consensus yet; asking the gateways of network.toml".to_owned();
        }
        format!(
            "no gateway of network.toml gives a valid consensus since {} s: check the connection, the clock, and that network.toml is the network's; it goes on trying",
            limit.as_secs()
        )
    }

    /// Waits until it is in another state than `state`; gives the state that it is in. Cancel safe.
    pub async fn left(&self, state: State) -> State {
        let shared = &self.shared;
        let mut entry = shared.links.entry.watch();
        let mut directory = shared.directory.clone();
        let mut aims = shared.links.aims();
        loop {
            aims.mark_unchanged();
            let mut mailbox = shared.links.home().watch();
            for link in [&mut entry, &mut mailbox] {
                link.mark_unchanged();
            }
            directory.mark_unchanged();
            let (now, _) = self.state();
            if now != state || shared.stop.is_cancelled() {
                return now;
            }
            tokio::select! {
                _ = entry.changed() => {}
                _ = mailbox.changed() => {}
                _ = aims.changed() => {}
                Ok(()) = directory.changed() => {}
                () = shared.stop.cancelled() => {}
            }
        }
    }

    /// Waits until both links are up. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the daemon stops before.
    pub async fn ready(&self) -> anyhow::Result<()> {
        loop {
            match self.state() {
                (State::Ready, _) => return Ok(()),
                (State::Off, reason) if self.shared.stop.is_cancelled() => bail!(reason),
                (state, _) => drop(self.left(state).await),
            }
        }
    }

    /// Where this client is reached, once its mailbox gateway is chosen.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        let own = self.shared.links.addresses();
        own.first()
            .map_or(self.shared.address, |own| Some(own.address))
    }

    /// Hands over a message. It is on its way when [`Sending::reached`] says that it is queued.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] with `NotReady` before the first consensus,
    /// [`SendError::Stopped`] if the daemon is stopping. Other refusals come with the states.
    pub async fn send(
        &self,
        to: Target,
        body: Vec<u8>,
        reply: Return,
    ) -> Result<Sending, SendError> {
        let shared = &self.shared;
        if self.address().is_none() {
            return Err(SendError::Refused(Failure::NotReady));
        }
        let ticket = shared.next_ticket.fetch_add(1, Ordering::Relaxed);
        let ackable = reply != Return::None;
        let sending = Sending::new(shared.outbox.open(ticket, ackable), ackable);
        let input = Input::Send {
            ticket,
            to,
            body,
            reply,
        };
        if shared.stop.is_cancelled() || shared.input.send(input).await.is_err() {
            shared.outbox.close();
            return Err(SendError::Stopped);
        }
        Ok(sending)
    }

    /// The message that waits longest, as soon as there is one. Cancel safe: a message whose
    /// [`Received`] is dropped untaken waits again.
    ///
    /// # Errors
    ///
    /// If the daemon stops before.
    pub async fn receive(&self) -> anyhow::Result<Received> {
        tokio::select! {
            lease = self.shared.inbox.lease() => Ok(Received { lease, handle: self.clone() }),
            () = self.shared.stop.cancelled() => bail!("the daemon is stopping"),
        }
    }

    /// Everything that it tells of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let (state, reason) = self.state();
        let consensus = shared.directory.borrow().consensus().cloned();
        let profile = consensus
            .as_ref()
            .and_then(|consensus| Some(consensus.params.profile(&shared.config.profile)?.1));
        let (mut up_bytes_per_day, mut down_bytes_per_day) =
            profile.map(bytes_per_day).unwrap_or_default();
        let now = shared.clock.utc();
        let epoch = consensus
            .as_ref()
            .and_then(|consensus| consensus.schedule().at(now));
        let (entry_trouble, mailbox_trouble) = self.troubles();
        let link = |known: &Known, gateway: Option<proto::NodeId>, trouble: Option<String>| Link {
            gateway: gateway.map(|id| id.to_string()),
            up: known.up,
            made: known.made,
            trouble: trouble.unwrap_or_default(),
        };
        let counts = shared
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let view = shared.links.view();
        let frames = shared.links.frames();
        let trouble = status::mailbox_trouble;
        let former = |(gateway, port): (NodeId, &Port)| {
            let known = port.watch().borrow().clone();
            let trouble = trouble(&known, false, None, shared.clock.now());
            let until = view.moving.former.iter().find(|(of, _)| *of == gateway);
            Former {
                link: link(&known, Some(gateway), trouble),
                seconds: until.map_or(0, |(_, until_s)| until_s.saturating_sub(now.as_secs())),
            }
        };
        let former: Vec<Former> = shared.links.former().map(former).collect();
        let more = profile.map(mailbox_bytes_per_day).unwrap_or_default();
        up_bytes_per_day += more.0 * former.len() as u64;
        down_bytes_per_day += more.1 * former.len() as u64;
        Status {
            state,
            reason,
            profile: shared.config.profile.clone(),
            epoch: epoch.map(|epoch| epoch.0),
            entry: link(
                &shared.links.entry.watch().borrow(),
                shared.links.entered(),
                entry_trouble,
            ),
            entries_replaced: view.entrance.replaced,
            mailbox: link(
                &shared.links.home().watch().borrow(),
                self.address().map(|address| address.gateway),
                mailbox_trouble,
            ),
            former,
            untold: view.moving.untold as u64,
            unopened: view.moving.unopened as u64,
            addresses_unopened: self.unopened_labels(),
            up_bytes_per_day,
            down_bytes_per_day,
            measured: Measured::of(frames, shared.clock.now().since(Time::ZERO).as_secs()),
            latency: consensus
                .as_ref()
                .zip(profile)
                .and_then(|(consensus, profile)| expect::latency(&consensus.params, profile)),
            floor: consensus.as_ref().map(|_| expect::floor()),
            messages_under_way: view.held.outgoing.0 as u64,
            messages_stranded: view.held.stranded as u64,
            loss: view.loss,
            watch: Watch::of(&view.watching, profile, shared.clock.now()),
            messages_waiting: shared.inbox.len(),
            incoming_bytes: view.held.incoming_bytes as u64,
            incoming_bytes_max: Limits::default().incoming_bytes_max as u64,
            counts,
        }
    }

    /// Whether it was told to stop, or has failed.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Asks the daemon to stop; [`Handle::ended`] says when it has.
    pub fn ask_to_stop(&self) {
        self.shared.stop.cancel();
    }

    /// Waits until every task of the daemon has ended.
    ///
    /// # Errors
    ///
    /// What ended it, if it was not told to stop: an [`Ended`](crate::daemon::Ended).
    pub async fn ended(&self) -> anyhow::Result<()> {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        match self.shared.failure() {
            Some(why) => Err(why.into()),
            None => Ok(()),
        }
    }

    /// Stops the daemon and waits until it has ended.
    ///
    /// # Errors
    ///
    /// As [`Handle::ended`].
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.ask_to_stop();
        self.ended().await
    }
}

/// A message, leased to whoever holds this.
pub struct Received {
    lease: Lease<Delivery>,
    handle: Handle,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Received(..)")
    }
}

impl Received {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.lease.id()
    }

    /// The label of the address that it came to; none if that was revoked meanwhile.
    #[must_use]
    pub fn to(&self) -> Option<String> {
        let slot = self.lease.message().slot;
        let own = self.handle.addresses();
        let own = own.into_iter().find(|own| own.slot == slot);
        own.map(|own| own.label)
    }

    /// What was sent.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.lease.message().body
    }

    /// How to answer, if its sender gave a way.
    #[must_use]
    pub fn reply(&self) -> Option<ReplyToken> {
        self.lease.message().reply
    }

    /// The program has it, safely: its body can be forgotten.
    pub async fn taken(self) {
        let message = MessageId(self.lease.id());
        self.lease.take();
        let _stopping = self
            .handle
            .shared
            .input
            .send(Input::Taken { message })
            .await;
    }
}

/// Why a client can't use the network of this document, though the links may be up.
fn unfit(consensus: &Consensus, home: Option<NodeId>) -> Option<&'static str> {
    if home.is_some_and(|home| consensus.node(&home).is_none()) {
        return Some(
            "the gateway of your mailbox is not in the consensus: nothing arrives until it is, or you move: `lacuna move`",
        );
    }
    (consensus.layers.len() != LAYERS_MAX).then_some(
        "the consensus has fewer than three layers of mixes: nothing is sent until it has",
    )
}

#[cfg(test)]
mod tests {
    use proto::{NetworkId, directory::Params};

    use super::*;

    #[test]
    fn a_network_without_routes_is_not_ready() {
        let with = |layers: usize| Consensus {
            network: NetworkId([7; 32]),
            period: 0,
            valid_from_s: 0,
            previous: [0; 32],
            params: Params::default(),
            descriptors: Vec::new(),
            nodes: Vec::new(),
            layers: vec![vec![NodeId([1; 32])]; layers],
        };
        for (layers, home, why) in [
            (3, None, None),
            (2, None, Some("three layers")),
            (3, Some(NodeId([9; 32])), Some("mailbox")),
        ] {
            let said = unfit(&with(layers), home);
            assert_eq!(said.is_some(), why.is_some());
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()));
        }
    }
}
