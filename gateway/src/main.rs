//! Run one gateway of Lacuna: settings, signals, exit code; everything else is the library.

fn main() {}
