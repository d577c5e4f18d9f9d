//! How addresses move from one mailbox to the next.
//!
//! Spec: docs/spec/client.md, rules CLI-40, CLI-42 to CLI-44; docs/spec/message.md, MSG-24, MSG-25.
//!
//! | quantity | unit, range                                                                       |
//! |----------|-----------------------------------------------------------------------------------|
//! | until    | UTC seconds: the former mailbox is read until then                                |
//! | order    | ascends with the moves of an address: UTC seconds, less than an hour ahead        |
//! | open     | something came by the new mailbox since the start; before, the former one is shown |

use std::collections::BTreeMap;

use rand_core::CryptoRng;

use super::{AddressError, Addresses, OwnSecret, Slot, State, to_record};
use crate::{
    NodeId,
    address::Address,
    client::{
        Identity,
        journal::{Journal, key, kind},
    },
};

/// Moves whose former mailboxes are still read, so moves within the time that a mailbox keeps a packet
/// (CLI-44): each costs a gateway a mailbox for each address, which it keeps for good (GW-8).
pub const MOVES_MAX: usize = 3;
/// Mailbox gateways of one client at a time, former ones among them.
pub const MAILBOX_GATEWAYS_MAX: usize = 1 + MOVES_MAX;

/// By which move a mailbox came to be: whose it follows, and until when that one is read.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) from: u16,
    pub(super) until_s: u64,
    /// Ascends with the moves of an address, and tells nothing of the client's others.
    pub(super) order: u64,
}

pub(super) fn move_record(slot: u16) -> Vec<u8> {
    key(kind::MOVE, &[&slot.to_be_bytes()])
}

impl Addresses {
    /// Reads back how a mailbox came to be, after all that there are; `false` if it is no such record.
    pub(crate) fn restore_move(&mut self, slot: u16, value: &[u8]) -> bool {
        let parse = || {
            let (line, rest) = value.split_first_chunk()?;
            let (from, rest) = rest.split_first_chunk()?;
            let (until_s, order) = rest.split_first_chunk()?;
            let came = Move {
                from: u16::from_be_bytes(*from),
                until_s: u64::from_be_bytes(*until_s),
                order: u64::from_be_bytes(order.try_into().ok()?),
            };
            Some((u16::from_be_bytes(*line), came))
        };
        let Some((line, came)) = parse() else {
            return false;
        };
        if let Some(slot) = self.slots.get_mut(&slot) {
            (slot.line, slot.came) = (line, Some(came));
        }
        if let Some(former) = self.slots.get_mut(&came.from) {
            former.until_s = Some(came.until_s);
        }
        true
    }

    /// By its number, the latest of an address' moves.
    pub(crate) fn order(&self, slot: u16) -> u64 {
        let came = self.slots.get(&slot).and_then(|of| of.came);
        came.map_or(0, |came| came.order)
    }

    /// Something came by a mailbox.
    pub(crate) fn opened(&mut self, slot: u16) {
        if let Some(of) = self.slots.get_mut(&slot) {
            of.open = true;
        }
    }

    /// By which mailbox an address is reached while nothing has come by this one, its next: its
    /// gateway may be full (GW-8).
    fn instead_of(&self, of: &Slot) -> Option<u16> {
        let came = of.came.filter(|_| !of.open)?;
        self.of(came.from).map(|_| came.from)
    }

    /// Mailboxes that addresses have moved to, and that are not known to be open.
    pub(crate) fn unopened(&self) -> impl Iterator<Item = u16> {
        let unopened = self
            .current()
            .filter(|(_, of)| self.instead_of(of).is_some());
        unopened.map(|(slot, _)| slot)
    }

    /// The address that a correspondent is to use: the next one once its mailbox is open (CLI-44).
    pub(crate) fn shown(&self, line: u16) -> Option<(u16, Address)> {
        let mut current = self.current();
        let (mut number, mut of) = current.find(|(_, of)| of.line == line)?;
        while let Some(from) = self.instead_of(of) {
            (number, of) = (from, self.slots.get(&from)?);
        }
        Some((number, of.identity.address()))
    }

    /// When the next move is possible, in UTC seconds, if there were as many as may be: as the address
    /// that took part in most of them knows.
    fn rests_until(&self) -> Option<u64> {
        let mut former = BTreeMap::<u16, Vec<u64>>::new();
        for (_, of) in self.live() {
            if let Some(until_s) = of.until_s {
                former.entry(of.line).or_default().push(until_s);
            }
        }
        let full = former.into_values().filter(|its| its.len() >= MOVES_MAX);
        full.flatten().min()
    }

    /// Whether the addresses may move at `now_s` (CLI-44).
    pub(crate) fn may_move(&self, now_s: u64) -> Result<(), AddressError> {
        if self.moving {
            return Err(AddressError::Moving);
        }
        let next_s = self.rests_until().unwrap_or(0);
        match next_s.saturating_sub(now_s) {
            0 => Ok(()),
            wait_s => Err(AddressError::TooSoon { wait_s }),
        }
    }

    /// Draws a mailbox at `gateway` for each address; those that they have now are read until then
    /// (CLI-40). They may move.
    pub(crate) fn move_to(
        &mut self,
        rng: &mut impl CryptoRng,
        secret: &OwnSecret,
        gateway: NodeId,
        (now_s, until_s): (u64, u64),
        journal: &mut Journal,
    ) -> Result<(), AddressError> {
        let stays = |of: &&Slot| of.state == State::Revoked || of.until_s.is_some();
        let go = self.slots.iter().filter(|(_, of)| !stays(of));
        let go: Vec<u16> = go.map(|(number, _)| *number).collect();
        if !self.has_room(gateway, go.len()) {
            return Err(AddressError::TooMany);
        }
        for from in go {
            let (slot, of) = (self.next, &self.slots[&from]);
            let before = of.came.map_or(0, |came| came.order);
            // Ahead of the clock by part of an hour that is the mailbox' own: of two addresses it
            // tells no more than the hour, and a client that is restored to before a move, and moves
            // again, is believed.
            let ahead = secret.seed(b"lacuna move order v1", from.into());
            let ahead_s = u64::from(u16::from_be_bytes([ahead[0], ahead[1]])) % 3600;
            let order = (now_s + ahead_s).max(before + 1);
            let (line, label) = (of.line, of.label.clone());
            let identity = Identity::generate(rng, gateway);
            let (key, value) = to_record(slot, &identity, &label);
            journal.put(key, value);
            let value = [
                line.to_be_bytes().as_slice(),
                &from.to_be_bytes(),
                &until_s.to_be_bytes(),
                &order.to_be_bytes(),
            ]
            .concat();
            journal.put(move_record(slot), value);
            let made = Slot {
                identity,
                label,
                state: State::Made,
                line,
                came: Some(Move {
                    from,
                    until_s,
                    order,
                }),
                until_s: None,
                open: false,
            };
            self.slots.insert(slot, made);
            self.next += 1;
        }
        self.moving = true;
        Ok(())
    }

    /// A move is durable: the new mailboxes.
    pub(crate) fn moved(&mut self) -> Vec<u16> {
        self.moving = false;
        let made = self.slots.iter_mut();
        let made = made.filter(|(_, of)| of.state == State::Made);
        let made: Vec<(u16, Move)> = made
            .filter_map(|(slot, of)| {
                let came = of.came?;
                of.state = State::Live;
                Some((*slot, came))
            })
            .collect();
        for (_, came) in &made {
            if let Some(former) = self.slots.get_mut(&came.from) {
                former.until_s = Some(came.until_s);
            }
        }
        self.version += 1;
        made.into_iter().map(|(slot, _)| slot).collect()
    }

    /// Forgets former mailboxes whose time is over, secrets and all (CLI-43); their slots.
    pub(crate) fn close(&mut self, now_s: u64, journal: &mut Journal) -> Vec<u16> {
        let over = |of: &Slot| of.until_s.is_some_and(|until_s| until_s <= now_s);
        let over: Vec<u16> = self
            .live()
            .filter(|(_, of)| over(of))
            .map(|(slot, _)| slot)
            .collect();
        for slot in &over {
            self.erase(*slot, journal);
            self.slots.remove(slot);
        }
        if !over.is_empty() {
            journal.erase();
            self.version += 1;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    /// MSG-24: a client that is restored to before its move, and moves again soon after, is believed;
    /// the orders of two addresses do not show that they moved at one time.
    #[test]
    fn a_later_move_has_the_higher_order_also_from_an_older_backup() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let secret = OwnSecret::from_bytes([5; 32]);
        let identities: Vec<Identity> = (0..32)
            .map(|_| Identity::generate(&mut rng, NodeId([1; 32])))
            .collect();
        let mut orders = |now_s| {
            let (mut all, mut journal) = (Addresses::default(), Journal::default());
            for (slot, identity) in (0..).zip(&identities) {
                assert!(all.restore(slot, &to_record(slot, identity, "label").1));
            }
            let (to, times) = (NodeId([2; 32]), (now_s, now_s + 9));
            all.move_to(&mut rng, &secret, to, times, &mut journal)
                .unwrap();
            all.moved()
                .iter()
                .map(|slot| all.order(*slot))
                .collect::<Vec<u64>>()
        };
        let (first, second) = (orders(1_000_000), orders(1_000_001));
        assert!(first.len() == 32 && first.iter().zip(&second).all(|(a, b)| a < b));
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(distinct.len() > 30);
    }
}
