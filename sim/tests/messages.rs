//! Messages under loss, on the deployed machines: small versions of `lacuna-sim messages`, each with a control.
//!
//! `.ci/long` runs the full ones: docs/measurements/messages.md.

use core::time::Duration;

use sim::{
    messages::{self, Messages},
    outcome::Outcome,
    world::{Sabotage, Stay},
};

/// 1 % of loss on each link; interactive clients.
fn settings(messages: u64, stay: Stay) -> Messages {
    Messages {
        messages,
        bytes: 100,
        stay,
        loss_ppm: 10_000,
        payload_per_s: 20.0,
        loops_per_s: 2.0,
        offline: Duration::ZERO,
        absences: 0,
        warm_up: Duration::ZERO,
        clients: (8, 4),
        replications: 1,
    }
}

fn run(settings: &Messages, sabotage: Sabotage) -> Outcome {
    messages::run(settings, 1, sabotage, &|_| ()).expect("it runs")
}

fn share(outcome: &Outcome, name: &str) -> f64 {
    outcome.figure(name).expect("a figure").estimate.value
}

/// MSG-11: the first burst suffices when its sender is gone after it, and its recipients are away for three days. The
/// control: senders who are gone after two packets of four lose messages.
#[test]
fn first_bursts_arrive_though_the_sender_is_gone_and_the_recipient_away() {
    let gone = Messages {
        offline: Duration::from_secs(3 * 86_400),
        ..settings(640, Stay::UntilSent)
    };
    let outcome = run(&gone, Sabotage::None);
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.counts["delivered"], 640);
    assert_eq!(outcome.counts["acked"], 0, "nobody is there to hear");
    assert!(outcome.counts["payload_packets"] >= 4 * 640, "whole bursts");
    assert!(share(&outcome, "latency_p50_s") > 2.9 * 86_400.0);
    let control = Messages {
        stay: Stay::UntilPackets(2 * 40),
        ..gone
    };
    let control = run(&control, Sabotage::None);
    assert!(
        control
            .failures
            .iter()
            .any(|failure| failure.contains("arrived")),
        "{:?}",
        control.counts
    );
}

/// MSG-6, MSG-13, MSG-17: while the sender stays everything arrives and is acknowledged, and nothing reaches an
/// application twice, though recipients are killed amid the traffic. The control: recipients whose disks are empty
/// afterwards are given messages again.
#[test]
fn everything_arrives_once_while_the_sender_stays() {
    let stays = Messages {
        absences: 1,
        ..settings(320, Stay::Always)
    };
    let outcome = run(&stays, Sabotage::None);
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(
        (
            share(&outcome, "arrived_share"),
            share(&outcome, "acked_share")
        ),
        (1.0, 1.0)
    );
    let control = run(&stays, Sabotage::EmptyDisk);
    assert!(
        control
            .failures
            .iter()
            .any(|failure| failure.contains("twice")),
        "{:?}",
        control.failures
    );
}

/// PROTOCOL: large messages use at least 80 % of frame bytes where nothing is lost, acks counted; before loops have
/// measured the loss they can't (the control).
#[test]
fn large_messages_use_four_fifths_of_frame_bytes() {
    let measured = Messages {
        bytes: 1_944_320, // a full block
        loss_ppm: 0,
        payload_per_s: 100.0,
        loops_per_s: 50.0,
        warm_up: Duration::from_secs(25),
        ..settings(1, Stay::Always)
    };
    let outcome = run(&measured, Sabotage::None);
    assert_eq!(outcome.failures, Vec::<String>::new());
    let goodput = share(&outcome, "goodput_share");
    assert!(goodput >= 0.8, "{goodput}");
    let at_once = Messages {
        warm_up: Duration::ZERO,
        ..measured
    };
    let goodput = share(&run(&at_once, Sabotage::None), "goodput_share");
    assert!(goodput < 0.8, "{goodput}");
}
