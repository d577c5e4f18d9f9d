//! The stage that holds a node's packet keys: what opens when, what is refused, and in what order
//! the journal comes.

use core::time::Duration;

use chacha20::ChaCha12Rng;
use proto::{
    Time,
    calendar::{Epoch, Schedule, Utc},
    peel::{Arrival, PeelDrop, Peeled, Pending, Stage},
    replay::{Refused, ReplaySet},
};
use rand_core::SeedableRng;
use sphinx::{Hop, Packet, Reject, SecretKey};

const CAP: Duration = Duration::from_millis(1_380);
const NEXT: [u8; 32] = [8; 32];

/// Epochs 80 to 95 of three hours; skew 5 min, grace 45 min.
fn schedule() -> Schedule {
    Schedule {
        valid_from: Utc::from_secs(1_000_000),
        length: Duration::from_secs(10_800),
        first: Epoch(80),
        count: 16,
        transit: Duration::from_secs(10),
    }
}

fn secret(epoch: u64) -> SecretKey {
    SecretKey::from_bytes([epoch.to_be_bytes()[7]; 32])
}

fn next_secret() -> SecretKey {
    SecretKey::from_bytes([200; 32])
}

/// A stage with the keys of `epochs`, each with a set for `capacity` packets.
fn stage(epochs: impl IntoIterator<Item = u64>, capacity: usize) -> Stage {
    let mut stage = Stage::default();
    for epoch in epochs {
        let seen = ReplaySet::new(&secret(epoch), capacity);
        stage.install(Epoch(epoch), secret(epoch), seen);
    }
    stage
}

/// How full the fullest set is: held, capacity.
fn fullness(stage: &Stage) -> Option<(usize, usize)> {
    let sets = stage.sets();
    sets.map(|(_, set)| (set.held(), set.capacity())).max()
}

/// A packet for the key of `epoch`, with one more hop.
fn packet(epoch: u64, seed: u64, delay: Duration) -> Box<Packet> {
    let hop = |address, key: SecretKey, delay_ns| Hop {
        address,
        key: key.public(),
        delay_ns,
    };
    let delay_ns = u64::try_from(delay.as_nanos()).expect("short");
    let route = [
        hop([7; 32], secret(epoch), delay_ns),
        hop(NEXT, next_secret(), 0),
    ];
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    sphinx::build(&mut rng, &route, [0; 32], [0; 16], b"message")
}

/// Opens a batch in epoch 81, its `i`-th packet received at `i` ns.
fn open(stage: &mut Stage, batch: &[Box<Packet>]) -> (Pending, Vec<PeelDrop>) {
    open_at(
        stage,
        schedule()
            .start(Epoch(81))
            .after(Duration::from_secs(5_000)),
        batch,
    )
}

fn open_at(stage: &mut Stage, now: Utc, batch: &[Box<Packet>]) -> (Pending, Vec<PeelDrop>) {
    let arrivals = (0..).zip(batch).map(|(i, packet)| Arrival {
        received: Time::from_nanos(i),
        packet: packet.clone(),
    });
    let mut dropped = Vec::new();
    let count = |why| dropped.push(why);
    let pending = stage.open(&schedule(), now, CAP, arrivals.collect(), count);
    (pending, dropped)
}

/// MIX-1, RPL-4
#[test]
fn a_packet_is_opened_journaled_and_finished() {
    let mut stage = stage([80, 81, 82], 100);
    let batch = [packet(81, 1, Duration::ZERO), packet(81, 2, CAP)];
    let (pending, dropped) = open(&mut stage, &batch);
    assert_eq!(
        (pending.len(), pending.is_empty(), dropped.as_slice()),
        (2, false, &[][..])
    );
    assert!(pending.journal.iter().all(|(epoch, _)| *epoch == Epoch(81)));
    assert_eq!(pending.journal.len(), 2);
    assert_ne!(pending.journal[0].1, pending.journal[1].1);

    let peeled: Vec<Peeled> = pending.finish().collect();
    for (i, (peeled, delay)) in (0..).zip(peeled.iter().zip([Duration::ZERO, CAP])) {
        assert_eq!(peeled.received, Time::from_nanos(i));
        assert_eq!((peeled.next, peeled.delay), (NEXT, delay));
        // The next hop reads it.
        assert!(sphinx::open_one(&next_secret(), 0, &peeled.packet).is_ok());
    }
    assert_eq!(fullness(&stage), Some((2, 100)));
}

/// RPL-1: in one batch, in a later one, and after a restart with the journal.
#[test]
fn a_replay_is_refused() {
    let mut before = stage([81], 100);
    let one = packet(81, 1, Duration::ZERO);
    let (pending, dropped) = open(&mut before, &[one.clone(), one.clone(), one.clone()]);
    let seen = PeelDrop::Replay(Refused::Seen);
    assert_eq!((pending.len(), dropped), (1, vec![seen, seen]));
    let (later, dropped) = open(&mut before, core::slice::from_ref(&one));
    assert_eq!((later.len(), dropped), (0, vec![seen]));

    let mut journaled = ReplaySet::new(&secret(81), 100);
    for (_, fingerprint) in &pending.journal {
        journaled.admit(*fingerprint).unwrap();
    }
    let mut after = Stage::default();
    after.install(Epoch(81), secret(81), journaled);
    let (again, dropped) = open(&mut after, &[one, packet(81, 2, Duration::ZERO)]);
    assert_eq!((again.len(), dropped), (1, vec![seen]));
}

/// RPL-4: if the journal's write fails, its packets are dropped, and stay refused.
#[test]
fn a_failed_journal_lets_nothing_through() {
    let mut stage = stage([81], 100);
    let one = [packet(81, 1, Duration::ZERO)];
    drop(open(&mut stage, &one));
    let (again, dropped) = open(&mut stage, &one);
    assert!(again.is_empty());
    assert_eq!(dropped, [PeelDrop::Replay(Refused::Seen)]);
}

/// RPL-3
#[test]
fn a_full_set_refuses_what_is_new() {
    let mut stage = stage([81], 1);
    let batch = [1, 2].map(|seed| packet(81, seed, Duration::ZERO));
    let (pending, dropped) = open(&mut stage, &batch);
    assert_eq!(
        (pending.len(), dropped),
        (1, vec![PeelDrop::Replay(Refused::Full)])
    );
}

/// RPL-1: garbage that shares a victim's α leaves no mark, so the true packet passes.
#[test]
fn a_tag_is_remembered_only_after_its_mac_holds() {
    let mut stage = stage([81], 100);
    let honest = packet(81, 1, Duration::ZERO);
    let mut garbage = honest.clone();
    garbage[100] ^= 1;
    let (pending, dropped) = open(&mut stage, &[garbage, honest]);
    assert_eq!(
        (pending.len(), dropped),
        (1, vec![PeelDrop::Rejected(Reject::Mac)])
    );
    assert_eq!(fullness(&stage), Some((1, 100)));
}

/// p05, p06: another spelling of a seen packet's α is a replay, and an α of low order is silence;
/// neither leaves a mark. (`crates/sphinx/tests/attacks/` has all spellings of both, with controls.)
#[test]
fn attack_p05_p06_other_spellings_of_alpha() {
    let mut stage = stage([81], 100);
    let honest = packet(81, 1, Duration::ZERO);
    let mut top_bit = honest.clone();
    top_bit[31] ^= 0x80;
    let low_order = [0u8, 1].map(|first| {
        let mut packet = honest.clone();
        packet[..32].fill(0);
        packet[0] = first;
        packet
    });
    let [zero, one] = low_order;
    let (pending, dropped) = open(&mut stage, &[honest, top_bit.clone(), zero, one]);
    assert_eq!(pending.len(), 1);
    let low = PeelDrop::Rejected(Reject::LowOrder);
    assert_eq!(
        dropped,
        [low, low, PeelDrop::Replay(Refused::Seen)],
        "in the order of the stage"
    );
    assert_eq!(fullness(&stage), Some((1, 100)));
    // The control: to a set that has not seen it, that spelling is as good as the other.
    let mut forgetful = self::stage([81], 100);
    let (pending, dropped) = open(&mut forgetful, &[top_bit]);
    assert_eq!((pending.len(), dropped), (1, vec![]));
}

/// EPO-2: each key opens from a skew before its epoch to a grace and a skew after it.
#[test]
fn a_key_opens_in_its_window_and_not_outside() {
    let s = schedule();
    let (start, end) = (s.start(Epoch(81)), s.start(Epoch(82)));
    let tick = Duration::from_nanos(1);
    let opens = start.before(s.skew());
    let closes = end.after(s.grace() + s.skew());
    for (now, passes) in [
        (opens.before(tick), false),
        (opens, true),
        (start, true),
        (end, true),
        (closes.before(tick), true),
        (closes, false),
    ] {
        let mut stage = stage([80, 81, 82], 100);
        let (pending, dropped) = open_at(&mut stage, now, &[packet(81, 1, Duration::ZERO)]);
        assert_eq!(pending.len(), usize::from(passes), "{now:?}");
        let expected = if passes {
            vec![]
        } else {
            vec![PeelDrop::Rejected(Reject::Mac)]
        };
        assert_eq!(dropped, expected, "{now:?}");
        assert!(pending.journal.iter().all(|(epoch, _)| *epoch == Epoch(81)));
    }
}

/// EPO-2: where windows overlap, packets of both epochs pass, each by its own key's set.
#[test]
fn neighbours_open_side_by_side() {
    let mut stage = stage([80, 81, 82], 100);
    let now = schedule().start(Epoch(82));
    let batch = [81, 82, 81, 80, 82].map(|epoch| packet(epoch, epoch, Duration::ZERO));
    let (pending, dropped) = open_at(&mut stage, now, &batch);
    let mut journal: Vec<_> = pending.journal.iter().map(|(epoch, _)| epoch.0).collect();
    journal.sort_unstable();
    assert_eq!(journal, [81, 82]); // the second of each is a replay
    let (seen, mac) = (
        PeelDrop::Replay(Refused::Seen),
        PeelDrop::Rejected(Reject::Mac),
    );
    assert_eq!(dropped, [mac, seen, seen]); // all are opened before the sets are asked
}

/// EPO-4, EPO-5: before the first epoch, after the last one, and when every key has been retired
/// or burned, no key opens anything.
#[test]
fn without_a_key_everything_is_dropped_as_that() {
    let s = schedule();
    let one = [packet(81, 1, Duration::ZERO)];
    let mut full = stage(80..96, 10);
    for now in [Utc::from_secs(0), s.opens(Epoch(95)).end] {
        let (pending, dropped) = open_at(&mut full, now, &one);
        assert_eq!((pending.len(), dropped), (0, vec![PeelDrop::NoKey]));
    }
    let (pending, dropped) = open(&mut stage([], 10), &one); // its only key was burned
    assert_eq!((pending.len(), dropped), (0, vec![PeelDrop::NoKey]));
    let (pending, dropped) = open(&mut stage([80, 82], 10), &one); // its neighbours live
    assert_eq!((pending.len(), dropped), (0, vec![PeelDrop::NoKey]));

    let tick = Duration::from_nanos(1);
    let mut retire = |now| -> Vec<_> {
        let gone = full.retire(&s, now).into_iter();
        gone.map(|(epoch, set)| (epoch.0, set.capacity())).collect()
    };
    assert_eq!(retire(s.opens(Epoch(80)).end.before(tick)), []);
    assert_eq!(retire(s.opens(Epoch(80)).end), [(80, 10)]);
    let all: Vec<_> = (81..96).map(|epoch| (epoch, 10)).collect();
    assert_eq!(retire(s.opens(Epoch(95)).end), all);
    assert_eq!(fullness(&full), None);
}

/// MIX-1: what no node may accept leaves no mark on the set.
#[test]
fn last_hops_and_long_delays_are_refused() {
    let mut stage = stage([81], 100);
    let hop = Hop {
        address: [7; 32],
        key: secret(81).public(),
        delay_ns: 0,
    };
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let last = sphinx::build(&mut rng, &[hop], [0; 32], [0; 16], b"message");
    let long = packet(81, 1, CAP + Duration::from_nanos(1));
    let (pending, dropped) = open(&mut stage, &[last, long]);
    assert!(pending.is_empty() && pending.journal.is_empty());
    assert_eq!(
        dropped,
        [PeelDrop::Final, PeelDrop::Rejected(Reject::DelayTooLong)]
    );
    assert_eq!(fullness(&stage), Some((0, 100)));
}
