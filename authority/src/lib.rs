//! Run one directory authority of Lacuna.
