//! Closed forms that a mixnet simulator must reproduce.
//!
//! Plain functions of numbers, no simulation: what `validate` holds the engines against and
//! what reports draw as reference. Each cites the formula's source; the numbers they must give
//! stand in `crate::validate`.
//!
//! | module    | what it holds                                                         |
//! |-----------|-----------------------------------------------------------------------|
//! | `laws`    | Poisson and Erlang distributions                                      |
//! | `mixing`  | entropy of mixes, batches, pools and networks                          |
//! | `unwatched` | entropy where only entering and leaving is seen                      |
//! | `attacks` | path compromise, loops, disclosure, intersection, (ε, δ), trilemma     |

mod attacks;
mod laws;
mod mixing;
mod unwatched;

pub use attacks::*;
pub use laws::*;
pub use mixing::*;
pub use unwatched::*;
