//! What a payload looks like when all its layers are off.
//!
//! Spec: docs/spec/packet.md, PKT-17.
//!
//! | part          | bytes         | content                                                  |
//! |---------------|---------------|----------------------------------------------------------|
//! | zeros         | 16            | 0x00                                                     |
//! | message       | 0 to 2031     | anything                                                 |
//! | mark          | 1             | 0x01                                                     |
//! | padding       | the rest      | 0x00                                                     |
//!
//! Invariant: the check takes the same time for every payload, and has one error: how a payload
//! is wrong would tell a tamperer something.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::layout::{HEADER_LEN, MESSAGE_LEN, PAYLOAD_LEN, Packet, ZEROS_LEN, array};

/// The payload was changed on its way, or the wrong layers are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BadPayload;

/// The payload of a packet; after [`finish`](crate::finish) at a final hop, that of its reader.
pub fn payload(packet: &Packet) -> &[u8; PAYLOAD_LEN] {
    array(packet, HEADER_LEN)
}

const MARK: u8 = 1;

/// The message of a bare payload, 0 to [`MESSAGE_LEN`] bytes.
///
/// # Errors
/// [`BadPayload`] if it does not begin with 16 zero bytes, or if its last byte that is not zero
/// is not the mark.
pub fn unpad(payload: &[u8; PAYLOAD_LEN]) -> Result<&[u8], BadPayload> {
    let (zeros, padded) = payload.split_at(ZEROS_LEN);
    let zeros_whole = zeros.ct_eq(&[0; ZEROS_LEN]);

    // The last byte that is not zero must be the mark (PKT-17).
    let mut is_mark = Choice::from(0);
    let mut message_len = 0u32;
    for (at, byte) in (0u32..).zip(padded) {
        let not_zero = !byte.ct_eq(&0);
        message_len.conditional_assign(&at, not_zero);
        is_mark.conditional_assign(&byte.ct_eq(&MARK), not_zero);
    }
    if bool::from(zeros_whole & is_mark) {
        Ok(&padded[..message_len as usize])
    } else {
        Err(BadPayload)
    }
}

/// Writes the bare payload of `message` into zeros.
///
/// # Panics
/// If the message is longer than [`MESSAGE_LEN`]: our own bug.
pub(crate) fn pad(message: &[u8], payload: &mut [u8; PAYLOAD_LEN]) {
    assert!(message.len() <= MESSAGE_LEN, "a message fits one payload");
    payload.fill(0);
    payload[ZEROS_LEN..][..message.len()].copy_from_slice(message);
    payload[ZEROS_LEN + message.len()] = MARK;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(message: &[u8]) -> [u8; PAYLOAD_LEN] {
        let mut payload = [0xff; PAYLOAD_LEN];
        pad(message, &mut payload);
        payload
    }

    #[test]
    fn every_length_comes_back() {
        let message: Vec<u8> = (0u32..2031).map(|i| (i % 3) as u8).collect();
        for len in 0..=MESSAGE_LEN {
            assert_eq!(unpad(&bare(&message[..len])), Ok(&message[..len]));
        }
    }

    #[test]
    fn pkt_17_one_error_for_every_fault() {
        for at in 0..ZEROS_LEN {
            let mut payload = bare(b"hello");
            payload[at] = 0x80;
            assert_eq!(unpad(&payload), Err(BadPayload), "zero byte {at}");
        }
        let mut no_mark = bare(b"");
        no_mark[ZEROS_LEN] = 0;
        let mut wrong_mark = bare(b"hello");
        wrong_mark[ZEROS_LEN + 5] = 2;
        let mut after_mark = bare(b"hello");
        after_mark[PAYLOAD_LEN - 1] = 0x80;
        for payload in [no_mark, wrong_mark, after_mark, [0; PAYLOAD_LEN]] {
            assert_eq!(unpad(&payload), Err(BadPayload));
        }
    }
}
