//! What a network needs before it can be measured: time to settle, and room for its packets.
//!
//! | quantity | formula                                                                          |
//! |----------|----------------------------------------------------------------------------------|
//! | stay     | mean wait in a mix: 1, or `1 + kept/batch` batches by Little's law (1/f for a dynamic pool) |
//! | load     | packets that come to a mix over links × its time for one                          |
//! | pool     | Poisson(rate/width + loops of the mix and of those before it)                     |
//! | warm-up  | (8 L + 12) stays, L + 1 links, L times for lines to settle, L holds of corrupt mixes |
//!
//! After the warm-up less than 10⁻⁸ of the packets of the start are left. Units are those of
//! [`Setup`].

use super::setup::{Pool, Route, Setup};

/// Mean waits before the window opens, for each layer.
const WARM_UP: f64 = 8.0;

/// And more for all together: waits have tails.
const TAIL: f64 = 12.0;

/// Highest load of a line whose time to settle is waited for.
pub const LOAD_MAX: f64 = 0.95;

/// What a way takes besides the time in mixes, at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Away {
    /// On links.
    pub links: f64,
    /// For lines to settle.
    pub lines: f64,
    /// Held by corrupt mixes.
    pub held: f64,
}

/// Packets in flight, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InFlight {
    /// Users', in mixes.
    pub users: f64,
    /// Loops of mixes there, as if each passed all layers.
    pub loops: f64,
    /// Dummies there, those of users in first mixes and those of mixes in last ones.
    pub dummies: f64,
    /// The adversary's there.
    pub flood: f64,
    /// All of them on links.
    pub links: f64,
    /// All of them held longer by corrupt mixes.
    pub held: f64,
}

impl InFlight {
    /// All together.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.users + self.loops + self.dummies + self.flood + self.links + self.held
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "layers, widths and batches fit in memory"
)]
impl Setup {
    /// Mean wait in a mix, counted from the first batch that a packet might leave with.
    #[must_use]
    pub fn stay(&self) -> f64 {
        let Some(pool) = self.pool else {
            return 1.0;
        };
        let Pool { kept, fraction, .. } = pool;
        // What comes from one batch to the next, as what leaves.
        let timed = (self.rate + self.flood) / self.width as f64;
        let batch = pool.batch.map_or(timed, |batch| batch as f64);
        (1.0 + kept as f64 / batch).max(1.0 / fraction)
    }

    /// Load of the lines; 0 without.
    #[must_use]
    pub fn load(&self) -> f64 {
        let Some(capacity) = self.capacity else {
            return 0.0;
        };
        let entering = self.occupancy() * (self.rate + self.flood) / self.rate;
        // A loop begins in its mix's own pool: it stands in line at the layers after.
        capacity.service * (entering + self.loops * (self.layers - 1) as f64)
    }

    /// Mean number of packets in a pool of Poisson mixes, users' and loops. The law is Poisson, and
    /// pools are independent: each packet moves on by itself.
    #[must_use]
    pub fn pool_mean(&self, pool: usize) -> f64 {
        let mixes = match self.route {
            Route::Stratified | Route::Cascade => pool / self.width + 1,
            Route::Free => 1,
        };
        self.rate / self.width as f64 + self.loops * mixes as f64
    }

    /// What a way takes besides the time in mixes, at most.
    #[must_use]
    pub fn away(&self) -> Away {
        let layers = self.layers as f64;
        let link = self.links.as_ref().map_or(0.0, |links| {
            let delays = links.regions.iter().flatten();
            links.jitter + delays.copied().fold(0.0, f64::max)
        });
        let settles = self.capacity.map_or(0.0, |capacity| {
            10.0 * capacity.service / (1.0 - self.load().min(LOAD_MAX)).powi(2)
        });
        Away {
            links: (layers + 1.0) * link,
            lines: layers * settles,
            held: if self.corrupt > 0 {
                layers * self.hold
            } else {
                0.0
            },
        }
    }

    /// Time before the window opens.
    #[must_use]
    pub fn warm_up(&self) -> f64 {
        let Away { links, lines, held } = self.away();
        (self.layers as f64 * WARM_UP + TAIL) * self.stay() + links + lines + held
    }

    /// Packets in flight, on average; lines are short and left out.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        let layers = self.layers as f64;
        let loops = self.loops * self.mixes() as f64;
        let entering = self.rate + self.flood + loops;
        let link = self.links.as_ref().map_or(0.0, |links| {
            let delays: Vec<f64> = links.regions.concat();
            links.jitter / 2.0 + delays.iter().sum::<f64>() / delays.len() as f64
        });
        let passing = layers * self.stay();
        InFlight {
            users: self.rate * passing,
            loops: loops * passing,
            dummies: (self.user_dummies + self.last_dummies()) * self.stay(),
            flood: self.flood * passing,
            links: entering * (layers + 1.0) * link,
            held: entering * layers * self.hold * self.corrupt as f64 / self.width as f64,
        }
    }
}
