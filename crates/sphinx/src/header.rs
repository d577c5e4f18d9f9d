//! Building headers: one scalar multiplication a hop.
//!
//! Spec: docs/spec/packet.md, PKT-14 to PKT-16.
//!
//! The builder knows its secret x and every blinding factor, so the secret shared with hop i is
//! (x · b₁ ⋯ bᵢ mod ℓ) · Pᵢ: one multiplication, where `sphinx-packet` walks the whole chain. The
//! two agree because every Pᵢ is free of torsion, and no factor vanishes: a clamped scalar lies
//! between 2²⁵⁴ and 2²⁵⁵, and its only candidate multiple of ℓ, 8ℓ, lies above.
//!
//! Randomness, in this order: 32 bytes for x, then the padding of the last block,
//! 300 − 60 (n − 1) − 52 bytes for n hops (PKT-16).

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::build::Hop;
use crate::curve::{Path, multiply};
use crate::layout::{
    ALPHA_LEN, Address, BETA_LEN, BLOCK_ADDRESS, BLOCK_DELAY, BLOCK_GAMMA, BLOCK_LEN,
    BLOCK_SURB_ID, BLOCK_VERSION, FINAL, FINAL_LEN, FORWARD, GAMMA_LEN, HEADER_LEN, ROUTE_LEN_MAX,
    STREAM_LEN, SurbId, VERSION,
};
use crate::secrets::Secrets;

/// A header for the first hop, and what each hop will derive from it, in the order of the route.
pub(crate) struct Built {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) secrets: Vec<Secrets>,
}

/// Builds a header.
///
/// # Panics
/// If the route is empty or longer than [`ROUTE_LEN_MAX`]: our own bug.
pub(crate) fn build_header(
    rng: &mut impl CryptoRng,
    route: &[Hop],
    destination: &Address,
    surb_id: &SurbId,
) -> Built {
    assert!(
        (1..=ROUTE_LEN_MAX).contains(&route.len()),
        "a route has 1 to 5 hops"
    );
    let (alpha, secrets) = derive(rng, route);
    let (beta, gamma) = encrypt(rng, route, destination, surb_id, &secrets);

    let mut header = [0; HEADER_LEN];
    header[..ALPHA_LEN].copy_from_slice(&alpha);
    header[ALPHA_LEN..][..GAMMA_LEN].copy_from_slice(&gamma);
    header[ALPHA_LEN + GAMMA_LEN..].copy_from_slice(&beta);
    Built { header, secrets }
}

/// The first α and every hop's secrets (PKT-14).
fn derive(rng: &mut impl CryptoRng, route: &[Hop]) -> ([u8; ALPHA_LEN], Vec<Secrets>) {
    let mut x = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *x);
    let path = Path::best();
    let alpha = path.public(&x);

    let mut scalar = Zeroizing::new(clamped_mod_order(&x));
    let secrets = route
        .iter()
        .map(|hop| {
            let shared = multiply(path, &scalar, hop.key.as_bytes());
            let secrets = Secrets::expand(&shared);
            *scalar *= clamped_mod_order(secrets.blinding());
            secrets
        })
        .collect();
    (alpha, secrets)
}

fn clamped_mod_order(bytes: &[u8; 32]) -> Scalar {
    Scalar::from_bytes_mod_order(clamp_integer(*bytes))
}

/// β and γ for the first hop, from the last hop's block outwards.
fn encrypt(
    rng: &mut impl CryptoRng,
    route: &[Hop],
    destination: &Address,
    surb_id: &SurbId,
    secrets: &[Secrets],
) -> ([u8; BETA_LEN], [u8; GAMMA_LEN]) {
    let (last, before) = secrets.split_last().expect("a route has a hop");
    let filler = filler(before);
    let own_len = BETA_LEN - filler.len();

    let mut beta = [0; BETA_LEN];
    let block = &mut beta[..own_len];
    block[0] = FINAL;
    block[BLOCK_VERSION].copy_from_slice(&VERSION);
    block[BLOCK_ADDRESS].copy_from_slice(destination);
    block[BLOCK_SURB_ID].copy_from_slice(surb_id);
    // Random, not zero: zeros would tell the last hop how long the route was (PKT-16).
    rng.fill_bytes(&mut block[FINAL_LEN..]);
    last.apply_stream(block);
    beta[own_len..].copy_from_slice(&filler);
    let mut gamma = last.mac(&beta);

    for (i, secrets) in before.iter().enumerate().rev() {
        // What falls off the end is filler that this hop's key stream brings back.
        beta.copy_within(..BETA_LEN - BLOCK_LEN, BLOCK_LEN);
        let block = &mut beta[..BLOCK_LEN];
        block[0] = FORWARD;
        block[BLOCK_VERSION].copy_from_slice(&VERSION);
        block[BLOCK_ADDRESS].copy_from_slice(&route[i + 1].address);
        block[BLOCK_DELAY].copy_from_slice(&route[i].delay_ns.to_be_bytes());
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
