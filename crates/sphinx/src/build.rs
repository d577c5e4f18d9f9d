//! Building: forward packets and reply blocks, one or many.
//!
//! Spec: docs/spec/packet.md, PKT-14 to PKT-17.
//!
//! | quantity      | type          | unit, range                                              |
//! |---------------|---------------|----------------------------------------------------------|
//! | route         | `&[Hop]`      | 1 to 5 hops, the last one the recipient                  |
//! | delay         | `u64`         | nanoseconds, at the hop itself; of the last hop unused   |
//! | message       | `&[u8]`       | 0 to [`MESSAGE_LEN`](crate::MESSAGE_LEN) bytes           |
//! | table         | of a key      | 30 KiB, a millisecond to make                            |
//!
//! | multiplications       | several packets at once       | one packet                          |
//! |-----------------------|-------------------------------|-------------------------------------|
//! | with lanes            | eight at a time, no tables    | by the key's table, if it has one   |
//! | with AVX2             | by tables, or four at a time  | by the key's table, if it has one   |
//! |                       | if there are none             |                                     |
//! | without               | by tables, where there are    | by the key's table, if it has one   |
//!
//! Invariants: a pure function of its arguments and of the bytes that were drawn; batches, paths
//! and tables change no byte.

use std::collections::BTreeMap;

use curve25519_dalek::edwards::EdwardsBasepointTable;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::BasepointTable;
use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::curve::{Path, PathAbsent, Point, multiply, multiply_batch};
use crate::header::{Built, Draft, headers};
use crate::keys::PublicKey;
use crate::lanes::{FEW, LANES};
use crate::layout::{Address, HEADER_LEN, PACKET_LEN, Packet, SEED_LEN, SurbId, split_packet};
use crate::payload::pad;
use crate::surb::{Surb, SurbSecret};
use crate::wide::add_layers;

/// One stage of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What the hop before reads as "next".
    pub address: Address,
    /// The hop's packet key.
    pub key: PublicKey,
    /// How long this hop is to hold the packet, in nanoseconds. The last hop reads no delay.
    pub delay_ns: u64,
}

/// Builds a packet that travels along `route` and carries `message` to its last hop, which also
/// reads `destination` and `surb_id`. Every random byte is drawn from `rng`.
///
/// # Panics
/// If the route is empty or longer than 5, or the message longer than
/// [`MESSAGE_LEN`](crate::MESSAGE_LEN): our own bug.
pub fn build(
    rng: &mut impl CryptoRng,
    route: &[Hop],
    destination: Address,
    surb_id: SurbId,
    message: &[u8],
) -> Box<Packet> {
    let draft = Draft::new(rng, route, destination, surb_id);
    let mut packets = Builder::default().packets(&[(draft, message)]);
    packets.pop().expect("a packet a draft")
}

/// Builds packets and reply blocks from drafts: the more at once, the less each costs.
#[derive(Clone)]
pub struct Builder {
    path: Path,
    tables: BTreeMap<PublicKey, Box<EdwardsBasepointTable>>,
}

impl Default for Builder {
    /// On the fastest path, without tables.
    fn default() -> Builder {
        Builder {
            path: Path::best(),
            tables: BTreeMap::new(),
        }
    }
}

impl core::fmt::Debug for Builder {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let tables = self.tables.len();
        write!(out, "Builder({}, {tables} tables)", self.path.name())
    }
}

impl Builder {
    /// The same builder, on `path`.
    ///
    /// # Errors
    /// [`PathAbsent`] if the processor lacks the path.
    pub fn on(mut self, path: Path) -> Result<Builder, PathAbsent> {
        self.path = path.require()?;
        Ok(self)
    }

    /// The same builder, with a table of multiples of each of `keys`: 30 KiB and about a
    /// millisecond for each, so for a bounded number of keys that are used thousands of times.
    #[must_use]
    pub fn knowing<'a>(mut self, keys: impl IntoIterator<Item = &'a PublicKey>) -> Builder {
        for key in keys {
            self.tables.entry(*key).or_insert_with(|| {
                // The sign is free: u does not tell a point from its negative.
                let point = MontgomeryPoint(*key.as_bytes()).to_edwards(0);
                let point = point.expect("a public key is on the curve");
                Box::new(EdwardsBasepointTable::create(&point))
            });
        }
        self
    }

    /// A packet for each draft, which carries the message beside it to the last hop.
    ///
    /// # Panics
    /// If a message is longer than [`MESSAGE_LEN`](crate::MESSAGE_LEN): our own bug.
    pub fn packets<M: AsRef<[u8]>>(&self, batch: &[(Draft, M)]) -> Vec<Box<Packet>> {
        let drafts: Vec<&Draft> = batch.iter().map(|(draft, _)| draft).collect();
        let built = headers(self, &drafts);
        let bare = built.iter().zip(batch);
        let mut packets: Vec<Box<Packet>> = bare
            .map(|(built, (_, message))| bare_packet(&built.header, message.as_ref()))
            .collect();
        for (built, packets) in built.chunks(LANES).zip(packets.chunks_mut(LANES)) {
            let mut payloads: Vec<&mut [u8]> = packets
                .iter_mut()
                .map(|packet| split_packet(packet).1.as_mut_slice())
                .collect();
            self.wrap(built, &mut payloads);
        }
        packets
    }

    /// A reply block for each draft that [`Draft::reply`] made, and the secret that its creator
    /// needs to read the reply.
    ///
    /// # Panics
    /// If a draft is one of a forward packet: our own bug.
    pub fn surbs(&self, drafts: &[Draft]) -> Vec<(Surb, SurbSecret)> {
        let built = headers(self, &drafts.iter().collect::<Vec<_>>());
        let each = drafts.iter().zip(&built);
        each.map(|(draft, built)| Surb::of(draft, built)).collect()
    }

    pub(crate) fn path(&self) -> Path {
        self.path
    }

    /// The layers of all hops on up to eight payloads, the last hop's first.
    fn wrap(&self, built: &[Built], payloads: &mut [&mut [u8]]) {
        let hops = built[0].secrets.len();
        let equal = built.iter().all(|built| built.secrets.len() == hops);
        match self.path.lanes() {
            Some(lanes) if equal && built.len() > FEW => {
                for hop in (0..hops).rev() {
                    let seeds = built
                        .iter()
                        .map(|built| built.secrets[hop].payload_seed())
                        .collect::<Vec<_>>();
                    lanes.add_layers(&seeds, payloads);
                }
            }
            _ => {
                for (built, payload) in built.iter().zip(payloads) {
                    let seeds = built.secrets.iter().rev().map(|hop| hop.payload_seed());
                    add_layers(self.path, seeds, payload);
                }
            }
        }
    }

    /// Each secret, clamped, times the base point.
    pub(crate) fn publish<'a>(
        &self,
        secrets: impl Iterator<Item = &'a [u8; 32]>,
        alphas: &mut [Point],
    ) {
        if self.path.lanes().is_some() && alphas.len() > FEW {
            let secrets: Vec<&[u8; 32]> = secrets.collect();
            let base = core::array::from_fn(|i| if i == 0 { 9 } else { 0 });
            let base = vec![&base; secrets.len()];
            return self.path.x25519_batch(&secrets, &base, alphas);
        }
        for (alpha, secret) in alphas.iter_mut().zip(secrets) {
            *alpha = self.path.public(secret);
        }
    }

    /// Each scalar times the key beside it.
    pub(crate) fn multiply<'a>(
        &self,
        scalars: &[Scalar],
        keys: impl Iterator<Item = &'a PublicKey>,
        products: &mut [Point],
    ) {
        let tables = self.path.lanes().is_none() && !self.tables.is_empty();
        if self.path.together() > 1 && scalars.len() > 1 && !tables {
            let points: Vec<&Point> = keys.map(PublicKey::as_bytes).collect();
            return multiply_batch(self.path, scalars, &points, products);
        }
        for ((product, scalar), key) in products.iter_mut().zip(scalars).zip(keys) {
            *product = match self.tables.get(key) {
                Some(table) => {
                    let mut point = &**table * scalar;
                    let product = point.to_montgomery().to_bytes();
                    point.zeroize();
                    product
                }
                None => *multiply(self.path, scalar, key.as_bytes()),
            };
        }
    }
}

/// A packet of this header, its message under the layers of `seeds`, the innermost first.
pub(crate) fn assemble<'a>(
    header: &[u8; HEADER_LEN],
    message: &[u8],
    seeds: impl IntoIterator<Item = &'a [u8; SEED_LEN]>,
) -> Box<Packet> {
    let mut packet = bare_packet(header, message);
    add_layers(Path::best(), seeds, split_packet(&mut packet).1);
    packet
}

/// A packet whose payload has no layer yet.
fn bare_packet(header: &[u8; HEADER_LEN], message: &[u8]) -> Box<Packet> {
    let mut packet = Box::new([0; PACKET_LEN]);
    let (to_header, payload) = split_packet(&mut packet);
    to_header.copy_from_slice(header);
    pad(message, payload);
    packet
}
