//! What a test may ask a [`Net`]: how far messages are, what was counted, what waits.

use std::collections::BTreeSet;

use proto::{
    MailboxId,
    client::{Client, ClientEvent, State},
};

use super::Net;

impl Net {
    pub(crate) fn client(&self, client: usize) -> &Client {
        self.peers[client].client.as_ref().expect("it runs")
    }

    pub(crate) fn count(&self, client: usize, event: ClientEvent) -> u64 {
        self.peers[client].events.get(&event).copied().unwrap_or(0)
    }

    /// How far a message of this ticket has come.
    pub(crate) fn states(&self, client: usize, ticket: u64) -> Vec<State> {
        let progress = self.peers[client].progress.iter();
        progress
            .filter(|p| p.ticket == ticket)
            .map(|p| p.state)
            .collect()
    }

    /// Bodies that a client's application took.
    pub(crate) fn bodies(&self, client: usize) -> Vec<Vec<u8>> {
        let taken = self.peers[client].taken.values();
        let mut bodies: Vec<Vec<u8>> = taken.map(|delivery| delivery.body.clone()).collect();
        bodies.sort();
        bodies
    }

    /// Packets that wait in a mailbox, not confirmed.
    pub(crate) fn waiting_in(&self, mailbox: MailboxId) -> usize {
        self.mailboxes
            .get(&mailbox)
            .map_or(0, |of| of.packets.len())
    }

    /// Slots that are open on a client's mailbox links.
    pub(crate) fn open_slots(&self, client: usize) -> Vec<u16> {
        let mail = self.peers[client].mail.values();
        mail.flat_map(|mail| mail.open.keys().copied()).collect()
    }

    /// Packets that wait in a client's mailbox, not confirmed.
    pub(crate) fn waiting(&self, client: usize) -> usize {
        let mailbox = &self.mailboxes[&self.peers[client].identity.mailbox()];
        mailbox.packets.len()
    }

    /// Kinds of records that a client keeps.
    pub(crate) fn kinds(&self, client: usize) -> BTreeSet<char> {
        let keys = self.peers[client].records.keys();
        keys.map(|key| char::from(key[0])).collect()
    }
}
