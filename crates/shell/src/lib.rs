//! Everything that touches the outside world, shared by the programs.

pub mod clock;
pub mod drive;
pub mod entropy;
pub mod journal;
pub mod link;
pub mod settings;
pub mod store;
pub mod timer;
pub mod tls;
