//! Run one directory authority of Lacuna: settings, signals, exit code; everything else is the library.

fn main() {}
