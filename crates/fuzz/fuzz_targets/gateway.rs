//! See `fuzz::gateway`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::gateway(input));
