//! The notice by which the owner of an address tells a correspondent of its next one.
//!
//! Spec: docs/spec/message.md, rules MSG-24 and MSG-25.
//!
//! | offset | bytes | field                                                                 |
//! |--------|-------|-----------------------------------------------------------------------|
//! | 0      | 16    | id: what the correspondent acknowledges                               |
//! | 16     | 8     | epoch in which this packet was made                                   |
//! | 24     | 8     | order: of two notices about one address the higher one holds          |
//! | 32     | 96    | the old address                                                       |
//! | 128    | 96    | the new one                                                           |
//! | 224    | 96    | the old mailbox' key, of which its id is the hash, and that key's     |
//! |        |       | signature over domain, network, order, old and new address            |
//! | 320    | 96    | the same of the new mailbox: nobody is sent to who does not want it   |
//!
//! Not done here: whom it concerns, and what is done about it.

use ed25519_dalek::{Signature, VerifyingKey};

use super::{Identity, MessageId};
use crate::{
    MailboxId, NetworkId,
    address::{ADDRESS_LEN, Address},
    calendar::Epoch,
};

/// Bytes of a notice.
pub const RELOCATION_LEN: usize = 16 + 8 + 8 + 2 * ADDRESS_LEN + 2 * (32 + 64);

/// What an address' owner says of its successor.
#[derive(Clone, PartialEq, Eq)]
pub struct Relocation {
    /// What its ack names.
    pub id: MessageId,
    /// When it was sent: it is taken as long as a message made then (MSG-4).
    pub epoch: Epoch,
    /// Ascends with each move.
    pub order: u64,
    /// The address that moved.
    pub old: Address,
    /// Where to send from now on.
    pub new: Address,
    /// The old mailbox' key, and its signature.
    pub left: Signed,
    /// The new mailbox' key, and its signature.
    pub entered: Signed,
}

/// A mailbox' key and what it signs.
type Signed = ([u8; 32], [u8; 64]);

impl core::fmt::Debug for Relocation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Relocation(..)")
    }
}

fn statement(network: &NetworkId, order: u64, old: &Address, new: &Address) -> Vec<u8> {
    [
        b"lacuna relocation v1".as_slice(),
        &network.0,
        &order.to_be_bytes(),
        &old.to_bytes(),
        &new.to_bytes(),
    ]
    .concat()
}

impl Relocation {
    /// Says so of `old`, as only the owner of both can.
    #[must_use]
    pub fn sign(
        network: &NetworkId,
        (id, epoch): (MessageId, Epoch),
        order: u64,
        old: &Identity,
        new: &Identity,
    ) -> Self {
        let [from, to] = [old, new].map(Identity::address);
        let statement = statement(network, order, &from, &to);
        Self {
            id,
            epoch,
            order,
            old: from,
            new: to,
            left: old.sign(&statement),
            entered: new.sign(&statement),
        }
    }

    /// Whether the owner of both addresses says so (MSG-24).
    #[must_use]
    pub fn is_proven(&self, network: &NetworkId) -> bool {
        let statement = statement(network, self.order, &self.old, &self.new);
        let signs = |mailbox: MailboxId, (key, signature): &Signed| {
            let signature = Signature::from_bytes(signature);
            MailboxId::of(key) == mailbox
                && VerifyingKey::from_bytes(key)
                    .is_ok_and(|key| key.verify_strict(&statement, &signature).is_ok())
        };
        self.old != self.new
            && signs(self.old.mailbox, &self.left)
            && signs(self.new.mailbox, &self.entered)
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.id.0);
        bytes.extend(self.epoch.0.to_be_bytes());
        bytes.extend(self.order.to_be_bytes());
        bytes.extend(self.old.to_bytes());
        bytes.extend(self.new.to_bytes());
        for (key, signature) in [&self.left, &self.entered] {
            bytes.extend(key);
            bytes.extend(signature);
        }
    }

    /// Reads one that is exactly `bytes`; an address with an unsafe key is none (ADR-1).
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (order, rest) = rest.split_first_chunk()?;
        let (old, rest) = rest.split_first_chunk()?;
        let (new, rest) = rest.split_first_chunk()?;
        let (left, rest) = signed(rest)?;
        let (entered, rest) = signed(rest)?;
        rest.is_empty().then_some(Self {
            id: MessageId(*id),
            epoch: Epoch(u64::from_be_bytes(*epoch)),
            order: u64::from_be_bytes(*order),
            old: Address::from_bytes(old).ok()?,
            new: Address::from_bytes(new).ok()?,
            left,
            entered,
        })
    }
}

fn signed(bytes: &[u8]) -> Option<(Signed, &[u8])> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (signature, rest) = rest.split_first_chunk()?;
    Some(((*key, *signature), rest))
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::NodeId;

    /// MSG-24: what anybody changes in it, and what another signs, proves nothing.
    #[test]
    fn only_the_owner_of_both_addresses_can_say_so() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let mut identity = || Identity::generate(&mut rng, NodeId([6; 32]));
        let (old, new, other) = (identity(), identity(), identity());
        let network = NetworkId([7; 32]);
        let id = (MessageId([1; 16]), Epoch(5));
        let good = Relocation::sign(&network, id, 9, &old, &new);
        assert!(good.is_proven(&network) && !good.is_proven(&NetworkId([8; 32])));
        let mut bytes = Vec::new();
        good.write(&mut bytes);
        assert_eq!(bytes.len(), RELOCATION_LEN);
        assert!(Relocation::parse(&bytes) == Some(good.clone()));
        for wrong in [&bytes[1..], &[&bytes[..], &[0]].concat()] {
            assert!(Relocation::parse(wrong).is_none());
        }
        let others = |old, new| Relocation::sign(&network, id, 9, old, new);
        let changed: [&dyn Fn(&mut Relocation); 10] = [
            &|of| of.order += 1,
            &|of| of.old = other.address(),
            &|of| of.new = other.address(),
            &|of| of.new.gateway = NodeId([5; 32]),
            &|of| of.left.0 = others(&other, &new).left.0,
            &|of| of.left.1[0] ^= 1,
            &|of| of.entered.1[0] ^= 1,
            &|of| *of = others(&old, &old),
            // Away from another's address, and to another's.
            &|of| of.left = others(&other, &new).left,
            &|of| {
                *of = others(&old, &other);
                of.entered = others(&old, &new).entered;
            },
        ];
        for change in changed {
            let mut forged = good.clone();
            change(&mut forged);
            assert!(!forged.is_proven(&network));
        }
    }
}
