//! lacuna-sim
fn main() {}
