//! `lacuna-testnet bench`: what one node carries, measured on this machine.
//!
//! | module    | what                                                                            |
//! |-----------|---------------------------------------------------------------------------------|
//! | [`stage`] | a network of two gateways and two mixes, signed by authorities that do not run   |
//! | [`load`]  | the other process: builds packets, sends them, receives what the node forwards   |
//! | [`node`]  | starts both, each on a processor of its own, and prints what was found           |

pub mod load;
pub mod node;
pub mod stage;
