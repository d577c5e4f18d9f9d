//! The owner's addresses: one for each correspondent, each revocable.
//!
//! | call                       | does                                                             |
//! |----------------------------|------------------------------------------------------------------|
//! | [`Handle::addresses`]      | lists them, the oldest first                                     |
//! | [`Handle::new_address`]    | makes one; it is on the disk when it is returned                 |
//! | [`Handle::revoke_address`] | forgets its secrets, for good                                    |
//! | [`Handle::move_to`]        | gives all of them other mailboxes, at another gateway            |
//!
//! The machine makes and keeps them ([`proto::client`], CLI-31 to CLI-33); here are the orders that
//! wait for it. Not here: who was given which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use proto::{
    NodeId,
    client::{ADDRESSES_MAX, AddressError, Input, LABEL_MAX, MOVES_MAX, OwnAddress, Relocated},
};
use tokio::sync::oneshot;

use crate::Handle;

type Outcome = Result<u16, AddressError>;

/// Orders for addresses that the machine has not answered.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Outcome>>>,
}

impl Orders {
    fn open(&self, ticket: u64) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(ticket, answer);
        answered
    }

    /// The machine's answer to an order.
    pub(crate) fn note(&self, ticket: u64, outcome: Outcome) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = waiting.remove(&ticket) {
            let _gone = answer.send(outcome);
        }
    }

    /// Answers no order any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clear();
    }
}

/// Why an address was not made or not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRefused {
    /// The order is wrong.
    Refused(AddressError),
    /// The mailbox gateway is not chosen yet.
    NotReady,
    /// The daemon is stopping; whether the order was carried out is not known.
    Stopped,
}

impl core::fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotReady => f.write_str(
                "the mailbox gateway is drawn from the first consensus: try again when `lacuna status` says ready",
            ),
            Self::Stopped => f.write_str("the daemon is stopping: see `lacuna address list` when it runs again"),
            Self::Refused(why) => match why {
                AddressError::Label => write!(f, "a label has 1 to {LABEL_MAX} bytes and no control characters"),
                AddressError::Taken => f.write_str("there is an address of that label: choose another label"),
                AddressError::Unknown => f.write_str("no address has that label: see `lacuna address list`"),
                AddressError::TooMany => write!(
                    f,
                    "a client has at most {ADDRESSES_MAX} addresses, those counted that were revoked since its mailbox link came up: revoke one and restart the daemon"
                ),
                AddressError::NotReady => f.write_str("there is no consensus yet: try again when `lacuna status` says ready"),
                AddressError::NoGateway => f.write_str("it is no gateway to move to: name another one of the consensus, 64 hex digits, or none to have one drawn"),
                AddressError::NoOther => f.write_str("there is no gateway to draw: your mailboxes are or were at each other one, or it was left as an entry today, withdraws, or is down; none of the moves was used. Name one that you know to live: `lacuna move --to GATEWAY`"),
                AddressError::Moving => f.write_str("a move is being written: try again"),
                AddressError::TooSoon { wait_s } => write!(
                    f,
                    "there were {MOVES_MAX} moves, and their former mailboxes are still read: the next move is possible in {} hours, when the first of them is closed",
                    wait_s.div_ceil(3600)
                ),
                AddressError::Last => f.write_str("it is the only address: make another one first"),
            },
        }
    }
}

impl core::error::Error for AddressRefused {}

impl Handle {
    /// This client's addresses, the oldest first; none before its mailbox gateway is chosen.
    #[must_use]
    pub fn addresses(&self) -> Vec<OwnAddress> {
        self.shared.links.addresses()
    }

    /// Numbers of those that are not open yet on the link to their gateway: what comes there waits.
    #[must_use]
    pub fn unopened(&self) -> Vec<u16> {
        self.shared.links.view().unopened
    }

    /// Their labels.
    pub(crate) fn unopened_labels(&self) -> Vec<String> {
        let unopened = self.unopened();
        let all = self.addresses().into_iter();
        let waiting = all.filter(|own| unopened.contains(&own.slot));
        waiting.map(|own| own.label).collect()
    }

    /// Makes an address that has nothing in common with the others but the gateway.
    ///
    /// # Errors
    ///
    /// [`AddressRefused`]: its label, or how many there are.
    pub async fn new_address(&self, label: &str) -> Result<OwnAddress, AddressRefused> {
        let label = label.to_owned();
        let slot = self
            .order(|ticket| Input::NewAddress { ticket, label })
            .await?;
        let own = self.addresses().into_iter().find(|own| own.slot == slot);
        own.ok_or(AddressRefused::Stopped)
    }

    /// Forgets the secrets of an address: nothing that is sent there is read any more.
    ///
    /// # Errors
    ///
    /// [`AddressRefused`]: there is none of that label, or no other.
    pub async fn revoke_address(&self, label: &str) -> Result<(), AddressRefused> {
        let label = label.to_owned();
        let order = self.order(|ticket| Input::Revoke { ticket, label });
        order.await.map(drop)
    }

    /// Gives every address another mailbox at `gateway`, or at one that is drawn, and tells the
    /// correspondents that know it; the former mailboxes are read on for the time that a mailbox keeps
    /// a packet. The new addresses.
    ///
    /// # Errors
    ///
    /// [`AddressRefused`]: the gateway, or too many moves.
    pub async fn move_to(
        &self,
        gateway: Option<NodeId>,
    ) -> Result<Vec<OwnAddress>, AddressRefused> {
        let to = gateway;
        self.order(|ticket| Input::Move { ticket, to }).await?;
        Ok(self.addresses())
    }

    /// The correspondents that have moved. To be told of the next: [`Handle::correspondent_moves`].
    #[must_use]
    pub fn moved(&self) -> BTreeSet<Relocated> {
        let all = self.shared.links.relocated().borrow().1.clone();
        all.iter().copied().collect()
    }

    /// Waits until another correspondent than these has moved, or the daemon stops. Cancel safe.
    pub async fn correspondent_moves(&self, known: &BTreeSet<Relocated>) {
        let mut relocated = self.shared.links.relocated();
        let another = relocated.wait_for(|(_, all)| all.iter().any(|of| !known.contains(of)));
        tokio::select! {
            _ = another => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    /// The slot of the address called `label`.
    ///
    /// # Errors
    ///
    /// [`AddressError::Unknown`] if there is none.
    pub fn slot_of(&self, label: &str) -> Result<u16, AddressRefused> {
        let own = self.addresses().into_iter().find(|own| own.label == label);
        own.map(|own| own.slot)
            .ok_or(AddressRefused::Refused(AddressError::Unknown))
    }

    async fn order(&self, input: impl FnOnce(u64) -> Input) -> Result<u16, AddressRefused> {
        let shared = &self.shared;
        if self.addresses().is_empty() {
            return Err(AddressRefused::NotReady);
        }
        let ticket = shared.next_ticket.fetch_add(1, Ordering::Relaxed);
        let answered = shared.orders.open(ticket);
        if shared.stop.is_cancelled() || shared.input.send(input(ticket)).await.is_err() {
            shared.orders.close();
            return Err(AddressRefused::Stopped);
        }
        let outcome = answered.await.map_err(|_| AddressRefused::Stopped)?;
        outcome.map_err(AddressRefused::Refused)
    }
}
