//! p14: a packet that asks to be held for centuries holds memory for as long. Above the cap it
//! is refused, at the cap it passes as it is: never clamped (PKT-10).

use sphinx::{Hop, Reject, Routing};

use crate::support::{route, seeded, their_key, their_packet};

#[test]
fn attack_p14_long_delay() {
    let mut rng = seeded(14);
    let (keys, honest) = route(&mut rng, 3);
    let cap = 27_600_000_000u64 / 20;
    let cases = [
        (0, true),
        (1, true),
        (cap - 1, true),
        (cap, true),
        (cap + 1, false),
        (u64::MAX - 1, false),
        (u64::MAX, false),
    ];
    for (delay_ns, passes) in cases {
        let route: Vec<Hop> = honest.iter().map(|hop| Hop { delay_ns, ..*hop }).collect();
        let packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"patience");
        let verdict = sphinx::open_one(&keys[0], cap, &packet).map(|opened| *opened.routing());
        let expected = Routing::Forward {
            next: route[1].address,
            delay_ns,
        };
        assert_eq!(
            verdict,
            if passes {
                Ok(expected)
            } else {
                Err(Reject::DelayTooLong)
            }
        );

        // Controls: without a cap, and in the crate, everything passes.
        let verdict = sphinx::open_one(&keys[0], u64::MAX, &packet).map(|opened| *opened.routing());
        assert_eq!(verdict, Ok(expected));
        assert!(their_packet(&packet).process(&their_key(&keys[0])).is_ok());

        // The last hop reads no delay.
        let last = sphinx::build(&mut rng, &route[..1], [1; 32], [0; 16], b"patience");
        assert!(sphinx::open_one(&keys[0], 0, &last).is_ok());
    }
}
