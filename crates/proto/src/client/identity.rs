//! The secrets that make a client reachable.
//!
//! Spec: docs/spec/client.md, rule CLI-1.
//!
//! | offset | bytes | field                                              |
//! |--------|-------|----------------------------------------------------|
//! | 0      | 1     | version of this encoding: 1                        |
//! | 1      | 32    | mailbox secret (Ed25519): opens the mailbox        |
//! | 33     | 32    | recipient secret (X25519): peels the fifth layer   |
//! | 65     | 32    | mailbox gateway: its [`NodeId`]                    |
//!
//! Not done here: where the bytes are kept, and that only their owner reads them.

use core::fmt;

use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRng;
use sphinx::SecretKey;
use zeroize::Zeroizing;

use crate::{
    MailboxId, NetworkId, NodeId,
    address::Address,
    wire::{Open, open_statement},
};

/// Bytes of a written identity.
pub const IDENTITY_LEN: usize = 97;
const VERSION: u8 = 1;

/// One address, with the secrets behind it. Erased when dropped.
#[derive(Clone)]
pub struct Identity {
    mailbox: SigningKey,
    recipient: SecretKey,
    gateway: NodeId,
}

impl Identity {
    /// A new identity whose mailbox is at `gateway`.
    pub fn generate(rng: &mut impl CryptoRng, gateway: NodeId) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self {
            mailbox: SigningKey::from_bytes(&secret),
            recipient: SecretKey::generate(rng),
            gateway,
        }
    }

    /// The same secrets, with the mailbox at `gateway`.
    #[must_use]
    pub fn at(self, gateway: NodeId) -> Self {
        Self { gateway, ..self }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; IDENTITY_LEN]> {
        let mut bytes = Zeroizing::new([0; IDENTITY_LEN]);
        bytes[0] = VERSION;
        bytes[1..33].copy_from_slice(self.mailbox.as_bytes());
        bytes[33..65].copy_from_slice(&*self.recipient.to_bytes());
        bytes[65..].copy_from_slice(&self.gateway.0);
        bytes
    }

    /// Reads [`Identity::to_bytes`], or `None` if these are of another version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; IDENTITY_LEN]) -> Option<Self> {
        let part = |at: usize| Zeroizing::new(core::array::from_fn(|i| bytes[at + i]));
        (bytes[0] == VERSION).then(|| Self {
            mailbox: SigningKey::from_bytes(&part(1)),
            recipient: SecretKey::from_bytes(*part(33)),
            gateway: NodeId(*part(65)),
        })
    }

    /// Where its mailbox is.
    #[must_use]
    pub fn gateway(&self) -> NodeId {
        self.gateway
    }

    /// Its mailbox.
    #[must_use]
    pub fn mailbox(&self) -> MailboxId {
        MailboxId::of(self.mailbox.verifying_key().as_bytes())
    }

    /// What others send to.
    #[must_use]
    pub fn address(&self) -> Address {
        Address {
            gateway: self.gateway,
            mailbox: self.mailbox(),
            key: self.recipient.public(),
        }
    }

    /// The key of the fifth layer.
    pub(crate) fn recipient(&self) -> &SecretKey {
        &self.recipient
    }

    /// Proof that the mailbox is one's own, for one link of one network (LNK-4).
    pub(crate) fn open(&self, slot: u16, network: &NetworkId, exporter: &[u8; 32]) -> Open {
        let statement = open_statement(network, &self.mailbox(), exporter);
        let (key, signature) = self.sign(&statement);
        Open {
            slot,
            key,
            signature,
        }
    }

    /// The mailbox' key, and its signature over a statement that names its purpose.
    pub(crate) fn sign(&self, statement: &[u8]) -> ([u8; 32], [u8; 64]) {
        let key = self.mailbox.verifying_key().to_bytes();
        (key, self.mailbox.sign(statement).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    /// CLI-1
    #[test]
    fn an_identity_reads_back_and_keeps_its_address() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let identity = Identity::generate(&mut rng, NodeId([6; 32]));
        let bytes = identity.to_bytes();
        let again = Identity::from_bytes(&bytes).expect("its own bytes");
        assert_eq!(again.address(), identity.address());
        assert_eq!(again.to_bytes(), bytes);
        let mut other = *bytes;
        other[0] = 2;
        assert!(Identity::from_bytes(&other).is_none());
        assert_eq!(format!("{identity:?}"), "Identity(..)");
    }
}
