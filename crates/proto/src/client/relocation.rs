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
//! | 224    | 32    | the old mailbox' key, of which its id is the hash                     |
//! | 256    | 64    | that key's signature over domain, network, order, old and new address |
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
pub const RELOCATION_LEN: usize = 16 + 8 + 8 + 2 * ADDRESS_LEN + 32 + 64;

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
    /// The old mailbox' key.
    pub key: [u8; 32],
    /// By that key.
    pub signature: [u8; 64],
}

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
    /// Says so of `old`, as only its owner can.
    #[must_use]
    pub fn sign(
        network: &NetworkId,
        (id, epoch): (MessageId, Epoch),
        order: u64,
        old: &Identity,
        new: Address,
    ) -> Self {
        let statement = statement(network, order, &old.address(), &new);
        let (key, signature) = old.sign(&statement);
        Self {
            id,
            epoch,
            order,
            old: old.address(),
            new,
            key,
            signature,
        }
    }

    /// Whether the owner of the old address says so (MSG-24).
    #[must_use]
    pub fn is_proven(&self, network: &NetworkId) -> bool {
        let statement = statement(network, self.order, &self.old, &self.new);
        let signature = Signature::from_bytes(&self.signature);
        MailboxId::of(&self.key) == self.old.mailbox
            && self.old != self.new
            && VerifyingKey::from_bytes(&self.key)
                .is_ok_and(|key| key.verify_strict(&statement, &signature).is_ok())
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.id.0);
        bytes.extend(self.epoch.0.to_be_bytes());
        bytes.extend(self.order.to_be_bytes());
        bytes.extend(self.old.to_bytes());
        bytes.extend(self.new.to_bytes());
        bytes.extend(self.key);
        bytes.extend(self.signature);
    }

    /// Reads one that is exactly `bytes`; an address with an unsafe key is none (ADR-1).
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (order, rest) = rest.split_first_chunk()?;
        let (old, rest) = rest.split_first_chunk()?;
        let (new, rest) = rest.split_first_chunk()?;
        let (key, signature) = rest.split_first_chunk()?;
        let signature = signature.try_into().ok()?;
        Some(Self {
            id: MessageId(*id),
            epoch: Epoch(u64::from_be_bytes(*epoch)),
            order: u64::from_be_bytes(*order),
            old: Address::from_bytes(old).ok()?,
            new: Address::from_bytes(new).ok()?,
            key: *key,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::NodeId;

    /// MSG-24: what anybody changes in it, and what another signs, proves nothing.
    #[test]
    fn only_the_owner_of_the_old_address_can_say_so() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let mut identity = || Identity::generate(&mut rng, NodeId([6; 32]));
        let (old, new, other) = (identity(), identity(), identity());
        let network = NetworkId([7; 32]);
        let id = (MessageId([1; 16]), Epoch(5));
        let good = Relocation::sign(&network, id, 9, &old, new.address());
        assert!(good.is_proven(&network) && !good.is_proven(&NetworkId([8; 32])));
        let mut bytes = Vec::new();
        good.write(&mut bytes);
        assert_eq!(bytes.len(), RELOCATION_LEN);
        assert!(Relocation::parse(&bytes) == Some(good.clone()));
        for wrong in [&bytes[1..], &[&bytes[..], &[0]].concat()] {
            assert!(Relocation::parse(wrong).is_none());
        }
        let changed: [&dyn Fn(&mut Relocation); 6] = [
            &|of| of.order += 1,
            &|of| of.old = other.address(),
            &|of| of.new = other.address(),
            &|of| of.key = Relocation::sign(&network, id, 9, &other, new.address()).key,
            &|of| of.signature[0] ^= 1,
            &|of| *of = Relocation::sign(&network, id, 9, &old, old.address()),
        ];
        for change in changed {
            let mut forged = good.clone();
            change(&mut forged);
            assert!(!forged.is_proven(&network));
        }
    }
}
