//! What is fuzzed: one plain function a target, which panics when a promise is broken.
//!
//! libFuzzer calls them through `fuzz_targets/`, and `tests/corpus.rs` replays the kept inputs.

mod builder;
mod gateway;
mod parsers;
mod peel;
#[path = "../../sphinx/tests/support/mod.rs"]
mod support;

pub use builder::builder;
pub use gateway::gateway;
pub use parsers::{address, ask, consensus, content, descriptor, frame, samples};
pub use peel::open;

/// A target: any bytes in, a panic if they break it.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its folder in `corpus/`.
pub fn targets() -> Vec<(&'static str, Target)> {
    vec![
        ("address", address),
        ("ask", ask),
        ("builder", builder),
        ("consensus", consensus),
        ("content", content),
        ("descriptor", descriptor),
        ("frame", frame),
        ("gateway", gateway),
        ("open", open),
    ]
}
