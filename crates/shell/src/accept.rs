//! Takes links in: who may, how many, and for what.
//!
//! Spec: docs/spec/link.md, rules LNK-7, LNK-8, LNK-9.
//!
//! | limit                          | when it is reached                                        |
//! |--------------------------------|-----------------------------------------------------------|
//! | `handshakes` under way         | one of them ends, drawn at random: of a fast flood, or one |
//! |                                | of slow ones, an honest one, which takes milliseconds,    |
//! |                                | still comes through after some tries (ATTACKS g02)        |
//! | `links` of clients             | a new one ends after its handshake, which tells it from a |
//! |                                | node's                                                    |
//! | `links_per_source`             | a new one from that address (IPv6: one /64) ends at once  |
//! | [`LINKS_PER_NODE`]             | the oldest ends: a node that restarts is not locked out   |
//! | [`link::HANDSHAKE_TIME`]       | the handshake ends                                        |
//!
//! A node link must present a key that `admit` knows: a node of the current consensus that stands
//! before this one (LNK-7, LNK-8). Where nothing but node links is taken (mixes), TLS itself asks
//! for such a key, and a client gets no further than that (ATTACKS o03).
//!
//! Not done here: what a link is used for. Its handler owns it, and the limits count it until the
//! handler returns.

use core::{fmt, future::Future, net::IpAddr};
use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use proto::{
    NodeId,
    wire::{Frame, Hello, Purpose},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    entropy::uniform,
    link::{self, Link, LinkError},
    metrics::Metrics,
    tls::{self, Admit, Peer},
};

/// Most links of one node: a gateway may have a front end behind each (GW-27).
pub const LINKS_PER_NODE: usize = 8;

/// How many links, of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most handshakes under way at once.
    pub handshakes: usize,
    /// Most links other than node links.
    pub links: usize,
    /// Most of those from one address.
    pub links_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            links: 4096,
            links_per_source: 1024,
        }
    }
}

/// Which node a link key belongs to, if that node may dial this one now.
pub type AdmitNode = Arc<dyn Fn(&[u8; 32]) -> Option<NodeId> + Send + Sync>;

/// What a listener needs.
pub struct Door {
    /// The link key to present.
    pub key: SigningKey,
    /// Makes the certificate frame for that key; asked for each link.
    pub certificate: Arc<dyn Fn() -> Frame + Send + Sync>,
    /// What links may be for; others end.
    pub purposes: &'static [Purpose],
    /// Who may open node links.
    pub admit: AdmitNode,
    /// How many.
    pub limits: Limits,
    /// Stamps frames.
    pub clock: Clock,
    /// Counts links taken and refused.
    pub metrics: Metrics,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({:?})", self.purposes)
    }
}

/// A link that was taken in.
#[derive(Debug)]
pub struct Incoming {
    /// What the dialler says it is for.
    pub hello: Hello,
    /// For a node link, who dialled: proved by its key. For others none.
    pub node: Option<NodeId>,
    /// The link.
    pub link: Link,
    /// Cancelled when the link must end: the process stops, or the node has dialled too often since.
    pub ended: CancellationToken,
}

/// Takes links from `listener` until `stop`, each with a task that runs `handle` for it; then
/// ends them all.
pub async fn accept<F>(
    listener: TcpListener,
    door: Door,
    handle: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let admit = Arc::clone(&door.admit);
    let tls_admit = match door.purposes {
        [Purpose::Node] => Admit::Keys(Arc::new(move |key| admit(key).is_some())),
        _ => Admit::Anyone,
    };
    let config = tls::server(&door.key, tls_admit);
    let hall = Arc::new(Hall {
        door,
        guests: Mutex::default(),
    });
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            taken = listener.accept() => taken,
        };
        let (socket, source) = match taken {
            Ok((socket, address)) => (socket, source_of(address.ip())),
            Err(error) => {
                hall.refused(&error).await;
                continue;
            }
        };
        let Some(guest) = hall.enter(source, &stop) else {
            hall.count_refused("limit");
            continue;
        };
        let (config, handle) = (Arc::clone(&config), handle.clone());
        tasks.spawn(async move {
            let ended = guest.ended.clone();
            ended
                .run_until_cancelled(guest.serve(socket, config, handle))
                .await;
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// One household of the internet: an IPv4 address, or the /64 of an IPv6 address.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
    }
}

/// Everyone who is inside.
#[derive(Default)]
struct Guests {
    number: u64,
    /// Handshakes under way.
    shaking: BTreeMap<u64, CancellationToken>,
    clients: usize,
    sources: BTreeMap<IpAddr, usize>,
    /// Of each node, its links, oldest first.
    nodes: BTreeMap<NodeId, VecDeque<(u64, CancellationToken)>>,
}

impl Guests {
    /// Takes one of the handshakes under way, each as likely as the others.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below a small length"
    )]
    fn draw(&mut self) -> Option<CancellationToken> {
        let at = (uniform() * self.shaking.len() as f64) as usize;
        let number = *self.shaking.keys().nth(at)?;
        self.shaking.remove(&number)
    }
}

struct Hall {
    door: Door,
    guests: Mutex<Guests>,
}

/// One connection, counted until it is dropped.
struct Guest {
    hall: Arc<Hall>,
    number: u64,
    source: IpAddr,
    node: Option<NodeId>,
    ended: CancellationToken,
}

impl Hall {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_taken(&self, purpose: &'static str) {
        self.door.metrics.count("lacuna_links_taken_total", purpose);
    }

    fn count_refused(&self, reason: &'static str) {
        self.door
            .metrics
            .count("lacuna_links_refused_total", reason);
    }

    /// The system would not give a connection: mostly, no file descriptor is left.
    async fn refused(&self, error: &io::Error) {
        self.count_refused("system");
        tracing::warn!(%error, "can't take a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Counts a connection in, if there is room. Until it says what it is for, it counts as a
    /// client's.
    fn enter(self: &Arc<Self>, source: IpAddr, stop: &CancellationToken) -> Option<Guest> {
        let limits = self.door.limits;
        let mut guests = self.guests();
        let from_source = guests.sources.get(&source).copied().unwrap_or(0);
        if from_source >= limits.links_per_source {
            return None;
        }
        // A handshake makes room first: a node must get in, however many clients there are. Were it
        // the oldest, a flood that is fast enough would end every honest one. What is let go is gone
        // soon, and bounded until then.
        if guests.shaking.len() >= limits.handshakes
            && let Some(drawn) = guests.draw()
        {
            drawn.cancel();
            self.count_refused("handshakes");
        }
        if guests.clients >= limits.links + 2 * limits.handshakes {
            return None;
        }
        let (number, ended) = (guests.number, stop.child_token());
        guests.number += 1;
        guests.clients += 1;
        *guests.sources.entry(source).or_default() += 1;
        guests.shaking.insert(number, ended.clone());
        let node = None;
        let hall = Arc::clone(self);
        Some(Guest {
            hall,
            number,
            source,
            node,
            ended,
        })
    }
}

impl Guests {
    fn leave_source(&mut self, source: IpAddr) {
        self.clients -= 1;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Guest {
    async fn serve<F>(
        mut self,
        socket: TcpStream,
        config: Arc<rustls::ServerConfig>,
        handle: impl Fn(Incoming) -> F,
    ) where
        F: Future<Output = ()>,
    {
        let door = &self.hall.door;
        let certificate = (door.certificate)();
        // LNK-7, LNK-8: a key that is shown must be admitted, whatever the hello will say.
        let welcome = |peer: &Peer| peer.link_key.is_none_or(|key| (door.admit)(&key).is_some());
        let shaken = link::take(socket, config, &certificate, welcome, door.clock).await;
        let (link, hello) = match shaken {
            Ok(shaken) => shaken,
            Err(LinkError::NotWelcome) => return self.hall.count_refused("topology"),
            Err(error) => {
                // No address: it may be a client's.
                tracing::debug!(%error, "a handshake failed");
                return self.hall.count_refused("handshake");
            }
        };
        if let Err(reason) = self.settle(&link, &hello) {
            return self.hall.count_refused(reason);
        }
        self.hall.count_taken(match hello.purpose {
            Purpose::Node => "node",
            Purpose::Entry => "entry",
            Purpose::Mailbox => "mailbox",
            Purpose::Directory => "directory",
        });
        let incoming = Incoming {
            hello,
            node: self.node,
            link,
            ended: self.ended.clone(),
        };
        handle(incoming).await;
    }

    /// Counts it as what it turned out to be, or says why it must go.
    fn settle(&mut self, link: &Link, hello: &Hello) -> Result<(), &'static str> {
        let door = &self.hall.door;
        if !door.purposes.contains(&hello.purpose) {
            return Err("purpose"); // LNK-8
        }
        let mut guests = self.hall.guests();
        let number = self.number;
        guests.shaking.remove(&number);
        if hello.purpose != Purpose::Node {
            let settled = guests.clients - guests.shaking.len();
            return if settled > door.limits.links {
                Err("limit")
            } else {
                Ok(())
            };
        }
        // LNK-7, LNK-8
        let node = link
            .peer
            .link_key
            .and_then(|key| (door.admit)(&key))
            .ok_or("topology")?;
        guests.leave_source(self.source);
        let links = guests.nodes.entry(node).or_default();
        links.push_back((number, self.ended.clone()));
        if links.len() > LINKS_PER_NODE
            && let Some((_, oldest)) = links.pop_front()
        {
            oldest.cancel();
        }
        drop(guests);
        self.node = Some(node);
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.hall.guests();
        let number = self.number;
        guests.shaking.remove(&number);
        match self.node {
            None => guests.leave_source(self.source),
            Some(node) => {
                if let Entry::Occupied(mut links) = guests.nodes.entry(node) {
                    links.get_mut().retain(|(link, _)| *link != number);
                    if links.get().is_empty() {
                        links.remove();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
