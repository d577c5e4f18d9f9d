//! What someone who watches every link of the deployed machines sees: the law of one client's upstream link, whatever
//! the client does (ATTACKS t07), and its sizes (p15).
//!
//! The observer knows times, ends and lengths ([`sim::world::Sighting`]). Distances are Kolmogorov's, between
//! the gaps on the link and the exponential law of the client's slots and loops; the bound is that of a
//! sample of this size: 1.95/√n is passed by one sample in a thousand of the true law.

use core::time::Duration;

use proto::Time;
use sim::{
    scenario::Scenario,
    world::{Place, Sighting, watch},
};

/// Payload slots and loops of a client together, per second.
const RATE: f64 = 10.0;

/// Two gateways, one mix a layer, two clients who send each other so many messages of so many bytes.
fn scenario(messages: u64, bytes: usize, more: &str) -> Scenario {
    let text = format!(
        r#"
        version = 1
        engine = "packet"
        [network]
        layers = 3
        mixes_per_layer = 1
        gateways = 2
        [mix]
        delay_mean_ms = 20
        [traffic]
        users = 2
        payload_per_user_per_s = 9
        loop_per_user_per_s = 1
        [packet]
        duration_s = 300
        messages_per_user = {messages}
        message_bytes = {bytes}
        {more}
        "#
    );
    Scenario::parse(&text).expect("a sound scenario")
}

/// Times of the frames that client 0 sends to whichever gateway takes most of them: its entry.
fn upstream(seen: &[Sighting]) -> Vec<f64> {
    let to = |gateway: usize| {
        let own = seen
            .iter()
            .filter(move |one| one.from == Place::Client(0) && one.to == Place::Node(gateway));
        own.map(|one| one.at.since(Time::ZERO).as_secs_f64())
            .take_while(|at| *at < 300.0)
            .collect::<Vec<f64>>()
    };
    let (a, b) = (to(3), to(4));
    if a.len() > b.len() { a } else { b }
}

/// Kolmogorov's distance between gaps and the exponential law of this rate.
#[expect(clippy::cast_precision_loss, reason = "some thousand gaps")]
fn distance(times: &[f64], rate: f64) -> f64 {
    let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    let n = gaps.len() as f64;
    let off = |(i, gap): (usize, &f64)| {
        let law = 1.0 - (-rate * gap).exp();
        (law - i as f64 / n)
            .abs()
            .max((law - (i + 1) as f64 / n).abs())
    };
    gaps.iter().enumerate().map(off).fold(0.0, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "some thousand frames")]
fn bound(frames: usize) -> f64 {
    1.95 / (frames as f64).sqrt()
}

/// ATTACKS t07: idle, while it sends a message of 300 packets and repairs what links lose, and while its links break
/// and are dialled again, a client's frames keep the law of one Poisson process. The control: frames that
/// carry a message beside the cover are found out at once.
#[test]
fn attack_t07_the_upstream_link_keeps_its_law_seed_5() {
    let idle = scenario(0, 1, "");
    let busy = scenario(1, 600_000, "loss_ppm = 30000");
    let parted = scenario(3, 20_000, "partitions = 6");
    for (what, scenario) in [("idle", idle), ("busy", busy), ("parted", parted)] {
        let (outcome, seen) = watch(&scenario, 5).expect("it runs");
        assert_eq!(outcome.failures, Vec::<String>::new(), "{what}");
        let times = upstream(&seen);
        let gaps = distance(&times, RATE);
        assert!(times.len() > 2_000, "{what}: {}", times.len());
        // A break of seconds is one gap, not a law.
        let most = bound(times.len()) + if what == "parted" { 0.01 } else { 0.0 };
        assert!(gaps < most, "{what}: {gaps} over {most}");
        // The control: a burst of a tenth as many frames, sent as fast as a line takes them.
        let mut burst = times.clone();
        burst.extend(
            (0..times.len() / 10)
                .map(|i| 100.0 + Duration::from_micros(50 * i as u64).as_secs_f64()),
        );
        burst.sort_by(f64::total_cmp);
        assert!(
            distance(&burst, RATE) > bound(burst.len()),
            "{what}: control"
        );
    }
}

/// ATTACKS p15: on every link, in both directions, whatever happens, one length.
#[test]
fn attack_p15_one_length_on_every_link_seed_6() {
    let busy = Scenario::parse(
        r#"
        version = 1
        engine = "packet"
        [network]
        mixes_per_layer = 2
        gateways = 3
        [traffic]
        users = 4
        loop_per_user_per_s = 0.2
        [packet]
        duration_s = 20
        message_bytes = 9000
        loss_ppm = 20000
        restarts = 3
        "#,
    )
    .expect("a sound scenario");
    let (_, seen) = watch(&busy, 6).expect("it runs");
    assert!(seen.len() > 1_000);
    assert!(seen.iter().all(|one| one.bytes == proto::wire::FRAME_LEN));
    assert!(seen.windows(2).all(|pair| pair[0].at <= pair[1].at));
}
