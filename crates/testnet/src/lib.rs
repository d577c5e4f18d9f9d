//! A whole Lacuna network on one machine, for users and tests.
//!
//! | module       | what it is                                                              |
//! |--------------|-------------------------------------------------------------------------|
//! | [`cli`]      | the command `lacuna-testnet`: `demo`, `up`, `bench`, and the roles      |
//! | [`demo`]     | real messages between two applications, and what became of them         |
//! | [`conversation`] | two applications that write to each other                            |
//! | [`network`]  | starts, restarts and stops the processes                                |
//! | `documents`  | documents of two periods, signed beforehand                            |
//! | `layout`     | their folders, settings and the `network.toml`                          |
//! | [`metrics`]  | a node's page of metrics                                                |
//! | [`process`]  | one child process                                                       |
//! | [`proxy`]    | a tap on the links of one gateway: sizes seen from outside              |
//! | [`mod@bench`] | what one node carries, measured                                         |
//! | [`app`]      | an application: seals, sends, receives, opens                           |
//! | [`seal`]     | its end-to-end encryption (Olm)                                         |
//! | [`ledger`]   | which messages were asked for, and which were opened                    |
//! | [`report`]   | the result, and the prediction beside it                                |
//! | [`progress`] | how far a run has come                                                  |
//!
//! The roles are this executable re-executed, so that one program is enough. It is for networks
//! of one person: all keys of all roles stand in one folder.

pub mod app;
pub mod bench;
pub mod cli;
pub mod conversation;
pub mod demo;
mod documents;
mod layout;
pub mod ledger;
pub mod metrics;
pub mod network;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod report;
pub mod seal;

pub use cli::main_with;
