//! A node's keys on disk: identity, link key, and a packet key for each epoch.
//!
//! Spec: docs/spec/directory.md, DIR-3, DIR-4; docs/spec/epochs.md, EPO-2, EPO-5;
//! docs/spec/gateway.md, GW-27.
//!
//! | file                  | bytes | what                                                       |
//! |-----------------------|-------|------------------------------------------------------------|
//! | `identity`            | 32    | seed of the Ed25519 key that names the node                |
//! | `link`                | 32    | seed of the Ed25519 key that TLS presents                  |
//! | `packet-keys/EPOCH`   | 32    | X25519 secret of one epoch                                 |
//! | `packet-keys/chain-N` | 32    | at a front end instead: what the secrets of epoch N and of |
//! |                       |       | all after it follow from ([`Keys::follow_a_chain`])        |
//!
//! All are drawn here once, kept 0600 in a 0700 directory ([`crate::state`]), and zeroed in
//! memory when dropped. A packet key is made when it is first published and erased when its
//! window has ended or its replay journal can't be trusted; an erased key is never made again
//! under the same descriptor, since only [`Keys::descriptor`] makes keys. The front ends of a gateway
//! have to know the same keys without being told each: theirs follow from one secret, which moves on
//! when an epoch's key is erased, and does not lead back.
//!
//! A secret of zeros is none: it is what [`state::erase`](crate::state::erase) leaves when the process is
//! killed before the file is gone. The erasure of a packet key is then finished. What is never erased
//! while it is needed (identity, link key, newest chain) is damaged.
//!
//! Not done here: wrapping future keys on disk, a passphrase, a signer on another machine.

use core::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId,
    calendar::Epoch,
    directory::{
        Descriptor, LinkCertificate, Params, Role, SelfCheck, SignedDescriptor,
        descriptor::DescriptorError,
    },
};
use sphinx::SecretKey;
use zeroize::Zeroizing;

use crate::{
    chain::{Secret, derive, run},
    entropy::seed,
    state::{StateDir, StateError},
};

const PACKET_KEYS: &str = "packet-keys";
const CHAIN: &str = "chain-";
/// Most epochs that a key may be ahead of its chain: only a liar asks for more.
const AHEAD_MAX: u64 = 100_000;
const DAY_S: u64 = 86_400;
const IDENTITY_DAMAGED: &str =
    "restore it from a backup, or remove it and run `init`: this is another node then";
const LINK_DAMAGED: &str = "remove it: a new one is made at the start";
const PACKET_KEY_DAMAGED: &str =
    "remove it: the node then takes no packets under it, and goes on with the next epoch's";
const CHAIN_DAMAGED: &str = "copy `packet-keys` from another front end as it is now; if there is none, remove it: packets \
     are taken again from the next document on";

/// The keys of one node, in its state directory.
#[derive(Debug)]
pub struct Keys {
    state: StateDir,
    identity: SigningKey,
    link: SigningKey,
    /// Held while packet keys are made: two who ask at once must be told the same keys.
    making: Mutex<Option<Chain>>,
}

/// What packet keys follow from.
struct Chain {
    /// The first that do.
    next: Epoch,
    secret: Secret,
}

impl Chain {
    fn name(epoch: Epoch) -> String {
        format!("{PACKET_KEYS}/{CHAIN}{}", epoch.0)
    }

    fn after(&self, steps: u64) -> Secret {
        run(&self.secret, steps, b"lacuna packet keys next epoch")
    }

    fn packet_secret(&self, epoch: Epoch) -> Option<SecretKey> {
        let ahead = epoch.0.checked_sub(self.next.0);
        let ahead = ahead.filter(|ahead| *ahead <= AHEAD_MAX)?;
        let secret = derive(&self.after(ahead), b"lacuna packet key");
        Some(SecretKey::from_bytes(*secret))
    }
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Chain(..)")
    }
}

/// What a node says of itself, keys apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Mix or gateway.
    pub role: Role,
    /// Where others reach it, `host:port`.
    pub address: String,
    /// Who runs it.
    pub family: String,
    /// What its processor can do.
    pub check: SelfCheck,
}

/// Why there is no descriptor.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// What the node says of itself is refused.
    #[error(
        "this node's own description is refused: {0:?}; check the advertised address and family"
    )]
    Descriptor(DescriptorError),
}

impl Keys {
    /// Reads the identity and the link key, or draws them if there are none yet.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn open(state: StateDir) -> Result<Self, StateError> {
        let identity = signing_key(&state, "identity", IDENTITY_DAMAGED)?;
        let link = signing_key(&state, "link", LINK_DAMAGED)?;
        let chain = chain(&state)?;
        Ok(Self {
            state,
            identity,
            link,
            making: Mutex::new(chain),
        })
    }

    /// From now on packet keys follow from one secret, which is drawn if there is none yet; those that
    /// were made before stay (GW-27).
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn follow_a_chain(&self) -> Result<(), StateError> {
        let mut making = self.making();
        if making.is_none() {
            let made = self.files()?.last().map_or(0, |last| last.0 + 1);
            let (next, secret) = (Epoch(made), Zeroizing::new(seed()));
            self.state.write(&Chain::name(next), secret.as_slice())?;
            *making = Some(Chain { next, secret });
        }
        Ok(())
    }

    fn making(&self) -> MutexGuard<'_, Option<Chain>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.identity.verifying_key().to_bytes())
    }

    /// The key that signs descriptors, and an authority's votes.
    #[must_use]
    pub fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The key that TLS presents.
    #[must_use]
    pub fn link(&self) -> &SigningKey {
        &self.link
    }

    /// The directory that they are in, for what else must outlive the process.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The identity's word for the link key, for the UTC seconds `validity` (DIR-3).
    #[must_use]
    pub fn certificate(&self, network: &NetworkId, validity: Range<u64>) -> LinkCertificate {
        let link_key = self.link.verifying_key().to_bytes();
        LinkCertificate::sign(network, &self.identity, link_key, validity)
    }

    /// Makes what is missing of the packet keys for `period`, and signs a descriptor with them
    /// (DIR-4). Asked again for the same, it says the same keys.
    ///
    /// # Errors
    ///
    /// [`KeysError`].
    pub fn descriptor(
        &self,
        network: &NetworkId,
        about: &About,
        period: u64,
        params: &Params,
        now_s: u64,
    ) -> Result<SignedDescriptor, KeysError> {
        let making = self.making();
        let first = period * u64::from(params.epochs);
        let count = u64::from(params.epochs) * 2;
        let mut packet_keys = Vec::new();
        for epoch in (first..first + count).map(Epoch) {
            let secret = match self.kept(making.as_ref(), epoch)? {
                Some(secret) => secret,
                None => self.make(epoch)?,
            };
            packet_keys.push(secret.public());
        }
        // The document may start a while after its nodes have described themselves.
        let span_s = count * u64::from(params.epoch_s);
        let validity = now_s.saturating_sub(DAY_S)..now_s + span_s + 30 * DAY_S;
        let descriptor = Descriptor {
            role: about.role,
            id: self.id(),
            address: about.address.clone(),
            link: self.certificate(network, validity),
            family: about.family.clone(),
            period,
            packet_keys,
            check: about.check.clone(),
        };
        let signed = SignedDescriptor::sign(network, &self.identity, &descriptor);
        signed.map_err(KeysError::Descriptor)
    }

    /// The packet key of `epoch`, unless it was never made or is erased.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn packet_secret(&self, epoch: Epoch) -> Result<Option<SecretKey>, StateError> {
        self.kept(self.making().as_ref(), epoch)
    }

    fn kept(&self, chain: Option<&Chain>, epoch: Epoch) -> Result<Option<SecretKey>, StateError> {
        let name = file_of(epoch);
        let secret = secret(&self.state, &name, PACKET_KEY_DAMAGED)?;
        if secret.as_deref().is_some_and(is_blank) {
            self.state.erase(&name)?;
            return Ok(None);
        }
        let secret = secret.map(|bytes| SecretKey::from_bytes(*bytes));
        Ok(secret.or_else(|| chain?.packet_secret(epoch)))
    }

    fn make(&self, epoch: Epoch) -> Result<SecretKey, StateError> {
        let secret = Zeroizing::new(seed());
        self.state.write(&file_of(epoch), secret.as_slice())?;
        Ok(SecretKey::from_bytes(*secret))
    }

    /// Erases the secret of `epoch`: its window has ended, or its replay journal has lost
    /// records and it must never open another packet (EPO-5). Those before it that follow from a chain
    /// go with it.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn erase(&self, epoch: Epoch) -> Result<(), StateError> {
        let mut making = self.making();
        if let Some(chain) = making.as_mut().filter(|chain| chain.next <= epoch) {
            let next = Epoch(epoch.0 + 1);
            let secret = chain.after(next.0 - chain.next.0);
            self.state.write(&Chain::name(next), secret.as_slice())?;
            self.state.erase(&Chain::name(chain.next))?;
            *chain = Chain { next, secret };
        }
        self.state.erase(&file_of(epoch))
    }

    /// The epochs whose secrets are on disk, rising; of those that follow from a chain the first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn epochs(&self) -> Result<Vec<Epoch>, StateError> {
        let making = self.making();
        let mut epochs = self.files()?;
        epochs.extend(making.as_ref().map(|chain| chain.next));
        epochs.sort_unstable();
        epochs.dedup();
        Ok(epochs)
    }

    fn files(&self) -> Result<Vec<Epoch>, StateError> {
        let names = self.state.list(PACKET_KEYS)?;
        let numbers = names.iter().filter_map(|name| name.parse().ok());
        let mut epochs: Vec<Epoch> = numbers.map(Epoch).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }
}

fn file_of(epoch: Epoch) -> String {
    format!("{PACKET_KEYS}/{}", epoch.0)
}

/// The newest chain. One before it was to be erased when the process was killed.
fn chain(state: &StateDir) -> Result<Option<Chain>, StateError> {
    let names = state.list(PACKET_KEYS)?;
    let numbers = names
        .iter()
        .filter_map(|name| name.strip_prefix(CHAIN)?.parse().ok());
    let mut found: Vec<Epoch> = numbers.map(Epoch).collect();
    found.sort_unstable();
    let Some(next) = found.pop() else {
        return Ok(None);
    };
    let secret = whole(state, &Chain::name(next), CHAIN_DAMAGED)?;
    for old in found {
        state.erase(&Chain::name(old))?;
    }
    Ok(secret.map(|secret| Chain { next, secret }))
}

/// The secret in the file `name`, if there is one; `remedy` is for one of another length.
fn secret(
    state: &StateDir,
    name: &str,
    remedy: &'static str,
) -> Result<Option<Secret>, StateError> {
    let Some(bytes) = state.read(name)? else {
        return Ok(None);
    };
    let bytes = bytes.as_slice().try_into();
    bytes
        .map(|bytes| Some(Zeroizing::new(bytes)))
        .map_err(|_| damaged(state, name, remedy))
}

/// One that nobody erases.
fn whole(state: &StateDir, name: &str, remedy: &'static str) -> Result<Option<Secret>, StateError> {
    let secret = secret(state, name, remedy)?;
    if secret.as_deref().is_some_and(is_blank) {
        return Err(damaged(state, name, remedy));
    }
    Ok(secret)
}

/// Whether it is half erased; in constant time.
fn is_blank(secret: &[u8; 32]) -> bool {
    secret.iter().fold(0, |any, byte| any | byte) == 0
}

fn damaged(state: &StateDir, name: &str, remedy: &'static str) -> StateError {
    let path = state.path(name).display().to_string();
    StateError::DamagedKey { path, remedy }
}

fn signing_key(
    state: &StateDir,
    name: &str,
    remedy: &'static str,
) -> Result<SigningKey, StateError> {
    let bytes = match whole(state, name, remedy)? {
        Some(bytes) => bytes,
        None => {
            let bytes = Zeroizing::new(seed());
            state.write(name, bytes.as_slice())?;
            bytes
        }
    };
    Ok(SigningKey::from_bytes(&bytes))
}

#[cfg(test)]
mod tests;
