//! Canonical CBOR: one encoding for each document, or none.
//!
//! Spec: docs/spec/directory.md, rule DIR-1.
//!
//! | value             | encoding                                            |
//! |-------------------|-----------------------------------------------------|
//! | struct            | array of its fields in order, definite length       |
//! | enum              | array of number and fields; number alone if none have any |
//! | keys, ids, hashes | byte strings                                        |
//! | text              | text string, definite length                        |
//!
//! Invariant: [`decode`] takes exactly the bytes that [`encode`] gives, so that two parties that
//! hold the same document hold the same hash of it.
//!
//! Not done here: signatures, and what a document must say to be believed.

use minicbor::{Decode, Decoder, Encode, Encoder, decode::Error, encode::Write};

use crate::{NetworkId, NodeId};

/// Why bytes are no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Longer than such a document may be.
    TooLong,
    /// Not CBOR of its shape, or a packet key in it is none.
    Malformed,
    /// Another encoding than the canonical one, or bytes after it.
    NotCanonical,
}

/// The canonical encoding.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes)
        .encode(value)
        .expect("a vector takes any length, and no value here refuses to be encoded");
    bytes
}

/// Reads what [`encode`] wrote, and nothing else (DIR-1).
///
/// # Errors
///
/// The first of [`DocumentError`]'s reasons that holds.
pub fn decode<T>(bytes: &[u8], len_max: usize) -> Result<T, DocumentError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    if bytes.len() > len_max {
        return Err(DocumentError::TooLong);
    }
    let value: T = Decoder::new(bytes)
        .decode()
        .map_err(|_| DocumentError::Malformed)?;
    let same = encode(&value) == bytes; // DIR-1
    same.then_some(value).ok_or(DocumentError::NotCanonical)
}

macro_rules! byte_string {
    ($($name:ident),*) => {$(
        impl<C> Encode<C> for $name {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, Error> {
                minicbor::bytes::decode(d, context).map($name)
            }
        }
    )*};
}

byte_string!(NodeId, NetworkId);

/// Packet keys as an array of byte strings, each checked as it is read (DIR-4).
pub(super) mod packet_keys {
    use super::{Decoder, Encoder, Error, Write};
    use sphinx::PublicKey;

    pub(in crate::directory) fn encode<C, W: Write>(
        keys: &[PublicKey],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(keys.len() as u64)?;
        for key in keys {
            e.bytes(key.as_bytes())?;
        }
        Ok(())
    }

    pub(in crate::directory) fn decode<C>(
        d: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Vec<PublicKey>, Error> {
        let count = d.array()?.ok_or_else(|| Error::message("indefinite"))?;
        let mut keys = Vec::new(); // grows with what is there, not with what is claimed
        for _ in 0..count {
            let bytes: [u8; 32] = minicbor::bytes::decode(d, context)?;
            keys.push(PublicKey::parse(bytes).map_err(|_| Error::message("no packet key"))?);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DIR-1
    #[test]
    fn one_encoding_is_taken_and_no_other() {
        let bytes = encode(&(1u64, NodeId([7; 32])));
        assert_eq!(decode(&bytes, 100), Ok((1u64, NodeId([7; 32]))));
        assert_eq!(bytes.len(), 36);
        let longer = [&bytes[..], &[0]].concat();
        let wide = [&[0x82, 0x18, 1][..], &bytes[2..]].concat();
        let open = [&[0x9f][..], &bytes[1..], &[0xff]].concat();
        for (bytes, why) in [
            (&bytes[..35], DocumentError::Malformed),
            (&[], DocumentError::Malformed),
            (&longer, DocumentError::NotCanonical),
            (&wide, DocumentError::NotCanonical),
        ] {
            assert_eq!(decode::<(u64, NodeId)>(bytes, 100), Err(why));
        }
        assert!(decode::<(u64, NodeId)>(&open, 100).is_err());
        let short = decode::<(u64, NodeId)>(&bytes, 35);
        assert_eq!(short, Err(DocumentError::TooLong));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        #[derive(Debug, PartialEq, Encode, Decode)]
        struct Keys(#[cbor(n(0), with = "packet_keys")] Vec<sphinx::PublicKey>);
        let claim = [0x81, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode::<Keys>(&claim, 100), Err(DocumentError::Malformed));
        let blob = [
            0x81, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x58, 0x20,
        ];
        assert_eq!(decode::<Keys>(&blob, 100), Err(DocumentError::Malformed));
    }
}
