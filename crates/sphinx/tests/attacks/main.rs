//! Attacks on the packet alone, one module each, named as in the threat model's table.
//!
//! Each has a positive control: the same check with the defence taken away, often on
//! `sphinx-packet` itself, must fail. Sample sizes are fixed and bounds are on effect sizes.

mod p04_burned_tag;
mod p05_alpha_malleability;
mod p06_low_order_alpha;
mod p07_header_bit_flips;
mod p08_payload_tagging;
mod p09_partial_avalanche;
mod p10_route_length_from_padding;
mod p11_surb_collusion;
mod p12_version_partition;
mod p13_crafted_header_panic;
mod p14_long_delay;
mod p17_surb_id;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
