//! p17: ids that repeat or follow a pattern link replies. They are random, not zero, and equal
//! to what the last hop reads (PKT-20). That a second use is dropped is the client's to do.

use std::collections::BTreeSet;

use crate::statistics::uniform_effect;
use crate::support::{Script, route, seeded};

#[test]
fn attack_p17_surb_ids_are_uniform() {
    let mut rng = seeded(17);
    let (_, route) = route(&mut rng, 1);
    let ids: BTreeSet<[u8; 16]> = (0..4096)
        .map(|_| sphinx::surb(&mut rng, &route, [1; 32]).1.id())
        .collect();
    assert_eq!(ids.len(), 4096);
    // 65 536 bytes: √(255/N) = 0.062 for uniform ones.
    let effect = uniform_effect(ids.iter().flatten().copied());
    assert!(effect < 0.075, "w = {effect}");
    // Control: a counter.
    let counted = (0u128..4096).flat_map(u128::to_be_bytes);
    assert!(uniform_effect(counted) > 1.0);
}

#[test]
fn attack_p17_zero_is_drawn_again() {
    let mut rng = seeded(1717);
    let (_, route) = route(&mut rng, 5);
    let random = [&[0; 32][..], &[5; 16], &[6; 32], &[7; 8]].concat();
    let mut script = Script(&random);
    assert_eq!(sphinx::surb(&mut script, &route, [1; 32]).1.id(), [5; 16]);
    assert!(script.0.is_empty());
}
