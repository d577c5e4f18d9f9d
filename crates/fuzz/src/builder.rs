//! Building: many packets and reply blocks at once, of any routes, keys and random bytes.
//!
//! What is built together is, byte for byte, what is built alone, on every path, with tables and
//! without (PKT-16, PKT-22); and it opens hop by hop to what was put in.
//!
//! | input byte | meaning                                                                      |
//! |------------|------------------------------------------------------------------------------|
//! | 0          | bits: 1 tables of every other node, 2 of all, 4 the next 32 bytes are the key |
//! |            | of node 0                                                                    |
//! | 1          | how many packets and reply blocks, less one; at most 40                      |
//! | then, each | hops, and from 128 a reply block; first node, and the step to the next;      |
//! |            | length of the message (2)                                                    |
//! | then       | the random bytes that are drawn, until they end                              |

use std::sync::LazyLock;

use chacha20::ChaCha20Rng;
use rand_core::TryRng;
use sphinx::{
    Address, Builder, Draft, Hop, MESSAGE_LEN, Packet, Path, Routing, SecretKey, Surb, SurbId,
    SurbSecret,
};

use crate::support::{bytes, seeded};

const NODES: u8 = 8;
const DRAFTS_MAX: u8 = 40;

static KEYS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let mut rng = seeded(8);
    (0..NODES).map(|_| SecretKey::generate(&mut rng)).collect()
});

/// With tables of every other node, and of all.
static KNOWING: LazyLock<[Builder; 2]> = LazyLock::new(|| {
    [2, 1].map(|step| {
        let keys: Vec<_> = KEYS.iter().step_by(step).map(SecretKey::public).collect();
        Builder::default().knowing(&keys)
    })
});

/// Builds what the input describes, together and alone, and opens it.
pub fn builder(input: &[u8]) {
    let Some(([mode, count], rest)) = input.split_first_chunk() else {
        return;
    };
    let mut keys = KEYS.clone();
    let mut rest = rest;
    if let (true, Some((own, behind))) = (mode & 4 != 0, rest.split_first_chunk()) {
        keys[0] = SecretKey::from_bytes(*own);
        rest = behind;
    }
    let (specs, _) = rest.as_chunks();
    let count = specs.len().min(usize::from(1 + count % DRAFTS_MAX));
    let plans: Vec<Plan> = specs[..count]
        .iter()
        .map(|spec| Plan::of(*spec, &keys))
        .collect();
    let random = &rest[count * SPEC_LEN..];

    let mut rng = Fed::from(random);
    let alone: Vec<Built> = plans.iter().map(|plan| plan.alone(&mut rng)).collect();
    for path in Path::present() {
        let builder = match mode & 3 {
            0 => Builder::default(),
            some => KNOWING[usize::from(some > 1)].clone(),
        };
        let builder = builder.on(path).expect("present");
        let together = together(&builder, &plans, &mut Fed::from(random));
        assert!(together == alone, "{builder:?}");
    }
    for (plan, built) in plans.iter().zip(alone) {
        plan.deliver(built);
    }
}

const SPEC_LEN: usize = 4;

/// One packet, or reply block, to be built.
struct Plan {
    reply: bool,
    keys: Vec<SecretKey>,
    route: Vec<Hop>,
    destination: Address,
    surb_id: SurbId,
    message: Vec<u8>,
}

/// What is built, as it is written.
#[derive(PartialEq)]
enum Built {
    Packet(Box<Packet>),
    Surb(
        Box<[u8; sphinx::SURB_LEN]>,
        Box<[u8; sphinx::SURB_SECRET_LEN]>,
    ),
}

impl Plan {
    fn of(spec: [u8; SPEC_LEN], keys: &[SecretKey]) -> Self {
        let [kind, nodes, len @ ..] = spec;
        // Everything else that may be anything.
        let mut rng = seeded(u64::from(u32::from_be_bytes(spec)));
        let [first, step] = [nodes % NODES, nodes / NODES % NODES].map(usize::from);
        let nodes = (0..=usize::from(kind % 5)).map(|i| (first + i * step) % keys.len());
        let keys: Vec<SecretKey> = nodes.map(|node| keys[node].clone()).collect();
        let hop = |key: &SecretKey| Hop {
            address: bytes(&mut rng),
            key: key.public(),
            delay_ns: u64::from_be_bytes(bytes(&mut rng)),
        };
        let route = keys.iter().map(hop).collect();
        let len = usize::from(u16::from_be_bytes(len)) % (MESSAGE_LEN + 1);
        Self {
            reply: kind >= 128,
            keys,
            route,
            destination: bytes(&mut rng),
            surb_id: bytes(&mut rng),
            message: (0..len).map(|i| u8::from(i % 3 == 0)).collect(),
        }
    }

    fn draft(&self, rng: &mut Fed<'_>) -> Draft {
        if self.reply {
            Draft::reply(rng, &self.route, self.destination)
        } else {
            Draft::new(rng, &self.route, self.destination, self.surb_id)
        }
    }

    fn alone(&self, rng: &mut Fed<'_>) -> Built {
        if self.reply {
            written(sphinx::surb(rng, &self.route, self.destination))
        } else {
            let (route, to) = (&self.route, self.destination);
            Built::Packet(sphinx::build(rng, route, to, self.surb_id, &self.message))
        }
    }

    /// Sends it along its route, and reads it at the end.
    fn deliver(&self, built: Built) {
        let (mut packet, secret) = match built {
            Built::Packet(packet) => (packet, None),
            Built::Surb(surb, secret) => {
                let surb = Surb::parse(&surb);
                assert_eq!(surb.first_hop(), self.route[0].address);
                let packet = surb.use_with(&self.message);
                (packet, Some(SurbSecret::from_bytes(&secret)))
            }
        };
        for (i, key) in self.keys.iter().enumerate() {
            let opened = sphinx::open_one(key, u64::MAX, &packet).expect("an honest packet");
            let expected = match self.route.get(i + 1) {
                Some(next) => Routing::Forward {
                    next: next.address,
                    delay_ns: self.route[i].delay_ns,
                },
                None => Routing::Final {
                    destination: self.destination,
                    surb_id: secret.as_ref().map_or(self.surb_id, SurbSecret::id),
                },
            };
            assert_eq!(*opened.routing(), expected);
            sphinx::finish(opened, &mut packet);
        }
        let mut payload = *sphinx::payload(&packet);
        if let Some(secret) = secret {
            secret.recover(&mut payload);
        }
        assert!(sphinx::unpad(&payload) == Ok(&self.message));
    }
}

fn written((surb, secret): (Surb, SurbSecret)) -> Built {
    Built::Surb(Box::new(surb.to_bytes()), Box::new(*secret.to_bytes()))
}

/// Packets in one batch and reply blocks in another, in the order of the plans.
fn together(builder: &Builder, plans: &[Plan], rng: &mut Fed<'_>) -> Vec<Built> {
    let (mut packets, mut surbs) = (Vec::new(), Vec::new());
    for plan in plans {
        match plan.draft(rng) {
            draft if plan.reply => surbs.push(draft),
            draft => packets.push((draft, &plan.message)),
        }
    }
    let mut packets = builder.packets(&packets).into_iter().map(Built::Packet);
    let mut surbs = builder.surbs(&surbs).into_iter().map(written);
    let built = plans.iter().map(|plan| {
        let next = if plan.reply {
            surbs.next()
        } else {
            packets.next()
        };
        next.expect("one a plan")
    });
    built.collect()
}

/// Hands out the input, and then what a generator makes.
struct Fed<'a> {
    input: &'a [u8],
    then: ChaCha20Rng,
}

impl<'a> From<&'a [u8]> for Fed<'a> {
    fn from(input: &'a [u8]) -> Self {
        let then = seeded(0);
        Self { input, then }
    }
}

impl TryRng for Fed<'_> {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        let (fed, rest) = to.split_at_mut(to.len().min(self.input.len()));
        let (now, later) = self.input.split_at(fed.len());
        fed.copy_from_slice(now);
        self.input = later;
        self.then.try_fill_bytes(rest)
    }
}

impl rand_core::TryCryptoRng for Fed<'_> {}
