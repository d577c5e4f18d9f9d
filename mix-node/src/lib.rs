//! Run one mix node of Lacuna.
