//! Peeling, with headers that get past the MAC (p13).
//!
//! An attacker who knows a node's public key can make any header valid. So the input is laid over
//! an honest packet *inside* its encryption, and the MAC is repaired with the known key: mutation
//! reaches the routing block instead of dying at the MAC. Key and α may come from the input, too, and
//! so the multiplication. The crate is the oracle: of what we open, and of what we find no MAC for;
//! our other refusals are ours alone, each with its reason.
//!
//! | input byte    | meaning                                                                   |
//! |---------------|---------------------------------------------------------------------------|
//! | 0             | bits: 1 last hop, 2 leave the MAC broken, 4 lay over the raw bytes, 8 the |
//! |               | next 32 bytes are the key, 16 the next 32 are α; from 32: batches of 2 to |
//! |               | 30 packets                                                                |
//! | 1..9          | delay cap, big-endian                                                     |
//! | then          | added (xor) to decrypted β and payload, or to the raw packet              |

use std::sync::LazyLock;

use sphinx::{HEADER_LEN, Packet, Path, Reject, Routing, SecretKey, Verdicts};
use sphinx_packet::ProcessedPacketData;

use crate::support::{Keys, forge, route, seeded, their_key, their_packet};

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
    let (key, over) = match (mode & 8 != 0, over.split_first_chunk::<32>()) {
        (true, Some((key, over))) => (SecretKey::from_bytes(*key), over),
        _ => (honest.key.clone(), over),
    };
    let (alpha, over) = match (mode & 16 != 0, over.split_first_chunk::<32>()) {
        (true, Some((alpha, over))) => (Some(*alpha), over),
        _ => (None, over),
    };
    let mut packet = if mode & 1 == 0 {
        honest.forward.clone()
    } else {
        honest.last.clone()
    };
    // What the honest packet says, for the key and the α of this one.
    let owner = Keys::of(&honest.key.to_bytes(), &packet[..]);
    owner.apply_stream(&mut packet[..]);
    if let Some(alpha) = alpha {
        packet[..32].copy_from_slice(&alpha);
    }
    let keys = Keys::of(&key.to_bytes(), &packet[..]);
    keys.apply_stream(&mut packet[..]);
    keys.repair_mac(&mut packet[..]);
    if mode & 4 == 0 {
        forge(&key, &mut packet[..], |beta| xor(beta, over));
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
    let others = 1 + 4 * usize::from(mode >> 5);
    check(&key, u64::from_be_bytes(cap), packet, others);
}

fn xor(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// Among `others` packets that are honest, if the key is; what they become by themselves they must
/// become in the batch.
fn check(key: &SecretKey, delay_max_ns: u64, mut packet: Box<Packet>, others: usize) {
    let before = packet.clone();
    let alone = |packet: &mut Packet| {
        let opened = sphinx::open_one(key, delay_max_ns, packet)?;
        let seen = (*opened.routing(), *opened.tag());
        sphinx::finish(opened, packet);
        Ok(seen)
    };
    let verdict = alone(&mut packet);
    let mut expected = vec![(verdict, *packet)];
    let mut batch = vec![*before];
    for i in 0..others {
        let mut other = if i % 2 == 0 {
            *HONEST.forward
        } else {
            *HONEST.last
        };
        if i % 3 == 2 {
            other[..32].copy_from_slice(&before[..32]);
        }
        batch.push(other);
        expected.push((alone(&mut other), other));
    }
    // In the middle, so that it is not the lane that stands in for missing ones.
    batch.swap(0, others / 2);
    expected.swap(0, others / 2);
    for path in Path::present() {
        let key = key.clone().on(path).expect("present");
        let mut batch = batch.clone();
        let mut verdicts = Verdicts::new();
        sphinx::open(&key, delay_max_ns, &batch, &mut verdicts);
        let passed = verdicts.iter().zip(&mut batch);
        let passed = passed.filter_map(|(verdict, packet)| Some((verdict.as_ref().ok()?, packet)));
        sphinx::finish_batch(passed);
        for ((ours, packet), (verdict, alone)) in verdicts.iter().zip(&batch).zip(&expected) {
            let ours = ours
                .as_ref()
                .map(|opened| (*opened.routing(), *opened.tag()));
            assert_eq!(ours.map_err(|why| *why), *verdict, "{path:?}");
            assert!(packet == alone, "{path:?}");
        }
    }

    let theirs = their_packet(&before);
    let secret = theirs
        .header
        .compute_expanded_shared_secret(&their_key(key));
    let (routing, tag) = match verdict {
        Ok(opened) => opened,
        Err(Reject::Mac) => {
            let processed = theirs.process_with_expanded_secret(&secret);
            assert!(
                processed.is_err(),
                "what we find no MAC for the crate does not"
            );
            return;
        }
        Err(Reject::LowOrder) => {
            let alpha = *before.first_chunk().expect("an α");
            assert_eq!(x25519_dalek::x25519(*key.to_bytes(), alpha), [0; 32]);
            return;
        }
        // The crate takes longer delays, and has no list of versions and flags.
        Err(Reject::DelayTooLong | Reject::Version | Reject::Flag) => return,
    };

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
