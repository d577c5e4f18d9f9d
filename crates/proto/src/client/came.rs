//! How a packet came, and what the message in it is called here.
//!
//! Spec: docs/spec/message.md, rules MSG-19 and MSG-20.
//!
//! | quantity | type           | what                                                            |
//! |----------|----------------|-----------------------------------------------------------------|
//! | slot     | `u16`          | the address that it came to, whichever mailbox it has           |
//! | mailbox  | `u16`          | the slot of the mailbox that it was read from                   |
//! | by       | [`MessageId`]  | the client's own message whose reply block carried it, if one did |
//! | wire     | [`MessageId`]  | the message's id, as its sender drew it                         |
//! | here     | [`MessageId`]  | what stands for it in memory, in records and to the application |
//!
//! A sender chooses ids, and may send one id to two addresses to see whether what he did to one
//! shows at the other. So nothing here goes by the wire's id: a message's name here is a hash of
//! the way it came and of that id, under a secret of the client's own.

use zeroize::Zeroizing;

use super::{Identity, MessageId};

/// The way that a packet came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) slot: u16,
    pub(crate) mailbox: u16,
    pub(crate) by: Option<MessageId>,
}

/// A message that came, under both of its names.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    pub(crate) came: Came,
    pub(crate) wire: MessageId,
    pub(crate) here: MessageId,
}

impl core::fmt::Debug for Received {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Received(..)")
    }
}

/// 32 bytes that a client keeps to itself. They are no address' secret, so that they outlive each
/// of its addresses, and a copy of them opens nothing.
pub(crate) struct OwnSecret(Zeroizing<[u8; 32]>);

impl OwnSecret {
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// That of a client which is made with this identity: the same, however often it is made.
    pub(crate) fn of(identity: &Identity) -> Self {
        let bytes = identity.to_bytes();
        Self(hash(&[b"lacuna client secret v1", bytes.as_slice()]).into())
    }

    /// Secret bytes from which a number can be drawn that stays the same across restarts.
    pub(crate) fn seed(&self, purpose: &[u8], number: u64) -> [u8; 32] {
        hash(&[purpose, self.0.as_slice(), &number.to_be_bytes()])
    }

    /// A message that came so (MSG-20).
    pub(crate) fn received(&self, came: Came, wire: MessageId) -> Received {
        let slot = came.slot.to_be_bytes();
        let way = came.by.as_ref().map_or(&slot[..], |by| &by.0);
        let name = hash(&[b"lacuna received v1", self.0.as_slice(), way, &wire.0]);
        let here = MessageId(core::array::from_fn(|i| name[i]));
        Received { came, wire, here }
    }
}

/// Of parts of which at most one has not a length of its own.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSG-20
    #[test]
    fn a_message_is_called_by_the_way_it_came() {
        let secret = OwnSecret::from_bytes([1; 32]);
        let wire = MessageId([5; 16]);
        let name = |secret: &OwnSecret, slot, by: Option<u8>, wire| {
            let by = by.map(|by| MessageId([by; 16]));
            let mailbox = slot;
            secret.received(Came { slot, mailbox, by }, wire).here
        };
        let first = name(&secret, 0, None, wire);
        assert_eq!(first, name(&secret, 0, None, wire));
        for other in [
            name(&secret, 1, None, wire),
            name(&secret, 0, Some(0), wire),
            name(&secret, 0, None, MessageId([6; 16])),
            name(&OwnSecret::from_bytes([2; 32]), 0, None, wire),
        ] {
            assert!(first != other);
        }
        // Reply blocks of one message are one way, whichever address they lead to.
        assert_eq!(
            name(&secret, 0, Some(7), wire),
            name(&secret, 1, Some(7), wire)
        );
    }
}
