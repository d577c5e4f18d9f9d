//! Peeling a packet: [`open`] decides, [`finish`] changes.
//!
//! Spec: docs/spec/packet.md, PKT-6 to PKT-13.
//!
//! | quantity      | type          | unit, range                                              |
//! |---------------|---------------|----------------------------------------------------------|
//! | batch         | an iterator   | packets, any number                                      |
//! | delay cap     | `u64`         | nanoseconds, from the consensus                          |
//! | verdict       | [`Reject`]    | the first reason that holds, in the order of the enum    |
//!
//! Order: shared secret, MAC, version, flag, delay. Nothing of the header is read before its MAC
//! holds, and the MAC is checked once, in constant time. Everything that can refuse a packet is
//! in `open`, which changes nothing; between the two steps the caller asks its replay set.
//!
//! Not done here: remembering tags; clamping a delay (a packet that asks for too much is
//! refused, since clamping would bend the law of the delays).

use core::borrow::Borrow;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::curve::Path;
use crate::erasing::Erasing;
use crate::keys::SecretKey;
use crate::lanes::{FEW, LANES};
use crate::layout::{
    ALPHA_LEN, Address, BETA_LEN, BLOCK_ADDRESS, BLOCK_DELAY, BLOCK_GAMMA, BLOCK_LEN,
    BLOCK_SURB_ID, BLOCK_VERSION, FINAL, FORWARD, GAMMA_LEN, HEADER_LEN, Packet, SEED_LEN,
    STREAM_LEN, SurbId, Tag, VERSION, array, split_header, split_packet,
};
use crate::secrets::Secrets;
use crate::wide::{remove_layer, remove_layers};

/// Packets that share a pass: four times the lanes, whose inversions are one.
pub(crate) const BATCH: usize = 4 * LANES;

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

/// What [`open`] found of each packet. Finish by reference what stands here: then a packet's keys
/// are in one place from opening to finishing, and are erased there.
pub type Verdicts = Erasing<Result<Opened, Reject>>;

impl fmt::Debug for Opened {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Opened(..)")
    }
}

/// Checks a batch of packets, none of which it changes, and appends a verdict for each, in their
/// order, to `verdicts`. `delay_max_ns` is the longest delay that the consensus allows, in
/// nanoseconds. Allocates nothing but what `verdicts` may need to grow.
pub fn open<'a>(
    key: &SecretKey,
    delay_max_ns: u64,
    packets: impl IntoIterator<Item = &'a Packet>,
    verdicts: &mut Verdicts,
) {
    let headers = packets.into_iter().map(|packet| array(packet, 0));
    open_headers(key, delay_max_ns, headers, verdicts);
}

/// [`open`] for headers, which is all that it reads.
pub fn open_headers<'a>(
    key: &SecretKey,
    delay_max_ns: u64,
    headers: impl IntoIterator<Item = &'a [u8; HEADER_LEN]>,
    verdicts: &mut Verdicts,
) {
    let mut headers = headers.into_iter().peekable();
    while let Some(&first) = headers.peek() {
        let mut chunk = [first; BATCH];
        let mut count = 0;
        for (to, header) in chunk.iter_mut().zip(&mut headers) {
            *to = header;
            count += 1;
        }
        if count > 1 {
            open_together(key, delay_max_ns, &chunk[..count], verdicts);
        } else {
            verdicts.extend([open_header(key, delay_max_ns, first)]);
        }
    }
}

/// At most [`BATCH`] headers.
fn open_together(
    key: &SecretKey,
    delay_max_ns: u64,
    headers: &[&[u8; HEADER_LEN]],
    verdicts: &mut Verdicts,
) {
    let mut shared = Zeroizing::new([[0; 32]; BATCH]);
    let alphas: [&[u8; 32]; BATCH] =
        core::array::from_fn(|i| split_header(headers[i.min(headers.len() - 1)]).0);
    key.shared_secrets(&alphas[..headers.len()], &mut shared[..headers.len()]);
    let judge =
        |header: &[u8; HEADER_LEN], shared: &[u8; 32], secrets: Secrets, mac: [u8; GAMMA_LEN]| {
            // Whether it is zero leaks nothing: that depends on α alone (PKT-6).
            if shared.ct_eq(&[0; 32]).into() {
                return Err(Reject::LowOrder);
            }
            let (_, gamma, beta) = split_header(header);
            let holds = mac.ct_eq(gamma);
            decide(secrets, holds.into(), beta, delay_max_ns, key.path())
        };
    for (headers, shared) in headers.chunks(LANES).zip(shared.chunks(LANES)) {
        // A pass costs as much for one as for eight.
        let lanes = key.path().lanes().filter(|_| headers.len() > FEW);
        let Some(lanes) = lanes else {
            verdicts.extend(headers.iter().zip(shared).map(|(header, shared)| {
                let secrets = Secrets::expand(shared);
                let mac = secrets.mac(split_header(header).2);
                judge(header, shared, secrets, mac)
            }));
            continue;
        };
        // Lanes without a header repeat the last.
        let last = headers.len() - 1;
        let betas = core::array::from_fn(|lane| split_header(headers[lane.min(last)]).2);
        let secrets = lanes.expand(core::array::from_fn(|lane| &shared[lane.min(last)]));
        let macs = lanes.mac(secrets.each_ref(), betas);
        let each = headers.iter().zip(shared).zip(secrets).zip(macs);
        verdicts.extend(
            each.map(|(((header, shared), secrets), mac)| judge(header, shared, secrets, mac)),
        );
    }
}

/// [`open`] for one packet.
///
/// # Errors
/// The first of [`Reject`]'s reasons that holds.
pub fn open_one(key: &SecretKey, delay_max_ns: u64, packet: &Packet) -> Result<Opened, Reject> {
    open_header(key, delay_max_ns, array(packet, 0))
}

/// [`open_one`] for a header, which is all that it reads.
///
/// # Errors
/// The first of [`Reject`]'s reasons that holds.
pub fn open_header(
    key: &SecretKey,
    delay_max_ns: u64,
    header: &[u8; HEADER_LEN],
) -> Result<Opened, Reject> {
    let (alpha, gamma, beta) = split_header(header);
    // PKT-6: before anything is derived of a secret that all know.
    let shared_secret = key.shared_secret(alpha).ok_or(Reject::LowOrder)?;
    let secrets = Secrets::expand(&shared_secret);
    let holds = secrets.verify(beta, gamma);
    decide(secrets, holds, beta, delay_max_ns, key.path())
}

/// The verdict on a header, once it is known whether its MAC holds.
fn decide(
    secrets: Secrets,
    mac_holds: bool,
    beta: &[u8; BETA_LEN],
    delay_max_ns: u64,
    path: Path,
) -> Result<Opened, Reject> {
    // PKT-8: before any byte of β means anything.
    if !mac_holds {
        return Err(Reject::Mac);
    }
    let mut block: Zeroizing<[u8; BLOCK_LEN]> = Zeroizing::new(*array(beta, 0));
    secrets.apply_stream(block.as_mut_slice());
    let routing = read_block(&block, delay_max_ns)?;
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
    finish_one(&opened, header, payload);
}

/// [`finish`] for a payload of any length above 32 bytes.
pub fn finish_parts(opened: Opened, header: &mut [u8; HEADER_LEN], payload: &mut [u8]) {
    finish_one(&opened, header, payload);
}

fn finish_one(opened: &Opened, header: &mut [u8; HEADER_LEN], payload: &mut [u8]) {
    remove_layer(opened.path, opened.secrets.payload_seed(), payload);
    // PKT-13
    if matches!(opened.routing, Routing::Final { .. }) {
        return;
    }
    let (alpha, _, _) = split_header(header);
    let next_alpha = *opened.path.x25519(opened.secrets.blinding(), alpha);
    rewrite(&opened.secrets, &next_alpha, header);
}

/// [`finish`] of each packet, in place; allocates nothing. Given references, it moves no key: what
/// was opened is erased where it lies, when its owner drops it.
pub fn finish_batch<'a, O: Borrow<Opened>>(batch: impl IntoIterator<Item = (O, &'a mut Packet)>) {
    let parts = batch.into_iter().map(|(opened, packet)| {
        let (header, payload) = split_packet(packet);
        (opened, header, payload.as_mut_slice())
    });
    finish_batch_parts(parts);
}

/// [`finish_batch`] for payloads of any length above 32 bytes.
pub fn finish_batch_parts<'a, O: Borrow<Opened>>(
    batch: impl IntoIterator<Item = (O, &'a mut [u8; HEADER_LEN], &'a mut [u8])>,
) {
    let mut batch = batch.into_iter().peekable();
    while batch.peek().is_some() {
        let mut chunk = [const { None }; BATCH];
        let mut count = 0;
        for (to, parts) in chunk.iter_mut().zip(&mut batch) {
            *to = Some(parts);
            count += 1;
        }
        finish_chunk(&mut chunk[..count]);
    }
}

type Parts<'a, O> = Option<(O, &'a mut [u8; HEADER_LEN], &'a mut [u8])>;

/// Takes up to [`BATCH`] packets, on the path of the first: the bytes are the same on each (PKT-22).
fn finish_chunk<O: Borrow<Opened>>(chunk: &mut [Parts<'_, O>]) {
    let Some((first, ..)) = chunk.iter().flatten().next() else {
        return;
    };
    let path = first.borrow().path;
    // α of each packet that goes on, and the factor that blinds it (PKT-13). How many end here shows in
    // the time of a batch, as it does one at a time.
    let (mut alphas, mut factors) = ([&[0; ALPHA_LEN]; BATCH], [&[0; 32]; BATCH]);
    let mut going_on = 0;
    for (opened, header, _) in chunk.iter().flatten() {
        let opened: &Opened = opened.borrow();
        if matches!(opened.routing, Routing::Forward { .. }) {
            alphas[going_on] = split_header(header).0;
            factors[going_on] = opened.secrets.blinding();
            going_on += 1;
        }
    }
    let mut next_alphas = [[0; ALPHA_LEN]; BATCH];
    path.x25519_batch(
        &factors[..going_on],
        &alphas[..going_on],
        &mut next_alphas[..going_on],
    );
    let mut next_alphas = next_alphas.iter();
    for eight in chunk.chunks_mut(LANES) {
        let filled = eight.len();
        let mut seeds = [&[0; SEED_LEN]; LANES];
        let mut payloads: [&mut [u8]; LANES] = core::array::from_fn(|_| <&mut [u8]>::default());
        let each = eight.iter_mut().filter_map(Option::as_mut);
        for ((opened, header, payload), (seed, to)) in each.zip(seeds.iter_mut().zip(&mut payloads))
        {
            let opened: &Opened = (*opened).borrow();
            if matches!(opened.routing, Routing::Forward { .. }) {
                let next_alpha = next_alphas.next().expect("one for each that goes on");
                rewrite(&opened.secrets, next_alpha, header);
            }
            *seed = opened.secrets.payload_seed();
            *to = payload;
        }
        take_layers_off(path, &seeds[..filled], &mut payloads[..filled]);
    }
    chunk.fill_with(|| None);
}

/// Takes the layers off up to eight payloads, in one pass if there are lanes, and they are equally long
/// and not few.
fn take_layers_off(path: Path, seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
    let equal = |payload: &&mut [u8]| payload.len() == payloads[0].len();
    if let Some(lanes) = path.lanes()
        && payloads.len() > FEW
        && payloads.iter().all(equal)
    {
        return lanes.remove_layers(seeds, payloads);
    }
    remove_layers(path, seeds, payloads);
}

/// The header that the next hop reads (PKT-12).
fn rewrite(secrets: &Secrets, next_alpha: &[u8; ALPHA_LEN], header: &mut [u8; HEADER_LEN]) {
    let (_, _, beta) = split_header(header);
    let mut blocks = [0; STREAM_LEN];
    blocks[..BETA_LEN].copy_from_slice(beta);
    secrets.apply_stream(&mut blocks);

    header[..ALPHA_LEN].copy_from_slice(next_alpha);
    header[ALPHA_LEN..][..GAMMA_LEN].copy_from_slice(&blocks[BLOCK_GAMMA]);
    header[ALPHA_LEN + GAMMA_LEN..].copy_from_slice(&blocks[BLOCK_LEN..]);
}
