//! The client's own reply blocks: made, given away, and recognised when one comes back.
//!
//! Spec: docs/spec/client.md, rules CLI-18 and CLI-19.
//!
//! | quantity | type           | unit, range                                                     |
//! |----------|----------------|-----------------------------------------------------------------|
//! | route    | five hops      | mix 1, mix 2, mix 3, own mailbox gateway, own address' key      |
//! | secret   | [`SurbSecret`] | kept, durably, until a reply came or `until`                    |
//! | of       | [`MessageId`]  | the message that brought the reply block, itself or by a probe  |
//! | until    | UTC s          | a reply may wait in the mailbox for the whole expiry            |
//!
//! Single use: the first reply takes the secret out, so a second one is a reply to nothing.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use sphinx::{Builder, Draft, SURB_SECRET_LEN, Surb, SurbId, SurbSecret};

use super::{
    MessageId,
    journal::{Journal, key, kind},
    route::{Map, NoRoute},
};
use crate::address::Address;

#[derive(Default)]
pub(crate) struct Surbs {
    secrets: BTreeMap<SurbId, Lent>,
    by_until: BTreeSet<(u64, SurbId)>,
}

/// A reply block that another holds.
struct Lent {
    until_s: u64,
    of: MessageId,
    secret: SurbSecret,
}

/// Fresh reply blocks, and the secrets to keep for them.
pub(crate) struct Batch {
    pub(crate) surbs: Vec<Surb>,
    pub(crate) secrets: Vec<SurbSecret>,
}

/// Makes `count` reply blocks that lead to `home` (CLI-18): all at once, which is the cheapest.
pub(crate) fn batch(
    rng: &mut impl CryptoRng,
    map: Map<'_>,
    home: &Address,
    count: usize,
) -> Result<Batch, NoRoute> {
    let mut drafts = Vec::with_capacity(count);
    for _ in 0..count {
        let route = map.route(rng, home)?;
        drafts.push(Draft::reply(rng, &route.hops, [0; 32]));
    }
    let (surbs, secrets) = Builder::default().surbs(&drafts).into_iter().unzip();
    Ok(Batch { surbs, secrets })
}

impl Surbs {
    /// Reads a record back; `false` if it is none.
    pub(crate) fn restore(&mut self, id: &[u8], value: &[u8]) -> bool {
        let Ok(id) = SurbId::try_from(id) else {
            return false;
        };
        let Some((until_s, rest)) = value.split_first_chunk() else {
            return false;
        };
        let Some((of, secret)) = rest.split_first_chunk() else {
            return false;
        };
        let Ok(secret) = <&[u8; SURB_SECRET_LEN]>::try_from(secret) else {
            return false;
        };
        let lent = Lent {
            until_s: u64::from_be_bytes(*until_s),
            of: MessageId(*of),
            secret: SurbSecret::from_bytes(secret),
        };
        self.insert(id, lent);
        true
    }

    fn insert(&mut self, id: SurbId, lent: Lent) {
        self.by_until.insert((lent.until_s, id));
        self.secrets.insert(id, lent);
    }

    pub(crate) fn len(&self) -> usize {
        self.secrets.len()
    }

    /// Keeps the secrets of a batch that message `of` brings.
    pub(crate) fn keep(
        &mut self,
        of: MessageId,
        secrets: Vec<SurbSecret>,
        until_s: u64,
        journal: &mut Journal,
    ) {
        for secret in secrets {
            let id = secret.id();
            let head = until_s.to_be_bytes();
            let value = [head.as_slice(), &of.0, &*secret.to_bytes()].concat();
            journal.put(key(kind::SURB, &[&id]), value);
            let lent = Lent {
                until_s,
                of,
                secret,
            };
            self.insert(id, lent);
        }
    }

    /// Takes the secret of a reply that came, for good (CLI-19), and whose it was.
    pub(crate) fn take(
        &mut self,
        id: &SurbId,
        journal: &mut Journal,
    ) -> Option<(MessageId, SurbSecret)> {
        let lent = self.secrets.remove(id)?;
        self.by_until.remove(&(lent.until_s, *id));
        journal.delete(key(kind::SURB, &[id]));
        Some((lent.of, lent.secret))
    }

    /// Forgets the secrets whose replies can come no more.
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        while let Some((until_s, id)) = self.by_until.first().copied()
            && until_s <= now_s
        {
            self.take(&id, journal);
            self.by_until.remove(&(until_s, id));
        }
    }
}
