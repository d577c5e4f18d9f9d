//! Everything that touches the outside world, shared by the programs.

pub mod accept;
pub mod ask;
pub mod clock;
pub mod dial;
pub mod drive;
pub mod entropy;
pub mod follow;
pub mod journal;
pub mod keys;
pub mod link;
pub mod log;
pub mod metrics;
pub mod neighbours;
pub mod network;
pub mod peeler;
pub mod role;
pub mod settings;
pub mod state;
pub mod store;
pub mod timer;
pub mod tls;
