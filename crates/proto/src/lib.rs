//! The protocol of the mixnet as state machines that perform no I/O.
//!
//! Nothing here opens a socket, reads a clock, draws from the operating system's
//! randomness, spawns a task or writes a log line. Every one of those is an argument
//! or a return value, so the tokio shell and the simulator run the same code.
//!
//! | module        | what it is                                                        |
//! |---------------|-------------------------------------------------------------------|
//! | [`machine`]   | the one interface, its laws, and [`Time`]                         |
//! | [`id`]        | names of nodes, mailboxes, networks and links                     |
//! | [`calendar`]  | UTC, epochs, and which epoch's key opens when                     |
//! | [`wire`]      | the one frame that every link carries                             |
//! | [`replay`]    | the set of packets already seen under one key                     |
//! | [`peel`]      | open, ask the replay set, journal, finish: all that holds a key   |
//! | [`mix`]       | machine: holds each packet for the delay its sender chose         |
//! | [`gateway`]   | machine: entry relay and mailboxes                                |
//! | [`client`]    | machine: cover, messages, mailbox                                 |
//! | [`authority`] | machine: gathers descriptors and signatures into a consensus      |
//! | [`notice`]    | what a node says of itself to everyone: alarm, withdrawal         |
//! | [`directory`] | the signed documents: descriptors, parameters, consensus          |
//! | [`address`]   | where a client is reached: `lacuna1…`                             |

pub mod address;
pub mod authority;
pub mod calendar;
pub mod client;
pub mod directory;
pub mod gateway;
pub mod id;
pub mod machine;
pub mod mix;
pub mod notice;
pub mod peel;
pub mod replay;
pub mod watch;
pub mod wire;

pub use id::{LinkId, MailboxId, NetworkId, NodeId};
pub use machine::{Machine, Time};
