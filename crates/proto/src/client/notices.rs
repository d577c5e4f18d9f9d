//! What a client makes of what nodes say of themselves.
//!
//! Spec: docs/spec/loops.md, rules LOOP-10 to LOOP-12.
//!
//! | notice      | of its entry gateway            | of any other node              |
//! |-------------|---------------------------------|--------------------------------|
//! | withdrawal  | enters by another gateway       | is told; does not move there   |
//! | alarm       | is told                         | is told; may pause for ten     |
//! |             |                                 | minutes, if its own loops say so |
//! | of a mix    |                                 | judges no loops through it while |
//! |             |                                 | it holds                       |
//!
//! Invariant: an alarm of others by itself changes nothing that the client sends. Its own loops
//! decide that (LOOP-6): else one corrupt node could stop every client.

use super::{Client, ClientDrop, ClientEvent, Concerns};
use crate::{
    notice::{NoticeDrop, What},
    wire::Frame,
};

impl Client {
    /// A notice from the mailbox link.
    pub(super) fn notice(&mut self, frame: &Frame) -> Result<ClientEvent, ClientDrop> {
        let Some((utc, consensus)) = self.utc(self.now).zip(self.consensus.clone()) else {
            return Err(ClientDrop::Notice(NoticeDrop::Stale));
        };
        let network = &self.config.network;
        let heard = self.heard.hear(frame, utc, network, &consensus);
        let notice = heard.map_err(ClientDrop::Notice)?;
        let concerns = if self.entry.gateway() == Some(notice.node) {
            Concerns::Entry
        } else if self.mailbox_gateway() == notice.node {
            Concerns::Mailbox
        } else {
            Concerns::Other
        };
        if notice.what == What::Withdrawal {
            self.entry.withdraws(notice.node, utc.as_secs()); // mailboxes do not move there (CLI-40)
            // One of the day's four (CLI-30).
            if concerns == Concerns::Entry && self.enter_elsewhere() {
                self.entry_replaced();
            }
        }
        if notice.what == What::Alarm && concerns != Concerns::Entry {
            self.alarms.confirm(self.now); // LOOP-11
        }
        let is_other_mix =
            self.config.via != Some(notice.node) && consensus.layer(&notice.node).is_some();
        if notice.what == What::Alarm && is_other_mix {
            self.mix_holds(notice.node, notice.minute); // LOOP-12
        }
        Ok(ClientEvent::Noticed(notice.what, concerns))
    }
}
