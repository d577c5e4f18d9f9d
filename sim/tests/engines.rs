//! Both engines on one scenario: where they measure the same thing, they agree.

use sim::scenario::{Scenario, keys::Value};

/// Pools: in the flow engine simple packets, in the packet engine Sphinx packets of twenty
/// clients through the deployed mixes, without faults.
#[test]
fn pools_of_both_engines_agree_seed_11() {
    let text = r#"
        version = 1
        [network]
        layers = 3
        mixes_per_layer = 3
        [links]
        delay_ms = 10
        [traffic]
        users = 20
        payload_per_user_per_s = 2
        loop_per_user_per_s = 0.5
        [flow]
        targets = 1024
        [packet]
        duration_s = 20
        messages_per_user = 1
        message_bytes = 500
    "#;
    let occupancy = |engine: &'static str| {
        let engine = ("engine", Value::Text(engine.into()));
        let scenario = Scenario::parse_with(text, [engine]).expect("a good scenario");
        let outcome = sim::run(&scenario, 11, &|_| ()).expect("it runs");
        assert_eq!(outcome.failures, Vec::<String>::new());
        let figure = outcome.figure("occupancy_mean_packets").cloned();
        figure.expect("both measure it").estimate
    };
    let (flow, packet) = (occupancy("flow"), occupancy("packet"));
    let error = flow.standard_error.hypot(packet.standard_error);
    assert!(error < 0.2, "{flow:?} {packet:?}");
    let z = (flow.value - packet.value) / error;
    assert!(z.abs() < 4.0, "{flow:?} {packet:?}");
}
