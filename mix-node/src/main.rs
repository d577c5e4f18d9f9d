//! Run one mix node of Lacuna: settings, signals, exit code; everything else is the library.

fn main() {}
