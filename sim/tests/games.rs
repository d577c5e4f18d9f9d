//! Unlinkability of two pairs, ε of Loopix, and contacts that the adversary knows: against closed
//! forms and against simulations that share nothing with the engine but the random streams.

use sim::{
    flow::{Pool, Section, Setup, study},
    random::{Purpose, SOURCE, Stream},
    stats::{Estimate, mean},
};

fn played(setup: &Setup, games: u64) -> Vec<Section> {
    let setup = Setup {
        games,
        window: 0.0,
        ..setup.clone()
    };
    study(&setup, 4, 64, &|_| ())
}

/// One layer: messages in one mix are alike, in two they are told apart.
#[test]
fn through_one_layer_two_pairs_are_unlinkable_if_they_meet() {
    for width in [1, 3] {
        let setup = Setup {
            width,
            rate: 12.0,
            ..Setup::default()
        };
        let sections = played(&setup, 2048);
        for advantage in sections.iter().flat_map(|section| &section.advantages) {
            assert!(*advantage < 1e-9 || *advantage > 1.0 - 1e-9, "{advantage}");
        }
        let found = Section::estimate(&sections, |section| mean(&section.advantages));
        #[expect(clippy::cast_precision_loss, reason = "few mixes")]
        let expected = 1.0 - 1.0 / width as f64;
        assert!(width == 1 || found.standard_error > 0.0);
        assert!(
            (found.value - expected).abs() <= 4.0 * found.standard_error + 1e-9,
            "{found:?}"
        );
    }
}

/// Packets in flight with the joint posterior of two messages over single packets.
struct Flight {
    /// Where each is; `None` once it has left.
    at: Vec<Option<usize>>,
    joint: Vec<Vec<f64>>,
}

impl Flight {
    fn enter(&mut self, pool: usize) -> usize {
        self.at.push(Some(pool));
        for row in &mut self.joint {
            row.push(0.0);
        }
        self.joint.push(vec![0.0; self.at.len()]);
        self.at.len() - 1
    }

    /// All packets of an honest pool are alike: what is known of them is averaged.
    #[expect(clippy::cast_precision_loss, reason = "few packets")]
    fn mix(&mut self, pool: usize) {
        let all = 0..self.at.len();
        let inside: Vec<usize> = all
            .clone()
            .filter(|one| self.at[*one] == Some(pool))
            .collect();
        let n = inside.len() as f64;
        for other in all.filter(|one| self.at[*one] != Some(pool)) {
            let row = inside
                .iter()
                .map(|one| self.joint[*one][other])
                .sum::<f64>()
                / n;
            let column = inside
                .iter()
                .map(|one| self.joint[other][*one])
                .sum::<f64>()
                / n;
            for one in &inside {
                self.joint[*one][other] = row;
                self.joint[other][*one] = column;
            }
        }
        let mut both = 0.0;
        for a in &inside {
            both += inside.iter().map(|b| self.joint[*a][*b]).sum::<f64>();
        }
        both /= (n * (n - 1.0)).max(1.0);
        for a in &inside {
            for b in &inside {
                self.joint[*a][*b] = if a == b { 0.0 } else { both };
            }
        }
    }
}

/// One game, by single packets.
fn naive_advantage(setup: &Setup, seed: u64) -> f64 {
    let mut random = Stream::new(seed, 0, SOURCE, Purpose::Pool);
    let width = setup.width;
    let mut flight = Flight {
        at: Vec::new(),
        joint: Vec::new(),
    };
    for pool in 0..setup.layers * width {
        for _ in 0..random.poisson(setup.occupancy()) {
            flight.enter(pool);
        }
    }
    let pair = [(); 2].map(|()| {
        let pool = random.index(width);
        flight.enter(pool)
    });
    flight.joint[pair[0]][pair[1]] = 1.0;
    let mut first: Option<usize> = None;
    loop {
        let flying: Vec<usize> = (0..flight.at.len())
            .filter(|one| flight.at[*one].is_some())
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "few packets")]
        let arrival = setup.rate / (setup.rate + flying.len() as f64);
        if random.coin(arrival) {
            let pool = random.index(width);
            flight.enter(pool);
            continue;
        }
        let one = flying[random.index(flying.len())];
        let pool = flight.at[one].expect("it flies");
        if pool % width >= setup.corrupt {
            flight.mix(pool);
        }
        if pool / width + 1 < setup.layers {
            let next = (pool / width + 1) * width + random.index(width);
            flight.at[one] = Some(next);
            continue;
        }
        flight.at[one] = None;
        if !pair.contains(&one) {
            // Neither of the two.
            for other in 0..flight.at.len() {
                flight.joint[one][other] = 0.0;
                flight.joint[other][one] = 0.0;
            }
        } else if let Some(first) = first {
            let ways = [flight.joint[first][one], flight.joint[one][first]];
            return (ways[0] - ways[1]).abs() / (ways[0] + ways[1]);
        } else {
            first = Some(one);
            // One of the two is this packet.
            for a in 0..flight.at.len() {
                for b in 0..flight.at.len() {
                    if a != one && b != one {
                        flight.joint[a][b] = 0.0;
                    }
                }
            }
        }
    }
}

#[test]
fn unlinkability_agrees_with_a_simulation_by_single_packets() {
    for (layers, width, corrupt, rate) in [(2, 2, 0, 5.0), (3, 2, 1, 5.0), (2, 3, 1, 9.0)] {
        let setup = Setup {
            layers,
            width,
            corrupt,
            rate,
            ..Setup::default()
        };
        let naive: Vec<f64> = (0..800).map(|seed| naive_advantage(&setup, seed)).collect();
        let naive = Estimate::from_sections(mean(&naive), 800, &naive);
        let engine = Section::estimate(&played(&setup, 4096), |section| mean(&section.advantages));
        let error = naive.standard_error.hypot(engine.standard_error);
        assert!(error < 0.03, "{naive:?} {engine:?}");
        let z = (naive.value - engine.value) / error;
        assert!(
            z.abs() < 4.0,
            "{layers} × {width}, {corrupt}: {naive:?} {engine:?}"
        );
        // A mix more in the way, or an honest one, would show.
        assert!((0.05..0.95).contains(&engine.value), "{engine:?}");
    }
}

/// In large pools shares are sums over a sender's messages, each decaying as its delay law says:
/// shot noise, whose ratio for two senders gives ε. Either writes at regular times, one message
/// for two slots, and each slot takes the next message in line, if there is one.
#[test]
fn epsilon_in_large_pools_is_that_of_shot_noise() {
    let rate = 0.5;
    for layers in [1, 2] {
        let mut random = Stream::new(1, 0, SOURCE, Purpose::Pool);
        let (period, past) = (2.0 / rate, 200.0);
        let mut noise = |phase: f64| {
            let (mut at, mut sent, mut sum) = (0.0, 0.0, 0.0);
            loop {
                at += random.exponential() / rate;
                if at > past {
                    break sum;
                }
                if sent * period + phase <= at {
                    sent += 1.0;
                    let age: f64 = past - at;
                    sum += f64::powi(age, layers - 1) * (-age).exp();
                }
            }
        };
        let mut ratio = |turn: u32| {
            let phase = period * (f64::from(turn) * 0.618_033_988_75).fract();
            (noise(phase) / noise(phase)).ln().abs()
        };
        let ratios: Vec<f64> = (0..4000).map(&mut ratio).collect();
        let law = Estimate::from_sections(mean(&ratios), 4000, &ratios);
        let setup = Setup {
            layers: usize::try_from(layers).expect("few"),
            rate: 200.0,
            sender_rate: rate,
            ..Setup::default()
        };
        let engine = Section::estimate(&played(&setup, 1024), |section| mean(&section.epsilons));
        let error = law.standard_error.hypot(engine.standard_error);
        assert!(error < 0.1 * law.value, "{law:?} {engine:?}");
        let z = (law.value - engine.value) / error;
        assert!(z.abs() < 4.0, "{layers}: {law:?} {engine:?}");
    }
}

/// Two receivers, a sender with two contacts: in half of the cases both are the same, else the
/// posterior is the count of packets for each in the batch.
#[test]
fn known_contacts_leave_what_bayes_rule_says() {
    let batch = 5_u32;
    let (mut ways, mut bits) = (1.0, 0.0);
    for others in 0..batch {
        let share = f64::from(1 + others) / f64::from(batch);
        let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        bits += ways * 0.5_f64.powi(4) * (term(share) + term(1.0 - share));
        ways *= f64::from(batch - 1 - others) / f64::from(others + 1);
    }
    let setup = Setup {
        rate: f64::from(batch),
        receivers: 2,
        contacts: 2,
        pool: Some(Pool {
            batch: Some(5),
            ..Pool::default()
        }),
        ..Setup::default()
    };
    let sections = study(&setup, 2, 1024, &|_| ());
    let known = |section: &Section| mean(&section.column(|target| target.contact_entropy));
    let found = Section::estimate(&sections, known);
    assert!(found.z(0.5 * bits).abs() < 4.0, "{found:?} {}", 0.5 * bits);
    // Unequal receivers, more contacts, several mixes: calibrated, and less than without contacts.
    let setup = Setup {
        layers: 2,
        width: 2,
        rate: 40.0,
        receivers: 50,
        contacts: 6,
        popularity: 1.0,
        ..Setup::default()
    };
    let sections = study(&setup, 2, 512, &|_| ());
    let gap = Section::estimate(&sections, |section| {
        mean(&section.column(|target| target.contact_log_loss - target.contact_entropy))
    });
    assert!(gap.z(0.0).abs() < 4.0, "{gap:?}");
    let all = mean(&Section::sum(&sections).column(|target| target.receiver_entropy));
    let known = known(&Section::sum(&sections));
    assert!(known > 0.5 && known < all - 0.5, "{known} {all}");
}
