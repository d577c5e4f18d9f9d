//! Both engines on one scenario: where they measure the same thing, they agree.
//!
//! | compared      | flow engine             | packet engine                                                  |
//! |---------------|-------------------------|------------------------------------------------------------------|
//! | pools         | packets found by arrivals | packets in the deployed mixes, twice a second                   |
//! | latency       | through layers and links | of loops, less what only they have: two links, disk, downstream tick |
//! | packets       | the rate of the scenario | packets seen between gateways and the first layer               |
//! | loss          | the share of the scenario | packets lost over packets seen                                 |

use sim::{
    closed::erlang_cdf,
    outcome::Outcome,
    scenario::{Scenario, keys::Value},
    stats::Estimate,
    world::{Place, watch},
};

fn parse(text: &str, engine: &'static str) -> Scenario {
    Scenario::parse_with(text, [("engine", Value::Text(engine.into()))]).expect("a good scenario")
}

fn run(text: &str, engine: &'static str, seed: u64) -> Outcome {
    let outcome = sim::run(&parse(text, engine), seed, &|_| ()).expect("it runs");
    assert_eq!(outcome.failures, Vec::<String>::new());
    outcome
}

fn figure(outcome: &Outcome, name: &str) -> Estimate {
    outcome.figure(name).expect("it is measured").estimate
}

fn text(width: u32, delay_ms: u32, users: u32, payload: f64, loops: f64, seconds: u32) -> String {
    format!(
        r#"
        version = 1
        [network]
        layers = 3
        mixes_per_layer = {width}
        [mix]
        delay_mean_ms = {delay_ms}
        [links]
        delay_ms = 10
        [traffic]
        users = {users}
        payload_per_user_per_s = {payload}
        loop_per_user_per_s = {loops}
        [flow]
        targets = 1024
        [packet]
        duration_s = {seconds}
        messages_per_user = 1
        message_bytes = 500
        "#
    )
}

/// Pools: in the flow engine simple packets, in the packet engine Sphinx packets of the clients
/// through the deployed mixes, without faults; a small, a wide and a slow network.
#[test]
fn pools_of_both_engines_agree_seed_11() {
    for text in [
        text(3, 50, 20, 2.0, 0.5, 20),
        text(1, 150, 6, 3.0, 1.0, 40),
        text(2, 20, 12, 4.0, 1.0, 20),
    ] {
        let [flow, packet] = ["flow", "packet"]
            .map(|engine| figure(&run(&text, engine, 11), "occupancy_mean_packets"));
        let error = flow.standard_error.hypot(packet.standard_error);
        assert!(error < 0.1 * flow.value, "{flow:?} {packet:?}");
        let z = (flow.value - packet.value) / error;
        assert!(z.abs() < 4.0, "{flow:?} {packet:?}");
    }
}

/// Latency: mean and quantiles of the deployed clients' loops are those of the flow engine's packets, shifted by
/// what the flow engine has none of. A delay that a mix shortens or clamps, or a link taken once too often, shows here.
#[test]
#[expect(clippy::cast_precision_loss, reason = "a few hundred loops")]
fn latencies_of_both_engines_agree_seed_12() {
    // Downstream 42 frames a second: short ticks, and hardly a queue.
    let (payload, loops) = (20.0, 1.0);
    let text = text(2, 50, 10, payload, loops, 40);
    let (flow, packet) = (run(&text, "flow", 12), run(&text, "packet", 12));
    let tick_ms = 1e3 / (2.0 * (payload + loops));
    // Links to the entry gateway and to the client; the store's put and the reading of it; half a tick.
    let more_ms = 2.0 * 10.0 + 4.0 + tick_ms / 2.0;
    let n = packet.counts["LoopReturned"] as f64;
    assert!(n > 300.0, "{n}");
    let mean = figure(&packet, "loop_latency_mean_ms");
    let law = figure(&flow, "latency_mean_ms");
    let off = mean.value - law.value - more_ms;
    let error = 50.0 * 3f64.sqrt() / n.sqrt();
    assert!(off.abs() < 4.0 * error + 4.0, "{mean:?} {law:?} {more_ms}");
    for (name, q) in [("p50", 0.5), ("p95", 0.95)] {
        let law = figure(&flow, &format!("latency_{name}_ms")).value;
        let own = figure(&packet, &format!("loop_latency_{name}_ms")).value;
        let at = |ms: f64| erlang_cdf(3, 0.05, (ms - 4.0 * 10.0) / 1e3);
        let density = (at(law + 1.0) - at(law - 1.0)) / 2.0;
        let error = (q * (1.0 - q) / n).sqrt() / density;
        let off = own - law - more_ms;
        assert!(
            off.abs() < 4.0 * error + 4.0,
            "{name}: {own} {law} {more_ms}"
        );
    }
}

/// Packets, real and cover together, come to the first layer at the scenario's rate, and links lose the scenario's share.
#[test]
#[expect(clippy::cast_precision_loss, reason = "some thousand packets")]
fn rates_and_loss_are_those_of_the_scenario_seed_13() {
    let (users, payload, loops, seconds) = (12, 3.0, 1.0, 40);
    let quiet = text(2, 50, users, payload, loops, seconds);
    let lossy = format!("{quiet}\n        loss_ppm = 40000");
    for (text, loss) in [(quiet, 0.0), (lossy, 0.04)] {
        let (outcome, seen) = watch(&parse(&text, "packet"), 13).expect("it runs");
        // Up to the end of the faults, after the links have come up.
        let during = |at: f64| (1.0..f64::from(seconds)).contains(&at);
        let inside = seen
            .iter()
            .filter(|one| during(one.at.since(proto::Time::ZERO).as_secs_f64()));
        let entering = inside.clone().filter(|one| {
            matches!((one.from, one.to), (Place::Node(from), Place::Node(to)) if from >= 6 && to < 6)
        });
        let found = entering.count() as f64;
        let expected = f64::from(users) * (payload + loops) * f64::from(seconds - 1) * (1.0 - loss);
        assert!(
            (found - expected).abs() < 4.0 * expected.sqrt(),
            "{found} {expected}"
        );
        // Lossy: links between nodes, and entry links, on which nearly all that a client sends goes.
        let between = inside
            .clone()
            .filter(|one| matches!((one.from, one.to), (Place::Node(_), Place::Node(_))));
        let crossings = between.count() as f64 + expected / (1.0 - loss);
        let lost = outcome.counts.get("LostOnLink").copied().unwrap_or(0) as f64;
        let error = (crossings * loss).sqrt() + 1e-9;
        assert!(
            (lost - crossings * loss).abs() < 4.0 * error + 0.05 * lost,
            "{lost} of {crossings}"
        );
    }
}
