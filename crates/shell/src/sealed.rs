//! A file that only the holder of its key can read.
//!
//! | offset | bytes | part                                                                     |
//! |--------|-------|--------------------------------------------------------------------------|
//! | 0      | 16    | what it is and of which version, as its maker says; authenticated         |
//! | 16     | 12    | nonce, random                                                             |
//! | 28     | n     | AES-256-GCM                                                               |
//! | 28 + n | 16    | tag                                                                       |
//!
//! The key is 32 random bytes, drawn for this file alone: nothing has to be derived from a phrase
//! that a person can remember, and no two files share a key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::entropy;

/// Says what a file is.
pub type Magic = [u8; 16];
/// Opens one file.
pub type Key = Zeroizing<[u8; 32]>;

fn cipher(key: &Key) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).expect("32 bytes are a key")
}

/// Seals `text` under a fresh key.
#[must_use]
pub fn seal(magic: &Magic, text: Zeroizing<Vec<u8>>) -> (Key, Vec<u8>) {
    let key = Zeroizing::new(entropy::seed());
    let mut text = text;
    // The tag apart: room for it would move the text and leave a copy.
    let (nonce, tag) = cipher(&key)
        .seal_in_place_separate_tag(Aad::from(magic), &mut text)
        .expect("far shorter than the cipher allows");
    let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
    let file = [
        magic.as_slice(),
        nonce.as_slice(),
        text.as_slice(),
        tag.as_ref(),
    ]
    .concat();
    (key, file)
}

/// Opens a sealed file; none if it is of another kind, damaged, or sealed under another key.
#[must_use]
pub fn open(magic: &Magic, key: &Key, file: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (found, rest) = file.split_first_chunk::<16>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
    if found != magic {
        return None;
    }
    let mut text = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key)
        .open_in_place(nonce, Aad::from(magic), &mut text)
        .ok()?
        .len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &Magic = b"lacuna test    1";

    #[test]
    fn a_file_opens_with_its_key_as_it_is_and_no_other() {
        let (key, file) = seal(MAGIC, Zeroizing::new(b"secret".to_vec()));
        let text = open(MAGIC, &key, &file);
        assert_eq!(text.as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
        assert!(!file.windows(6).any(|part| part == b"secret"));
        let (other, _) = seal(MAGIC, Zeroizing::new(Vec::new()));
        assert!(open(MAGIC, &other, &file).is_none());
        assert!(open(b"lacuna test    2", &key, &file).is_none());
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(open(MAGIC, &key, &changed).is_none(), "{at}");
            assert!(open(MAGIC, &key, &file[..at]).is_none(), "{at}");
        }
    }
}
