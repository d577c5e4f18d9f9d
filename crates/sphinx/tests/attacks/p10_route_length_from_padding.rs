//! p10: a last hop that finds zeros behind its block knows how long the route was. The padding
//! is random and the filler is encrypted, so behind its 52 bytes the last hop sees uniform bytes
//! for every length (PKT-15, PKT-16). 10⁴ headers, 2000 of each length.

use sphinx::any_size::{finish_parts, open_header};
use sphinx::{Hop, SecretKey};

use crate::statistics::uniform_effect;
use crate::support::{DELAY_MAX_NS, Keys, forge, seeded};

const SAMPLES: usize = 2000;
/// Bytes of β behind the last hop's own block.
const REST: usize = 300 - 52;

/// What the last hop of a fresh route sees behind its block.
fn last_view(rng: &mut chacha20::ChaCha20Rng, keys: &[SecretKey], route: &[Hop]) -> [u8; REST] {
    // A SURB is a header without the cost of a payload.
    let written = sphinx::surb(rng, route, [1; 32]).0.to_bytes();
    let mut header: [u8; 348] = written[..348].try_into().expect("348 bytes");
    let (last, before) = keys.split_last().expect("a hop");
    for key in before {
        let opened = open_header(key, DELAY_MAX_NS, &header).expect("honest");
        finish_parts(opened, &mut header, &mut [0; 33]);
    }
    Keys::of(&last.to_bytes(), &header).apply_stream(&mut header);
    header[48 + 52..].try_into().expect("248 bytes")
}

/// The largest bias of any byte position's bits: how far the share of ones is from one half.
fn worst_position(views: &[[u8; REST]]) -> f64 {
    (0..REST)
        .map(|at| {
            let ones: u32 = views.iter().map(|view| view[at].count_ones()).sum();
            (f64::from(ones) / (views.len() as f64 * 8.0) - 0.5).abs()
        })
        .fold(0.0, f64::max)
}

#[test]
fn attack_p10_route_length_from_padding() {
    let mut rng = seeded(10);
    for hops in 1..=5 {
        let (keys, route) = crate::support::route(&mut rng, hops);
        let views: Vec<_> = (0..SAMPLES)
            .map(|_| last_view(&mut rng, &keys, &route))
            .collect();
        // 496 000 bytes: √(255/N) = 0.0227 for uniform ones, deviation 0.001.
        let effect = uniform_effect(views.iter().flatten().copied());
        assert!(effect < 0.029, "{hops} hops: w = {effect}");
        // 16 000 bits a position: deviation 0.004, 248 positions.
        let bias = worst_position(&views);
        assert!(bias < 0.025, "{hops} hops: bias {bias}");
    }
}

/// Control: with zeros for padding, as in the paper of 2009, both measures give the length away.
#[test]
fn control_p10_zero_padding() {
    let mut rng = seeded(1010);
    for hops in [1, 4] {
        let padding = 300 - 60 * (hops - 1) - 52;
        let (keys, route) = crate::support::route(&mut rng, hops);
        let views: Vec<_> = (0..100)
            .map(|_| {
                let mut view = last_view(&mut rng, &keys, &route);
                view[..padding].fill(0);
                view
            })
            .collect();
        assert!(uniform_effect(views.iter().flatten().copied()) > 1.0);
        assert!(worst_position(&views) > 0.4);
    }
    // And a last hop does open such a header: nothing but the builder prevents it.
    let (keys, route) = crate::support::route(&mut rng, 1);
    let mut packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"");
    forge(&keys[0], &mut packet[..], |beta| beta[52..].fill(0));
    assert!(sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet).is_ok());
}
