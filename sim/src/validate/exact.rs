//! Closed forms against the numbers published for them.
//!
//! Numbers are written as they were printed, so that the digits tell the rounding. Where the
//! published number is itself a simulation, its standard error stands beside it.

use super::{Check, Error};
use crate::{
    closed::{self, Batching},
    metrics,
};

/// Computed now, printed then.
type Row = (&'static str, String, f64, &'static str);

/// Half a unit in the last printed digit, and a hair for the binary fraction.
fn rounding(printed: &str) -> f64 {
    let (mantissa, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
    let decimals = mantissa
        .split_once('.')
        .map_or(0, |(_, decimals)| decimals.len());
    let decimals = i32::try_from(decimals).expect("few digits");
    let exponent: i32 = exponent.parse().expect("a number in this file");
    0.500_001 * 10_f64.powi(exponent - decimals)
}

fn computed((section, name, value, printed): Row) -> Check {
    Check {
        section,
        name,
        value,
        expected: printed.parse().expect("a number in this file"),
        error: Error::Rounding(rounding(printed)),
        at_most: false,
    }
}

pub(super) fn checks() -> Vec<Check> {
    let tables = [
        laws(),
        single_mix(),
        networks(),
        batches(),
        paths_and_loops(),
        disclosure(),
        bounds(),
        metric_units(),
    ];
    let mut checks: Vec<Check> = tables.into_iter().flatten().map(computed).collect();
    checks.extend(published_simulations());
    checks
}

#[expect(clippy::cast_precision_loss, reason = "quantiles of small pools")]
fn laws() -> Vec<Row> {
    let mut rows = vec![(
        "3.1",
        "P0 for ρ = 10/3".into(),
        closed::poisson_pmf(10.0 / 3.0, 0),
        ".035674",
    )];
    for (rho, quantiles) in [
        (10.0 / 3.0, ["1", "3", "7", "8"]),
        (10.0, ["5", "10", "15", "18"]),
        (400.0 / 3.0, ["115", "133", "153", "161"]),
    ] {
        for (q, printed) in [0.05, 0.5, 0.95, 0.99].into_iter().zip(quantiles) {
            let value = closed::poisson_quantile(rho, q) as f64;
            rows.push((
                "3.1",
                format!("pool quantile {q} for ρ = {rho:.3}"),
                value,
                printed,
            ));
        }
    }
    for (hops, mean_s, quantiles) in [
        (
            1,
            0.05,
            [".034657", ".115129", ".149787", ".230259", ".345388"],
        ),
        (
            3,
            0.05,
            [".133703", ".266116", ".314790", ".420297", ".561444"],
        ),
        (
            5,
            0.05,
            [".233545", ".399679", ".457676", ".580231", ".739707"],
        ),
        (
            3,
            0.5,
            ["1.33703", "2.66116", "3.14790", "4.20297", "5.61444"],
        ),
        (
            5,
            0.1,
            [".467091", ".799359", ".915352", "1.160463", "1.479415"],
        ),
    ] {
        for (q, printed) in [0.5, 0.9, 0.95, 0.99, 0.999].into_iter().zip(quantiles) {
            let value = closed::erlang_quantile(hops, mean_s, q);
            rows.push((
                "3.2",
                format!("latency quantile {q}, {hops} × {mean_s} s"),
                value,
                printed,
            ));
        }
    }
    rows
}

fn single_mix() -> Vec<Row> {
    let mut rows = Vec::new();
    for (rho, printed) in [
        (0.5, ".862778"),
        (1.0, "1.511227"),
        (1.5, "2.01187"),
        (2.0, "2.408791"),
        (2.5, "2.73154"),
        (10.0 / 3.0, "3.156206"),
        (5.0, "3.754853"),
        (10.0, "4.763046"),
        (20.0, "5.764287"),
        (50.0, "7.086501"),
        (100.0, "8.086539"),
        (200.0, "9.086548"),
        (500.0, "10.408479"),
        (1000.0, "11.408479"),
        (5000.0, "13.73041"),
    ] {
        let value = closed::single_poisson_mix(rho).entropy;
        rows.push((
            "3.4",
            format!("E[H] of one mix, ρ = {rho:.3}"),
            value,
            printed,
        ));
    }
    for (rho, printed) in [(1.0, "1.442695"), (10.0, "4.764623"), (100.0, "8.086551")] {
        let value = closed::danezis_limit_bits(rho);
        rows.push(("3.4", format!("log2(e ρ), ρ = {rho}"), value, printed));
    }
    for (rho, printed) in [
        (1.0, "1.1909"),
        (10.0 / 3.0, "2.9579"),
        (10.0, "4.6931"),
        (100.0, "8.0793"),
    ] {
        let value = closed::single_poisson_mix_biased(rho);
        rows.push((
            "3.4",
            format!("E[H] with the biased choice, ρ = {rho:.3}"),
            value,
            printed,
        ));
    }
    rows
}

fn networks() -> Vec<Row> {
    let third = 0.8 / 3.0;
    [
        (100.0, 3, 0.1, "5.98742"),
        (1000.0, 3, 0.1, "9.30935"),
        (1e4, 3, 0.1, "12.63128"),
        (1e5, 3, 0.1, "15.95320"),
        (1e6, 3, 0.1, "19.27513"),
        (1000.0, 3, 0.05, "8.30935"),
        (1000.0, 5, 0.05, "8.75082"),
        (5000.0, 3, third, "13.04631"),
        (5000.0, 2, 0.425, "13.32869"),
        (5000.0, 5, 0.14, "12.55817"),
    ]
    .into_iter()
    .map(|(per_s, hops, mean_s, printed)| {
        let value = closed::network_limit_bits(per_s, hops, mean_s);
        (
            "3.5",
            format!("network limit, {per_s} per s, {hops} × {mean_s:.3} s"),
            value,
            printed,
        )
    })
    .collect()
}

fn batches() -> Vec<Row> {
    let mut rows = Vec::new();
    for (width, batch, layers, printed) in [
        (4, 64, 1, "6"),
        (4, 64, 2, "8"),
        (4, 64, 3, "8"),
        (10, 100, 1, "6.6439"),
        (10, 100, 2, "9.9658"),
    ] {
        let value = closed::threshold_stratified_bits(width, batch, layers);
        rows.push((
            "3.6",
            format!("threshold, {width} mixes of {batch}, layer {layers}"),
            value,
            printed,
        ));
    }
    for (input, kept, printed) in [
        (100.0, 10.0, "7.127303"),
        (100.0, 100.0, "8.643856"),
        (50.0, 50.0, "7.643856"),
        (20.0, 80.0, "7.931569"),
        (10.0, 90.0, "8.011884"),
    ] {
        let value = closed::threshold_pool_bits(input, kept);
        rows.push((
            "3.6",
            format!("threshold pool, {input} in, {kept} kept"),
            value,
            printed,
        ));
    }
    let two = |batching| closed::synchronous_posterior(batching, 2, 2, 128, 0.25);
    let cascade = two(Batching::Cascade);
    let stratified = two(Batching::Stratified);
    let scaled = |posterior: &[f64], rank: usize| {
        let mut shares = posterior.to_vec();
        shares.sort_unstable_by(|a, b| b.total_cmp(a));
        shares[rank] * 65_536.0
    };
    for (name, value, printed) in [
        (
            "2×2 cascade, largest mass × 65536",
            scaled(&cascade, 0),
            "5056",
        ),
        (
            "2×2 cascade, other masses × 65536",
            scaled(&cascade, 1),
            "960",
        ),
        (
            "2×2 stratified, largest mass × 65536",
            scaled(&stratified, 0),
            "4768",
        ),
        (
            "2×2 stratified, second mass × 65536",
            scaled(&stratified, 1),
            "672",
        ),
        (
            "2×2 stratified, third mass × 65536",
            scaled(&stratified, 32),
            "480",
        ),
        (
            "2×2 stratified, least mass × 65536",
            scaled(&stratified, 127),
            "288",
        ),
    ] {
        rows.push(("3.7", name.to_owned(), value, printed));
    }
    for (width, messages, corrupt, cascade, stratified) in [
        (2, 128, 0.25, "5.908193", "6.801461"),
        (4, 128, 0.25, "4.999671", "6.982921"),
        (4, 128, 0.1, "4.99999978", "6.999569"),
        (4, 256, 0.5, "5.908193", "7.648764"),
    ] {
        for (batching, name, printed) in [
            (Batching::Cascade, "cascade", cascade),
            (Batching::Stratified, "stratified", stratified),
        ] {
            let value = closed::synchronous_bits(batching, width, width, messages, corrupt);
            let name = format!("{width}×{width} {name} of {messages}, corrupt {corrupt}");
            rows.push(("3.7", name, value, printed));
        }
    }
    rows
}

fn paths_and_loops() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |section, name: &str, value, printed| rows.push((section, name.to_owned(), value, printed));
    row(
        "3.8",
        "path compromise .1^3",
        closed::path_compromise(0.1, 3),
        ".001",
    );
    row(
        "3.8",
        "path compromise .2^3",
        closed::path_compromise(0.2, 3),
        ".008",
    );
    row(
        "3.8",
        "path compromise .3^3",
        closed::path_compromise(0.3, 3),
        ".027",
    );
    row(
        "3.8",
        "path compromise .1^5",
        closed::path_compromise(0.1, 5),
        "1e-5",
    );
    for (share, layers, printed) in [
        (0.1, 3, ".632305"),
        (0.1, 5, ".00995022"),
        (0.3, 5, ".912223"),
    ] {
        let value = closed::ever(closed::path_compromise(share, layers), 1000.0);
        row(
            "3.8",
            &format!("ever in 1000 messages, {share}^{layers}"),
            value,
            printed,
        );
    }
    for (nodes, layers, corrupt, printed) in [
        (100, 2, 10, ".00909091"),
        (100, 5, 30, ".00189282"),
        (99, 3, 10, ".000765067"),
    ] {
        let value = closed::path_compromise_drawn(nodes, layers, corrupt);
        row(
            "3.8",
            &format!("{corrupt} of {nodes} drawn, {layers} layers"),
            value,
            printed,
        );
    }
    for (per_s, window_s, blocked, printed) in [
        (1.0 / 60.0, 60.0, 1.0, ".632121"),
        (1.0, 10.0, 0.5, ".993262"),
        (2.0, 5.0, 0.9, ".999877"),
        (1.0 / 6.0, 300.0, 0.1, ".993262"),
    ] {
        let value = closed::loop_detection(per_s, window_s, blocked);
        row(
            "3.9",
            &format!("a loop is missed, {per_s:.3}/s, {window_s} s, blocked {blocked}"),
            value,
            printed,
        );
    }
    let (false_rate, true_rate) = closed::loop_alarm(60.0, 0.01, 0.2, 3);
    row("3.9", "alarm above 3 of 60, false", false_rate, ".003358");
    row("3.9", "alarm above 3 of 60, true", true_rate, ".998421");
    row(
        "3.9",
        "none of 20 loops missing at .1",
        1.0 - closed::binomial_at_least(20, 0.1, 1),
        ".121577",
    );
    row(
        "3.9",
        "3 or more of 20 missing at .1",
        closed::binomial_at_least(20, 0.1, 3),
        ".323073",
    );
    row(
        "3.9",
        "Loopix (n−1), s 2",
        closed::loopix_blending(2.0, 0.5, 1.0, 10.0),
        ".0833333",
    );
    row(
        "3.9",
        "Loopix (n−1), s 4",
        closed::loopix_blending(4.0, 2.0, 10.0, 100.0),
        ".0571429",
    );
    let (first, second, _) = closed::loopix_theorem(10.0, 4.0, 3.0, 1.0, 0.0);
    row("3.9", "Loopix theorem 1, old packet", first, ".0571429");
    row("3.9", "Loopix theorem 1, new packet", second, ".142857");
    let (first, second, mix_loop) = closed::loopix_theorem(10.0, 4.0, 3.0, 1.0, 2.0);
    row("3.9", "Loopix theorem 2, old packet", first, ".0444444");
    row("3.9", "Loopix theorem 2, new packet", second, ".111111");
    row("3.9", "Loopix theorem 2, mix loop", mix_loop, ".222222");
    rows
}

fn disclosure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (friends, batch, users, two, three) in [
        (20.0, 100.0, 20_000.0, "143.399", "322.648"),
        (10.0, 50.0, 1000.0, "141.139", "317.563"),
        (5.0, 10.0, 100.0, "63.616", "143.136"),
    ] {
        for (l, printed) in [(2.0, two), (3.0, three)] {
            let value = closed::disclosure_rounds(friends, batch, users, l);
            let name = format!("disclosure rounds, m {friends}, b {batch}, N {users}, l {l}");
            rows.push(("3.10", name, value, printed));
        }
    }
    for (senders, batch, rounds, printed) in [
        (50.0, 10.0, 5000.0, ".007856"),
        (50.0, 10.0, 20_000.0, ".001964"),
        (20.0, 5.0, 4000.0, ".003840"),
    ] {
        let value = closed::least_squares_error(senders, 5.0, batch, rounds);
        let name = format!("least squares, {senders} senders, t {batch}, {rounds} rounds");
        rows.push(("3.11", name, value, printed));
    }
    for (users, online, expected, median) in [
        (100.0, 0.5, "7.9694", "8"),
        (1000.0, 0.5, "11.2978", "11"),
        (1000.0, 0.9, "71.5368", "70"),
        (1e5, 0.9, "115.250", "113"),
        (1e6, 0.99, "1432.56", "1412"),
    ] {
        let name = format!("intersection, N {users}, online {online}");
        rows.push((
            "3.12",
            format!("{name}, mean"),
            closed::intersection_rounds(users, online),
            expected,
        ));
        let value = f64::from(closed::intersection_median(users, online));
        rows.push(("3.12", format!("{name}, median"), value, median));
    }
    rows
}

fn bounds() -> Vec<Row> {
    let mut rows = Vec::new();
    for (mean, distance, half, one) in [
        (5.0, ".175467", Some(".059509"), Some(".022112")),
        (10.0, ".125110", Some(".019535"), Some(".002808")),
        (50.0, ".056325", Some("8.2432e-5"), Some("8.738e-9")),
        (100.0, ".039861", Some("3.5685e-7"), None),
        (1000.0, ".0126146", None, None),
    ] {
        for (epsilon, printed) in [(0.0, Some(distance)), (0.5, half), (1.0, one)] {
            if let Some(printed) = printed {
                let name = format!("δ({epsilon}) of Poisson cover {mean}");
                rows.push(("3.14", name, closed::cover_delta(mean, epsilon), printed));
            }
        }
    }
    let mut row = |name: &str, value, printed| rows.push(("3.15", name.to_owned(), value, printed));
    for (users, rounds, cover, printed) in [
        (1000.0, 5.0, 0.05, ".744745"),
        (1000.0, 10.0, 0.05, ".489489"),
        (1000.0, 20.0, 0.05, "0"),
        (1e6, 10.0, 0.01, ".8999899"),
    ] {
        let value = closed::trilemma_synchronised(users, rounds, cover);
        row(
            &format!("trilemma synchronised, N {users}, l {rounds}"),
            value,
            printed,
        );
    }
    for (p, rounds, printed) in [
        (0.01, 10, ".404382"),
        (0.01, 50, ".105006"),
        (0.01, 69, "0"),
        (0.1, 5, ".09049"),
    ] {
        let value = closed::trilemma_unsynchronised(p, rounds);
        row(
            &format!("trilemma unsynchronised, p {p}, l {rounds}"),
            value,
            printed,
        );
    }
    let value = closed::trilemma_compromised(1000.0, 3, 0.1, 5, 20);
    row("trilemma, 5 of 20 corrupt", value, ".699357");
    rows
}

fn metric_units() -> Vec<Row> {
    let mut p = [0.5, 0.25, 0.125, 0.0625, 0.0625];
    [
        ("Shannon entropy", metrics::shannon_bits(&p), "1.875"),
        ("min-entropy", metrics::min_entropy_bits(&p), "1"),
        ("Rényi-2", metrics::renyi2_bits(&p), "1.573735"),
        ("effective set 2^H", metrics::effective_set(&p), "3.668016"),
        (
            "inverse Simpson 1/Σp²",
            metrics::inverse_simpson(&p),
            "2.976744",
        ),
        ("degree", metrics::degree(&p), ".807519"),
        ("guesswork", metrics::guesswork(&mut p), "1.9375"),
    ]
    .map(|(name, value, printed)| {
        (
            "3.16",
            format!("{name} of a small posterior"),
            value,
            printed,
        )
    })
    .to_vec()
}

/// Closed forms against published simulations: their own error is the yardstick.
fn published_simulations() -> Vec<Check> {
    let mut checks = Vec::new();
    let mut against = |name, value, expected, error| {
        checks.push(Check {
            section: "3.4",
            name,
            value,
            expected,
            error: Error::Standard(error),
            at_most: false,
        });
    };
    for (rho, simulated, error) in [
        (1.0, 1.5162, 0.0064),
        (2.0, 2.4077, 0.0059),
        (10.0, 4.7629, 0.0023),
        (50.0, 7.0888, 0.0027),
        (100.0, 8.0866, 0.0019),
    ] {
        let exact = closed::single_poisson_mix(rho);
        against(
            format!("E[H], ρ = {rho}, by Monte Carlo"),
            exact.entropy,
            simulated,
            error,
        );
    }
    // 20 000 messages, at ρ = 100 only 3000; the standard error of a standard deviation is taken
    // as that of the mean, which holds up to a kurtosis of 5.
    for (rho, messages, min_entropy, sd) in [
        (1.0, 2e4_f64, 1.175, 0.893),
        (10.0 / 3.0, 2e4, 2.243, 0.661),
        (10.0, 2e4, 3.520, 0.336),
        (100.0, 3e3, 6.667, 0.101),
    ] {
        let exact = closed::single_poisson_mix(rho);
        let root = messages.sqrt();
        against(
            format!("E[−log2 max p], ρ = {rho:.3}, by Monte Carlo"),
            exact.min_entropy,
            min_entropy,
            exact.min_entropy_sd / root,
        );
        against(
            format!("sd of H, ρ = {rho:.3}, by Monte Carlo"),
            exact.entropy_sd,
            sd,
            exact.entropy_sd / root,
        );
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_tell_the_rounding() {
        for (printed, expected) in [("5056", 0.5), (".25", 0.005), ("8.2432e-5", 0.5e-9)] {
            assert!(
                (rounding(printed) / expected - 1.0).abs() < 1e-5,
                "{printed}"
            );
        }
    }

    /// Every closed form of SIMULATOR 3.1 to 3.16 that we compute, to all published digits.
    #[test]
    fn closed_forms_meet_the_published_numbers() {
        let failed: Vec<_> = checks()
            .into_iter()
            .filter(|check| !check.passes())
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
