//! Base64 (RFC 4648 §4, with padding), for message bodies within JSON.
//!
//! | text     | bytes |
//! |----------|-------|
//! | `abcd`   | 3     |
//! | `abc=`   | 2     |
//! | `ab==`   | 1     |
//!
//! Strict: one text for each byte string. Unused bits that are not zero, missing padding, white
//! space and letters of the URL alphabet are refused. Not for secrets: table look-ups take time
//! that depends on the data.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for letter in 0..4 {
            text.push(if letter <= group.len() {
                let six = bits >> (18 - 6 * letter) & 63;
                char::from(LETTERS[six as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// The bytes of `text`, or `None` if it is not the text of any.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|c| **c == b'=').count();
    let (letters, _) = text.split_at(text.len() - padding);
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in letters.chunks(4) {
        let mut bits = 0;
        for letter in group {
            bits = bits << 6 | value(*letter)?;
        }
        bits <<= 6 * (4 - group.len());
        let kept = group.len() - 1;
        let [_, three @ ..] = bits.to_be_bytes();
        if three[kept..].iter().any(|unused| *unused != 0) {
            return None;
        }
        bytes.extend(&three[..kept]);
    }
    Some(bytes)
}

fn value(letter: u8) -> Option<u32> {
    Some(
        match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
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
