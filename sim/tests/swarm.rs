//! Swarm mode: random networks under random faults, and a sabotage that they find.

use sim::{
    scenario::PacketSettings,
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

/// Another: a client's disk that answers before it has written loses messages that the client had called
/// queued, and they never arrive.
#[test]
fn a_disk_that_answers_early_is_found() {
    let risky = |seed: &u64| {
        let scenario = scenario(*seed).expect("allowed");
        // A message that never comes is waited for an hour: small networks alone.
        scenario.packet.restarts > 6
            && scenario.packet.messages_per_user > 2
            && scenario.traffic.total_per_s() < 6.0
    };
    let found = (0..2000).filter(risky).take(6).any(|seed| {
        let fate = run(seed, Sabotage::AnswerEarly).expect("it runs");
        fate.failures
            .iter()
            .any(|failure| failure.contains("were not delivered"))
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
        for none in [
            |one: &PacketSettings| one.replays == 0,
            |one: &PacketSettings| one.jitter_ms == 0.0,
            |one: &PacketSettings| one.store_lag_ms == 0.0,
            |one: &PacketSettings| one.clock_skew_ms == 0.0,
            |one: &PacketSettings| one.partitions == 0,
            |one: &PacketSettings| one.loss_bursts == 0,
            |one: &PacketSettings| one.epoch_s == 10_800,
        ] {
            assert!(drawn.iter().any(|one| none(&one.packet) == without));
        }
    }
    let mut hashes: Vec<String> = drawn.iter().map(sim::scenario::Scenario::hash).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 64);
}
