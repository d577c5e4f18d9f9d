//! Building headers: one scalar multiplication a hop, many packets side by side.
//!
//! Spec: docs/spec/packet.md, PKT-14 to PKT-16.
//!
//! The builder knows its secret x and every blinding factor, so the secret shared with hop i is
//! (x · b₁ ⋯ bᵢ mod ℓ) · Pᵢ: one multiplication, where `sphinx-packet` walks the whole chain. The
//! two agree because every Pᵢ is free of torsion, and no factor vanishes: a clamped scalar lies
//! between 2²⁵⁴ and 2²⁵⁵, and its only candidate multiple of ℓ, 8ℓ, lies above.
//!
//! A packet's hops follow from each other, so one packet fills no lanes; packets of equally long
//! routes go hop by hop together.
//!
//! Randomness, in this order: 32 bytes for x, then the padding of the last block,
//! 300 − 60 (n − 1) − 52 bytes for n hops (PKT-16). It is drawn by [`Draft`], before anything is
//! computed: a batch draws what its packets draw one after the other.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::build::{Builder, Hop};
use crate::lanes::{FEW, LANES};
use crate::layout::{
    ALPHA_LEN, Address, BETA_LEN, BLOCK_ADDRESS, BLOCK_DELAY, BLOCK_GAMMA, BLOCK_LEN,
    BLOCK_SURB_ID, BLOCK_VERSION, FINAL, FINAL_LEN, FORWARD, GAMMA_LEN, HEADER_LEN, ROUTE_LEN_MAX,
    STREAM_LEN, SurbId, VERSION,
};
use crate::open::BATCH;
use crate::secrets::Secrets;

/// A packet, or reply block, before anything of it is computed: its route, and every random byte
/// that it takes. Its secret is erased when it is dropped.
pub struct Draft {
    pub(crate) route: Vec<Hop>,
    destination: Address,
    pub(crate) surb_id: SurbId,
    x: Zeroizing<[u8; 32]>,
    /// As long as a route of one hop takes it; longer routes take less.
    padding: [u8; BETA_LEN - FINAL_LEN],
}

impl Draft {
    /// Draws what a packet along `route` takes from `rng`.
    ///
    /// # Panics
    /// If the route is empty or longer than [`ROUTE_LEN_MAX`]: our own bug.
    pub fn new(
        rng: &mut impl CryptoRng,
        route: &[Hop],
        destination: Address,
        surb_id: SurbId,
    ) -> Draft {
        assert!(
            (1..=ROUTE_LEN_MAX).contains(&route.len()),
            "a route has 1 to 5 hops"
        );
        let mut draft = Draft {
            route: route.to_vec(),
            destination,
            surb_id,
            x: Zeroizing::new([0; 32]),
            padding: [0; BETA_LEN - FINAL_LEN],
        };
        rng.fill_bytes(&mut *draft.x);
        // Random, not zero: zeros would tell the last hop how long the route was (PKT-16).
        let taken = draft.padding.len() - BLOCK_LEN * (route.len() - 1);
        rng.fill_bytes(&mut draft.padding[..taken]);
        draft
    }

    /// Draws what a reply block takes whose reply travels along `route`; the last hop is its
    /// creator, who then reads `destination`. The id is drawn, too, and not zero (PKT-20).
    ///
    /// # Panics
    /// As [`Draft::new`].
    pub fn reply(rng: &mut impl CryptoRng, route: &[Hop], destination: Address) -> Draft {
        let mut id = SurbId::default();
        while id == SurbId::default() {
            rng.fill_bytes(&mut id);
        }
        Draft::new(rng, route, destination, id)
    }
}

impl core::fmt::Debug for Draft {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("Draft(..)")
    }
}

/// A header for the first hop, and what each hop will derive from it, in the order of the route.
pub(crate) struct Built {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) secrets: Vec<Secrets>,
}

/// Builds the header of each draft.
pub(crate) fn headers(builder: &Builder, drafts: &[&Draft]) -> Vec<Built> {
    let mut built = Vec::with_capacity(drafts.len());
    let as_long = |a: &&Draft, b: &&Draft| a.route.len() == b.route.len();
    for drafts in drafts.chunk_by(as_long).flat_map(|run| run.chunks(BATCH)) {
        let from = built.len();
        derive(builder, drafts, &mut built);
        for (draft, built) in drafts.iter().zip(&mut built[from..]) {
            let (beta, gamma) = encrypt(draft, &built.secrets);
            built.header[ALPHA_LEN..][..GAMMA_LEN].copy_from_slice(&gamma);
            built.header[ALPHA_LEN + GAMMA_LEN..].copy_from_slice(&beta);
        }
    }
    built
}

/// The first α and every hop's secrets (PKT-14), of at most [`BATCH`] equally long routes.
fn derive(builder: &Builder, drafts: &[&Draft], built: &mut Vec<Built>) {
    let count = drafts.len();
    let mut alphas = [[0; ALPHA_LEN]; BATCH];
    builder.publish(drafts.iter().map(|draft| &*draft.x), &mut alphas[..count]);
    let from = built.len();
    for (draft, alpha) in drafts.iter().zip(&alphas) {
        let mut header = [0; HEADER_LEN];
        header[..ALPHA_LEN].copy_from_slice(alpha);
        let secrets = Vec::with_capacity(draft.route.len());
        built.push(Built { header, secrets });
    }
    let of_x = drafts.iter().map(|draft| clamped_mod_order(&draft.x));
    let mut scalars = Zeroizing::new(of_x.collect::<Vec<_>>());
    let mut shared = Zeroizing::new([[0; 32]; BATCH]);
    for hop in 0..drafts[0].route.len() {
        let keys = drafts.iter().map(|draft| &draft.route[hop].key);
        builder.multiply(&scalars, keys, &mut shared[..count]);
        let eights = built[from..]
            .chunks_mut(LANES)
            .zip(shared[..count].chunks(LANES));
        for ((built, shared), scalars) in eights.zip(scalars.chunks_mut(LANES)) {
            expand(builder, shared, built);
            for (built, scalar) in built.iter().zip(scalars) {
                *scalar *= clamped_mod_order(built.secrets[hop].blinding());
            }
        }
    }
}

/// What each of up to eight shared secrets expands to, for one hop more.
fn expand(builder: &Builder, shared: &[[u8; 32]], built: &mut [Built]) {
    match builder.path().lanes() {
        Some(lanes) if shared.len() > FEW => {
            // Lanes without a packet repeat the last.
            let secrets = lanes.expand(core::array::from_fn(|i| &shared[i.min(shared.len() - 1)]));
            for (built, secrets) in built.iter_mut().zip(secrets) {
                built.secrets.push(secrets);
            }
        }
        _ => {
            for (built, shared) in built.iter_mut().zip(shared) {
                built.secrets.push(Secrets::expand(shared));
            }
        }
    }
}

fn clamped_mod_order(bytes: &[u8; 32]) -> Scalar {
    Scalar::from_bytes_mod_order(clamp_integer(*bytes))
}

/// β and γ for the first hop, from the last hop's block outwards.
fn encrypt(draft: &Draft, secrets: &[Secrets]) -> ([u8; BETA_LEN], [u8; GAMMA_LEN]) {
    let (last, before) = secrets.split_last().expect("a route has a hop");
    let filler = filler(before);
    let own_len = BETA_LEN - filler.len();

    let mut beta = [0; BETA_LEN];
    let block = &mut beta[..own_len];
    block[0] = FINAL;
    block[BLOCK_VERSION].copy_from_slice(&VERSION);
    block[BLOCK_ADDRESS].copy_from_slice(&draft.destination);
    block[BLOCK_SURB_ID].copy_from_slice(&draft.surb_id);
    let padding = &draft.padding[..own_len - FINAL_LEN];
    block[FINAL_LEN..].copy_from_slice(padding);
    last.apply_stream(block);
    beta[own_len..].copy_from_slice(&filler);
    let mut gamma = last.mac(&beta);

    for (i, secrets) in before.iter().enumerate().rev() {
        // What falls off the end is filler that this hop's key stream brings back.
        beta.copy_within(..BETA_LEN - BLOCK_LEN, BLOCK_LEN);
        let block = &mut beta[..BLOCK_LEN];
        block[0] = FORWARD;
        block[BLOCK_VERSION].copy_from_slice(&VERSION);
        block[BLOCK_ADDRESS].copy_from_slice(&draft.route[i + 1].address);
        block[BLOCK_DELAY].copy_from_slice(&draft.route[i].delay_ns.to_be_bytes());
        block[BLOCK_GAMMA].copy_from_slice(&gamma);
        secrets.apply_stream(&mut beta);
        gamma = secrets.mac(&beta);
    }
    (beta, gamma)
}

/// The tail of the last hop's β: what the hops before it make of the zeros they append (PKT-15).
fn filler(before: &[Secrets]) -> Vec<u8> {
    let mut filler = Vec::with_capacity(BETA_LEN);
    for secrets in before {
        filler.resize(filler.len() + BLOCK_LEN, 0);
        let mut stream = Zeroizing::new([0; STREAM_LEN]);
        secrets.apply_stream(&mut *stream);
        let tail = &stream[STREAM_LEN - filler.len()..];
        for (byte, stream) in filler.iter_mut().zip(tail) {
            *byte ^= stream;
        }
    }
    filler
}
