//! End-to-end encryption of the demo's applications: Olm, by vodozemac.
//!
//! Lacuna carries messages that are already encrypted end to end by their application. The demo
//! plays two such applications, and seals with the library that Matrix clients use. Keys are
//! exchanged out of band (the supervisor carries each application's [`Bundle`] to the other, as
//! a QR code or a key server would); the sessions themselves start inside the mixnet, with the
//! first message that passes.
//!
//! | sealed message                   | bytes                                              |
//! |----------------------------------|----------------------------------------------------|
//! | type of the Olm message          | 1 (0 pre-key, 1 normal)                            |
//! | sender's Curve25519 identity key | 32                                                 |
//! | Olm message                      | the rest                                           |
//!
//! Every peer has at most two sessions: the one we began and the one it began. A message of
//! either opens, in any order within Olm's window of 40 skipped keys.
//!
//! Deliberately not here: storage of sessions (the demo's applications do not restart), and
//! verification of identities beyond the exchanged bundle.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use vodozemac::{
    Curve25519PublicKey,
    olm::{Account, OlmMessage, Session, SessionConfig},
};

/// What an application publishes so that others can write to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Its Curve25519 identity key.
    pub identity: [u8; 32],
    /// One-time keys; each begins one session.
    pub one_time: Vec<[u8; 32]>,
}

/// One application's keys and sessions.
pub struct Sealer {
    account: Account,
    sessions: BTreeMap<[u8; 32], Vec<Session>>,
}

/// Keys never print.
impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer {
    /// Fresh keys, no session. (The library draws from the system's randomness.)
    #[must_use]
    pub fn new() -> Self {
        Self {
            account: Account::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Its identity key.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        self.account.curve25519_key().to_bytes()
    }

    /// Publishes `count` new one-time keys.
    pub fn bundle(&mut self, count: usize) -> Bundle {
        let made = self.account.generate_one_time_keys(count).created;
        let one_time = made.into_iter().map(|key| key.to_bytes()).collect();
        self.account.mark_keys_as_published();
        Bundle {
            identity: self.identity(),
            one_time,
        }
    }

    /// Begins a session with the owner of `identity` by one of its one-time keys.
    ///
    /// # Errors
    ///
    /// If a key is not contributory.
    pub fn begin(&mut self, identity: [u8; 32], one_time: [u8; 32]) -> anyhow::Result<()> {
        let session = self.account.create_outbound_session(
            SessionConfig::version_1(),
            Curve25519PublicKey::from_bytes(identity),
            Curve25519PublicKey::from_bytes(one_time),
        )?;
        self.sessions.entry(identity).or_default().push(session);
        Ok(())
    }

    /// Seals `plaintext` for the owner of `identity`.
    ///
    /// # Errors
    ///
    /// If there is no session with it.
    pub fn seal(&mut self, identity: [u8; 32], plaintext: &[u8]) -> anyhow::Result<Vec<u8>> {
        let own = self.identity();
        let session = self.sessions.get_mut(&identity).and_then(|s| s.last_mut());
        let session = session.context("no session with this peer")?;
        let (kind, sealed) = session.encrypt(plaintext)?.to_parts();
        let mut message = vec![u8::try_from(kind)?];
        message.extend(own);
        message.extend(sealed);
        Ok(message)
    }

    /// Opens a sealed message: its sender's identity key and the plaintext.
    ///
    /// # Errors
    ///
    /// If it is malformed, replayed, or sealed for another.
    pub fn open(&mut self, message: &[u8]) -> anyhow::Result<([u8; 32], Vec<u8>)> {
        ensure!(message.len() > 33, "too short to be a sealed message");
        let from: [u8; 32] = message[1..33].try_into().context("32 bytes")?;
        let sealed = OlmMessage::from_parts(message[0].into(), &message[33..])?;
        let sessions = self.sessions.entry(from).or_default();
        for session in sessions.iter_mut() {
            if let Ok(plaintext) = session.decrypt(&sealed) {
                return Ok((from, plaintext));
            }
        }
        let OlmMessage::PreKey(first) = &sealed else {
            bail!("no session opens it");
        };
        let began = self.account.create_inbound_session(
            SessionConfig::version_1(),
            Curve25519PublicKey::from_bytes(from),
            first,
        )?;
        sessions.push(began.session);
        Ok((from, began.plaintext))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_open_once_in_any_order_both_ways() {
        let (mut alice, mut bob) = (Sealer::new(), Sealer::new());
        let bundle = bob.bundle(2);
        assert_eq!(bundle.one_time.len(), 2);
        alice.begin(bundle.identity, bundle.one_time[0]).unwrap();
        let sealed: Vec<_> = (0..20_u8)
            .map(|n| alice.seal(bundle.identity, &[n]).unwrap())
            .collect();
        for n in (0..20_u8).rev() {
            let opened = bob.open(&sealed[usize::from(n)]).unwrap();
            assert_eq!(opened, (alice.identity(), vec![n]));
        }
        assert!(bob.open(&sealed[3]).is_err(), "a replay opens nothing");
        let back = bob.seal(alice.identity(), b"back").unwrap();
        assert_eq!(alice.open(&back).unwrap().1, b"back");
        assert!(Sealer::new().open(&back).is_err());
    }
}
