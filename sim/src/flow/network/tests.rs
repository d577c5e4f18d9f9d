//! What must hold packet by packet: closed forms of batches, and that no mass is made or lost unseen.

use super::*;
use crate::{
    closed,
    flow::{Capacity, Route, study},
    stats::mean,
};

/// SIMULATOR 3.6, exact but for the residual: batches do not depend on chance.
#[test]
fn cascades_of_threshold_mixes_and_single_pools_meet_their_closed_forms() {
    for (layers, batch, kept, expected) in [
        (1, 64, 0, 6.0),
        (3, 64, 0, 6.0),
        (1, 100, 10, closed::threshold_pool_bits(100.0, 10.0)),
        (1, 20, 80, closed::threshold_pool_bits(20.0, 80.0)),
    ] {
        let setup = Setup {
            layers,
            rate: f64::from(batch),
            pool: Some(Pool {
                batch: Some(usize::try_from(batch).unwrap()),
                kept,
                ..Pool::default()
            }),
            ..Setup::default()
        };
        for section in study(&setup, 3, 2, &|_| ()) {
            for target in section.targets {
                assert!((target.entropy - expected).abs() < 1e-6, "{target:?}");
            }
        }
    }
}

#[test]
fn a_corrupt_pool_hides_nothing() {
    let setup = Setup {
        corrupt: 1,
        rate: 10.0,
        pool: Some(Pool {
            batch: Some(10),
            kept: 5,
            ..Pool::default()
        }),
        ..Setup::default()
    };
    for section in study(&setup, 4, 2, &|_| ()) {
        assert!(mean(&section.column(|target| target.entropy)).abs() < 1e-12);
    }
}

/// Five come, and five of 25 leave: most of them were there at the start.
#[test]
fn packets_of_the_start_have_no_latency() {
    let setup = Setup {
        rate: 5.0,
        pool: Some(Pool {
            kept: 20,
            ..Pool::default()
        }),
        ..Setup::default()
    };
    let mut network = Network::new(&setup);
    let mut section = Section::default();
    network.start(1, 0);
    network.window = (ORIGIN, u64::MAX);
    for _ in 0..5 {
        network.now += ticks(0.1);
        network.enter(Kind::User, false, &mut section);
    }
    network.send_batch(0, &mut section);
    assert_eq!(section.events, 5);
    assert!(section.exits < 5 && section.exits == section.latency.len());
    assert!(section.latency_mean() < 0.5 || section.exits == 0);
}

/// What has left, what is lost and what is inside sum to one for every target, whatever
/// links, lines, loops and the adversary do.
#[test]
fn no_mass_is_made_or_lost_unseen() {
    let everything = Setup {
        layers: 3,
        width: 2,
        corrupt: 1,
        rate: 20.0,
        window: 1.0,
        links: Some(Links {
            regions: vec![vec![0.0, 0.2], vec![0.1, 0.0]],
            jitter: 0.1,
            loss: 0.1,
        }),
        capacity: Some(Capacity {
            service: 0.05,
            queue: 3,
        }),
        loops: 2.0,
        flood: 5.0,
        drop: 0.2,
        hold: 0.3,
        unwatched: 2,
        ..Setup::default()
    };
    for (route, pool) in [
        (Route::Stratified, None),
        (Route::Free, None),
        (
            Route::Cascade,
            Some(Pool {
                kept: 2,
                fraction: 0.5,
                ..Pool::default()
            }),
        ),
    ] {
        let setup = Setup {
            route,
            pool,
            ..everything.clone()
        };
        let mut network = Network::new(&setup);
        let mut section = Section::default();
        network.start(7, 0);
        for step in 0..4000_u64 {
            network.now += ticks(0.05);
            network.enter(
                Kind::User,
                step >= 1000 && network.chosen < LANES,
                &mut section,
            );
            if pool.is_none() && step % 3 == 0 {
                network.enter(Kind::Dummy, false, &mut section);
            }
            while network.agenda.next_at() <= network.now {
                network.happen(&mut section);
            }
            if step % 20 == 0 && pool.is_some() {
                for index in (0..network.mixes.len()).rev() {
                    network.send_batch(index, &mut section);
                }
            }
            let mut mass = network.posterior.total();
            let own = network
                .packets
                .iter()
                .filter_map(|packet| packet.shares.as_deref());
            for shares in own
                .copied()
                .chain(network.mixes.iter().map(|mix| mix.mean.mass()))
            {
                for (sum, share) in mass.iter_mut().zip(shares) {
                    *sum += share;
                }
            }
            for (lane, mass) in mass.into_iter().enumerate() {
                let expected = if lane < network.chosen { 1.0 } else { 0.0 };
                assert!((mass - expected).abs() < 1e-9, "lane {lane}: {mass}");
            }
        }
        assert_eq!(network.chosen, LANES);
        assert!(network.posterior.finished(1e-6));
    }
}
