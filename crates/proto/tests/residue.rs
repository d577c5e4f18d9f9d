//! PKT-5: what a node's opening and finishing gives back to the heap holds no packet's keys.

#![expect(
    unsafe_code,
    reason = "an allocator that looks at what is freed is a trait of unsafe functions"
)]

use core::time::Duration;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use chacha20::ChaCha20Rng;
use proto::{
    Time,
    calendar::{Epoch, Schedule, Utc},
    peel::{Arrival, Stage},
    replay::ReplaySet,
};
use rand_core::SeedableRng;
use sphinx::{Hop, Packet, Path, SecretKey, Verdicts};

thread_local! {
    /// What is looked for, while it is looked for: a packet's tag, which lies beside its keys.
    static WANTED: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

struct Looking;

// SAFETY: everything is the system allocator's; what is freed is read, no more.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeros, so that whatever is freed has been written.
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(wanted) = WANTED.get() {
            // SAFETY: the block is still allocated, was zeroed at first, and nobody else has it.
            let bytes = unsafe { core::slice::from_raw_parts(at, layout.size()) };
            let found = bytes.windows(32).filter(|window| *window == wanted);
            FOUND.set(FOUND.get() + found.count());
        }
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static LOOKING: Looking = Looking;

/// How many copies of `tag` are in what `work` frees.
fn left(tag: [u8; 32], work: impl FnOnce()) -> usize {
    FOUND.set(0);
    WANTED.set(Some(tag));
    work();
    WANTED.set(None);
    FOUND.get()
}

#[test]
fn pkt_5_no_key_of_a_packet_is_left_in_freed_memory() {
    const CAP: Duration = Duration::from_secs(3600);
    let schedule = Schedule {
        valid_from: Utc::from_secs(1_000_000),
        length: Duration::from_secs(10_800),
        first: Epoch(80),
        count: 16,
        transit: Duration::from_secs(10),
    };
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let keys = [0; 2].map(|_| SecretKey::generate(&mut rng));
    let route = keys.each_ref().map(|key| Hop {
        address: [1; 32],
        key: key.public(),
        delay_ns: 0,
    });
    let packets: Vec<Box<Packet>> = (0..40)
        .map(|_| sphinx::build(&mut rng, &route, [2; 32], [0; 16], b""))
        .collect();
    let tag_of = |packet| *sphinx::open_one(&keys[0], 0, packet).expect("honest").tag();
    let tag = tag_of(&packets[5]);
    for path in Path::present() {
        println!("path {}", path.name());
        let key = || keys[0].clone().on(path).expect("present");
        let mut stage = Stage::default();
        stage.install(Epoch(81), key(), ReplaySet::new(&key(), 1000));
        let arrivals = packets.iter().map(|packet| Arrival {
            received: Time::from_nanos(1),
            packet: packet.clone(),
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let now = schedule.start(Epoch(81)).after(Duration::from_secs(5000));
        let copies = left(tag, || {
            let pending = stage.open(&schedule, now, CAP, arrivals, |why| panic!("{why:?}"));
            assert_eq!(pending.finish().count(), packets.len());
        });
        assert_eq!(copies, 0);
        // A list that grows, and gives away what it holds.
        let copies = left(tag, || {
            let mut verdicts = Verdicts::new();
            let batch = packets.iter().map(|packet| &**packet);
            sphinx::open(&key(), 0, batch, &mut verdicts);
            assert!(verdicts.drain().all(|verdict| verdict.is_ok()));
        });
        assert_eq!(copies, 0);
    }
    // Control: a list that moves what was opened leaves it.
    let copies = left(tag, || {
        let opened = packets
            .iter()
            .map(|packet| sphinx::open_one(&keys[0], 0, packet).expect("honest"));
        let opened: Vec<_> = opened.collect();
        let mut moved = Vec::with_capacity(opened.len());
        moved.extend(opened);
        drop(moved.into_iter().rev().collect::<Vec<_>>());
    });
    assert!(copies > 0);
}
