//! Known answers.
//!
//! `sphinx080_unwrap.json` comes from outside and is frozen: hops of `sphinx-packet` 0.8.0 with a
//! 256-byte payload. `full_size.json` is ours: whole packets with every random byte, written anew
//! only when `BLESS=1` is set. `verify.py` checks both with other arithmetic.

mod support;

use serde::{Deserialize, Serialize};
use sphinx::any_size::{finish_parts, open_header, recover_parts};
use sphinx::{
    HEADER_LEN, Hop, PACKET_LEN, Packet, Routing, SURB_SECRET_LEN, SecretKey, Surb, SurbSecret,
};
use support::{DELAY_MAX_NS, Script, bytes, peel_as_both, seeded};

const FULL_SIZE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/full_size.json");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

fn unhex_array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().expect("the right length")
}

#[derive(Deserialize)]
struct Frozen {
    plaintext: String,
    recovery: Option<String>,
    hops: Vec<FrozenHop>,
}

#[derive(Deserialize)]
struct FrozenHop {
    r#in: String,
    sk: String,
    replay_tag: String,
    version: u16,
    r#type: String,
    next: Option<String>,
    delay_ns: Option<u64>,
    out: Option<String>,
    dest: Option<String>,
    id: Option<String>,
    payload: Option<String>,
}

/// PKT-7, PKT-8, PKT-11, PKT-12, PKT-13, PKT-21
#[test]
fn frozen_hops_of_the_crate() {
    let vectors: Vec<Frozen> =
        serde_json::from_str(include_str!("vectors/sphinx080_unwrap.json")).unwrap();
    let mut hops = 0;
    for vector in &vectors {
        let mut payload = Vec::new();
        for hop in &vector.hops {
            hops += 1;
            assert_eq!(hop.version, 260);
            let packet = unhex(&hop.r#in);
            let mut header: [u8; HEADER_LEN] = packet[..HEADER_LEN].try_into().unwrap();
            payload = packet[HEADER_LEN..].to_vec();
            let key = SecretKey::from_bytes(unhex_array(&hop.sk));
            let opened = open_header(&key, u64::MAX, &header).unwrap();
            assert_eq!(hex(opened.tag()), hop.replay_tag);
            let routing = *opened.routing();
            finish_parts(opened, &mut header, &mut payload);
            match routing {
                Routing::Forward { next, delay_ns } => {
                    assert_eq!(hop.r#type, "forward");
                    assert_eq!(Some(hex(&next)), hop.next);
                    assert_eq!(Some(delay_ns), hop.delay_ns);
                    assert_eq!(Some(hex(&[&header[..], &payload].concat())), hop.out);
                }
                Routing::Final {
                    destination,
                    surb_id,
                } => {
                    assert_eq!(hop.r#type, "final");
                    assert_eq!(Some(hex(&destination)), hop.dest);
                    assert_eq!(Some(hex(&surb_id)), hop.id);
                    assert_eq!(Some(hex(&payload)), hop.payload);
                }
            }
        }
        if let Some(recovery) = &vector.recovery {
            let mut kept = [0; SURB_SECRET_LEN];
            let recovery = unhex(recovery);
            kept[..recovery.len()].copy_from_slice(&recovery);
            recover_parts(&SurbSecret::from_bytes(&kept), &mut payload);
        }
        let plain = unhex(&vector.plaintext);
        let mut bare = vec![0; payload.len()];
        bare[16..][..plain.len()].copy_from_slice(&plain);
        bare[16 + plain.len()] = 1;
        assert_eq!(payload, bare);
    }
    assert_eq!(hops, 18);
}

/// One packet of full size, with all that is needed to build it again.
#[derive(Serialize, Deserialize, PartialEq)]
struct Full {
    /// "forward" or "surb260".
    kind: String,
    /// Every byte drawn while building, in order (PKT-16).
    random: String,
    destination: String,
    /// Drawn, for a SURB.
    surb_id: String,
    message: String,
    hops: Vec<FullHop>,
    /// What the last hop's `finish` leaves; of a SURB, before its creator recovers it.
    payload: String,
    /// As written by the creator.
    surb: Option<String>,
    /// As kept by the creator.
    surb_secret: Option<String>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct FullHop {
    address: String,
    secret_key: String,
    delay_ns: u64,
    /// The packet as this hop reads it.
    packet: String,
    tag: String,
}

/// Builds the packet that these inputs define and walks it along its route.
fn make(
    kind: &str,
    random: &[u8],
    destination: [u8; 32],
    message: &[u8],
    keys: &[SecretKey],
    route: &[Hop],
) -> Full {
    let mut script = Script(random);
    let (mut packet, surb) = if kind == "forward" {
        let packet = sphinx::build(&mut script, route, destination, [0; 16], message);
        (packet, None)
    } else {
        let (surb, secret) = sphinx::surb(&mut script, route, destination);
        let packet = surb.clone().use_with(message);
        (packet, Some((surb, secret)))
    };
    assert!(script.0.is_empty(), "every byte was drawn");

    let hops: Vec<FullHop> = keys
        .iter()
        .zip(route)
        .map(|(key, hop)| {
            let before = hex(&packet[..]);
            let opened = sphinx::open_one(key, DELAY_MAX_NS, &packet).expect("an honest packet");
            let tag = hex(opened.tag());
            drop(opened);
            peel_as_both(key, &mut packet);
            FullHop {
                address: hex(&hop.address),
                secret_key: hex(&*key.to_bytes()),
                delay_ns: hop.delay_ns,
                packet: before,
                tag,
            }
        })
        .collect();
    Full {
        kind: kind.to_owned(),
        random: hex(random),
        destination: hex(&destination),
        surb_id: hex(&surb.as_ref().map_or([0; 16], |(_, secret)| secret.id())),
        message: hex(message),
        hops,
        payload: hex(sphinx::payload(&packet)),
        surb: surb.as_ref().map(|(surb, _)| hex(&surb.to_bytes())),
        surb_secret: surb.as_ref().map(|(_, secret)| hex(&*secret.to_bytes())),
    }
}

fn make_all() -> Vec<Full> {
    let cases = [
        ("forward", 1, 0),
        ("forward", 3, 19),
        ("forward", 5, 2031),
        ("surb260", 5, 1000),
    ];
    cases
        .into_iter()
        .zip(1u64..)
        .map(|((kind, hops, message_len), seed)| {
            let mut rng = seeded(seed);
            let (keys, route) = support::route(&mut rng, hops);
            // The id of a SURB, x, the padding of the last block (PKT-16).
            let drawn = usize::from(kind != "forward") * 16 + 32 + (300 - 60 * (hops - 1) - 52);
            let random: [u8; 296] = bytes(&mut rng);
            let destination = bytes(&mut rng);
            let message: [u8; 2031] = bytes(&mut rng);
            let message = &message[..message_len];
            make(kind, &random[..drawn], destination, message, &keys, &route)
        })
        .collect()
}

/// PKT-1, PKT-2, PKT-3, PKT-14, PKT-15, PKT-16, PKT-18: the bytes are what they were.
#[test]
fn full_size_packets_are_reproduced() {
    let made = make_all();
    if std::env::var_os("BLESS").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap();
        std::fs::write(FULL_SIZE, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(FULL_SIZE).unwrap();
    let kept: Vec<Full> = serde_json::from_str(&text).unwrap();
    assert!(
        made == kept,
        "the packets changed: is that meant? (BLESS=1)"
    );
}

/// PKT-17, PKT-19, PKT-21: read from the file alone.
#[test]
fn full_size_packets_are_read() {
    let text = std::fs::read_to_string(FULL_SIZE).unwrap();
    let vectors: Vec<Full> = serde_json::from_str(&text).unwrap();
    for vector in vectors {
        let message = unhex(&vector.message);
        let mut packet: Packet = unhex_array::<PACKET_LEN>(&vector.hops[0].packet);
        if let Some(surb) = &vector.surb {
            assert_eq!(
                Surb::parse(&unhex_array(surb)).use_with(&message)[..],
                packet
            );
        }
        for (i, hop) in vector.hops.iter().enumerate() {
            assert_eq!(hex(&packet), hop.packet);
            let key = SecretKey::from_bytes(unhex_array(&hop.secret_key));
            let (routing, tag) = support::peel(&key, &mut packet);
            assert_eq!(hex(&tag), hop.tag);
            let expected = match vector.hops.get(i + 1) {
                Some(next) => Routing::Forward {
                    next: unhex_array(&next.address),
                    delay_ns: hop.delay_ns,
                },
                None => Routing::Final {
                    destination: unhex_array(&vector.destination),
                    surb_id: unhex_array(&vector.surb_id),
                },
            };
            assert_eq!(routing, expected);
        }
        let mut bare = *sphinx::payload(&packet);
        assert_eq!(hex(&bare), vector.payload);
        if let Some(secret) = &vector.surb_secret {
            SurbSecret::from_bytes(&unhex_array(secret)).recover(&mut bare);
        }
        assert_eq!(sphinx::unpad(&bare), Ok(&message[..]));
    }
}

/// The same files, by another implementation in another language.
#[test]
fn an_independent_implementation_agrees() {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        println!("skipped: LACUNA_SYSTEM=1 runs it; it needs python3");
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let verify = |folder: &std::path::Path| {
        let program = folder.join("verify.py");
        let verdict = std::process::Command::new("python3").arg(program).output();
        verdict.expect("python3 is installed").status.success()
    };
    assert!(verify(folder.as_ref()));

    // The control: with one digit changed it says no.
    let copy = std::env::temp_dir().join(format!("lacuna-vectors-{}", std::process::id()));
    std::fs::create_dir_all(&copy).unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let Ok(mut text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if path.ends_with("full_size.json") {
            let at = text.rfind("\"message\": \"").unwrap() + 12;
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            text.replace_range(at..=at, other);
        }
        std::fs::write(copy.join(path.file_name().unwrap()), text).unwrap();
    }
    assert!(!verify(&copy));
    std::fs::remove_dir_all(&copy).unwrap();
}
