//! Messages on their way out: cut into blocks, sent a fragment at a slot, repaired until acked.
//!
//! Spec: docs/spec/message.md, rules MSG-11 to MSG-14; docs/spec/client.md, rules CLI-23 to CLI-26.
//!
//! | quantity  | unit, range                                                                     |
//! |-----------|---------------------------------------------------------------------------------|
//! | burst     | symbols of a block to send at first, sized for the loss (MSG-11)                |
//! | round     | of repair: a share of `k` that doubles with each, at most `k` symbols           |
//! | back-off  | doubles with each round from the base, jittered by ½ to 1½, at most an hour     |
//! | stock     | repair symbols made ahead, <= [`STOCK`] a block                                 |
//!
//! Messages take turns, a fragment each (CLI-23). A packet is built when its slot fires, so that
//! it takes the epoch, the route and the delays of that moment.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chacha20::ChaCha20Rng;
use rand::RngExt as _;

use super::{
    came::Came,
    content::{ESI_END, Fragment},
    cover::uniform,
    fountain::{self, SYMBOL_LEN},
    journal::{Effect, Journal, key, kind},
    outgoing::Outgoing,
    types::{Failure, MessageId, Progress, ReplyToken, State, Target},
};
use crate::{Time, address::Address, calendar::Epoch};

/// Repair symbols made at once: coding a large block costs milliseconds, whatever their number.
const STOCK: u32 = 32;
/// First repair round: this part of a block's symbols, at least one; it doubles each round.
const FIRST_REPAIR: u32 = 32;
/// Longest back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// How far a block is.
struct Block {
    /// Next symbol to send.
    esi: u32,
    /// Symbols left of this burst or round.
    left: u32,
    round: u32,
    /// Its first burst has not left.
    burst: bool,
    acked: bool,
    stock: VecDeque<Vec<u8>>,
}

struct Message {
    out: Outgoing,
    blocks: Vec<Block>,
    /// Blocks with something to send now.
    turns: VecDeque<u32>,
    sent: bool,
    /// Epoch of the latest reply blocks that it, or a probe for it, brought.
    asked: Epoch,
}

#[derive(Default)]
pub(crate) struct Outbox {
    messages: BTreeMap<MessageId, Message>,
    bytes: usize,
    /// Messages with something to send now, in turn.
    ready: VecDeque<MessageId>,
    /// When a block's next repair round starts.
    repairs: BTreeSet<(Time, MessageId, u32)>,
    /// Messages to a gateway that the document does not have.
    stranded: BTreeSet<MessageId>,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait for a gateway that the document does not have.
    pub(crate) fn stranded(&self) -> usize {
        self.stranded.len()
    }

    /// Notes that this one waits for such a gateway.
    pub(crate) fn strand(&mut self, id: MessageId) {
        self.stranded.insert(id);
    }

    /// Notes which of all wait for such a gateway: `is_lost` says so of where they go.
    pub(crate) fn strand_all(&mut self, is_lost: impl Fn(&Target) -> bool) {
        let lost = self.messages.iter().filter(|(_, of)| is_lost(&of.out.to));
        self.stranded = lost.map(|(id, _)| *id).collect();
    }

    /// Whether `body_len` more bytes fit.
    pub(crate) fn has_room(&self, body_len: usize, messages_max: usize, bytes_max: usize) -> bool {
        self.messages.len() < messages_max && self.bytes + body_len <= bytes_max
    }

    /// Takes a message; it is sent from [`Outbox::start`] on.
    pub(crate) fn queue(&mut self, id: MessageId, out: Outgoing, journal: &mut Journal) {
        journal.put(key(kind::OUTGOING, &[&id.0]), out.to_bytes());
        journal.then(Effect::Progress(Progress {
            ticket: out.ticket,
            message: id,
            state: State::Queued,
        }));
        journal.then(Effect::Send(id));
        self.insert(id, out);
    }

    fn insert(&mut self, id: MessageId, out: Outgoing) {
        self.bytes += out.body.len();
        let blocks = (0..out.blocks()).map(|_| Block {
            esi: 0,
            left: 0,
            round: 0,
            burst: true,
            acked: false,
            stock: VecDeque::new(),
        });
        let message = Message {
            blocks: blocks.collect(),
            turns: VecDeque::new(),
            sent: false,
            asked: out.epoch,
            out,
        };
        self.messages.insert(id, message);
    }

    /// Reads a message back. Symbols that were sent before are not known any more, so its repair
    /// goes on from a random number (CLI-26, MSG-12).
    pub(crate) fn restore(&mut self, id: MessageId, out: Outgoing, rng: &mut ChaCha20Rng) {
        self.insert(id, out);
        if let Some(message) = self.messages.get_mut(&id) {
            for (number, block) in (0..).zip(&mut message.blocks) {
                let k = message.out.symbols(number);
                block.esi = rng.random_range(k..ESI_END / 2);
            }
        }
    }

    /// The first burst of this restored message has left before, and a probe of this epoch was
    /// the last; `false` if it is unknown.
    pub(crate) fn restore_sent(&mut self, id: MessageId, value: &[u8]) -> bool {
        let (Some(message), Ok(asked)) = (self.messages.get_mut(&id), value.try_into()) else {
            return false;
        };
        message.sent = true;
        message.asked = Epoch(u64::from_be_bytes(asked));
        true
    }

    /// This block of a restored message is acked; `false` if it is unknown.
    pub(crate) fn restore_acked(&mut self, id: MessageId, block: u32) -> bool {
        let message = self.messages.get_mut(&id);
        let block = message.and_then(|message| message.blocks.get_mut(block as usize));
        block.map(|block| block.acked = true).is_some()
    }

    /// Starts to send all that was restored; `most` is how many packets can go to a target.
    pub(crate) fn start_restored(&mut self, loss: f64, most: impl Fn(&Target) -> u32) {
        let all = self.messages.iter();
        let all: Vec<(MessageId, u32)> = all.map(|(id, of)| (*id, most(&of.out.to))).collect();
        all.into_iter()
            .for_each(|(id, most)| self.start(id, loss, most));
    }

    /// Starts to send a message: it is durable. At most `most` packets can carry its first burst
    /// (reply blocks); if it has more symbols than that, it waits for more. One whose burst has left
    /// before gets a repair round at once, which also brings an ack that was lost meanwhile.
    pub(crate) fn start(&mut self, id: MessageId, loss: f64, most: u32) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let mut spare = most.checked_sub(message.out.needs()).unwrap_or(u32::MAX);
        for (number, block) in (0..).zip(&mut message.blocks) {
            if block.acked {
                continue;
            }
            block.burst = !message.sent;
            block.left = 1;
            if block.burst {
                let k = message.out.symbols(number);
                let more = (fountain::first_burst(k, loss) - k).min(spare);
                spare -= more;
                block.left = k + more;
            }
            message.turns.push_back(number);
        }
        if !message.turns.is_empty() {
            self.ready.push_back(id);
        }
    }

    /// The message whose turn it is and which `can` go now. The others keep their order.
    pub(crate) fn turn(
        &mut self,
        now: Time,
        mut can: impl FnMut(&Target) -> bool,
    ) -> Option<(MessageId, Target)> {
        while let Some((due, id, number)) = self.repairs.first().copied()
            && due <= now
        {
            self.repairs.pop_first();
            self.repair(id, number);
        }
        let messages = &self.messages;
        self.ready.retain(|id| messages.contains_key(id));
        let at = self.ready.iter().position(|id| {
            let message = messages.get(id);
            message.is_some_and(|message| can(&message.out.to))
        })?;
        let id = *self.ready.get(at)?;
        let to = messages.get(&id)?.out.to;
        Some((id, to))
    }

    /// Starts a repair round of a block (MSG-13).
    fn repair(&mut self, id: MessageId, number: u32) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let k = message.out.symbols(number);
        let block = &mut message.blocks[number as usize];
        if block.acked {
            return;
        }
        block.left = (k << block.round.min(5)).div_ceil(FIRST_REPAIR).clamp(1, k);
        block.round += 1;
        message.turns.push_back(number);
        if !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    /// The next fragment of a message that [`Outbox::turn`] named; then it is the next one's turn.
    pub(crate) fn fragment(
        &mut self,
        now: Time,
        id: MessageId,
        base: Duration,
        rng: &mut ChaCha20Rng,
        journal: &mut Journal,
    ) -> Option<Fragment> {
        self.ready.retain(|ready| *ready != id);
        let message = self.messages.get_mut(&id)?;
        let number = loop {
            let number = message.turns.pop_front()?;
            if !message.blocks[number as usize].acked {
                break number;
            }
        };
        let symbol = next_symbol(&message.out, number, &mut message.blocks[number as usize]);
        let fragment = Fragment {
            message: id,
            length: message.out.body.len() as u64,
            block: number,
            esi: symbol.0,
            epoch: message.out.epoch,
            return_len: u16::try_from(message.out.part(number).len()).expect("at most RETURN_MAX"),
            symbol: symbol.1,
        };
        let block = &mut message.blocks[number as usize];
        block.left -= 1;
        if block.left > 0 {
            message.turns.push_front(number);
        } else {
            block.burst = false;
            if message.out.acks() {
                let due = now.after(backoff(base, block.round, rng));
                self.repairs.insert((due, id, number));
            }
        }
        if !message.turns.is_empty() {
            self.ready.push_back(id);
        }
        self.maybe_sent(id, journal);
        Some(fragment)
    }

    /// Says so once the first burst of all blocks has left (CLI-24). Without acks that is the
    /// end.
    fn maybe_sent(&mut self, id: MessageId, journal: &mut Journal) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        if message.sent || message.blocks.iter().any(|block| block.burst) {
            return;
        }
        message.sent = true;
        let ticket = message.out.ticket;
        if message.out.acks() {
            let asked = message.asked.0.to_be_bytes().to_vec();
            journal.put(key(kind::SENT, &[&id.0]), asked);
        } else {
            self.remove(id, journal);
        }
        let state = State::Sent;
        journal.then(Effect::Progress(Progress {
            ticket,
            message: id,
            state,
        }));
    }

    /// Whether what came so may acknowledge this message: it is not under way any more, or it named
    /// that way back (MSG-19).
    pub(crate) fn hears(&self, id: MessageId, came: Came) -> bool {
        let message = self.messages.get(&id);
        message.is_none_or(|message| message.out.is_answered(id, came))
    }

    /// The recipient has this block, as an ack says that came by the way that the message named.
    pub(crate) fn acked(&mut self, id: MessageId, number: u32, journal: &mut Journal) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let Some(block) = message.blocks.get_mut(number as usize) else {
            return;
        };
        if block.acked {
            return;
        }
        block.acked = true;
        block.burst = false;
        block.stock.clear();
        if message.blocks.iter().all(|block| block.acked) {
            self.end(id, State::Acked, journal);
        } else {
            journal.put(
                key(kind::ACKED, &[&id.0, &number.to_be_bytes()]),
                Vec::new(),
            );
            message.turns.retain(|turn| *turn != number);
            self.maybe_sent(id, journal);
        }
    }

    /// Anonymous messages whose ack has no way back any more, since the epoch of their reply blocks
    /// is over: each once an epoch (MSG-7).
    pub(crate) fn ask(&mut self, epoch: Epoch, journal: &mut Journal) -> Vec<MessageId> {
        let mut asking = Vec::new();
        for (id, message) in &mut self.messages {
            if message.out.is_anonymous() && message.sent && message.asked < epoch {
                message.asked = epoch;
                let asked = epoch.0.to_be_bytes().to_vec();
                journal.put(key(kind::SENT, &[&id.0]), asked);
                asking.push(*id);
            }
        }
        asking
    }

    /// Messages that name an address of the sender's go where `to` says that its correspondent is
    /// now (MSG-24). Records stay: they are read back by the same.
    pub(crate) fn redirect(&mut self, to: impl Fn(u16, &Address) -> Address) {
        for message in self.messages.values_mut() {
            let out = &mut message.out;
            if let (Some(line), Target::Address(address)) = (out.line(), &mut out.to) {
                *address = to(line, address);
            }
        }
    }

    /// Where a message goes, while it is on its way.
    pub(crate) fn target(&self, id: MessageId) -> Option<Target> {
        self.messages.get(&id).map(|message| message.out.to)
    }

    /// Gives up what was not acknowledged in time (MSG-14).
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        let over = |message: &&Message| message.out.expires_s <= now_s;
        let over: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, message)| over(message))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.end(id, State::Expired, journal);
        }
    }

    /// Gives up those whose acks would come to an address that is revoked (CLI-32).
    pub(crate) fn revoked(&mut self, slot: u16, journal: &mut Journal) {
        let named = self.messages.iter().filter(|(_, of)| of.out.names(slot));
        let named: Vec<MessageId> = named.map(|(id, _)| *id).collect();
        for id in named {
            self.fail(id, Failure::Revoked, journal);
        }
    }

    /// The messages that replies with something to send now are for.
    pub(crate) fn answering(&self) -> impl Iterator<Item = MessageId> {
        let ready = self.ready.iter().filter_map(|id| self.messages.get(id));
        ready.filter_map(|message| match message.out.to {
            Target::Reply(token) => Some(token.0),
            Target::Address(_) => None,
        })
    }

    /// Replies whose first burst has not left.
    pub(crate) fn replies(&self) -> Vec<(MessageId, ReplyToken)> {
        let replies = self
            .messages
            .iter()
            .filter_map(|(id, message)| match message.out.to {
                Target::Reply(token) if !message.sent => Some((*id, token)),
                Target::Reply(_) | Target::Address(_) => None,
            });
        replies.collect()
    }

    /// A message can't be sent any more.
    pub(crate) fn fail(&mut self, id: MessageId, why: Failure, journal: &mut Journal) {
        self.end(id, State::Failed(why), journal);
    }

    /// The last news of a message. One that is acked before its first burst has left is sent by
    /// that: nothing more of it is needed.
    fn end(&mut self, id: MessageId, state: State, journal: &mut Journal) {
        let sent = self.messages.get(&id).is_some_and(|message| message.sent);
        let Some(ticket) = self.remove(id, journal) else {
            return;
        };
        let news = |state| {
            Effect::Progress(Progress {
                ticket,
                message: id,
                state,
            })
        };
        if state == State::Acked && !sent {
            journal.then(news(State::Sent));
        }
        journal.then(news(state));
    }

    fn remove(&mut self, id: MessageId, journal: &mut Journal) -> Option<u64> {
        let message = self.messages.remove(&id)?;
        self.bytes -= message.out.body.len();
        self.repairs.retain(|(_, of, _)| *of != id);
        self.stranded.remove(&id);
        journal.delete(key(kind::OUTGOING, &[&id.0]));
        journal.delete(key(kind::SENT, &[&id.0]));
        for (number, block) in (0u32..).zip(&message.blocks) {
            if block.acked {
                journal.delete(key(kind::ACKED, &[&id.0, &number.to_be_bytes()]));
            }
        }
        Some(message.out.ticket)
    }
}

/// The next symbol of a block, and its number.
fn next_symbol(out: &Outgoing, number: u32, block: &mut Block) -> (u32, Vec<u8>) {
    let k = out.symbols(number);
    let esi = block.esi;
    block.esi += 1;
    if esi < k {
        let parts = [out.part(number), out.share(number)];
        return (esi, fountain::source_symbol(parts, esi));
    }
    if block.stock.is_empty() {
        let count = block.left.clamp(1, STOCK);
        let whole = [out.part(number), out.share(number)].concat();
        block.stock = fountain::repair_symbols(&whole, esi, count).into();
    }
    let symbol = block.stock.pop_front();
    (esi, symbol.unwrap_or_else(|| vec![0; SYMBOL_LEN]))
}

/// How long to wait for an ack after a round (MSG-13).
fn backoff(base: Duration, round: u32, rng: &mut ChaCha20Rng) -> Duration {
    let doubled = base.saturating_mul(1 << round.min(12)).min(BACKOFF_MAX);
    doubled.mul_f64(0.5 + uniform(rng))
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng as _;

    use super::{super::outgoing::tests::outgoing, *};

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    /// The numbers of the symbols that a message sends until it has nothing more to send.
    fn numbers(outbox: &mut Outbox, now: Time) -> Vec<u32> {
        let (mut rng, mut journal) = (rng(), Journal::default());
        let base = Duration::from_secs(10);
        let mut numbers = Vec::new();
        while let Some((id, _)) = outbox.turn(now, |_| true) {
            let fragment = outbox.fragment(now, id, base, &mut rng, &mut journal);
            numbers.extend(fragment.map(|fragment| fragment.esi));
        }
        numbers
    }

    /// MSG-12, MSG-13: source symbols first, repair on; rounds grow; after a restart a random
    /// number.
    #[test]
    fn symbols_go_on_from_where_they_were() {
        let id = MessageId([1; 16]);
        let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
        outbox.queue(id, outgoing(19 * SYMBOL_LEN, vec![1; 97]), &mut journal);
        assert_eq!(outbox.turn(Time::ZERO, |_| true), None, "not durable yet");
        outbox.start(id, 0.049, u32::MAX);
        let burst = fountain::first_burst(20, 0.049);
        assert_eq!(numbers(&mut outbox, Time::ZERO), Vec::from_iter(0..burst));
        let mut next = burst;
        for (round, count) in [1u32, 2, 3, 5, 10, 20, 20].into_iter().enumerate() {
            // By then the round is due, and by the time before the one after it is not.
            let wait = Duration::from_secs(15) * 2u32.pow(u32::try_from(round).expect("few"));
            let now = outbox
                .repairs
                .first()
                .expect("a timer")
                .0
                .after(wait / 1000);
            assert_eq!(
                numbers(&mut outbox, now),
                Vec::from_iter(next..next + count)
            );
            next += count;
        }
        let mut again = Outbox::default();
        again.restore(id, outgoing(19 * SYMBOL_LEN, vec![1; 97]), &mut rng());
        again.start_restored(0.049, |_| u32::MAX);
        let numbers = numbers(&mut again, Time::ZERO);
        assert_eq!(numbers.len(), burst as usize);
        assert!(numbers[0] > 1000, "random");
    }

    /// CLI-25: a first burst on reply blocks is no larger than what is held.
    #[test]
    fn a_burst_fits_its_reply_blocks() {
        for (most, sent) in [(2, 2), (3, 3), (100, 5)] {
            let id = MessageId([1; 16]);
            let (mut outbox, mut journal) = (Outbox::default(), Journal::default());
            outbox.queue(id, outgoing(2 * SYMBOL_LEN - 1, vec![0]), &mut journal);
            outbox.start(id, 0.049, most);
            assert_eq!(numbers(&mut outbox, Time::ZERO).len(), sent);
            assert_eq!(outbox.len(), 0, "without acks it is over");
        }
    }

    /// MSG-13: back-off doubles, is jittered by a half to one and a half, and ends at an hour.
    #[test]
    fn backoff_doubles_within_bounds() {
        let mut rng = rng();
        let base = Duration::from_secs(10);
        for round in 0..40 {
            let mean = (base * 2u32.pow(round.min(12))).min(BACKOFF_MAX);
            let waits: Vec<Duration> = (0..200).map(|_| backoff(base, round, &mut rng)).collect();
            let (least, most) = (waits.iter().min(), waits.iter().max());
            assert!(least.is_some_and(|least| (mean / 2..mean * 6 / 10).contains(least)));
            assert!(most.is_some_and(|most| (mean * 14 / 10..mean * 3 / 2).contains(most)));
        }
    }
}
