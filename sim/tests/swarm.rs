//! Swarm mode: random networks under random faults, and a sabotage that they find.

use sim::{
    swarm::{run, runs, scenario},
    world::Sabotage,
};

/// Safety always, progress once faults have stopped.
#[test]
fn eight_seeds_pass() {
    let fates = runs(0..8, &|_| ()).expect("they run");
    for fate in &fates {
        assert!(
            fate.failures.is_empty(),
            "seed {}: {:?}",
            fate.seed,
            fate.failures
        );
    }
    assert!(fates.iter().map(|fate| fate.messages).sum::<u64>() > 30);
    assert!(fates.iter().map(|fate| fate.faults).sum::<u64>() > 100);
    // One seed, one trace.
    assert_eq!(run(3, Sabotage::None).expect("it runs"), fates[3]);
    assert_ne!(fates[3].trace, fates[4].trace);
}

/// The control: nodes that forget their tags in a crash forward a replay within a few seeds.
#[test]
fn a_replay_set_that_forgets_is_found() {
    let risky = |seed: &u64| {
        let scenario = scenario(*seed).expect("allowed");
        scenario.packet.restarts > 3 && scenario.packet.replays > 50
    };
    let found = (0..100).filter(risky).take(4).any(|seed| {
        let fate = run(seed, Sabotage::ForgetTags).expect("it runs");
        fate.failures
            .iter()
            .any(|failure| failure.contains("replay"))
    });
    assert!(found, "no seed found it");
}

/// Options really vary.
#[test]
fn seeds_draw_different_networks() {
    let drawn: Vec<_> = (0..64)
        .map(|seed| scenario(seed).expect("allowed"))
        .collect();
    for without in [true, false] {
        assert!(
            drawn
                .iter()
                .any(|one| (one.packet.loss_ppm == 0) == without)
        );
        assert!(
            drawn
                .iter()
                .any(|one| (one.packet.restarts == 0) == without)
        );
        assert!(drawn.iter().any(|one| (one.packet.replays == 0) == without));
    }
    let mut hashes: Vec<String> = drawn.iter().map(sim::scenario::Scenario::hash).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 64);
}
