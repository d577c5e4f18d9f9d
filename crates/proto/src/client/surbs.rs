//! The client's own reply blocks: made, given away, and recognised when one comes back.
//!
//! Spec: docs/spec/client.md, rules CLI-18 and CLI-19; docs/spec/message.md, rule MSG-22.
//!
//! | quantity | type           | unit, range                                                     |
//! |----------|----------------|-----------------------------------------------------------------|
//! | route    | five hops      | mix 1, mix 2, mix 3, own mailbox gateway, own address' key      |
//! | secret   | [`SurbSecret`] | kept, durably, until a reply came or `until`                    |
//! | of       | [`MessageId`]  | the message that brought the reply block, itself or by a probe  |
//! | until    | UTC s          | a reply may wait in the mailbox for the whole expiry            |
//! | loan     | per message    | how many for its answer, and where more of them are sent        |
//! | out      | count          | of a message's reply blocks, those that did not come back       |
//!
//! Single use: the first reply takes the secret out, so a second one is a reply to nothing.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use sphinx::{Builder, Draft, SURB_SECRET_LEN, Surb, SurbId, SurbSecret};

use super::{
    MessageId, Target,
    journal::{Journal, key, kind},
    outgoing::{parse_target, write_target},
    returns::RESERVE,
    route::{Map, NoRoute},
};
use crate::{Time, address::Address};

#[derive(Default)]
pub(crate) struct Surbs {
    secrets: BTreeMap<SurbId, Lent>,
    by_until: BTreeSet<(u64, SurbId)>,
    loans: BTreeMap<MessageId, Loan>,
    out: BTreeMap<MessageId, usize>,
}

/// Most reply blocks of a message that are out at a time, before no more are brought: so many times
/// those of its loan. Losses keep some out for good; a recipient who only asks gets no more.
const OUT_MAX: usize = 8;

/// What the owner lent with a message.
struct Loan {
    until_s: u64,
    /// Reply blocks for the answer.
    lent: u8,
    to: Target,
    /// Grows each time more are brought.
    generation: u32,
    /// More were brought, and may not be there yet.
    rests_until: Time,
}

/// A reply block that another holds.
struct Lent {
    until_s: u64,
    of: MessageId,
    /// Of the loan when it was made.
    generation: u32,
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
            generation: 0,
            secret: SurbSecret::from_bytes(secret),
        };
        self.insert(id, lent);
        true
    }

    fn insert(&mut self, id: SurbId, lent: Lent) {
        self.by_until.insert((lent.until_s, id));
        *self.out.entry(lent.of).or_default() += 1;
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
        let generation = self.loans.get(&of).map_or(0, |loan| loan.generation);
        for secret in secrets {
            let id = secret.id();
            let head = until_s.to_be_bytes();
            let value = [head.as_slice(), &of.0, &*secret.to_bytes()].concat();
            journal.put(key(kind::SURB, &[&id]), value);
            let lent = Lent {
                until_s,
                of,
                generation,
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
        if let Some(out) = self.out.get_mut(&lent.of) {
            *out -= 1;
            if *out == 0 {
                self.out.remove(&lent.of);
            }
        }
        // The last ones that were brought are there.
        let loan = self.loans.get_mut(&lent.of);
        if let Some(loan) = loan.filter(|loan| loan.generation == lent.generation) {
            loan.rests_until = Time::ZERO;
        }
        journal.delete(key(kind::SURB, &[id]));
        Some((lent.of, lent.secret))
    }

    /// Notes how many reply blocks a message lends for its answer, and where it goes (MSG-22).
    pub(crate) fn lend(
        &mut self,
        of: MessageId,
        to: Target,
        lent: u8,
        until_s: u64,
        journal: &mut Journal,
    ) {
        let mut value = until_s.to_be_bytes().to_vec();
        value.push(lent);
        write_target(&to, &mut value);
        journal.put(key(kind::LOAN, &[&of.0]), value);
        self.insert_loan(of, to, lent, until_s);
    }

    fn insert_loan(&mut self, of: MessageId, to: Target, lent: u8, until_s: u64) {
        let loan = Loan {
            until_s,
            lent,
            to,
            generation: 0,
            rests_until: Time::ZERO,
        };
        self.loans.insert(of, loan);
    }

    /// Reads a loan's record back; `false` if it is none.
    pub(crate) fn restore_loan(&mut self, of: MessageId, value: &[u8]) -> bool {
        let parsed = || {
            let (until_s, rest) = value.split_first_chunk()?;
            let (lent, rest) = rest.split_first()?;
            let (to, rest) = parse_target(rest)?;
            rest.is_empty()
                .then_some((to, *lent, u64::from_be_bytes(*until_s)))
        };
        let parsed = parsed();
        if let Some((to, lent, until_s)) = parsed {
            self.insert_loan(of, to, lent, until_s);
        }
        parsed.is_some()
    }

    /// How many messages lend reply blocks.
    pub(crate) fn loans(&self) -> usize {
        self.loans.len()
    }

    /// Where a message that lends reply blocks went.
    pub(crate) fn target(&self, of: MessageId) -> Option<Target> {
        self.loans.get(&of).map(|loan| loan.to)
    }

    /// How many reply blocks to bring the recipient of a message who has only `left` of them: enough
    /// to make up what was lent and the reserve; none while those may be under way, or when too many
    /// did not come back (MSG-22).
    pub(crate) fn owed(&self, of: MessageId, left: u16, now: Time) -> Option<usize> {
        let loan = self.loans.get(&of)?;
        let (left, most) = (usize::from(left), usize::from(loan.lent) + RESERVE);
        let out = self.out.get(&of).copied().unwrap_or(0);
        let count = most.saturating_sub(left);
        let may = now >= loan.rests_until && out + count <= OUT_MAX * most;
        (left < RESERVE && may).then_some(count)
    }

    /// More are brought now, and are there by `rests_until` if they arrive.
    pub(crate) fn bring(&mut self, of: MessageId, rests_until: Time) {
        if let Some(loan) = self.loans.get_mut(&of) {
            loan.generation += 1;
            loan.rests_until = rests_until;
        }
    }

    /// Forgets the secrets whose replies can come no more, and loans that are over.
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        self.loans.retain(|of, loan| {
            let keep = now_s < loan.until_s;
            if !keep {
                journal.delete(key(kind::LOAN, &[&of.0]));
            }
            keep
        });
        while let Some((until_s, id)) = self.by_until.first().copied()
            && until_s <= now_s
        {
            self.take(&id, journal);
            self.by_until.remove(&(until_s, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng as _;
    use sphinx::{Hop, SecretKey};

    use super::*;
    use crate::client::ReplyToken;

    const OF: MessageId = MessageId([1; 16]);

    /// Lends so many, as [`Client`](super::super::Client) does; their ids.
    fn bring(surbs: &mut Surbs, rng: &mut ChaCha20Rng, count: usize) -> Vec<SurbId> {
        let key = SecretKey::generate(rng).public();
        let hop = Hop {
            address: [1; 32],
            key,
            delay_ns: 0,
        };
        let made = (0..count).map(|_| sphinx::surb(rng, &[hop; 5], [0; 32]).1);
        let made: Vec<SurbSecret> = made.collect();
        let ids = made.iter().map(SurbSecret::id).collect();
        surbs.keep(OF, made, 1000, &mut Journal::default());
        ids
    }

    /// MSG-22: more are brought when fewer than the reserve are left, not again before those can be
    /// there, and never more than so many that do not come back, whatever a recipient says.
    #[test]
    fn a_loan_is_made_up_and_bounded() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (mut surbs, mut journal) = (Surbs::default(), Journal::default());
        let now = |s: u64| Time::from_nanos(s * 1_000_000_000);
        let to = Target::Reply(ReplyToken::from_bytes([2; 16]));
        assert_eq!(surbs.owed(OF, 0, now(0)), None, "nothing was lent");
        surbs.lend(OF, to, 5, 500, &mut journal);
        let first = bring(&mut surbs, &mut rng, 9);
        assert_eq!(surbs.owed(OF, 3, now(0)), None);
        assert_eq!(surbs.owed(OF, 2, now(0)), Some(6));
        surbs.bring(OF, now(10));
        let second = bring(&mut surbs, &mut rng, 6);
        assert_eq!(surbs.owed(OF, 2, now(9)), None, "they may be under way");
        // One of the first comes back, which says nothing of the second; then one of those.
        assert!(surbs.take(&first[0], &mut journal).is_some());
        assert_eq!(surbs.owed(OF, 1, now(9)), None);
        assert!(surbs.take(&second[0], &mut journal).is_some());
        assert_eq!(surbs.owed(OF, 1, now(9)), Some(7));
        // Whoever asks and never uses what he gets comes to an end.
        let (mut at, mut asked) = (9, 0);
        while let Some(count) = surbs.owed(OF, 0, now(at)) {
            at += 10;
            surbs.bring(OF, now(at));
            bring(&mut surbs, &mut rng, count);
            asked += 1;
        }
        assert!((4..8).contains(&asked), "{asked}");
        assert!(surbs.len() <= OUT_MAX * (5 + RESERVE));
        // A restart knows the loan, and it ends.
        let mut again = Surbs::default();
        let value = {
            let mut value = 500u64.to_be_bytes().to_vec();
            value.push(5);
            write_target(&to, &mut value);
            value
        };
        assert!(again.restore_loan(OF, &value) && !again.restore_loan(OF, &value[1..]));
        assert_eq!(
            (again.owed(OF, 0, now(0)), again.target(OF)),
            (Some(8), Some(to))
        );
        again.expire(500, &mut journal);
        assert_eq!((again.owed(OF, 0, now(0)), again.loans()), (None, 0));
    }
}
