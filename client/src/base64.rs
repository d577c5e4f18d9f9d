//! Base64 (RFC 4648 §4, with padding), for message bodies within JSON.
//!
//! Strict: one text for each byte string. Unused bits that are not zero, missing padding, white
//! space and letters of the URL alphabet are refused. Not for secrets: table look-ups take time
//! that depends on the data.

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// The text of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The bytes of `text`, or `None` if it is not the text of any.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(encode(b"foob"), "Zm9vYg==");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "Zg", "Zg=", "Zh==", "Zm9=", "Zm9v ", "=Zg=", "Z===", "Zm-_", "Zg==Zg==",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
