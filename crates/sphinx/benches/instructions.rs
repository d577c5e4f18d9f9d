//! `.ci/instructions`: work to count instructions of, under valgrind.
//!
//! Arguments: what to do (`portable` or `assembly`: unwrap packets on that path one at a time; `avx2`:
//! 32 at a time; `reject`: refuse them, on `assembly`; `build`: build them, of five hops) and how many
//! times.
//! The script counts two runs and takes the difference, so that start and setup do not count.
//!
//! Without them (as under `cargo bench -p sphinx`) it does nothing.

use std::hint::black_box;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sphinx::{
    Builder, Draft, Hop, Path, SecretKey, Verdicts, finish, finish_batch, open, open_one,
};

/// Packets at a time on [`Path::Avx2`].
const BATCH: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, times] = arguments.as_slice() else {
        return;
    };
    let times: u32 = times.parse().expect("a number of times");
    let path = match what.as_str() {
        "portable" => Path::Portable,
        "avx2" => Path::Avx2,
        "assembly" | "reject" | "build" => Path::Assembly,
        other => panic!("`{other}` is not portable, assembly, avx2, reject or build"),
    };

    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let keys: [SecretKey; 5] = core::array::from_fn(|_| SecretKey::generate(&mut rng));
    let route = keys.each_ref().map(|key| Hop {
        address: [1; 32],
        key: key.public(),
        delay_ns: 1,
    });
    let builder = Builder::default().on(path).expect("present");
    let mut build = || {
        let draft = Draft::new(&mut rng, &route, [7; 32], [0; 16]);
        builder.packets(&[(draft, b"")]).remove(0)
    };
    let mut packet = build();
    if what == "reject" {
        packet[100] ^= 1;
    }
    let key = keys[0].clone().on(path).expect("present");
    let batch = vec![*packet; BATCH];
    for _ in 0..times {
        if what == "build" {
            black_box(build());
            continue;
        }
        if what == "avx2" {
            let mut packets = batch.clone();
            let mut verdicts = Verdicts::with_capacity(BATCH);
            open(&key, 1, &packets, &mut verdicts);
            let opened = verdicts
                .iter()
                .map(|verdict| verdict.as_ref().expect("honest"));
            finish_batch(opened.zip(&mut packets));
            black_box(packets);
            continue;
        }
        let mut packet = packet.clone();
        match open_one(&key, 1, &packet) {
            Ok(opened) => finish(opened, &mut packet),
            Err(_) => assert_eq!(what, "reject", "an honest packet"),
        }
        black_box(packet);
    }
    black_box(rng.next_u32());
}
