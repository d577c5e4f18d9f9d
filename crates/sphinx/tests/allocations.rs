//! Peeling allocates nothing: neither one packet at a time nor in batches, on any path.

#![expect(
    unsafe_code,
    reason = "an allocator that counts is a trait of unsafe functions"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use sphinx::{Hop, Packet, Path, SecretKey, Verdicts};

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; the count is a plain cell of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `work` allocated.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATED.get();
    work();
    ALLOCATED.get() - before
}

#[test]
fn an_unwrap_allocates_nothing() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let key = SecretKey::generate(&mut rng);
    let hop = |key: &SecretKey| Hop {
        address: [1; 32],
        key: key.public(),
        delay_ns: 5,
    };
    let route = [hop(&key), hop(&SecretKey::generate(&mut rng))];
    let packet = *sphinx::build(&mut rng, &route, [2; 32], [0; 16], b"message");
    for path in Path::present() {
        println!("path {}", path.name());
        let key = key.clone().on(path).expect("present");
        let mut packets = [packet; 33];
        let mut verdicts = Verdicts::with_capacity(packets.len());
        let batched = allocations(|| {
            sphinx::open(&key, u64::MAX, &packets, &mut verdicts);
            let opened = verdicts
                .iter()
                .map(|verdict| verdict.as_ref().expect("honest"));
            sphinx::finish_batch(opened.zip(&mut packets));
        });
        assert_eq!(batched, 0, "{path:?}");
        let mut one: Packet = packet;
        let single = allocations(|| {
            let opened = sphinx::open_one(&key, u64::MAX, &one).expect("honest");
            sphinx::finish(opened, &mut one);
        });
        assert_eq!(single, 0, "{path:?}");
        assert!(one == packets[0] && one != packet);
    }
    // The positive control: the count counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
