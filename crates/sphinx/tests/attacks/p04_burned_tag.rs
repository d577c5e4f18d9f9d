//! p04: an attacker sends a victim's α with garbage first, so that the true packet looks like a
//! replay. The tag is known only after the MAC holds (PKT-8, PKT-11).

use std::collections::BTreeSet;

use crate::support::{DELAY_MAX_NS, route, seeded};

#[test]
fn attack_p04_burned_tag() {
    let mut rng = seeded(4);
    let (keys, route) = route(&mut rng, 3);
    let packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"true");
    let mut garbage = packet.clone();
    garbage[32..].fill(0xa5);

    let batch = [garbage, packet];
    let mut seen = BTreeSet::new();
    let mut verdicts = sphinx::Verdicts::new();
    let packets = batch.iter().map(|packet| &**packet);
    sphinx::open(&keys[0], DELAY_MAX_NS, packets, &mut verdicts);
    let admitted: Vec<bool> = verdicts
        .iter()
        .map(|verdict| {
            verdict
                .as_ref()
                .is_ok_and(|opened| seen.insert(*opened.tag()))
        })
        .collect();
    assert_eq!(admitted, [false, true]);
    assert_eq!(seen.len(), 1);

    // Control: a set that is fed before the MAC is checked refuses the true packet.
    let mut seen = BTreeSet::new();
    let admitted: Vec<bool> = batch
        .iter()
        .map(|packet| seen.insert(packet[..32].to_vec()))
        .collect();
    assert_eq!(admitted, [true, false]);
}
