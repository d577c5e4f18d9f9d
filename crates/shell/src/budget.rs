//! What a node's settings may cost, said at its start: memory at most, and how long its replay set lasts.
//!
//! ```text
//! memory <= base + keys open x replay set + pool + threads x peel queue + clients + next hops x link queue
//! ```
//!
//! | part       | bytes                                                                         |
//! |------------|-------------------------------------------------------------------------------|
//! | base       | what the process holds when it starts to listen: code, runtimes, keys          |
//! | replay set | [`ReplaySet::memory_of`] `replay_max`; [`KEYS_OPEN`] keys at most open at once       |
//! | pool       | `pool_max` packets of [`HELD_LEN`] bytes; a gateway has none                   |
//! | peel queue | [`peeler::WAITING_MAX`] packets of [`QUEUED_LEN`] bytes; once, [`INBOX`] more; at |
//! |            | a front end of a gateway [`peeler::ASKED_MAX`] batches besides                |
//! | clients    | at a gateway, what waits for them: see its `run`                                |
//! | link queue | `link_queue_max` packets of [`QUEUED_LEN`] bytes, for each next hop            |
//!
//! [`HELD_LEN`] is measured by `cargo test --release -p proto --test mix_pool -- --ignored`.
//! Not counted: buffers of TLS and of the kernel, some 100 kB for each link.

use core::{fmt, time::Duration};
use std::{fs, path::Path};

use proto::{
    mix::HELD_LEN,
    replay::{Fingerprint, ReplaySet},
};
use rustix::fs::statvfs;

use crate::{
    node::{INBOX, Setup},
    peeler,
};

/// Keys that are open at once at most: the current epoch's and, around its edges, a neighbour's.
pub const KEYS_OPEN: usize = 2;
/// Most that `replay_max` may be: 4 × 10⁹, a set of 53 GB. More is a mistake.
pub const REPLAY_MAX_MAX: usize = 4_000_000_000;
/// Least that a `replay_max` of 0 becomes: 53 MB and 32 MB of disk.
const REPLAY_MAX_MIN: usize = 2_000_000;
/// Of the memory and of the free disk, what a `replay_max` of 0 may come to take.
const REPLAY_SHARE: u64 = 4;
/// Most packets that a setting may let wait in one place: ten million, 25 GB. More is a mistake.
pub const PACKETS_MAX: usize = 10_000_000;
/// Most links that a setting may let in: more than a process may open files.
pub const LINKS_MAX: usize = 1_000_000;
/// Most threads that open packets: more than a machine has processors.
pub const THREADS_MAX: usize = 1024;
/// Bytes of a packet in a queue: itself, its allocation, its place in line, and the list of the read that
/// brought it, if by itself.
pub const QUEUED_LEN: usize = 2_560;
/// What a node may hold at most, by its settings. `Display` is the formula with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that the process held when this was made.
    pub base: usize,
    /// Most packets opened under one key.
    pub replay_max: usize,
    /// Most packets held by a mix.
    pub pool_max: usize,
    /// Threads that open packets.
    pub threads: usize,
    /// Most packets of one thread that wait to be opened, or for the store's word.
    pub queued_max: usize,
    /// Most bytes that a gateway holds for its clients.
    pub clients: usize,
    /// Most packets that wait for one link.
    pub link_queue_max: usize,
}

impl Budget {
    /// Of `setup`, with what the process holds now as its base; zero where the system does not say.
    #[must_use]
    pub fn now(setup: &Setup) -> Self {
        Self {
            base: resident().unwrap_or(0),
            replay_max: setup.replay_max,
            pool_max: setup.pool_max,
            threads: setup.threads.get(),
            queued_max: peeler::WAITING_MAX
                + setup
                    .tags
                    .as_ref()
                    .map_or(0, |_| peeler::ASKED_MAX * peeler::BATCH_MAX),
            clients: setup.clients,
            link_queue_max: setup.link_queue_max,
        }
    }

    /// Bytes at most with links to `next_hops` nodes.
    #[must_use]
    pub fn bytes(&self, next_hops: usize) -> usize {
        let [base, replay, pool, peel, clients, link] = self.parts();
        (base + replay + pool + peel + next_hops * link).saturating_add(clients)
    }

    /// Says so in the log if that, with one next hop, is more than there is.
    pub(crate) fn warn_beyond_memory(&self) {
        let (bytes, memory) = (self.bytes(1), memory());
        if u64::try_from(bytes).is_ok_and(|bytes| bytes <= memory) {
            return;
        }
        tracing::warn!(
            "these settings let it take {} MB, and the machine, or its control group, has {}: lower the greatest \
             part above",
            megabytes(bytes),
            megabytes(usize::try_from(memory).unwrap_or(usize::MAX)),
        );
    }

    fn parts(&self) -> [usize; 6] {
        [
            self.base,
            KEYS_OPEN * ReplaySet::memory_of(self.replay_max),
            self.pool_max * HELD_LEN,
            (self.threads * self.queued_max + INBOX) * QUEUED_LEN,
            self.clients,
            self.link_queue_max * QUEUED_LEN,
        ]
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [base, replay, pool, peel, clients, link] = self.parts().map(megabytes);
        let all = megabytes(self.bytes(0));
        write!(
            f,
            "at most {all} MB = base {base} + replay sets {replay} + pool {pool} + peel queues {peel} + clients {clients}, \
             and {link} MB for each next hop that takes no packets"
        )
    }
}

/// Most packets of one key by the setting `replay_max`: 0 is what takes a quarter of this machine's
/// memory, or of its control group's, and of the disk that is free at `state_dir`, but two million at
/// least. That is a bound: set and journal grow with what comes.
#[must_use]
pub fn replay_max(setting: usize, state_dir: &Path) -> usize {
    if setting > 0 {
        return setting;
    }
    let disk = statvfs(state_dir).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    fitting(memory(), disk)
}

/// How many fit into a share of `memory` and `disk`, in bytes.
fn fitting(memory: u64, disk: u64) -> usize {
    const MANY: usize = 1 << 24;
    let fit = |bytes: u64, many_take: usize| {
        u128::from(bytes / REPLAY_SHARE) * MANY as u128 / (KEYS_OPEN * many_take) as u128
    };
    let by_memory = fit(memory, ReplaySet::memory_of(MANY));
    let by_disk = fit(disk, MANY * size_of::<Fingerprint>());
    let fits = usize::try_from(by_memory.min(by_disk)).unwrap_or(usize::MAX);
    fits.clamp(REPLAY_MAX_MIN, REPLAY_MAX_MAX)
}

/// Bytes of memory that this process may have: the machine's, or less by a control group.
fn memory() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram.saturating_mul(machine.mem_unit.into());
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/"));
    let limits = group.into_iter().flat_map(|group| {
        let groups = Path::new(group).ancestors();
        groups.filter_map(|group| {
            let limit = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
            fs::read_to_string(limit).ok()?.trim().parse().ok()
        })
    });
    limits
        .min()
        .map_or(machine, |limit: u64| machine.min(limit))
}

fn megabytes(bytes: usize) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Bytes of memory that this process holds.
fn resident() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

/// A replay set that is full before its key closes, from which on all packets are dropped (RPL-3).
/// `Display` says so, with the remedy and what that costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooSmall {
    /// How long it lasts at the rate.
    pub lasts: Duration,
    /// How long its key opens packets.
    pub opens: Duration,
    /// `replay_max` that lasts until the key closes.
    pub enough: usize,
}

impl TooSmall {
    /// Whether it lasts for less than a tenth of the time.
    #[must_use]
    pub fn by_far(&self) -> bool {
        self.lasts * 10 < self.opens
    }
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = KEYS_OPEN * ReplaySet::memory_of(self.enough);
        let disk = KEYS_OPEN * size_of::<Fingerprint>() * self.enough;
        write!(
            f,
            "if packets come as fast as one processor opens them, replay_max of them have come {} s after \
             their key opens, and until it closes, {} s after it opens, all others are dropped; for that \
             load set replay_max to {}, which takes at most {} MB of memory and {} MB of disk; for less, \
             in proportion",
            self.lasts.as_secs(),
            self.opens.as_secs(),
            self.enough,
            megabytes(memory),
            megabytes(disk)
        )
    }
}

/// Whether `replay_max` packets last as long as a key opens, at `rate` packets per second.
///
/// # Errors
///
/// [`TooSmall`] if they don't.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, of positive numbers below 2^53"
)]
pub fn replay_lasts(replay_max: usize, rate: f64, opens: Duration) -> Result<(), TooSmall> {
    let enough = (rate * opens.as_secs_f64()).ceil() as usize;
    if replay_max >= enough {
        return Ok(());
    }
    Err(TooSmall {
        lasts: Duration::from_secs_f64(replay_max as f64 / rate),
        opens,
        enough: enough.min(REPLAY_MAX_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_adds_up() {
        assert!(resident().unwrap() > 1_000_000, "a process holds something");
        let budget = Budget {
            base: 20_000_000,
            replay_max: 2_000_000,
            pool_max: 100_000,
            threads: 2,
            queued_max: peeler::WAITING_MAX,
            clients: 7_000_000,
            link_queue_max: 1024,
        };
        let text = budget.to_string();
        for part in [
            "at most 378.0",
            "base 20.0",
            "sets 53.3",
            "pool 253.2",
            "clients 7.0",
            "2.6 MB for each",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(budget.bytes(3), budget.bytes(0) + 3 * 1024 * QUEUED_LEN);
        assert!((80_000_000..80_001_000).contains(&ReplaySet::memory_of(6_000_000)));
    }

    #[test]
    fn what_nobody_set_takes_a_share() {
        let folder = std::env::temp_dir();
        assert_eq!(replay_max(7, &folder), 7);
        let own = replay_max(0, &folder);
        assert!((REPLAY_MAX_MIN..=REPLAY_MAX_MAX).contains(&own), "{own}");
        assert!(memory() > 100_000_000, "a machine has memory");
        let giga = 1_000_000_000;
        for (memory, disk, expected) in [
            (8 * giga, 1000 * giga, 74_999_000..75_000_000), // 26.7 bytes each of a quarter
            (1000 * giga, 8 * giga, 125_000_000..125_000_001), // 16
            (giga / 10, giga, REPLAY_MAX_MIN..REPLAY_MAX_MIN + 1),
            (giga, 0, REPLAY_MAX_MIN..REPLAY_MAX_MIN + 1),
            (4000 * giga, 4000 * giga, REPLAY_MAX_MAX..REPLAY_MAX_MAX + 1),
        ] {
            assert!(expected.contains(&fitting(memory, disk)), "{expected:?}");
        }
    }

    #[test]
    fn a_set_that_fills_too_soon_is_told() {
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        assert_eq!(replay_lasts(36_000, 10.0, hours(1)), Ok(()));
        let small = TooSmall {
            lasts: hours(1),
            opens: hours(3),
            enough: 108_000,
        };
        assert_eq!(replay_lasts(36_000, 10.0, hours(3)), Err(small));
        assert!(!small.by_far());
        let small = replay_lasts(2_000_000, 40_000.0, hours(3)).unwrap_err();
        assert!(small.by_far());
        let text = small.to_string();
        for part in ["50 s", "replay_max to 432000000", "11520.0 MB", "6912.0 MB"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
