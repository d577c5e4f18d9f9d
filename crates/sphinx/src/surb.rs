//! Single-use reply blocks, and what their creator keeps to read the replies.
//!
//! Spec: docs/spec/packet.md, PKT-18 to PKT-21.
//!
//! | quantity      | type           | unit, range                                             |
//! |---------------|----------------|---------------------------------------------------------|
//! | written SURB  | `[u8; 396]`    | header 348, first hop 32, seed of the last hop 16       |
//! | kept secret   | `[u8; 96]`     | id 16, five seeds of 16 in the order of the route       |
//! | id            | [`SurbId`]     | 16 bytes, random, not zero                              |
//!
//! The user of a SURB adds one layer, the last hop's; each hop takes off its own, so that what
//! reaches the creator has layers *missing*. The creator puts them back and takes the user's off.
//! The user learns no key of a hop but the creator's own, and cannot recognise its packet beyond
//! its first hop.
//!
//! Not done here: single use. A SURB is consumed by [`Surb::use_with`], but bytes can be copied;
//! creators refuse an id that they have seen.

use core::fmt;

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::build::{Builder, Hop, assemble};
use crate::curve::Path;
use crate::header::{Built, Draft};
use crate::layout::{
    Address, HEADER_LEN, PAYLOAD_LEN, Packet, ROUTE_LEN_MAX, SEED_LEN, SURB_LEN, SURB_SECRET_LEN,
    SurbId, array,
};
use crate::wide::{add_layers, remove_layer};

const FIRST_HOP: usize = HEADER_LEN;
const SEED: usize = FIRST_HOP + 32;
const ID_LEN: usize = 16;

/// A reply block: whoever holds it can send one packet to its creator (PKT-18).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Surb([u8; SURB_LEN]);

impl Surb {
    /// Takes a written SURB. Any bytes are one: what is wrong with it shows at its first hop.
    pub fn parse(bytes: &[u8; SURB_LEN]) -> Surb {
        Surb(*bytes)
    }

    /// Writes the SURB.
    pub fn to_bytes(&self) -> [u8; SURB_LEN] {
        self.0
    }

    /// The node that its packet is to be given to.
    pub fn first_hop(&self) -> Address {
        *array(&self.0, FIRST_HOP)
    }

    /// The packet that carries `message` to the SURB's creator (PKT-19).
    ///
    /// # Panics
    /// If the message is longer than [`MESSAGE_LEN`](crate::MESSAGE_LEN): our own bug.
    pub fn use_with(self, message: &[u8]) -> Box<Packet> {
        assemble(array(&self.0, 0), message, [array(&self.0, SEED)])
    }
}

impl Surb {
    /// The written form of a header, and what its creator keeps.
    pub(crate) fn of(draft: &Draft, built: &Built) -> (Surb, SurbSecret) {
        assert!(draft.surb_id != [0; ID_LEN], "zero is of forward packets"); // PKT-20
        let mut seeds = [[0; SEED_LEN]; ROUTE_LEN_MAX];
        for (seed, secrets) in seeds.iter_mut().zip(&built.secrets) {
            *seed = *secrets.payload_seed();
        }
        let mut bytes = [0; SURB_LEN];
        bytes[..HEADER_LEN].copy_from_slice(&built.header);
        bytes[FIRST_HOP..SEED].copy_from_slice(&draft.route[0].address);
        bytes[SEED..].copy_from_slice(&seeds[draft.route.len() - 1]);
        let id = draft.surb_id;
        (Surb(bytes), SurbSecret { id, seeds })
    }
}

impl fmt::Debug for Surb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Surb(..)")
    }
}

/// What the creator of a SURB keeps, durably, until a reply came or the SURB expired.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SurbSecret {
    id: SurbId,
    /// In the order of the route; zeros where the route has no hop.
    seeds: [[u8; SEED_LEN]; ROUTE_LEN_MAX],
}

impl SurbSecret {
    /// The id that the reply will carry.
    pub fn id(&self) -> SurbId {
        self.id
    }

    /// Writes the secret: the id, then five seeds, zeros for hops that the route has not.
    pub fn to_bytes(&self) -> Zeroizing<[u8; SURB_SECRET_LEN]> {
        let mut bytes = Zeroizing::new([0; SURB_SECRET_LEN]);
        bytes[..ID_LEN].copy_from_slice(&self.id);
        bytes[ID_LEN..].copy_from_slice(self.seeds.as_flattened());
        bytes
    }

    /// Reads what [`SurbSecret::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; SURB_SECRET_LEN]) -> SurbSecret {
        let mut seeds = [[0; SEED_LEN]; ROUTE_LEN_MAX];
        seeds.as_flattened_mut().copy_from_slice(&bytes[ID_LEN..]);
        SurbSecret {
            id: *array(bytes, 0),
            seeds,
        }
    }

    /// Turns the payload that [`finish`](crate::finish) left at the creator into a bare one, to
    /// which [`unpad`](crate::unpad) applies (PKT-21).
    pub fn recover(&self, payload: &mut [u8; PAYLOAD_LEN]) {
        recover_parts(self, payload);
    }
}

/// [`SurbSecret::recover`] for a payload of any length above 32 bytes.
pub fn recover_parts(secret: &SurbSecret, payload: &mut [u8]) {
    let absent = [0; SEED_LEN];
    let hops = secret.seeds.iter().rev().filter(|seed| **seed != absent);
    let Some(last) = hops.clone().next() else {
        return;
    };
    add_layers(Path::best(), hops, payload);
    remove_layer(Path::best(), last, payload);
}

impl fmt::Debug for SurbSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SurbSecret(..)")
    }
}

/// Makes a SURB whose reply travels along `route`; the last hop is the creator, who then reads
/// `destination` and a random id, and needs the secret returned here to read the payload.
///
/// # Panics
/// If the route is empty or longer than 5: our own bug.
pub fn surb(rng: &mut impl CryptoRng, route: &[Hop], destination: Address) -> (Surb, SurbSecret) {
    let draft = Draft::reply(rng, route, destination);
    let mut made = Builder::default().surbs(&[draft]);
    made.pop().expect("a SURB a draft")
}
