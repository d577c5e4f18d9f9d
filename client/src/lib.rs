//! Lacuna's client: send and receive over the mixnet.
