//! See `fuzz::ask`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::ask(input));
