//! Peeling a packet: [`open`] decides, [`finish`] changes.
//!
//! Spec: docs/spec/packet.md, PKT-6 to PKT-13.
//!
//! | quantity      | type          | unit, range                                              |
//! |---------------|---------------|----------------------------------------------------------|
//! | batch         | `&[Box<..>]`  | packets, any number                                      |
//! | delay cap     | `u64`         | nanoseconds, from the consensus                          |
//! | verdict       | [`Reject`]    | the first reason that holds, in the order of the enum    |
//!
//! Order: shared secret, MAC, version, flag, delay. Nothing of the header is read before its MAC
//! holds, and the MAC is checked once, in constant time. Everything that can refuse a packet is
//! in `open`, which changes nothing; between the two steps the caller asks its replay set.
//!
//! Not done here: remembering tags; clamping a delay (a packet that asks for too much is
//! refused, since clamping would bend the law of the delays).

use core::fmt;

use zeroize::ZeroizeOnDrop;

use crate::curve::Path;
use crate::keys::SecretKey;
use crate::layout::{
    ALPHA_LEN, Address, BETA_LEN, BLOCK_ADDRESS, BLOCK_DELAY, BLOCK_GAMMA, BLOCK_LEN,
    BLOCK_SURB_ID, BLOCK_VERSION, FINAL, FORWARD, GAMMA_LEN, HEADER_LEN, Packet, STREAM_LEN,
    SurbId, Tag, VERSION, array, split_header, split_packet,
};
use crate::secrets::Secrets;
use crate::wide::remove_layer;

/// Why a packet was refused. Counted, never answered and never logged per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// α is of low order: the shared secret would be zero, and one header valid everywhere.
    LowOrder,
    /// The header's MAC does not hold: changed on its way, or made for another key.
    Mac,
    /// Not version 260.
    Version,
    /// Neither a forward nor a final hop.
    Flag,
    /// The asked delay is above the cap.
    DelayTooLong,
}

/// What a hop reads in its routing block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Hold the packet, then pass it on.
    Forward {
        /// A node id or, at a mailbox gateway, a mailbox id.
        next: Address,
        /// How long to hold it, in nanoseconds, at most the cap.
        delay_ns: u64,
    },
    /// The packet ends here.
    Final {
        /// What its builder wrote.
        destination: Address,
        /// Not zero in a reply: which of the reader's SURBs it used.
        surb_id: SurbId,
    },
}

/// A packet that passed every check of [`open`], not yet changed. Its keys are erased when it is
/// dropped (PKT-5).
pub struct Opened {
    secrets: Secrets,
    routing: Routing,
    path: Path,
}

impl Opened {
    /// What the replay set is to remember (PKT-11).
    pub fn tag(&self) -> &Tag {
        self.secrets.tag()
    }

    /// Where the packet goes.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }
}

/// Its only secret field erases itself; [`finish`] takes it apart, so it has no `Drop` of its own.
impl ZeroizeOnDrop for Opened {}

impl fmt::Debug for Opened {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Opened(..)")
    }
}

/// Checks a batch of packets, none of which it changes; one verdict for each, in their order.
/// `delay_max_ns` is the longest delay that the consensus allows, in nanoseconds.
pub fn open(
    key: &SecretKey,
    delay_max_ns: u64,
    packets: &[Box<Packet>],
) -> Vec<Result<Opened, Reject>> {
    packets
        .iter()
        .map(|packet| open_one(key, delay_max_ns, packet))
        .collect()
}

/// [`open`] for one packet.
///
/// # Errors
/// The first of [`Reject`]'s reasons that holds.
pub fn open_one(key: &SecretKey, delay_max_ns: u64, packet: &Packet) -> Result<Opened, Reject> {
    open_header(key, delay_max_ns, array(packet, 0))
}

/// [`open`] for a header, which is all that it reads.
///
/// # Errors
/// The first of [`Reject`]'s reasons that holds.
pub fn open_header(
    key: &SecretKey,
    delay_max_ns: u64,
    header: &[u8; HEADER_LEN],
) -> Result<Opened, Reject> {
    let (alpha, gamma, beta) = split_header(header);
    // PKT-6: before anything else, so that no key is ever derived from a secret that all know.
    let shared_secret = key.shared_secret(alpha).ok_or(Reject::LowOrder)?;
    let secrets = Secrets::expand(&shared_secret);
    // PKT-8: before any byte of β means anything.
    if !secrets.verify(beta, gamma) {
        return Err(Reject::Mac);
    }
    let mut block: [u8; BLOCK_LEN] = *array(beta, 0);
    secrets.apply_stream(&mut block);
    let routing = read_block(&block, delay_max_ns)?;
    let path = key.path();
    Ok(Opened {
        secrets,
        routing,
        path,
    })
}

/// Reads a decrypted routing block (PKT-9, PKT-10).
fn read_block(block: &[u8; BLOCK_LEN], delay_max_ns: u64) -> Result<Routing, Reject> {
    // PKT-9: all three bytes, and here: the crate asserts that the first is zero.
    if block[BLOCK_VERSION] != VERSION {
        return Err(Reject::Version);
    }
    let address = *array(block, BLOCK_ADDRESS.start);
    match block[0] {
        FORWARD => {
            let delay_ns = u64::from_be_bytes(*array(block, BLOCK_DELAY.start));
            // PKT-10
            if delay_ns > delay_max_ns {
                return Err(Reject::DelayTooLong);
            }
            Ok(Routing::Forward {
                next: address,
                delay_ns,
            })
        }
        FINAL => Ok(Routing::Final {
            destination: address,
            surb_id: *array(block, BLOCK_SURB_ID.start),
        }),
        _ => Err(Reject::Flag),
    }
}

/// Turns the packet that was opened, in place, into what the next hop reads (PKT-12). At a final
/// hop only the payload's layer comes off, and the header stays (PKT-13).
pub fn finish(opened: Opened, packet: &mut Packet) {
    let (header, payload) = split_packet(packet);
    finish_parts(opened, header, payload);
}

/// [`finish`] for a payload of any length above 32 bytes.
pub fn finish_parts(opened: Opened, header: &mut [u8; HEADER_LEN], payload: &mut [u8]) {
    let Opened {
        secrets,
        routing,
        path,
    } = opened;
    remove_layer(secrets.payload_seed(), payload);
    // PKT-13
    if matches!(routing, Routing::Final { .. }) {
        return;
    }
    let (alpha, _, beta) = split_header(header);
    // PKT-12
    let next_alpha = secrets.blind(path, alpha);
    let mut blocks = [0; STREAM_LEN];
    blocks[..BETA_LEN].copy_from_slice(beta);
    secrets.apply_stream(&mut blocks);

    header[..ALPHA_LEN].copy_from_slice(&next_alpha);
    header[ALPHA_LEN..][..GAMMA_LEN].copy_from_slice(&blocks[BLOCK_GAMMA]);
    header[ALPHA_LEN + GAMMA_LEN..].copy_from_slice(&blocks[BLOCK_LEN..]);
}
