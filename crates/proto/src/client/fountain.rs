//! Cutting messages into blocks, and blocks into symbols of which nearly any will do (RaptorQ).
//!
//! Spec: docs/spec/message.md, rules MSG-9 to MSG-12.
//!
//! | quantity        | unit, value                                                             |
//! |-----------------|-------------------------------------------------------------------------|
//! | symbol          | bytes, exactly [`SYMBOL_LEN`]                                           |
//! | block           | return part, then its share of the body; at most 1000 symbols           |
//! | share           | bytes of body, [`SHARE_LEN`] in every block but the last                |
//! | `k`             | symbols of a block before coding, 1 to 1000                             |
//! | symbol number   | `esi`: below `k` the block's own bytes, from `k` on repair              |
//! | loss            | probability that a packet does not arrive, 0 to [`LOSS_MAX`]            |
//!
//! Each block is one RaptorQ source block whose parameters are computed from lengths that were
//! checked; nothing of them is taken from a peer (MSG-9).

use std::collections::BTreeMap;

use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder,
    SourceBlockEncoder,
};

use super::content::RETURN_MAX;

/// Bytes of a symbol.
pub const SYMBOL_LEN: usize = 1984;
/// Most symbols of a block.
pub const SYMBOLS_MAX: usize = 1000;
/// Bytes of body in a full block: what the longest return part leaves of it (MSG-10).
pub const SHARE_LEN: usize = 980 * SYMBOL_LEN;
const _: () = assert!(SHARE_LEN + RETURN_MAX <= SYMBOLS_MAX * SYMBOL_LEN);

/// More loss than this is an outage, which no burst gets through.
pub const LOSS_MAX: f64 = 0.3;
/// How sure the first burst is to suffice (MSG-11): surer than the 99.99 % of messages that shall
/// arrive, for what independent losses leave out, like packets still on a killed sender's link.
const SURE: f64 = 0.999_94;
/// Probability that `k`, `k + 1`, `k + 2` symbols do not decode: measured below 1 %, and a
/// hundredth of the one before for each symbol more, as RFC 6330 promises.
const UNDECODABLE: [f64; 3] = [1e-2, 1e-4, 1e-6];

/// How many blocks a body of `length` bytes is cut into; an empty one is one block.
#[must_use]
pub fn blocks(length: u64) -> u32 {
    let blocks = length.div_ceil(SHARE_LEN as u64).max(1);
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

/// Bytes of the body that stand in `block`.
#[must_use]
pub fn share(length: u64, block: u32) -> usize {
    let before = u64::from(block) * SHARE_LEN as u64;
    let rest = length.saturating_sub(before).min(SHARE_LEN as u64);
    usize::try_from(rest).unwrap_or(SHARE_LEN)
}

/// Symbols of a block of `len` bytes.
#[must_use]
pub fn symbols(len: usize) -> u32 {
    u32::try_from(len.div_ceil(SYMBOL_LEN).max(1)).unwrap_or(u32::MAX)
}

fn parameters(k: u32) -> ObjectTransmissionInformation {
    let symbol_len = u16::try_from(SYMBOL_LEN).expect("a constant");
    ObjectTransmissionInformation::new(u64::from(k) * SYMBOL_LEN as u64, symbol_len, 1, 1, 8)
}

/// A source symbol of the block that the two parts make, padded with zeros.
#[must_use]
pub fn source_symbol([head, tail]: [&[u8]; 2], esi: u32) -> Vec<u8> {
    let (start, end) = (esi as usize * SYMBOL_LEN, (esi as usize + 1) * SYMBOL_LEN);
    let within = |part: &[u8], before: usize| {
        let [from, to] = [start, end].map(|at| at.saturating_sub(before).min(part.len()));
        part[from..to].to_vec()
    };
    let mut symbol = [within(head, 0), within(tail, head.len())].concat();
    symbol.resize(SYMBOL_LEN, 0);
    symbol
}

/// `count` repair symbols of a block, numbered from `esi` (at least `k`) on.
#[must_use]
pub fn repair_symbols(block: &[u8], esi: u32, count: u32) -> Vec<Vec<u8>> {
    let k = symbols(block.len());
    let mut padded = block.to_vec();
    padded.resize(k as usize * SYMBOL_LEN, 0);
    let encoder = SourceBlockEncoder::new(0, &parameters(k), &padded);
    let packets = encoder.repair_packets(esi - k, count);
    packets.into_iter().map(|packet| packet.split().1).collect()
}

/// The block of `len` bytes that these symbols are of, if they are enough.
#[must_use]
pub fn decode(len: usize, held: &BTreeMap<u32, Vec<u8>>) -> Option<Vec<u8>> {
    let k = symbols(len);
    if held.len() < k as usize {
        return None;
    }
    let mut decoder = SourceBlockDecoder::new(0, &parameters(k), u64::from(k) * SYMBOL_LEN as u64);
    let packets = held
        .iter()
        .map(|(esi, symbol)| EncodingPacket::new(PayloadId::new(0, *esi), symbol.clone()));
    let mut block = decoder.decode(packets)?;
    block.truncate(len);
    Some(block)
}

/// How many symbols of a block of `k` to send at first, so that the sender may go offline: the
/// fewest of which enough arrive and decode with 99.994 % (MSG-11).
#[must_use]
pub fn first_burst(k: u32, loss: f64) -> u32 {
    let loss = loss.clamp(0.0, LOSS_MAX);
    (k..)
        .find(|sent| success(*sent, k, loss) >= SURE)
        .unwrap_or(k)
}

/// Probability that of `sent` symbols enough arrive and decode.
fn success(sent: u32, k: u32, loss: f64) -> f64 {
    // Binomial, from "all arrive" down to "k arrive".
    let mut arrive = (f64::from(sent) * (-loss).ln_1p()).exp();
    let mut sum = 0.0;
    for arrived in (k..=sent).rev() {
        let more = (arrived - k) as usize;
        sum += arrive * (1.0 - UNDECODABLE.get(more).copied().unwrap_or(0.0));
        arrive *= f64::from(arrived) / f64::from(sent - arrived + 1) * loss / (1.0 - loss);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSG-11: the table of the protocol, for 1 % loss on each of five links.
    #[test]
    fn first_bursts_are_those_of_the_table() {
        for (k, sent) in [(1, 4), (10, 15), (11, 17), (100, 116), (1000, 1082)] {
            assert_eq!(first_burst(k, 0.049), sent, "k = {k}");
        }
        assert_eq!(first_burst(1, 0.0), 3);
        assert!(
            first_burst(1000, 1.0) < 1600,
            "more than an outage is not believed"
        );
    }

    /// The probability that the first `sent` symbols of a block of `k`, each lost by itself, do not
    /// rebuild it: over every pattern of losses.
    fn failure(k: u32, sent: u32, loss: f64) -> f64 {
        let block: Vec<u8> = (0..=250).cycle().take(k as usize * SYMBOL_LEN).collect();
        let source = (0..k).map(|esi| source_symbol([&block, &[]], esi));
        let symbols: Vec<Vec<u8>> = source.chain(repair_symbols(&block, k, sent - k)).collect();
        let arrives = |pattern: u32, esi: u32| pattern >> esi & 1 == 1;
        let patterns = (0..1u32 << sent).filter(|pattern| {
            if pattern.count_ones() < k {
                return true;
            }
            let held = (0..sent).filter(|esi| arrives(*pattern, *esi));
            let held: BTreeMap<u32, Vec<u8>> = held
                .map(|esi| (esi, symbols[esi as usize].clone()))
                .collect();
            decode(block.len(), &held).is_none()
        });
        let probability = |pattern: u32| {
            let lost = (sent - pattern.count_ones()).cast_signed();
            loss.powi(lost) * (1.0 - loss).powi(pattern.count_ones().cast_signed())
        };
        patterns.map(probability).sum()
    }

    /// MSG-11: the code does what the formula promises, for the very symbols that a burst is made
    /// of. The control: for 11 symbols (20 kB) a packet fewer is not enough.
    #[test]
    fn first_bursts_fail_as_rarely_as_computed() {
        for k in [1, 2, 3, 6, 10, 11] {
            let sent = first_burst(k, 0.049);
            let (failed, formula) = (failure(k, sent, 0.049), 1.0 - success(sent, k, 0.049));
            assert!(
                (0.4..=1.0).contains(&(failed / formula)),
                "{k}: {failed} {formula}"
            );
        }
        assert!(failure(11, 16, 0.049) > 1.0 - SURE);
    }

    /// MSG-10
    #[test]
    fn shares_cover_the_body_and_blocks_stay_below_a_thousand_symbols() {
        let share_len = SHARE_LEN as u64;
        for length in [0, 1, share_len - 1, share_len, share_len + 1, 128 << 20] {
            let shares: Vec<usize> = (0..blocks(length)).map(|b| share(length, b)).collect();
            assert_eq!(shares.iter().sum::<usize>() as u64, length);
            for share in shares {
                assert!(symbols(share + RETURN_MAX) as usize <= SYMBOLS_MAX);
            }
        }
        assert_eq!(share(5, 1), 0);
        assert_eq!(share(5, u32::MAX), 0);
    }

    /// MSG-9: the sender's own symbols, repair alone, and mixtures of the two.
    #[test]
    fn any_k_and_a_few_more_rebuild_the_block() {
        for len in [1, SYMBOL_LEN, SYMBOL_LEN + 1, 20 * SYMBOL_LEN - 7] {
            let block: Vec<u8> = (0..=250).cycle().take(len).collect();
            let k = symbols(len);
            for own in [0, k / 2, k] {
                let mut held: BTreeMap<u32, Vec<u8>> = (0..own)
                    .map(|esi| (esi, source_symbol(block.split_at(len / 3).into(), esi)))
                    .collect();
                assert!(own == k || decode(len, &held).is_none());
                let repair = repair_symbols(&block, 1_000_000, k + 2 - own);
                held.extend((1_000_000..).zip(repair));
                assert_eq!(decode(len, &held).as_ref(), Some(&block), "{len} {own}");
            }
        }
    }

    /// MSG-9: repair symbols depend on their numbers alone, not on how they are asked for.
    #[test]
    fn repair_symbols_are_the_same_one_by_one() {
        let block = vec![7; 3 * SYMBOL_LEN];
        let together = repair_symbols(&block, 40, 3);
        for (esi, symbol) in (40..).zip(together) {
            assert_eq!(repair_symbols(&block, esi, 1), [symbol]);
        }
    }

    /// MSG-9: symbols of any numbers and bytes, more than enough, contradicting: some block or
    /// none, never a panic.
    #[test]
    fn any_symbols_decode_or_do_not() {
        use rand::RngExt as _;
        use rand_core::SeedableRng as _;
        let mut rng = chacha20::ChaCha20Rng::from_seed([8; 32]);
        for _ in 0..300 {
            let k: usize = rng.random_range(1..30);
            let numbers = [rng.random_range(1..40), 1 << 24][rng.random_range(0..2)];
            let held: BTreeMap<u32, Vec<u8>> = (0..k + rng.random_range(0..10))
                .map(|_| {
                    let symbol = vec![rng.random(); SYMBOL_LEN];
                    (rng.random_range(0..numbers), symbol)
                })
                .collect();
            let len = k * SYMBOL_LEN - 1;
            assert!(decode(len, &held).is_none_or(|block| block.len() == len));
        }
    }
}
