//! Everything that touches the outside world, shared by the programs: machines on tokio.
//!
//! The machines of [`proto`] decide; what is here carries out. One machine, one task ([`drive`]):
//! inputs come through a bounded channel, outputs go to a closure that never waits.
//!
//! | module         | what it is for                                                             |
//! |----------------|----------------------------------------------------------------------------|
//! | [`clock`]      | [`clock::Clock`]: the one reading of time and calendar                       |
//! | [`timer`]      | waits that are late by microseconds                                        |
//! | [`drive`]      | [`drive::drive`] runs a machine; [`drive::feed_calendar`] tells it UTC       |
//! | [`apart`](mod@apart) | a task on a thread of its own                                        |
//! | [`entropy`]    | [`entropy::seed`] for machines and keys; jitter; back-off                    |
//! | [`tls`]        | the one TLS of every link                                                  |
//! | [`link`]       | [`link::Dialler::dial`] and [`link::take`] give a [`link::Link`]; `start` splits it |
//! |                | into an [`link::Outbox`] that refuses when full and a [`link::Reader`]       |
//! | [`accept`]     | a listener with its limits; one handler for each link                      |
//! | [`dial`]       | [`dial::Outgoing`]: node links kept alive, `send` never waits                |
//! | [`ask`]        | one question to a directory, and how to answer many                        |
//! | [`follow`]     | [`follow::Follow::start`] gives a [`follow::Directory`]: the consensus as it changes |
//! | [`neighbours`] | who may dial a node, and whom it dials                                     |
//! | [`peeler`]     | the thread of packets: links in, opening, journal, the mix, links out      |
//! | [`selfcheck`]  | which path computes packets here, and how fast                             |
//! | [`budget`]     | what a node's settings may cost in memory, said at its start               |
//! | [`client`]     | [`client::run`]: a client machine with its two links                        |
//! | [`loops`]      | that machine inside a node, for its own loops                              |
//! | [`node`]       | [`node::Node::start`]: all of the above around a mix or a gateway            |
//! | [`watching`]   | how the consensus' changes reach all of these, and how a node stands         |
//! | [`journal`]    | what the replay set remembers of a killed process                          |
//! | [`store`]      | a gateway's mailboxes and a client's records on disk                       |
//! | [`state`]      | a private, locked state directory with atomic writes                       |
//! | [`sealed`]     | a file that only the holder of its key can read                            |
//! | [`keys`]       | identity, link key and packet keys in it; the descriptor made from them    |
//! | `chain`        | secrets of which each follows from the one before                          |
//! | [`network`]    | `network.toml`                                                             |
//! | [`settings`]   | defaults, file, environment, flags                                         |
//! | [`metrics`]    | counters, and their page on this machine                                   |
//! | [`log`]        | lines on standard error                                                    |
//! | [`role`]       | signals, exit codes, last words of a daemon                                |
//!
//! A mix is [`node::Node::start`] with the machine's inbox for `Input::Peeled`, [`drive::drive`] on
//! [`node::Node::runtime`] with an effect that calls what [`dial::Outgoing::sender`] gives, and a task that turns
//! changes of [`follow::Directory::state`] into inputs. A gateway adds client links and a
//! [`store`]. A client has no node: [`follow`] with [`follow::Follower::Client`], and two links
//! that it dials itself.
//!
//! An error says its cause itself, and gives it as `source` only where it is nothing but that
//! (`transparent`): so a log's `{error}` and a program's last `{error:#}` say the same, and say it once.

pub mod accept;
pub mod apart;
pub mod ask;
pub mod budget;
mod chain;
pub mod client;
pub mod clock;
mod describe;
pub mod dial;
pub mod drive;
pub mod entropy;
pub mod follow;
pub mod journal;
pub mod keys;
pub mod link;
pub mod log;
pub mod loops;
pub mod metrics;
pub mod neighbours;
pub mod network;
pub mod node;
pub mod notices;
pub mod peeler;
pub mod role;
pub mod sealed;
pub mod selfcheck;
pub mod settings;
pub mod state;
pub mod store;
pub mod timer;
pub mod tls;
pub mod watching;
