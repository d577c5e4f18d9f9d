//! Peeling, with headers that get past the MAC (p13).
//!
//! An attacker who knows a node's public key can make any header valid. So the input is laid over
//! an honest packet *inside* its encryption, and the MAC is repaired with the known key: mutation
//! reaches the routing block instead of dying at the MAC. The crate is the oracle.
//!
//! | input byte    | meaning                                                                   |
//! |---------------|---------------------------------------------------------------------------|
//! | 0             | bits: 1 last hop, 2 leave the MAC broken, 4 lay over the raw bytes        |
//! | 1..9          | delay cap, big-endian                                                     |
//! | from 9        | added (xor) to decrypted β and payload, or to the raw packet              |

use std::sync::LazyLock;

use sphinx::{HEADER_LEN, Packet, Path, Routing, SecretKey};
use sphinx_packet::ProcessedPacketData;

use crate::support::{forge, route, seeded, their_key, their_packet};

struct Honest {
    key: SecretKey,
    forward: Box<Packet>,
    last: Box<Packet>,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let mut rng = seeded(0);
    let (mut keys, mut route) = route(&mut rng, 2);
    // One second: most caps of the input lie above, some below.
    route[0].delay_ns = 1_000_000_000;
    let mut packet = |hops| sphinx::build(&mut rng, &route[..hops], [1; 32], [0; 16], b"honest");
    let (forward, last) = (packet(2), packet(1));
    Honest {
        key: keys.swap_remove(0),
        forward,
        last,
    }
});

/// Opens what the input describes, and holds verdict and bytes against the crate.
pub fn open(input: &[u8]) {
    let Some((head, over)) = input.split_first_chunk::<9>() else {
        return;
    };
    let [mode, cap @ ..] = *head;
    let honest = &*HONEST;
    let mut packet = if mode & 1 == 0 {
        honest.forward.clone()
    } else {
        honest.last.clone()
    };
    if mode & 4 == 0 {
        forge(&honest.key, &mut packet[..], |beta| xor(beta, over));
        xor(
            &mut packet[HEADER_LEN..],
            over.get(HEADER_LEN - 48..).unwrap_or_default(),
        );
        if mode & 2 != 0 {
            packet[32] ^= 1;
        }
    } else {
        xor(&mut packet[..], over);
    }
    check(&honest.key, u64::from_be_bytes(cap), packet);
}

fn xor(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

fn check(key: &SecretKey, delay_max_ns: u64, mut packet: Box<Packet>) {
    let before = packet.clone();
    let verdict = sphinx::open_one(key, delay_max_ns, &packet).map(|opened| {
        let seen = (*opened.routing(), *opened.tag());
        sphinx::finish(opened, &mut packet);
        seen
    });
    for path in Path::present() {
        let key = key.clone().on(path).expect("present");
        let mut batch = [*before; 2];
        let mut verdicts = Vec::new();
        sphinx::open(&key, delay_max_ns, &batch, &mut verdicts);
        for ours in &verdicts {
            let ours = ours
                .as_ref()
                .map(|opened| (*opened.routing(), *opened.tag()));
            assert_eq!(ours.map_err(|why| *why), verdict, "{path:?}");
        }
        let opened = verdicts.into_iter().filter_map(Result::ok);
        sphinx::finish_batch(opened.zip(&mut batch));
        assert!(batch == [*packet; 2], "{path:?}");
    }
    let Ok((routing, tag)) = verdict else {
        return;
    };

    let theirs = their_packet(&before);
    let secret = theirs
        .header
        .compute_expanded_shared_secret(&their_key(key));
    assert_eq!(tag, *secret.replay_tag());
    let processed = theirs
        .process_with_expanded_secret(&secret)
        .expect("what we open the crate opens");
    assert_eq!(processed.version.0, 260);
    match (processed.data, routing) {
        (
            ProcessedPacketData::ForwardHop {
                next_hop_packet,
                next_hop_address,
                delay,
            },
            Routing::Forward { next, delay_ns },
        ) => {
            assert!(delay_ns <= delay_max_ns);
            assert_eq!(
                (next, delay_ns),
                (next_hop_address.to_bytes(), delay.to_nanos())
            );
            assert!(next_hop_packet.to_bytes() == packet[..]);
        }
        (
            ProcessedPacketData::FinalHop {
                destination,
                identifier,
                payload,
            },
            Routing::Final {
                destination: ours,
                surb_id,
            },
        ) => {
            assert_eq!((ours, surb_id), (destination.as_bytes(), identifier));
            assert!(payload.as_bytes() == sphinx::payload(&packet));
            // We refuse some payloads that the crate reads, never the other way round.
            if let Ok(message) = sphinx::unpad(sphinx::payload(&packet)) {
                assert_eq!(payload.recover_plaintext().expect("read"), message);
            }
        }
        _ => panic!("two kinds of hop"),
    }
}
