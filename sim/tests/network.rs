//! Networks against independent simulations: layers with and without corrupt mixes, on–off users,
//! sessions, traces, free routes, loss, timed dynamic pools. Each simulation here is written for its one case, shares
//! nothing with the engine but the random streams, and recomputes posteriors from the packets
//! themselves.

use sim::{
    flow::{Links, Pool, Route, Sabotage, Section, Setup, Users, study},
    random::{Purpose, SOURCE, Stream},
    stats::{Estimate, mean},
};

fn entropy(sections: &[Section]) -> Estimate {
    Section::estimate(sections, |part| part.mean(|target| target.entropy))
}

/// Log-loss less entropy.
fn gap(sections: &[Section]) -> Estimate {
    Section::estimate(sections, |part| {
        part.mean(|target| target.log_loss - target.entropy)
    })
}

/// The engine's mean entropy is `naive`'s, within 4 standard errors of both, and its
/// posteriors are calibrated.
fn agrees(setup: &Setup, naive: &[f64], replications: u64) {
    let sections = study(setup, 3, replications, &|_| ());
    let engine = entropy(&sections);
    // Neighbours in `naive` may share traffic: batch means.
    let batches: Vec<f64> = naive.chunks(naive.len().div_ceil(50)).map(mean).collect();
    let naive = Estimate::from_sections(mean(naive), 0, &batches);
    let error = naive.standard_error.hypot(engine.standard_error);
    assert!(
        error < 0.03 * naive.value,
        "too coarse: {naive:?} {engine:?}"
    );
    let z = (naive.value - engine.value) / error;
    assert!(z.abs() < 4.0, "{setup:?}: {naive:?} {engine:?}");
    let gap = gap(&sections);
    assert!(gap.z(0.0).abs() < 4.0, "{setup:?}: {gap:?}");
}

/// Entropies of messages through one Poisson mix of mean 1: every `stride`-th of those that
/// arrive in the middle of `arrivals` (ascending).
fn through_one_mix(arrivals: &[f64], stride: usize, seed: u64) -> Vec<f64> {
    let mut delay = Stream::new(seed, 0, 1, Purpose::Pool);
    // (time, whether a packet leaves)
    let mut events: Vec<(f64, bool, usize)> = Vec::new();
    for (number, at) in arrivals.iter().enumerate() {
        events.push((*at, false, number));
        events.push((*at + delay.exponential(), true, number));
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let end = arrivals.last().expect("some") - 60.0;
    let mut entropies = Vec::new();
    let mut held = 0_u32;
    for (place, (at, leaves, number)) in events.iter().enumerate() {
        if *leaves {
            held -= 1;
            continue;
        }
        held += 1;
        if number % stride != 0 || *at < 60.0 || *at > end {
            continue;
        }
        let (mut n, mut mass, mut entropy) = (held, 1.0_f64, 0.0);
        for (_, leaves, _) in &events[place + 1..] {
            if mass < 1e-9 {
                break;
            }
            if *leaves {
                let share = mass / f64::from(n);
                entropy -= share * share.log2();
                mass -= share;
                n -= 1;
                if n == 0 {
                    break;
                }
            } else {
                n += 1;
            }
        }
        entropies.push(entropy);
    }
    entropies
}

/// Users who go on and off, each by itself.
fn crowd(users: u32, online: f64, offline: f64, rate: f64, span: f64, seed: u64) -> Vec<f64> {
    let mut arrivals = Vec::new();
    for user in 0..users {
        let mut random = Stream::new(seed, u64::from(user), 2, Purpose::Pool);
        let mut at = 0.0;
        let mut on = random.coin(online / (online + offline));
        while at < span {
            let stay = random.exponential() * if on { online } else { offline };
            let mut sent = at + random.exponential() / rate;
            while on && sent < (at + stay).min(span) {
                arrivals.push(sent);
                sent += random.exponential() / rate;
            }
            at += stay;
            on = !on;
        }
    }
    arrivals.sort_by(f64::total_cmp);
    arrivals
}

#[test]
fn users_who_come_and_go_are_measured_as_their_messages_find_the_mix() {
    // Three users, on a fifth of the time: a message finds twice as many packets as there are
    // on average, and a wrong choice of messages shows.
    let (users, online, offline, rate) = (3, 5.0, 20.0, 4.0);
    let naive = through_one_mix(&crowd(users, online, offline, rate, 60_000.0, 1), 7, 1);
    let setup = Setup {
        rate: f64::from(users) * rate * 0.2,
        users: Users::OnOff {
            users: u64::from(users),
            online,
            offline,
        },
        ..Setup::default()
    };
    agrees(&setup, &naive, 2048);
    // Positive control: the same traffic from steady users is another matter.
    let steady = Setup {
        users: Users::Steady,
        ..setup
    };
    let steady = entropy(&study(&steady, 3, 2048, &|_| ()));
    assert!((steady.value - mean(&naive)).abs() > 0.2, "{steady:?}");
}

#[test]
fn sessions_are_measured_as_their_messages_find_the_mix() {
    let (online, rate, at_a_time) = (5.0, 4.0, 0.7);
    let mut random = Stream::new(1, 0, 3, Purpose::Pool);
    let (mut arrivals, mut begins) = (Vec::new(), 0.0);
    while begins < 60_000.0 {
        begins += random.exponential() * online / at_a_time;
        let ends = begins + random.exponential() * online;
        let mut sent = begins + random.exponential() / rate;
        while sent < ends {
            arrivals.push(sent);
            sent += random.exponential() / rate;
        }
    }
    arrivals.sort_by(f64::total_cmp);
    let naive = through_one_mix(&arrivals, 7, 2);
    let setup = Setup {
        rate: rate * at_a_time,
        users: Users::Sessions {
            users: at_a_time,
            online,
        },
        ..Setup::default()
    };
    agrees(&setup, &naive, 2048);
}

#[test]
fn a_trace_is_measured_as_its_messages_find_the_mix() {
    // Five at once, then a pause: far from Poisson.
    let trace = [0.1, 0.11, 0.12, 0.13, 0.14, 4.0];
    let arrivals: Vec<f64> = (0..4000)
        .flat_map(|round| trace.map(|at| at + 4.0 * f64::from(round)))
        .collect();
    let naive = through_one_mix(&arrivals, 1, 3);
    let setup = Setup {
        rate: 1.5,
        users: Users::Trace(trace.into()),
        ..Setup::default()
    };
    agrees(&setup, &naive, 1024);
}

/// One target in a network without times: each event is an arrival with probability λ / (λ + N),
/// else one of the N packets in flight, uniformly, moves on (all that exponential times say about
/// order). Every packet carries its share; an honest pool's posterior is recomputed from the packets
/// it holds. Pools are those of (hop, node); `None` if the target is lost.
fn without_times(setup: &Setup, loss: f64, seed: u64) -> Option<f64> {
    let mut random = Stream::new(seed, 0, SOURCE, Purpose::Pool);
    let (hops, nodes) = (setup.layers, setup.width);
    // Packets as (hop, node, share, whether it is the target).
    let mut flying: Vec<(usize, usize, f64, bool)> = Vec::new();
    let mut kept = 1.0 - loss;
    for hop in 0..hops {
        for node in 0..nodes {
            for _ in 0..random.poisson(setup.rate / nodes as f64 * kept) {
                flying.push((hop, node, 0.0, false));
            }
        }
        kept *= 1.0 - loss;
    }
    if random.coin(loss) {
        return None;
    }
    flying.push((0, random.index(nodes), 1.0, true));
    let (mut left, mut shares, mut arrived) = (1.0, Vec::new(), false);
    while left > 1e-9 {
        #[expect(clippy::cast_precision_loss, reason = "few packets")]
        let arrival = setup.rate / (setup.rate + flying.len() as f64);
        if random.coin(arrival) {
            if !random.coin(loss) {
                flying.push((0, random.index(nodes), 0.0, false));
            }
            continue;
        }
        let chosen = random.index(flying.len());
        let (hop, node, own, target) = flying.swap_remove(chosen);
        let mates = flying
            .iter_mut()
            .filter(|other| (other.0, other.1) == (hop, node));
        let mut mates: Vec<_> = mates.collect();
        let mut share = own;
        if node >= setup.corrupt {
            let mass = own + mates.iter().map(|other| other.2).sum::<f64>();
            #[expect(clippy::cast_precision_loss, reason = "few packets")]
            let even = mass / (mates.len() + 1) as f64;
            share = even;
            for mate in &mut mates {
                mate.2 = even;
            }
        }
        if random.coin(loss) {
            left -= share;
            if target {
                return None;
            }
        } else if hop + 1 < hops {
            let mut next = random.index(nodes);
            while setup.route == Route::Free && nodes > 1 && next == node {
                next = random.index(nodes);
            }
            flying.push((hop + 1, next, share, target));
        } else {
            left -= share;
            shares.push(share);
            arrived |= target;
        }
    }
    let total: f64 = shares.iter().sum();
    let terms = shares.iter().filter(|share| **share > 0.0);
    let entropy = terms.map(|share| -share / total * (share / total).log2());
    arrived.then(|| entropy.sum())
}

#[test]
fn layers_free_routes_and_loss_agree_with_a_simulation_without_times() {
    for (route, layers, width, corrupt, rate, loss) in [
        (Route::Stratified, 1, 1, 0, 3.0, 0.0),
        (Route::Stratified, 2, 2, 0, 8.0, 0.0),
        (Route::Stratified, 3, 2, 1, 10.0, 0.0),
        (Route::Free, 3, 3, 0, 12.0, 0.0),
        (Route::Free, 2, 4, 0, 10.0, 0.1),
        (Route::Stratified, 2, 2, 0, 8.0, 0.15),
    ] {
        let setup = Setup {
            route,
            layers,
            width,
            corrupt,
            rate,
            links: (loss > 0.0).then(|| Links {
                loss,
                ..Links::default()
            }),
            ..Setup::default()
        };
        let naive: Vec<f64> = (0..6000)
            .filter_map(|seed| without_times(&setup, loss, seed))
            .collect();
        agrees(&setup, &naive, 1024);
    }
}

/// A timed dynamic pool: counts and one message's mass, interval by interval.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few packets, rounded down already"
)]
fn dynamic_pool(rate: f64, kept: u32, fraction: f64, messages: u64) -> Vec<f64> {
    let mut random = Stream::new(4, 0, SOURCE, Purpose::Pool);
    let goes = |n: u32| {
        (f64::from(n) * fraction)
            .floor()
            .min(f64::from(n.saturating_sub(kept)))
    };
    let count = |n: usize| u32::try_from(n).expect("few packets");
    // Long run of pools as they are just before they send.
    let mut n = kept;
    let mut entropies = Vec::new();
    for round in 0..messages * 3 {
        let came = count(random.poisson(rate));
        n += came;
        if round % 3 == 0 && round > 300 {
            // One more message in this interval: typical, and the rest is as without it.
            let (mut n, mut mass, mut entropy) = (n + 1, 1.0, 0.0);
            while mass > 1e-9 {
                let gone = goes(n);
                if gone > 0.0 {
                    let share = mass / f64::from(n);
                    entropy -= gone * share * share.log2();
                    mass -= gone * share;
                }
                n = n - gone as u32 + count(random.poisson(rate));
            }
            entropies.push(entropy);
        }
        n -= goes(n) as u32;
    }
    entropies
}

#[test]
fn timed_dynamic_pools_agree_with_a_simulation_by_intervals() {
    for (rate, kept, fraction) in [(20.0, 5, 0.6), (10.0, 20, 0.3), (15.0, 10, 1.0)] {
        let setup = Setup {
            rate,
            pool: Some(Pool {
                kept,
                fraction,
                ..Pool::default()
            }),
            ..Setup::default()
        };
        let kept = u32::try_from(kept).expect("few");
        agrees(&setup, &dynamic_pool(rate, kept, fraction, 4000), 1024);
    }
}

/// Rates so low that the next packet is due beyond the end of time: it never comes.
#[test]
fn what_is_due_beyond_the_clock_never_comes() {
    let pool = Some(Pool {
        batch: Some(10),
        ..Pool::default()
    });
    for (loops, flood, pool) in [(1e-12, 0.0, None), (0.0, 1e-12, None), (1e-12, 1e-12, pool)] {
        let setup = Setup {
            rate: 10.0,
            loops,
            flood,
            pool,
            ..Setup::default()
        };
        let all = Section::sum(&study(&setup, 1, 2, &|_| ()));
        assert_eq!(all.targets.len(), 16);
        let entropy = mean(&all.column(|target| target.entropy));
        assert!((2.0..7.0).contains(&entropy), "{entropy}");
    }
}

/// Packets wait in pools for as long as Little's law says, however many stay behind: what was there
/// at the start is gone when the window opens, and in no latency.
#[test]
fn pools_delay_packets_as_littles_law_says() {
    let delays = |rate: f64, layers, batch, kept| {
        let setup = Setup {
            rate,
            layers,
            pool: Some(Pool {
                batch,
                kept,
                ..Pool::default()
            }),
            window: 60.0,
            ..Setup::default()
        };
        Section::estimate(&study(&setup, 1, 512, &|_| ()), Section::latency_mean)
    };
    for (rate, layers, batch, kept, expected) in [
        (4.0, 1, Some(4), 200, (200.0 + 1.5) / 4.0),
        (2.0, 1, None, 80, (80.0 + 1.0) / 2.0),
        // Through the second layer: one more interval, and as many as stay.
        (5.0, 2, None, 50, 0.5 + 1.0 + 2.0 * 10.0),
    ] {
        let found = delays(rate, layers, batch, kept);
        assert!(found.standard_error < 0.02 * expected, "{found:?}");
        assert!(found.z(expected).abs() < 4.0, "{found:?} {expected}");
    }
}

/// Positive control of the calibration in every other network.
#[test]
fn wrong_posteriors_are_not_calibrated() {
    let setup = Setup {
        route: Route::Free,
        layers: 3,
        width: 3,
        rate: 30.0,
        sabotage: Sabotage::QuarterShare,
        ..Setup::default()
    };
    let sections = study(&setup, 1, 512, &|_| ());
    let gap = gap(&sections);
    assert!(gap.z(0.0).abs() > 6.0, "{gap:?}");
}
