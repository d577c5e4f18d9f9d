//! Run one gateway of Lacuna.
