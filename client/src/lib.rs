//! Lacuna's client: send and receive over the mixnet.
//!
//! One process owns the links (`lacuna run`, or a program that embeds [`Daemon`]); every other
//! program talks to it.
//!
//! | module        | what it is                                                              |
//! |---------------|-------------------------------------------------------------------------|
//! | [`daemon`]    | the machine, its links and its records, wired together                  |
//! | [`expect`]    | what a profile can be expected to give                                  |
//! | [`handle`]    | what a program that embeds the client holds                             |
//! | [`status`]    | the three states, and everything else that a daemon tells of itself     |
//! | [`addresses`] | the owner's addresses: made, listed, revoked                            |
//! | [`api`]       | the local API: requests and answers                                     |
//! | [`serve`]     | its server                                                              |
//! | [`backup`]    | the client in one sealed file, and back                                 |
//! | [`call`]      | its client, for programs in Rust and for the command line               |
//! | [`cli`]       | the command `lacuna`                                                    |
//! | [`settings`]  | settings, and where things are                                          |
//! | [`state_dir`] | the identity and what else outlives the process                         |
//! | `inbox`       | messages that nobody has taken yet                                      |
//! | [`outbox`]    | how far messages have come                                              |
//!
//! Spec: docs/CLIENT.md; the protocol is [`proto::client`]'s.

pub mod addresses;
pub mod api;
pub mod backup;
pub mod base64;
pub mod call;
pub mod cli;
pub mod daemon;
pub mod expect;
pub mod handle;
mod inbox;
pub mod outbox;
mod run;
pub mod serve;
pub mod settings;
pub mod state_dir;
pub mod status;

pub use cli::main_with;
pub use daemon::Daemon;
pub use handle::{Handle, Received};
