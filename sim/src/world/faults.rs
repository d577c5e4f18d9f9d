//! Faults of the network that a scenario asks for, drawn before the run.
//!
//! | fault       | what                                                                        | lasts        |
//! |-------------|-----------------------------------------------------------------------------|--------------|
//! | loss        | each packet on its own, `packet.loss_ppm`                                      | to the end   |
//! | burst       | everything that one entity sends to nodes is lost                               | 0.5 to 3 s   |
//! | partition   | a random half of all entities can't reach the rest; client links across break  | 1 to 8 s     |
//! | jitter      | a packet between nodes takes up to `packet.jitter_ms` longer, so that packets overtake each other | always |
//! | store lag   | a disk answers up to `packet.store_lag_ms` later, in order                     | always       |
//! | clock skew  | each entity's UTC is off by up to half of `packet.clock_skew_ms`, either way     | always       |
//!
//! Links are TLS over TCP: client links keep their order, and no link doubles a frame. (What
//! an adversary sends twice is `packet.replays`.) All but the last three end with the run's
//! `packet.duration_s`.

use core::time::Duration;

use chacha20::ChaCha12Rng;
use proto::{
    Time,
    calendar::{Calendar, Utc},
};
use rand::{Rng, RngExt};

use super::{
    World,
    agenda::Event,
    setup::{Purpose, stream},
    store::LATENCY,
};
use crate::scenario::PacketSettings;

/// Part of the entities cut off from the rest for a while.
struct Partition {
    from: Time,
    until: Time,
    inside: Vec<bool>,
}

/// An entity whose packets are all lost for a while.
struct Burst {
    from: Time,
    until: Time,
    entity: usize,
}

/// The faults of a run.
pub(super) struct Faults {
    partitions: Vec<Partition>,
    bursts: Vec<Burst>,
    loss: Vec<ChaCha12Rng>,
    jitter: Vec<ChaCha12Rng>,
    lag: Vec<ChaCha12Rng>,
    /// When each entity's disk has answered all that it was asked.
    answered: Vec<Time>,
    /// How far each entity's UTC is off, in nanoseconds.
    skew: Vec<i64>,
}

impl Faults {
    /// Draws the faults of `entities`, which end at `quiet`.
    pub(super) fn draw(settings: &PacketSettings, seed: u64, entities: usize, quiet: Time) -> Self {
        let mut rng = stream(seed, 0, Purpose::Partition);
        let partitions = (0..settings.partitions)
            .map(|_| {
                let (from, until) = span(&mut rng, quiet, 1_000..8_000);
                Partition {
                    from,
                    until,
                    inside: (0..entities).map(|_| rng.random_range(0..2) == 1).collect(),
                }
            })
            .collect();
        let mut rng = stream(seed, 0, Purpose::Burst);
        let bursts = (0..settings.loss_bursts)
            .map(|_| {
                let (from, until) = span(&mut rng, quiet, 500..3_000);
                let entity = rng.random_range(0..entities);
                Burst {
                    from,
                    until,
                    entity,
                }
            })
            .collect();
        let streams = |purpose| {
            (0..entities)
                .map(|entity| stream(seed, entity, purpose))
                .collect()
        };
        let half = nanos(settings.clock_skew_ms / 2.0).cast_signed();
        let skew = |entity| stream(seed, entity, Purpose::Skew).random_range(-half..=half);
        Self {
            partitions,
            bursts,
            loss: streams(Purpose::Loss),
            jitter: streams(Purpose::Jitter),
            lag: streams(Purpose::Lag),
            answered: vec![Time::ZERO; entities],
            skew: (0..entities).map(skew).collect(),
        }
    }

    /// When each partition starts.
    pub(super) fn partition_starts(&self) -> Vec<Time> {
        self.partitions
            .iter()
            .map(|partition| partition.from)
            .collect()
    }

    /// Whether `a` and `b` can't reach each other at `now`.
    pub(super) fn cut(&self, a: usize, b: usize, now: Time) -> bool {
        let cuts = |one: &Partition| {
            (one.from..one.until).contains(&now) && one.inside[a] != one.inside[b]
        };
        self.partitions.iter().any(cuts)
    }

    /// What `entity` takes UTC to be.
    pub(super) fn calendar(&self, entity: usize, true_one: Calendar) -> Calendar {
        Calendar {
            utc: Utc(true_one.utc.0.saturating_add_signed(self.skew[entity])),
            ..true_one
        }
    }
}

/// A stretch of so many milliseconds that ends at `quiet` at the latest.
fn span(rng: &mut ChaCha12Rng, quiet: Time, lasts_ms: core::ops::Range<u64>) -> (Time, Time) {
    let from = Time::from_nanos(rng.random_range(0..quiet.as_nanos()));
    let lasts = Duration::from_millis(rng.random_range(lasts_ms));
    (from, from.after(lasts).min(quiet))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds bounded by the scenario"
)]
fn nanos(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

/// Uniform from 0 to so many milliseconds; draws nothing for 0.
fn up_to(rng: &mut ChaCha12Rng, milliseconds: f64) -> Duration {
    match nanos(milliseconds) {
        0 => Duration::ZERO,
        most => Duration::from_nanos(rng.random_range(0..=most)),
    }
}

impl World<'_> {
    /// Whether the network loses a packet on a link out of `from` now.
    pub(super) fn loses(&mut self, from: usize) -> bool {
        let drawn = self.faults.loss[from].next_u32() % 1_000_000;
        let lost = drawn < self.scenario.packet.loss_ppm && self.now < self.quiet;
        let in_burst =
            |burst: &Burst| burst.entity == from && (burst.from..burst.until).contains(&self.now);
        let burst = self.faults.bursts.iter().any(in_burst);
        if lost {
            self.tally.count_named("LostOnLink");
        } else if burst {
            self.tally.count_named("LostInBurst");
        }
        lost || burst
    }

    /// Whether a packet from one node to another is lost to a partition.
    pub(super) fn is_cut(&mut self, from: usize, to: usize) -> bool {
        let cut = self.faults.cut(from, to, self.now);
        if cut {
            self.tally.count_named("LostToPartition");
        }
        cut
    }

    /// When a packet that leaves `from` now reaches the next node.
    pub(super) fn arrival(&mut self, from: usize) -> Time {
        let jitter = up_to(
            &mut self.faults.jitter[from],
            self.scenario.packet.jitter_ms,
        );
        self.now.after(self.link_delay() + jitter)
    }

    /// When the disk of `entity` answers what it is asked now.
    pub(super) fn answer_time(&mut self, entity: usize) -> Time {
        let lag = up_to(
            &mut self.faults.lag[entity],
            self.scenario.packet.store_lag_ms,
        );
        let answered = &mut self.faults.answered[entity];
        *answered = self.now.after(LATENCY + lag).max(*answered);
        *answered
    }

    /// A partition starts: client links across it break at both ends.
    pub(super) fn part(&mut self) {
        self.tally.count_named("Partition");
        for (link, client, gateway) in self.links.all() {
            if self
                .faults
                .cut(self.nodes.len() + client, gateway, self.now)
            {
                let at = self.now.after(self.link_delay());
                self.agenda.put(at, Event::Down(link));
                self.agenda.put(at, Event::Unlinked(link));
            }
        }
    }

    /// What UTC is to `entity`.
    pub(super) fn calendar_of(&self, entity: usize) -> Calendar {
        self.faults.calendar(entity, self.calendar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PacketSettings {
        PacketSettings {
            duration_s: 100.0,
            messages_per_user: 0,
            message_bytes: 1,
            loss_ppm: 0,
            restarts: 0,
            replays: 0,
            node_loops: false,
            jitter_ms: 0.0,
            clock_skew_ms: 1000.0,
            partitions: 20,
            loss_bursts: 20,
            store_lag_ms: 0.0,
            epoch_s: 10_800,
        }
    }

    /// Partitions cut across only, heal by the end, and clocks differ by no more than the bound.
    #[test]
    fn faults_stay_in_their_bounds() {
        let quiet = Time::from_nanos(100_000_000_000);
        let faults = Faults::draw(&settings(), 5, 12, quiet);
        for partition in &faults.partitions {
            let pair = |inside| partition.inside.iter().position(|one| *one == inside);
            if let (Some(a), Some(b)) = (pair(true), pair(false)) {
                assert!(faults.cut(a, b, partition.from));
            }
            assert!(partition.until <= quiet && !faults.cut(0, 0, partition.from));
        }
        assert!((0..12).all(|a| (0..12).all(|b| !faults.cut(a, b, quiet))));
        assert!(faults.bursts.iter().all(|burst| burst.until <= quiet));
        let (least, most) = (faults.skew.iter().min(), faults.skew.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 1_000_000_000);
        assert!(most > least);
    }
}
