//! Where a client is reached: `lacuna1…`, or the same as a host name.
//!
//! Spec: docs/spec/directory.md, rules ADR-1 to ADR-4.
//!
//! | offset | bytes | field                                                      |
//! |--------|-------|------------------------------------------------------------|
//! | 0      | 32    | mailbox gateway: its [`NodeId`]                            |
//! | 32     | 32    | mailbox: its [`MailboxId`]                                 |
//! | 64     | 32    | the recipient's X25519 key, the fifth hop's                |
//!
//! | form       | characters | what                                                   |
//! |------------|------------|--------------------------------------------------------|
//! | text       | 167        | bech32m, prefix `lacuna` (ADR-2)                       |
//! | host name  | 176        | the text in labels of 60, then `.lacuna` (ADR-3)       |
//!
//! Invariants: each address has one spelling in lower case, and what parses prints as it was
//! read. The key of a parsed address is one that only its owner can compute with (ADR-1). An
//! address names a client, so `Debug` shows nothing (ADR-4); `Display` is for its owner.
//!
//! Bech32m's promise to find any four wrong characters ends at 90 characters; beyond, a typing
//! error passes its 30-bit checksum with probability 2⁻³⁰.

use core::{fmt, str::FromStr};

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};

use crate::{MailboxId, NodeId};

/// Bytes of an address.
pub const ADDRESS_LEN: usize = 96;
/// Characters of an address as text.
pub const TEXT_LEN: usize = 167;

const PREFIX: Hrp = Hrp::parse_unchecked("lacuna");
const LABEL_LEN: usize = 60;
const DOMAIN: &str = ".lacuna";

/// Where a client is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The gateway that keeps the mailbox.
    pub gateway: NodeId,
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The recipient's key.
    pub key: sphinx::PublicKey,
}

/// Why a text or bytes are no address. `Display` says what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The text does not start with `lacuna1`.
    Prefix,
    /// The text has not 167 characters, or the host name not its labels.
    Length,
    /// A character is not of the alphabet, or the letters mix upper and lower case.
    Character,
    /// The checksum does not hold.
    Checksum,
    /// It spells its bytes in another way than the one.
    Spelling,
    /// Its key is one that others can compute with (ADR-1).
    Key,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "this is no address: one starts with \"lacuna1\"",
            Self::Length => "the address is incomplete: copy all 167 characters of it",
            Self::Character => "the address holds a character that none has: copy it again",
            Self::Checksum => "the address is mistyped: copy it again",
            Self::Spelling => "the address is written in an unusual way: copy it again",
            Self::Key => "the address is unsafe to send to: ask its owner for a new one",
        })
    }
}

impl core::error::Error for AddressError {}

impl Address {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ADDRESS_LEN] {
        let mut bytes = [0; ADDRESS_LEN];
        bytes[..32].copy_from_slice(&self.gateway.0);
        bytes[32..64].copy_from_slice(&self.mailbox.0);
        bytes[64..].copy_from_slice(self.key.as_bytes());
        bytes
    }

    /// Reads [`Address::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`AddressError::Key`] if the key is one that others can compute with.
    pub fn from_bytes(bytes: &[u8; ADDRESS_LEN]) -> Result<Self, AddressError> {
        let part = |at: usize| core::array::from_fn(|i| bytes[at + i]);
        Ok(Self {
            gateway: NodeId(part(0)),
            mailbox: MailboxId(part(32)),
            key: sphinx::PublicKey::parse(part(64)).map_err(|_| AddressError::Key)?, // ADR-1
        })
    }

    /// The address as a host name, for programs that know only those (ADR-3).
    #[must_use]
    pub fn to_host(&self) -> String {
        let text = self.to_string();
        let mut host = String::with_capacity(TEXT_LEN + 9);
        for (i, character) in text.chars().enumerate() {
            if i > 0 && i % LABEL_LEN == 0 {
                host.push('.');
            }
            host.push(character);
        }
        host + DOMAIN
    }

    /// Reads [`Address::to_host`], in any case of letters, as host names are compared.
    ///
    /// # Errors
    ///
    /// [`AddressError::Length`] if the labels are not those of one address, else as for text.
    pub fn from_host(host: &str) -> Result<Self, AddressError> {
        let host = host.to_ascii_lowercase();
        let labels = host.strip_suffix(DOMAIN).ok_or(AddressError::Length)?;
        let address: Self = labels.replace('.', "").parse()?;
        let same = address.to_host() == host;
        same.then_some(address).ok_or(AddressError::Length)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PREFIX, &self.to_bytes())
            .map_err(|_| fmt::Error)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let start = text.get(..7).map(str::to_ascii_lowercase);
        if start.as_deref() != Some("lacuna1") {
            return Err(AddressError::Prefix);
        }
        if text.len() != TEXT_LEN {
            return Err(AddressError::Length);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|why| {
            use bech32::primitives::decode::CheckedHrpstringError;
            match why {
                CheckedHrpstringError::Parse(_) => AddressError::Character,
                CheckedHrpstringError::Checksum(_) | _ => AddressError::Checksum,
            }
        })?;
        let mut bytes = [0; ADDRESS_LEN];
        let mut read = checked.byte_iter();
        bytes
            .iter_mut()
            .zip(&mut read)
            .for_each(|(to, byte)| *to = byte);
        let address = Self::from_bytes(&bytes)?;
        // Two bits of the last character are padding; only zeros are ours (ADR-2).
        let same = address.to_string() == text.to_ascii_lowercase();
        same.then_some(address).ok_or(AddressError::Spelling)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(i: u8) -> Address {
        Address {
            gateway: NodeId([i; 32]),
            mailbox: MailboxId([i ^ 0xff; 32]),
            key: sphinx::SecretKey::from_bytes([i; 32]).public(),
        }
    }

    /// ADR-2, ADR-3
    #[test]
    fn an_address_reads_back_in_each_form() {
        for i in [0, 1, 7, 255] {
            let address = address(i);
            let text = address.to_string();
            assert_eq!(text.len(), TEXT_LEN);
            assert!(text.starts_with("lacuna1"));
            assert_eq!(text.parse(), Ok(address));
            assert_eq!(text.to_uppercase().parse(), Ok(address));

            let host = address.to_host();
            assert_eq!(host.len(), 176);
            assert!(host.split('.').all(|label| (1..=60).contains(&label.len())));
            assert_eq!(Address::from_host(&host), Ok(address));
            assert_eq!(Address::from_host(&host.to_uppercase()), Ok(address));
            assert_eq!(Address::from_bytes(&address.to_bytes()), Ok(address));
        }
    }

    /// ADR-2
    #[test]
    fn each_error_is_told_apart() {
        let text = address(3).to_string();
        let swapped = text.replacen("lacuna1", "lacuna1q", 1);
        let mut typo = text.clone().into_bytes();
        typo[20] = if typo[20] == b'q' { b'p' } else { b'q' };
        let other_prefix: Hrp = Hrp::parse("lacunb").unwrap();
        let other = bech32::encode::<Bech32m>(other_prefix, &address(3).to_bytes()).unwrap();
        for (given, why) in [
            ("", AddressError::Prefix),
            ("läcuna1q", AddressError::Prefix),
            (&other, AddressError::Prefix),
            (&text[..166], AddressError::Length),
            (&swapped, AddressError::Length),
            (&text.replacen("una1", "UNA1", 1), AddressError::Character),
            (&text.replace(&text[30..31], "b"), AddressError::Character),
            (str::from_utf8(&typo).unwrap(), AddressError::Checksum),
        ] {
            assert_eq!(given.parse::<Address>(), Err(why), "{given}");
        }
        // Bech32, the older checksum, is not ours.
        let older = bech32::encode::<bech32::Bech32>(PREFIX, &address(3).to_bytes()).unwrap();
        assert_eq!(older.parse::<Address>(), Err(AddressError::Checksum));
    }

    /// ADR-2: a checksum over padding other than zeros holds, and is refused all the same.
    #[test]
    fn padding_must_be_zero() {
        use bech32::{
            Fe32,
            primitives::iter::{ByteIterExt, Fe32IterExt},
        };
        let symbols: Vec<Fe32> = address(3).to_bytes().into_iter().bytes_to_fes().collect();
        for padding in 1..4 {
            let mut odd = symbols.clone();
            let last = odd.last_mut().unwrap();
            *last = Fe32::try_from(last.to_u8() | padding).unwrap();
            let text: String = odd
                .into_iter()
                .with_checksum::<Bech32m>(&PREFIX)
                .chars()
                .collect();
            assert_eq!(text.parse::<Address>(), Err(AddressError::Spelling));
        }
    }

    /// ADR-3
    #[test]
    fn other_host_names_are_refused() {
        let host = address(3).to_host();
        let moved = host.replacen('.', "", 1);
        let (label, rest) = host.split_once('.').unwrap();
        let split = format!("{}.{}.{rest}", &label[..30], &label[30..]);
        for odd in [
            "",
            ".lacuna",
            "example.com",
            &moved,
            &split,
            &format!("{host}."),
        ] {
            assert!(Address::from_host(odd).is_err(), "{odd}");
        }
    }

    /// ADR-1: with such a key the gateway could read what it stores.
    #[test]
    fn keys_that_others_can_compute_with_are_refused() {
        let mut bytes = address(3).to_bytes();
        bytes[64..].fill(0);
        assert_eq!(Address::from_bytes(&bytes), Err(AddressError::Key));
        bytes[64..].fill(0xff);
        assert_eq!(Address::from_bytes(&bytes), Err(AddressError::Key));
    }

    /// ADR-4, OPS-1
    #[test]
    fn an_address_does_not_print_by_itself() {
        assert_eq!(format!("{:?}", address(3)), "Address(..)");
    }
}
