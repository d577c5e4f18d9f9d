//! Ed25519 for the signed documents: keys checked, statements separated, signatures strict.
//!
//! Spec: docs/spec/directory.md, rule DIR-3.
//!
//! | statement          | bytes signed                                                   |
//! |--------------------|----------------------------------------------------------------|
//! | link certificate   | domain ‖ network ‖ identity ‖ link key ‖ two times (u64)       |
//! | descriptor         | domain ‖ network ‖ canonical CBOR                              |
//! | proposal           | domain ‖ network ‖ period (u64) ‖ round (u32) ‖ hash           |
//! | precommit          | domain ‖ network ‖ period (u64) ‖ round (u32) ‖ hash           |
//!
//! Every statement starts with a domain of its own and the network's id, so that nothing signed
//! for one purpose or one network holds for another. Numbers are big-endian.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// The key, if its bytes are canonical and it is not of low order; no other signs anything here.
#[must_use]
pub fn verifying_key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(bytes).ok()?;
    let canonical = key.to_edwards().compress().0 == *bytes;
    (canonical && !key.is_weak()).then_some(key)
}

/// Whether `signature` is by `key` over `statement`; strictly, so that all agree on it.
#[must_use]
pub fn holds(key: &[u8; 32], statement: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    verifying_key(key).is_some_and(|key| key.verify_strict(statement, &signature).is_ok())
}

/// Signs `statement`; the same bytes each time.
#[must_use]
pub(crate) fn sign(key: &SigningKey, statement: &[u8]) -> [u8; 64] {
    key.sign(statement).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DIR-3
    #[test]
    fn weak_and_oddly_spelled_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1; // the neutral element, of order 1
        let mut spelled = [0xff; 32]; // y = p + 1, the neutral element again
        (spelled[0], spelled[31]) = (0xee, 0x7f);
        let mut no_point = [0; 32];
        no_point[0] = 2;
        for bytes in [identity, spelled, no_point, [0; 32], [0xff; 32]] {
            assert!(verifying_key(&bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_statement_and_key_alone() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = sign(&key, b"this");
        assert!(holds(&public, b"this", &signature));
        assert!(!holds(&public, b"that", &signature));
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
        assert!(!holds(&other, b"this", &signature));
        for byte in [0, 31, 32, 63] {
            let mut bent = signature;
            bent[byte] ^= 0x80;
            assert!(!holds(&public, b"this", &bent));
        }
    }
}
