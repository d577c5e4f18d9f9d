//! The file that everyone starts from: `network.toml`.
//!
//! Spec: docs/spec/directory.md, rule DIR-10.
//!
//! ```toml
//! id = "64 hex digits"          # nothing signed for one network holds in another
//! minimum_period = 0            # no document of an earlier period is believed
//!
//! [[authority]]                 # four or more; a document needs more than two thirds of them
//! key = "64 hex digits"
//! address = "127.0.0.1:9001"    # nodes alone need it; give all or none
//!
//! [[bootstrap]]                 # gateways to ask for the first document, better five
//! id = "64 hex digits"
//! address = "127.0.0.1:9101"
//! ```
//!
//! Unknown keys are refused. Authorities may stand in any order.

use std::{fs, path::Path};

use proto::{NetworkId, NodeId, directory::Network};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::settings::{line_of, one_line};

/// What is wrong with a `network.toml`: one line, with the remedy. Exit code 2.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetworkFileError {
    /// It can't be read.
    #[error("{file}: {message}; get the network.toml of the network that you want to join")]
    Unread {
        /// The file.
        file: String,
        /// What the system says.
        message: String,
    },
    /// It is no TOML of this shape.
    #[error("{file}:{line}: {message}")]
    Toml {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// It breaks a rule of DIR-10.
    #[error("{file}: {message}")]
    Rule {
        /// The file.
        file: String,
        /// Which rule, and what to do about it.
        message: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    id: Hex,
    #[serde(default)]
    minimum_period: u64,
    #[serde(default, rename = "authority")]
    authorities: Vec<Authority>,
    #[serde(default)]
    bootstrap: Vec<Gateway>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authority {
    key: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    id: Hex,
    address: String,
}

/// 32 bytes as 64 hex digits.
#[derive(Clone, Copy)]
struct Hex([u8; 32]);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a key is 64 hex digits"))
    }
}

/// Lower-case hex digits, two a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes of 2 `N` hex digits, upper or lower case.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// Reads the file at `path`.
///
/// # Errors
///
/// [`NetworkFileError`].
pub fn read(path: &Path) -> Result<Network, NetworkFileError> {
    let file = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, &file),
        Err(error) => {
            let message = error.to_string();
            Err(NetworkFileError::Unread { file, message })
        }
    }
}

/// Reads the text of a file called `file`.
///
/// # Errors
///
/// [`NetworkFileError::Toml`] or [`NetworkFileError::Rule`].
pub fn parse(text: &str, file: &str) -> Result<Network, NetworkFileError> {
    let file = file.to_owned();
    let mut read: Text = match toml::from_str(text) {
        Ok(read) => read,
        Err(error) => {
            let (line, message) = (line_of(text, &error), one_line(error.message()));
            return Err(NetworkFileError::Toml {
                file,
                line,
                message,
            });
        }
    };
    read.authorities.sort_by_key(|authority| authority.key.0);
    let addresses = read
        .authorities
        .iter()
        .filter_map(|authority| authority.address.clone());
    let network = Network {
        id: NetworkId(read.id.0),
        authorities: read
            .authorities
            .iter()
            .map(|authority| authority.key.0)
            .collect(),
        authority_addresses: addresses.collect(),
        minimum_period: read.minimum_period,
        bootstrap: (read.bootstrap.into_iter())
            .map(|gateway| (NodeId(gateway.id.0), gateway.address))
            .collect(),
    };
    match network.check() {
        Ok(()) => Ok(network),
        Err(rule) => {
            let message = rule.to_string();
            Err(NetworkFileError::Rule { file, message })
        }
    }
}

/// The text of a file that [`parse`] reads as `network`.
#[must_use]
pub fn format(network: &Network) -> String {
    let authorities = network
        .authorities
        .iter()
        .enumerate()
        .map(|(i, key)| Authority {
            key: Hex(*key),
            address: network.authority_addresses.get(i).cloned(),
        });
    let bootstrap = network.bootstrap.iter().map(|(id, address)| Gateway {
        id: Hex(id.0),
        address: address.clone(),
    });
    toml::to_string(&Text {
        id: Hex(network.id.0),
        minimum_period: network.minimum_period,
        authorities: authorities.collect(),
        bootstrap: bootstrap.collect(),
    })
    .expect("tables of strings and numbers have a text")
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn network() -> Network {
        let key = |seed| {
            SigningKey::from_bytes(&[seed; 32])
                .verifying_key()
                .to_bytes()
        };
        let mut authorities: Vec<_> = (1..=4).map(key).collect();
        authorities.sort_unstable();
        Network {
            id: NetworkId([7; 32]),
            authorities,
            authority_addresses: (1..=4).map(|i| format!("127.0.0.1:900{i}")).collect(),
            minimum_period: 3,
            bootstrap: vec![(NodeId(key(9)), "127.0.0.1:9101".to_owned())],
        }
    }

    /// DIR-10
    #[test]
    fn a_network_reads_back_with_or_without_addresses_in_any_order() {
        let network = network();
        assert_eq!(parse(&format(&network), "x").unwrap(), network);
        let silent = Network {
            authority_addresses: Vec::new(),
            ..network.clone()
        };
        assert_eq!(parse(&format(&silent), "x").unwrap(), silent);
        let mut turned = network.clone();
        turned.authorities.reverse();
        turned.authority_addresses.reverse();
        assert_eq!(parse(&format(&turned), "x").unwrap(), network);
    }

    /// DIR-10
    #[test]
    fn errors_name_file_line_and_remedy() {
        let good = format(&network());
        let id = hex(&[7; 32]);
        for (text, expected) in [
            (good.replace(&id, "07"), "n.toml:1: a key is 64 hex digits"),
            (
                format!("colour = 1\n{good}"),
                "n.toml:1: unknown field `colour`",
            ),
            (
                good.replace("minimum_period = 3", "minimum_period = -3"),
                "n.toml:2: ",
            ),
            (
                good.split("[[bootstrap]]").next().unwrap().to_owned(),
                "n.toml: a network needs a",
            ),
            (format!("id = '{id}'"), "n.toml: a network needs 4"),
        ] {
            let error = parse(&text, "n.toml").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = read(Path::new("no/such/network.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no/such/network.toml") && error.contains("get the"),
            "{error}"
        );
    }

    #[test]
    fn hex_reads_back() {
        let bytes: [u8; 32] = core::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for bad in [
            "",
            "0",
            &"0".repeat(63),
            &"0".repeat(65),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(unhex::<32>(bad), None);
        }
    }
}
