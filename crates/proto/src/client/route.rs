//! Which way a packet goes, how long each mix holds it, and whose epoch's keys it uses.
//!
//! Spec: docs/spec/client.md, rules CLI-8 to CLI-12, CLI-40; docs/spec/loops.md, LOOP-2.
//!
//! | quantity | type        | unit, range                                                     |
//! |----------|-------------|-----------------------------------------------------------------|
//! | route    | `[Hop; 5]`  | three mixes, mailbox gateway, recipient                         |
//! | delay    | ns          | exponential at each mix, at most the cap; 0 at gateway and end  |
//! | family   | `str`       | who runs a node                                                 |
//!
//! Routes are uniform over all triples of mixes, one of each layer, in which no two are of one
//! family. Which gateways a packet comes from and goes to makes no difference, so the law is the
//! same for messages, replies, acks, loops and drops, of all clients (CLI-8).

use core::time::Duration;

use rand::RngExt as _;
use rand_core::{CryptoRng, Rng};
use sphinx::{Hop, SecretKey};

use super::cover::exponential;
use crate::{
    MailboxId, NodeId,
    address::Address,
    calendar::Epoch,
    directory::{Consensus, Descriptor, Role},
};

/// Draws before all triples are listed: enough where most are good.
const DRAWS: usize = 32;

/// There is no route that keeps the families apart, or a node on it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoute;

/// A route, and how long its mixes will hold the packet together.
pub(crate) struct Route {
    pub(crate) hops: [Hop; 5],
    pub(crate) delay: Duration,
}

impl Route {
    pub(crate) fn mixes(&self) -> [NodeId; 3] {
        let [a, b, c, ..] = &self.hops;
        [a, b, c].map(|hop| NodeId(hop.address))
    }
}

/// What a route is drawn from.
#[derive(Clone, Copy)]
pub(crate) struct Map<'a> {
    pub(crate) consensus: &'a Consensus,
    pub(crate) epoch: Epoch,
    /// A mix that stands on every route, in its layer (LOOP-2).
    pub(crate) via: Option<NodeId>,
}

impl<'a> Map<'a> {
    /// A route to `to`.
    pub(crate) fn route(self, rng: &mut impl CryptoRng, to: &Address) -> Result<Route, NoRoute> {
        let gateway = self.gateway(&to.gateway)?;
        let mixes = self.mixes(rng)?;
        let mut delay = Duration::ZERO;
        let mut hop = |node: &Descriptor, held: Duration| {
            delay += held;
            let key = self.consensus.packet_key(node, self.epoch).ok_or(NoRoute)?;
            let delay_ns = u64::try_from(held.as_nanos()).map_err(|_| NoRoute)?;
            Ok(Hop {
                address: node.id.0,
                key,
                delay_ns,
            })
        };
        let hops = [
            hop(mixes[0], self.delay(rng))?,
            hop(mixes[1], self.delay(rng))?,
            hop(mixes[2], self.delay(rng))?,
            hop(gateway, Duration::ZERO)?,
            Hop {
                address: to.mailbox.0,
                key: to.key,
                delay_ns: 0,
            },
        ];
        Ok(Route { hops, delay })
    }

    /// Nobody's address, at a gateway drawn from all (CLI-9).
    pub(crate) fn nobody(self, rng: &mut impl CryptoRng) -> Result<Address, NoRoute> {
        let gateways: Vec<NodeId> = self.consensus.gateways().map(|node| node.id).collect();
        if gateways.is_empty() {
            return Err(NoRoute);
        }
        let gateway = gateways[rng.random_range(0..gateways.len())];
        let mut mailbox = [0; 32];
        rng.fill_bytes(&mut mailbox);
        Ok(Address {
            gateway,
            mailbox: MailboxId(mailbox),
            key: SecretKey::generate(rng).public(),
        })
    }

    fn gateway(self, id: &NodeId) -> Result<&'a Descriptor, NoRoute> {
        let node = self.consensus.node(id).ok_or(NoRoute)?;
        (node.role == Role::Gateway).then_some(node).ok_or(NoRoute)
    }

    /// One mix of each layer, uniform over the triples that are good (CLI-8).
    fn mixes(self, rng: &mut impl CryptoRng) -> Result<[&'a Descriptor; 3], NoRoute> {
        let [a, b, c] = self.consensus.layers.as_slice() else {
            return Err(NoRoute);
        };
        let through = |layer: &'a Vec<NodeId>| -> &'a [NodeId] {
            let at = self.via.and_then(|via| layer.binary_search(&via).ok());
            at.map_or(layer, |at| &layer[at..=at])
        };
        let layers = [a, b, c].map(through);
        let [a, b, c] = layers;
        let passes = |layer: &[NodeId]| self.via.is_none_or(|via| layer.contains(&via));
        if layers.iter().any(|layer| layer.is_empty()) || !layers.into_iter().any(passes) {
            return Err(NoRoute);
        }
        let triple = |ids: [&NodeId; 3]| -> Option<[&'a Descriptor; 3]> {
            let mixes = [
                self.consensus.node(ids[0])?,
                self.consensus.node(ids[1])?,
                self.consensus.node(ids[2])?,
            ];
            apart(&mixes).then_some(mixes)
        };
        for _ in 0..DRAWS {
            let drawn = layers.map(|layer| &layer[rng.random_range(0..layer.len())]);
            if let Some(mixes) = triple(drawn) {
                return Ok(mixes);
            }
        }
        // Few triples are good, or none: the network is small, so they can be listed.
        let mut good = Vec::new();
        for x in a {
            for y in b {
                good.extend(c.iter().filter_map(|z| triple([x, y, z])));
            }
        }
        if good.is_empty() {
            return Err(NoRoute);
        }
        Ok(good[rng.random_range(0..good.len())])
    }

    fn delay(self, rng: &mut impl CryptoRng) -> Duration {
        let params = &self.consensus.params;
        delay(rng, params.delay_mean(), params.delay_cap())
    }
}

/// Exponential; what exceeds the cap is drawn again, never clamped (CLI-10).
fn delay(rng: &mut impl Rng, mean: Duration, cap: Duration) -> Duration {
    loop {
        let delay = mean.mul_f64(exponential(rng));
        if delay <= cap {
            return delay;
        }
    }
}

/// Whether the mixes' families differ from each other.
fn apart([a, b, c]: &[&Descriptor; 3]) -> bool {
    ![(a, b), (a, c), (b, c)]
        .into_iter()
        .any(|(x, y)| related(x, y))
}

fn related(a: &Descriptor, b: &Descriptor) -> bool {
    a.id == b.id || a.family == b.family
}

/// The gateways by which a client may enter whose mailboxes are at `homes`, that of now first
/// (CLI-11): none of those, not of their families, nor of that of the mix `via` (LOOP-2), as far as
/// there are such.
pub(crate) fn entries(
    consensus: &Consensus,
    homes: &[NodeId],
    via: Option<&NodeId>,
) -> Vec<NodeId> {
    let is_stranger = stranger_to(consensus, homes.iter().chain(via));
    first_of(
        consensus,
        &[
            &is_stranger,
            &|node| !homes.contains(&node.id),
            &|node| homes.first() != Some(&node.id),
            &|_| true,
        ],
    )
}

/// Where mailboxes that are at `homes` may move, of the gateways that `may` have them (CLI-40): not to
/// the entry, nor to its or their families, as far as there are others; to the entry before none.
pub(crate) fn destinations(
    consensus: &Consensus,
    homes: &[NodeId],
    entry: Option<&NodeId>,
    may: impl Fn(&NodeId) -> bool,
) -> Vec<NodeId> {
    let is_stranger = stranger_to(consensus, homes.iter().chain(entry));
    first_of(
        consensus,
        &[
            &|node| may(&node.id) && is_stranger(node),
            &|node| may(&node.id) && entry != Some(&node.id),
            &|node| may(&node.id),
        ],
    )
}

/// Whether a node is none of `own`, nor of their families.
fn stranger_to<'a>(
    consensus: &'a Consensus,
    own: impl Iterator<Item = &'a NodeId>,
) -> impl Fn(&Descriptor) -> bool {
    let own: Vec<&Descriptor> = own.filter_map(|own| consensus.node(own)).collect();
    move |node| own.iter().all(|own| !related(node, own))
}

/// The gateways that are good by the first of `laws` by which any is.
fn first_of(consensus: &Consensus, laws: &[&dyn Fn(&Descriptor) -> bool]) -> Vec<NodeId> {
    let by = |law: &&dyn Fn(&Descriptor) -> bool| -> Vec<NodeId> {
        let good = consensus.gateways().filter(|node| law(node));
        good.map(|node| node.id).collect()
    };
    let mut lists = laws.iter().map(by);
    lists.find(|good| !good.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use rand_core::TryRng;

    use super::*;

    /// Says these numbers, one after the other.
    struct Script(Vec<u64>);

    impl TryRng for Script {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unreachable!("not asked for")
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(self.0.remove(0))
        }

        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
            unreachable!("not asked for")
        }
    }

    /// CLI-10
    #[test]
    fn a_delay_above_the_cap_is_drawn_again() {
        let mean = Duration::from_secs(1);
        let half = 1 << 63;
        let of = |script: Vec<u64>| delay(&mut Script(script), mean, mean.mul_f64(27.6));
        let median = Duration::from_secs_f64(core::f64::consts::LN_2);
        assert!(of(vec![half]).abs_diff(median) < Duration::from_nanos(2));
        assert_eq!(of(vec![0]), Duration::ZERO);
        // The largest uniform is 1 - 2⁻⁵³, whose delay would be 36.7 means.
        assert_eq!(of(vec![u64::MAX, u64::MAX, half]), of(vec![half]));
    }
}
