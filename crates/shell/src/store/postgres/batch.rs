//! One batch of calls as one transaction of few statements.
//!
//! ```text
//! BEGIN, turn, rows of the mailboxes ─▶ rounds of {put, confirm, peek} ─▶ keep rows, COMMIT
//! ```
//!
//! A *round* holds calls of which no two of different kinds concern one mailbox, so that all its
//! packets can be stored by one statement, all its cursors confirmed by another, and all its peeks
//! answered by a third, in any order. What would break this begins a new round. Expiry and usage
//! concern every mailbox and stand between rounds.
//!
//! Mailboxes' rows are read when the transaction's turn has come, changed in memory, and written
//! back at its end.

use std::collections::BTreeMap;

use proto::{
    MailboxId,
    gateway::{Change, Kept, Numbers},
};
use sphinx::Packet;
use tokio_postgres::{Row as Found, types::ToSql};

use super::{Store, column, mailbox, number, server::Failure};
use crate::store::{
    StoreError,
    calls::{Outcome, Request},
    seal::{Place, Seal},
};

/// A mailbox, and whether its row is to be written.
struct Row {
    highest: u64,
    held: u64,
    openings: u64,
    changed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Confirm,
    Peek,
}

/// Calls that one statement of each kind carries out; columns side by side.
#[derive(Default)]
struct Round {
    of: BTreeMap<MailboxId, Kind>,
    put: (Vec<MailboxId>, Vec<i64>, Vec<i64>, Vec<Vec<u8>>),
    /// With the place of its outcome.
    confirm: Vec<(MailboxId, i64, usize)>,
    peek: Vec<(MailboxId, u64, usize, usize)>,
}

/// One transaction under way.
pub(super) struct Work<'s> {
    store: &'s mut Store,
    rows: BTreeMap<MailboxId, Row>,
    round: Round,
    outcomes: Vec<Option<Outcome>>,
}

fn ids<'a>(of: impl IntoIterator<Item = &'a MailboxId>) -> Vec<&'a [u8]> {
    of.into_iter().map(|id| id.0.as_slice()).collect()
}

impl<'s> Work<'s> {
    pub(super) async fn commit(
        store: &'s mut Store,
        batch: &[Request],
    ) -> Result<Vec<Outcome>, Failure> {
        let mut work = Self {
            store,
            rows: BTreeMap::new(),
            round: Round::default(),
            outcomes: batch.iter().map(|_| None).collect(),
        };
        let version = work.begin(batch).await?;
        for (at, request) in batch.iter().enumerate() {
            work.serve(at, request).await?;
        }
        work.flush().await?;
        if let Some(version) = version {
            let written = work.keep(version);
            let committed = work.store.client.batch_execute("COMMIT");
            // Sent one behind the other; if the first fails the second commits nothing.
            let (written, committed) = tokio::join!(biased; written, committed);
            written?;
            committed?;
        }
        let outcomes = work.outcomes.into_iter();
        Ok(outcomes
            .map(|outcome| outcome.expect("every call was served"))
            .collect())
    }

    /// Takes this transaction's turn, if it changes anything, and reads the rows that it may
    /// change; says the store's new version.
    async fn begin(&mut self, batch: &[Request]) -> Result<Option<i64>, Failure> {
        let mut changes = false;
        let concerned = batch.iter().filter_map(|request| match request {
            Request::Register(id, _)
            | Request::Put(id, ..)
            | Request::Confirm(id, ..)
            | Request::Open(id, _) => {
                changes = true;
                Some(id)
            }
            Request::Expire(..) => {
                changes = true;
                None
            }
            Request::Peek(..) | Request::Usage(_) | Request::Changes(_) => None,
        });
        let concerned = ids(concerned);
        if !changes {
            return Ok(None);
        }
        let Store { client, sql, .. } = &*self.store;
        let concerned: [&(dyn ToSql + Sync); 1] = [&concerned];
        // Sent at once, carried out one after another; the last sees what the turn before left.
        let (begun, version, rows) = tokio::join!(
            biased;
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED"),
            client.query_one(&sql.turn, &[]),
            client.query(&sql.mailboxes, &concerned),
        );
        begun?;
        let version = version?.try_get(0)?;
        self.load(&rows?)?;
        Ok(Some(version))
    }

    fn load(&mut self, found: &[Found]) -> Result<(), Failure> {
        for row in found {
            let of = Row {
                highest: number(row.try_get(1)?)?,
                held: number(row.try_get(2)?)?,
                openings: number(row.try_get(3)?)?,
                changed: false,
            };
            self.rows.insert(mailbox(row.try_get(0)?)?, of);
        }
        Ok(())
    }

    async fn serve(&mut self, at: usize, request: &Request) -> Result<(), Failure> {
        let outcome = match request {
            Request::Register(id, _) => {
                self.rows.entry(*id).or_insert(Row {
                    highest: 0,
                    held: 0,
                    openings: 0,
                    changed: true,
                });
                Outcome::Registered
            }
            Request::Open(id, _) => {
                let row = self.rows.get_mut(id);
                Outcome::Opened(row.map_or(0, |row| {
                    row.openings += 1;
                    row.changed = true;
                    row.openings
                }))
            }
            Request::Changes(_) => Outcome::Changed(self.changes().await?),
            Request::Put(id, stored_at_s, packet, _) => {
                self.join(id, Kind::Put).await?;
                Outcome::Put(self.put(id, *stored_at_s, packet))
            }
            Request::Confirm(id, upto, _) => {
                self.join(id, Kind::Confirm).await?;
                self.round.confirm.push((*id, column(*upto), at));
                return Ok(());
            }
            Request::Peek(id, after, limit, _) => {
                self.join(id, Kind::Peek).await?;
                self.round.peek.push((*id, *after, *limit, at));
                return Ok(());
            }
            Request::Expire(before_s, _) => {
                self.flush().await?;
                let gone = self.expire(*before_s).await?;
                self.store.seal.forget(*before_s);
                Outcome::Counts(gone)
            }
            Request::Usage(_) => {
                self.flush().await?;
                Outcome::Counts(self.usage().await?)
            }
        };
        self.outcomes[at] = Some(outcome);
        Ok(())
    }

    /// Makes room in the round for a call of this kind that concerns this mailbox.
    async fn join(&mut self, id: &MailboxId, kind: Kind) -> Result<(), Failure> {
        match self.round.of.get(id) {
            Some(Kind::Put) if kind == Kind::Put => return Ok(()),
            None => {}
            // One statement can't say which of two confirmations removed a packet.
            Some(_) => self.flush().await?,
        }
        self.round.of.insert(*id, kind);
        Ok(())
    }

    fn put(
        &mut self,
        id: &MailboxId,
        stored_at_s: u64,
        packet: &Packet,
    ) -> Result<u64, StoreError> {
        let row = self.rows.get_mut(id).ok_or(StoreError::NoMailbox)?;
        // GW-10
        if row.held >= self.store.quota {
            return Err(StoreError::Full);
        }
        let seq = self.store.numbers.next(row.highest, stored_at_s);
        let place = Place {
            mailbox: id,
            seq,
            stored_at_s,
        };
        let sealed = self.store.seal.seal(place, packet);
        let sealed = sealed.ok_or(StoreError::TooOld)?;
        row.held += 1;
        row.highest = Numbers::highest(seq, row.held >= self.store.quota);
        row.changed = true;
        let (mailboxes, numbers, times, packets) = &mut self.round.put;
        mailboxes.push(*id);
        numbers.push(column(seq));
        times.push(column(stored_at_s));
        packets.push(sealed);
        Ok(seq)
    }

    /// Carries out the round.
    async fn flush(&mut self) -> Result<(), Failure> {
        let round = core::mem::take(&mut self.round);
        let Store { client, sql, .. } = &*self.store;
        let (mailboxes, numbers, times, packets) = &round.put;
        let putting = async {
            if !numbers.is_empty() {
                let mailboxes = ids(mailboxes);
                client
                    .execute(&sql.put, &[&mailboxes, numbers, times, packets])
                    .await?;
            }
            Ok::<_, Failure>(())
        };
        let confirming = async {
            let upto: Vec<i64> = round.confirm.iter().map(|(_, upto, _)| *upto).collect();
            if upto.is_empty() {
                return Ok(Vec::new());
            }
            let mailboxes = ids(round.confirm.iter().map(|(id, ..)| id));
            counts(&client.query(&sql.confirm, &[&mailboxes, &upto]).await?)
        };
        let asked: Vec<_> = round
            .peek
            .iter()
            .map(|(id, after, limit, _)| (*id, *after, *limit))
            .collect();
        // Polled in turn, so sent at once.
        let (put, confirmed, peeked) =
            tokio::join!(biased; putting, confirming, find(self.store, &asked));
        put?;
        let confirmed: BTreeMap<_, _> = confirmed?.into_iter().collect();
        let peeked = peeked?;
        for (id, _, at) in round.confirm {
            let gone = confirmed.get(&id).copied().unwrap_or_default();
            self.less(&id, gone);
            self.outcomes[at] = Some(Outcome::Confirmed(gone));
        }
        for ((id, _, limit, at), found) in round.peek.into_iter().zip(peeked) {
            let kept = self.open(id, limit, found).await?;
            self.outcomes[at] = Some(Outcome::Peeked(kept));
        }
        Ok(())
    }

    /// Opens what was found for one peek. What doesn't open hides nothing behind it (GW-22).
    async fn open(
        &mut self,
        id: MailboxId,
        limit: usize,
        mut found: Vec<Sealed>,
    ) -> Result<Vec<Kept>, Failure> {
        let mut kept = Vec::new();
        let mut asked = limit;
        while let Some(last) = found.last() {
            let (after, all) = (last.seq, found.len() < asked);
            let seal = &mut self.store.seal;
            kept.extend(found.iter().filter_map(|sealed| sealed.open(&id, seal)));
            asked = limit - kept.len();
            if all || asked == 0 {
                break;
            }
            found = find(self.store, &[(id, after, asked)]).await?.remove(0);
        }
        Ok(kept)
    }

    fn less(&mut self, id: &MailboxId, gone: u64) {
        if let Some(row) = self.rows.get_mut(id).filter(|_| gone > 0) {
            row.held = row.held.saturating_sub(gone);
            row.changed = true;
        }
    }

    async fn expire(&mut self, before_s: u64) -> Result<Vec<(MailboxId, u64)>, Failure> {
        let Store { client, sql, .. } = &*self.store;
        let gone = client.query(&sql.expire, &[&column(before_s)]).await?;
        let gone = counts(&gone)?;
        let unread = gone.iter().map(|(id, _)| id);
        let unread = ids(unread.filter(|id| !self.rows.contains_key(id)));
        let rows = client.query(&sql.mailboxes, &[&unread]).await?;
        self.load(&rows)?;
        gone.iter().for_each(|(id, gone)| self.less(id, *gone));
        Ok(gone)
    }

    async fn usage(&self) -> Result<Vec<(MailboxId, u64)>, Failure> {
        let Store { client, sql, .. } = &*self.store;
        let mut usage: BTreeMap<_, _> = counts(&client.query(&sql.usage, &[]).await?)?
            .into_iter()
            .collect();
        // This transaction's own changes are written at its end.
        usage.extend(self.rows.iter().map(|(id, row)| (*id, row.held)));
        Ok(usage.into_iter().collect())
    }

    /// What others, or earlier batches, have changed since the last time. What this transaction
    /// changes is written at its end, and told the next time.
    async fn changes(&mut self) -> Result<Vec<Change>, Failure> {
        let Store {
            client, sql, told, ..
        } = &mut *self.store;
        let rows = client.query(&sql.changes, &[&*told]).await?;
        let changes = rows.iter().map(|row| {
            *told = row.try_get::<_, i64>(4)?.max(*told);
            Ok(Change {
                mailbox: mailbox(row.try_get(0)?)?,
                highest: number(row.try_get(1)?)?,
                packets: number(row.try_get(2)?)?,
                openings: number(row.try_get(3)?)?,
            })
        });
        changes.collect()
    }

    /// Writes the rows that were changed.
    async fn keep(&self, version: i64) -> Result<(), Failure> {
        let changed = || self.rows.iter().filter(|(_, row)| row.changed);
        let mailboxes = ids(changed().map(|(id, _)| id));
        let highest: Vec<i64> = changed().map(|(_, row)| column(row.highest)).collect();
        let held: Vec<i64> = changed().map(|(_, row)| column(row.held)).collect();
        let openings: Vec<i64> = changed().map(|(_, row)| column(row.openings)).collect();
        let Store { client, sql, .. } = &*self.store;
        client
            .execute(
                &sql.keep,
                &[&mailboxes, &highest, &held, &openings, &version],
            )
            .await?;
        Ok(())
    }
}

/// A packet as the server keeps it.
struct Sealed {
    seq: u64,
    stored_at_s: u64,
    sealed: Vec<u8>,
}

impl Sealed {
    fn open(&self, id: &MailboxId, seal: &mut Seal) -> Option<Kept> {
        let (seq, stored_at_s) = (self.seq, self.stored_at_s);
        let place = Place {
            mailbox: id,
            seq,
            stored_at_s,
        };
        let packet = seal.unseal(place, &self.sealed)?;
        Some(Kept {
            seq,
            stored_at_s,
            packet,
        })
    }
}

/// For each of `asked` (mailbox, after, limit) what the server holds.
async fn find(
    store: &Store,
    asked: &[(MailboxId, u64, usize)],
) -> Result<Vec<Vec<Sealed>>, Failure> {
    let mut found: Vec<Vec<Sealed>> = asked.iter().map(|_| Vec::new()).collect();
    if asked.is_empty() {
        return Ok(found);
    }
    let mailboxes = ids(asked.iter().map(|(id, ..)| id));
    let after: Vec<i64> = asked.iter().map(|(_, after, _)| column(*after)).collect();
    let limit: Vec<i64> = asked
        .iter()
        .map(|(.., limit)| i64::try_from(*limit).unwrap_or(i64::MAX))
        .collect();
    let rows = store
        .client
        .query(&store.sql.peek, &[&mailboxes, &after, &limit])
        .await?;
    for row in rows {
        let asked = usize::try_from(row.try_get::<_, i64>(0)?).ok();
        let of = asked.and_then(|asked| found.get_mut(asked.checked_sub(1)?));
        of.ok_or(Failure::Damaged("a place"))?.push(Sealed {
            seq: number(row.try_get(1)?)?,
            stored_at_s: number(row.try_get(2)?)?,
            sealed: row.try_get(3)?,
        });
    }
    Ok(found)
}

fn counts(rows: &[Found]) -> Result<Vec<(MailboxId, u64)>, Failure> {
    rows.iter()
        .map(|row| Ok((mailbox(row.try_get(0)?)?, number(row.try_get(1)?)?)))
        .collect()
}
