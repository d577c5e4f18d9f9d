//! Names: of nodes, mailboxes, networks, links.
//!
//! | type          | bytes | what                                                             |
//! |---------------|-------|------------------------------------------------------------------|
//! | [`NodeId`]    | 32    | a node's Ed25519 identity key; also its address in a packet      |
//! | [`MailboxId`] | 32    | hash of a mailbox's Ed25519 key; also its address in a packet    |
//! | [`NetworkId`] | 32    | names one network, so that nothing signed for one holds in another|
//! | [`LinkId`]    | 8     | one client link of one gateway, numbered by its driver           |
//!
//! A mailbox belongs to a client, so [`MailboxId`] prints as dots (rule OPS-1): no log line or
//! error may name a client.

use core::fmt;

use sha2::{Digest, Sha256};

/// A node's Ed25519 identity key (canonical bytes; checked where documents are parsed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// Hash of a mailbox's Ed25519 key: what the fourth hop of a packet reads as "next".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub [u8; 32]);

/// Names one network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub [u8; 32]);

/// One client link of one gateway; its driver never gives a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl MailboxId {
    /// The mailbox that `key` (an Ed25519 public key) owns.
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(b"lacuna mailbox v1")
            .chain_update(key)
            .finalize();
        Self(hash.into())
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// The first four bytes: enough to tell nodes apart, short enough to read.
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

impl fmt::Debug for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-1
    #[test]
    fn a_mailbox_never_prints() {
        let mailbox = MailboxId::of(&[7; 32]);
        assert_eq!(format!("{mailbox:?}"), "MailboxId(..)");
        assert_ne!(mailbox, MailboxId::of(&[8; 32]));
    }
}
