//! Simulated attacks against closed forms and a simulation made elsewhere (§ 3.8, 3.9, 3.11 to 3.13).

use super::{Check, Error, Level};
use crate::{
    attacks::{
        blending::{self, Played},
        correlation::{Correlation, auc_and_rate},
        intersection::{Intersection, rounds},
        least_squares::{self, LeastSquares},
        path::{Path, Strategy},
    },
    closed,
    stats::Estimate,
};

fn check(section: &'static str, name: String, found: Estimate, expected: f64, other: f64) -> Check {
    Check {
        section,
        name,
        value: found.value,
        expected,
        error: Error::Standard(found.standard_error.hypot(other)),
        at_most: false,
    }
}

pub(super) fn checks(level: Level, seed: u64) -> Vec<Check> {
    let many = match level {
        Level::Quick => 640,
        Level::Full => 3200,
    };
    let mut checks = Vec::new();
    for (name, strategy) in Strategy::ALL {
        let path = Path {
            layers: 3,
            width: 10,
            corrupt: 3,
            session: 20,
            period: 0,
            packets: 100,
            replications: many,
        };
        let law = path.law(strategy, path.packets);
        let name = format!("path compromise, 100 packets, f = 0.3, routes {name}");
        checks.push(check(
            "3.8",
            name,
            path.compromised(strategy, seed),
            law,
            0.0,
        ));
    }
    for loss in [0.02, 0.3, 0.9] {
        let detector = blending::detector(0.02, 1000.0);
        let name = format!("CUSUM run length, loss {loss}");
        let found = detector.simulate(loss, many, seed);
        checks.push(check("3.9", name, found, detector.run_length(loss), 0.0));
    }
    for (senders, receivers, batch, rho, elsewhere, error) in [
        (50, 50, 10, 5000, 0.00798, 0.00013),
        (50, 50, 10, 20_000, 0.001_985, 0.000_018),
        (20, 40, 5, 4000, 0.00376, 0.00011),
    ] {
        let attack = LeastSquares {
            senders,
            receivers,
            friends: 5,
            batch,
            slots: 1.0,
            gateways: 1,
            rounds: rho,
            replications: many / 20,
        };
        let found = least_squares::error(&attack, seed);
        let what =
            format!("least squares error, {senders} × {receivers}, batch {batch}, {rho} rounds");
        let name = format!("{what}, against its formula");
        checks.push(check(
            "3.11",
            name,
            found,
            least_squares::expected_error(&attack),
            0.0,
        ));
        let name = format!("{what}, against a simulation elsewhere");
        checks.push(check("3.11", name, found, elsewhere, error));
    }
    for (users, online) in [(100, 0.5), (1000, 0.5), (1000, 0.9)] {
        let attack = Intersection {
            users,
            online,
            session: 0.0,
            habits: false,
            mailboxes: false,
            rounds: 10_000,
            replications: many,
        };
        #[expect(clippy::cast_precision_loss, reason = "a thousand users")]
        let expected = closed::intersection_rounds(users as f64, online);
        let name = format!("intersection rounds, N = {users}, p = {online}, simulated");
        checks.push(check("3.12", name, rounds(&attack, seed), expected, 0.0));
    }
    for (layers, delay_mean_s, seconds, flow_per_s, noise_per_s, area, rate) in [
        (3, 0.05, 10.0, 5.0, 5.0, 0.998, 0.965),
        (3, 0.05, 10.0, 5.0, 50.0, 0.879, 0.256),
        (3, 0.5, 10.0, 5.0, 50.0, 0.519, 0.015),
        (3, 0.05, 60.0, 1.0, 20.0, 0.988, 0.823),
    ] {
        let attack = Correlation {
            layers,
            delay_mean_s,
            flow_per_s,
            noise_per_s,
            seconds,
            shaped: false,
            replications: many,
        };
        let (auc, found) = auc_and_rate(&attack, seed);
        let what = format!(
            "{layers} × {} ms, {seconds} s, {flow_per_s} + {noise_per_s}/s",
            delay_mean_s * 1e3
        );
        checks.push(check(
            "3.13",
            format!("flow correlation AUC, {what}"),
            auc,
            area,
            0.01,
        ));
        checks.push(check(
            "3.13",
            format!("flow correlation TPR at 1 %, {what}"),
            found,
            rate,
            0.03,
        ));
    }
    checks
}
