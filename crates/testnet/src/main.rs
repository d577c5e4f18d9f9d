//! lacuna-testnet
fn main() {}
