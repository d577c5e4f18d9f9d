//! Lacuna's client: send and receive over the mixnet: settings, signals, exit code; everything else is the library.

fn main() {}
