//! Tests of the gateway, and what they stand on.
//!
//! | module      | what                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | [`fixture`] | documents, mailbox owners, a store in memory                             |
//! | [`model`]   | the gateway as lists and counters, which predicts every output           |
//! | [`play`]    | acts of clients, clock and store, which make a schedule; also fuzzed      |
//! | [`world`]   | a gateway with a store that answers at once, and a clock to turn          |
//! | [`rules`]   | tests: the rules, one by one                                             |
//! | [`attacks`] | tests: attacks, each with a positive control                             |

mod attacks;
pub(crate) mod fixture;
pub(crate) mod model;
pub(crate) mod play;
mod rules;
mod world;
