//! `lacuna-testnet bench`: what one node and one store of mailboxes carry on this machine, and how long messages take.
//!
//! | module     | what                                                                            |
//! |------------|---------------------------------------------------------------------------------|
//! | [`stage`]  | a network of two gateways and two mixes, signed by authorities that do not run  |
//! | [`load`]   | the other process: builds packets, sends them, receives what the node forwards  |
//! | [`node`]   | starts both, each on a processor of its own, and prints what was found          |
//! | [`phase`]  | what a phase found, and the statistics behind it                                |
//! | [`replay`] | the replay set of one key and its journal, alone in this process                |
//! | [`mailbox`] | the engines of mailboxes, puts that are durable                                |
//! | [`messages`] | a whole network for each profile: latency of messages, goodput of a large one |

pub mod load;
pub mod mailbox;
pub mod messages;
pub mod node;
pub mod phase;
pub mod replay;
pub mod stage;
