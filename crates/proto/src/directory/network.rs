//! What a client or node starts from.
//!
//! Spec: docs/spec/directory.md, rule DIR-10.

use core::fmt;

use crate::{
    NetworkId, NodeId,
    directory::{descriptor::is_address, sign},
};

/// Fewest authorities: with fewer, one dishonest is too many.
pub const AUTHORITIES_MIN: usize = 4;
/// Most authorities.
pub const AUTHORITIES_MAX: usize = 100;

/// The contents of a `network.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which network.
    pub id: NetworkId,
    /// The authorities' Ed25519 keys, sorted, each once; at least four.
    pub authorities: Vec<[u8; 32]>,
    /// Where the authorities listen, in the order of their keys; only nodes need it, so it may
    /// be empty.
    pub authority_addresses: Vec<String>,
    /// No document of an earlier period is believed.
    pub minimum_period: u64,
    /// Gateways to ask for the first document: identity and address.
    pub bootstrap: Vec<(NodeId, String)>,
}

/// Which rule of DIR-10 a network breaks; `Display` says what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Fewer than 4 authorities, or more than 100.
    Authorities,
    /// The authorities' keys are not sorted, or one stands twice.
    Order,
    /// The key of this authority is no usable Ed25519 key.
    AuthorityKey(u8),
    /// The authorities' addresses are not one for each, or none at all.
    Addresses,
    /// The address of this authority is not `host:port`.
    AuthorityAddress(u8),
    /// There is no bootstrap gateway.
    Bootstrap,
    /// The identity of this bootstrap gateway is no usable Ed25519 key.
    GatewayKey(u8),
    /// The address of this bootstrap gateway is not `host:port`.
    GatewayAddress(u8),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities => f.write_str("a network needs 4 to 100 authorities"),
            Self::Order => f.write_str("authority keys must be sorted, each once"),
            Self::AuthorityKey(i) => write!(f, "the key of authority {i} is no Ed25519 key"),
            Self::Addresses => f.write_str("give an address for each authority, or for none"),
            Self::AuthorityAddress(i) => {
                write!(f, "the address of authority {i} must be host:port")
            }
            Self::Bootstrap => f.write_str("a network needs a bootstrap gateway, better five"),
            Self::GatewayKey(i) => write!(f, "the id of bootstrap gateway {i} is no Ed25519 key"),
            Self::GatewayAddress(i) => {
                write!(f, "the address of bootstrap gateway {i} must be host:port")
            }
        }
    }
}

impl core::error::Error for NetworkError {}

impl Network {
    /// Whether one can start from it (DIR-10).
    ///
    /// # Errors
    ///
    /// The first rule that is broken; authorities and gateways count from zero.
    pub fn check(&self) -> Result<(), NetworkError> {
        let count = self.authorities.len();
        if !(AUTHORITIES_MIN..=AUTHORITIES_MAX).contains(&count) {
            return Err(NetworkError::Authorities);
        }
        if !self.authorities.is_sorted_by(|a, b| a < b) {
            return Err(NetworkError::Order);
        }
        let unusable = |key: &[u8; 32]| sign::verifying_key(key).is_none();
        if let Some(i) = place(&self.authorities, unusable) {
            return Err(NetworkError::AuthorityKey(i));
        }
        let addresses = &self.authority_addresses;
        if !addresses.is_empty() && addresses.len() != count {
            return Err(NetworkError::Addresses);
        }
        if let Some(i) = place(addresses, |address| !is_address(address)) {
            return Err(NetworkError::AuthorityAddress(i));
        }
        if self.bootstrap.is_empty() {
            return Err(NetworkError::Bootstrap);
        }
        if let Some(i) = place(&self.bootstrap, |(id, _)| unusable(&id.0)) {
            return Err(NetworkError::GatewayKey(i));
        }
        if let Some(i) = place(&self.bootstrap, |(_, address)| !is_address(address)) {
            return Err(NetworkError::GatewayAddress(i));
        }
        Ok(())
    }

    /// How many precommits make a document valid: ⌊2n/3⌋ + 1 (DIR-7).
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.authorities.len() * 2 / 3 + 1
    }

    /// Which authority signs with `key`.
    #[must_use]
    pub fn authority(&self, key: &[u8; 32]) -> Option<u8> {
        place(&self.authorities, |other| other == key)
    }
}

/// The first place where `found` holds; places past 255 are told as 255.
fn place<T>(list: &[T], found: impl FnMut(&T) -> bool) -> Option<u8> {
    let at = list.iter().position(found)?;
    Some(u8::try_from(at).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u8) -> [u8; 32] {
        let key = ed25519_dalek::SigningKey::from_bytes(&[i; 32]);
        key.verifying_key().to_bytes()
    }

    fn network(count: u8) -> Network {
        let mut authorities: Vec<_> = (0..count).map(key).collect();
        authorities.sort_unstable();
        Network {
            id: NetworkId([1; 32]),
            authority_addresses: vec!["127.0.0.1:9000".into(); authorities.len()],
            authorities,
            minimum_period: 0,
            bootstrap: vec![(NodeId(key(200)), "gateway.example:9000".into())],
        }
    }

    /// DIR-7
    #[test]
    fn a_threshold_is_more_than_two_thirds() {
        for (count, threshold) in [(4, 3), (5, 4), (6, 5), (7, 5), (10, 7)] {
            assert_eq!(network(count).threshold(), threshold);
        }
    }

    /// DIR-10
    #[test]
    fn each_rule_is_told_apart() {
        assert_eq!(network(4).check(), Ok(()));
        type Case<'a> = (&'a dyn Fn(&mut Network), Result<(), NetworkError>);
        let cases: [Case<'_>; 9] = [
            (&|n| n.authority_addresses.clear(), Ok(())),
            (
                &|n| n.authorities.truncate(3),
                Err(NetworkError::Authorities),
            ),
            (&|n| n.authorities.swap(0, 1), Err(NetworkError::Order)),
            (
                &|n| n.authorities[1] = n.authorities[0],
                Err(NetworkError::Order),
            ),
            (
                &|n| n.authorities[3] = [0xff; 32],
                Err(NetworkError::AuthorityKey(3)),
            ),
            (
                &|n| n.authority_addresses.truncate(2),
                Err(NetworkError::Addresses),
            ),
            (&|n| n.bootstrap.clear(), Err(NetworkError::Bootstrap)),
            (
                &|n| n.bootstrap[0].0 = NodeId([0xff; 32]),
                Err(NetworkError::GatewayKey(0)),
            ),
            (
                &|n| n.bootstrap[0].1 = "nowhere".into(),
                Err(NetworkError::GatewayAddress(0)),
            ),
        ];
        for (change, expected) in cases {
            let mut network = network(4);
            change(&mut network);
            assert_eq!(network.check(), expected);
        }
        let mut network = network(4);
        network.authority_addresses[2] = ":1".into();
        assert_eq!(network.check(), Err(NetworkError::AuthorityAddress(2)));
        assert_eq!(network.authority(&network.authorities[2]), Some(2));
        assert_eq!(network.authority(&[9; 32]), None);
    }
}
