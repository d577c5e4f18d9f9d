//! TLS of every link: version 1.3, X25519MLKEM768, raw Ed25519 keys, and nothing else.
//!
//! Spec: docs/spec/link.md, rules LNK-5, LNK-6, LNK-7.
//!
//! | what            | this and no other                                                    |
//! |-----------------|----------------------------------------------------------------------|
//! | version         | TLS 1.3 (LNK-5)                                                      |
//! | key exchange    | X25519MLKEM768 (LNK-5): a classical-only peer is refused             |
//! | cipher suite    | AES-128-GCM or ChaCha20-Poly1305                                     |
//! | authentication  | RFC 7250 raw public keys, Ed25519, both ways (LNK-6)                 |
//! | off             | resumption, tickets, 0-RTT, SNI, ALPN, X.509                         |
//! | exporter        | 32 bytes, label [`EXPORTER_LABEL`]: ties a mailbox's opening to a link|
//!
//! A client presents no key; a node presents its link key. Whom a presented key belongs to is
//! judged above: by the consensus, or by the certificate frame that follows the handshake.
//!
//! One frame per record on client links falls out of a limit on the fragment size
//! ([`Records::OneFrame`]), so that no timing of writes can change the sizes on the wire.

use core::fmt;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proto::wire::FRAME_LEN;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    ProtocolVersion, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

/// Label of the exporter that a mailbox key signs (see `proto::wire::open_statement`).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-lacuna mailbox";

/// RFC 8410: `SubjectPublicKeyInfo` of an Ed25519 key is this and its 32 bytes.
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// RFC 8410: version 1 `PrivateKeyInfo` of an Ed25519 key is this and its 32-byte seed.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Most frames in a record between nodes: as many as the most text of one (RFC 8446, 5.1) holds
/// whole (LNK-1).
pub const RECORD_FRAMES: usize = (1 << 14) / FRAME_LEN;
/// What rustls counts to a fragment besides its text.
const RECORD_OVERHEAD: usize = 5;

/// What the handshake proved of the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The Ed25519 key that it presented and signed with; none for a client.
    pub link_key: Option<[u8; 32]>,
    /// Keying material of this link alone, equal at both ends.
    pub exporter: [u8; 32],
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.link_key.is_some() {
            "node"
        } else {
            "client"
        };
        write!(f, "Peer({kind})")
    }
}

/// How frames lie in TLS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// Exactly one frame in each record: client links, both directions.
    OneFrame,
    /// Up to [`RECORD_FRAMES`] whole ones, as many as are queued: between nodes.
    Packed,
}

/// Whether a presented key may dial this listener.
pub type AdmitKey = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;

/// Whom a listener shakes hands with.
#[derive(Clone)]
pub enum Admit {
    /// Anyone; a key is asked for, not demanded: gateways and authorities.
    Anyone,
    /// Only who presents a key for which this holds: mixes (LNK-7).
    Keys(AdmitKey),
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "Anyone",
            Self::Keys(_) => "Keys(..)",
        })
    }
}

/// The one provider: TLS 1.3 suites, one group, aws-lc.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], // LNK-5
        ..aws_lc_rs::default_provider()
    })
}

/// What a listener needs to shake hands. It presents `key`.
#[must_use]
pub fn server(key: &SigningKey, admit: Admit) -> Arc<ServerConfig> {
    server_with(provider(), key, admit)
}

fn server_with(provider: Arc<CryptoProvider>, key: &SigningKey, admit: Admit) -> Arc<ServerConfig> {
    let verifier = Arc::new(RawKeys::new(&provider, Judge::Client(admit)));
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and a group")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_fragment_size = Some(FRAME_LEN + RECORD_OVERHEAD);
    Arc::new(config)
}

/// What a dialler needs to shake hands. It presents `key`, if it has one. A peer that presents
/// another key than `expected` is refused; without one, any key is taken, and the caller judges
/// the certificate frame that follows.
#[must_use]
pub fn client(
    key: Option<&SigningKey>,
    expected: Option<[u8; 32]>,
    records: Records,
) -> Arc<ClientConfig> {
    client_with(provider(), key, expected, records)
}

fn client_with(
    provider: Arc<CryptoProvider>,
    key: Option<&SigningKey>,
    expected: Option<[u8; 32]>,
    records: Records,
) -> Arc<ClientConfig> {
    let verifier = Arc::new(RawKeys::new(&provider, Judge::Server(expected)));
    let resolver: Arc<dyn ResolvesClientCert> = match key {
        Some(key) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(key))),
        None => Arc::new(NoKey),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and a group")
        .dangerous() // the name of rustls for "not X.509"
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(resolver);
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    let frames = match records {
        Records::OneFrame => 1,
        Records::Packed => RECORD_FRAMES,
    };
    config.max_fragment_size = Some(frames * FRAME_LEN + RECORD_OVERHEAD);
    Arc::new(config)
}

/// A name for rustls' interface; with SNI off it goes nowhere.
#[must_use]
pub fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(core::net::IpAddr::from([127, 0, 0, 1]).into())
}

/// What a finished handshake proved.
///
/// # Errors
///
/// If the handshake is not finished, or presented something that our verifier would have refused.
pub fn peer<Data>(connection: &rustls::ConnectionCommon<Data>) -> Result<Peer, Error> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Error::HandshakeNotComplete);
    }
    let presented = connection.peer_certificates().and_then(|keys| keys.first());
    let link_key = presented.map(|key| raw_key(key)).transpose()?;
    let exporter = connection.export_keying_material([0; 32], EXPORTER_LABEL, None)?;
    Ok(Peer { link_key, exporter })
}

fn certified(key: &SigningKey) -> Arc<CertifiedKey> {
    let mut pkcs8 = zeroize::Zeroizing::new([PKCS8_PREFIX.as_slice(), &[0; 32]].concat());
    pkcs8[PKCS8_PREFIX.len()..].copy_from_slice(key.as_bytes());
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
    let spki = [SPKI_PREFIX.as_slice(), key.verifying_key().as_bytes()].concat();
    Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(spki)],
        signer.expect("any 32 bytes are an Ed25519 seed"),
    ))
}

/// The Ed25519 key in a presented `SubjectPublicKeyInfo`.
fn raw_key(spki: &[u8]) -> Result<[u8; 32], Error> {
    let key = spki
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| key.try_into().ok());
    key.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// A client's side of "asked for, not had": offers raw keys, presents none.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[derive(Debug)]
enum Judge {
    Server(Option<[u8; 32]>),
    Client(Admit),
}

/// Takes raw Ed25519 keys alone, and checks that the peer signed with the one it presents.
#[derive(Debug)]
struct RawKeys {
    provider: Arc<CryptoProvider>,
    judge: Judge,
}

impl RawKeys {
    fn new(provider: &Arc<CryptoProvider>, judge: Judge) -> Self {
        let provider = Arc::clone(provider);
        Self { provider, judge }
    }

    fn judge(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        let key = raw_key(presented)?;
        let welcome = match &self.judge {
            Judge::Server(None) | Judge::Client(Admit::Anyone) => true,
            Judge::Server(Some(expected)) => key == *expected,
            Judge::Client(Admit::Keys(admits)) => admits(&key), // LNK-7
        };
        let refused = CertificateError::ApplicationVerificationFailure;
        welcome
            .then_some(())
            .ok_or(Error::InvalidCertificate(refused))
    }

    fn signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(presented.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
    }
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        matches!(self.judge, Judge::Client(Admit::Keys(_)))
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> [u8; 32] {
        key(seed).verifying_key().to_bytes()
    }

    type Ends = (ClientConnection, ServerConnection);

    /// Shakes hands in memory. `Err` is what either side refused.
    fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, Error> {
        let mut client = ClientConnection::new(client, nameless()).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut read = wire.as_slice();
            while !read.is_empty() {
                server.read_tls(&mut read).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut read = wire.as_slice();
            while !read.is_empty() {
                client.read_tls(&mut read).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    fn node(seed: u8, expected: Option<[u8; 32]>) -> Arc<ClientConfig> {
        client(Some(&key(seed)), expected, Records::Packed)
    }

    /// LNK-5, LNK-6
    #[test]
    fn both_ends_see_each_others_key_and_one_exporter() {
        let (client, server) =
            handshake(node(1, Some(public(2))), server(&key(2), Admit::Anyone)).unwrap();
        let (at_client, at_server) = (peer(&client).unwrap(), peer(&server).unwrap());
        assert_eq!(at_client.link_key, Some(public(2)));
        assert_eq!(at_server.link_key, Some(public(1)));
        assert_eq!(at_client.exporter, at_server.exporter);
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(format!("{at_client:?}"), "Peer(node)");

        let (other, _) = handshake(
            node(1, Some(public(2))),
            super::server(&key(2), Admit::Anyone),
        )
        .unwrap();
        assert_ne!(peer(&other).unwrap().exporter, at_client.exporter);
    }

    /// LNK-6
    #[test]
    fn a_wrong_key_is_refused() {
        let listener = || server(&key(2), Admit::Anyone);
        assert!(handshake(node(1, Some(public(2))), listener()).is_ok());
        assert!(handshake(node(1, None), listener()).is_ok());
        assert!(handshake(node(1, Some(public(3))), listener()).is_err());
    }

    /// LNK-7, ATTACKS o03
    #[test]
    fn a_mix_shakes_hands_only_with_keys_it_admits() {
        let listener = || {
            let admits = |presented: &[u8; 32]| *presented == public(1);
            server(&key(2), Admit::Keys(Arc::new(admits)))
        };
        let anonymous = client(None, Some(public(2)), Records::OneFrame);
        assert!(handshake(node(1, Some(public(2))), listener()).is_ok());
        assert!(handshake(node(4, Some(public(2))), listener()).is_err());
        assert!(handshake(Arc::clone(&anonymous), listener()).is_err());
        // The same client is welcome where keys are optional.
        let (_, server) = handshake(anonymous, super::server(&key(2), Admit::Anyone)).unwrap();
        assert_eq!(peer(&server).unwrap().link_key, None);
    }

    /// LNK-5, ATTACKS o04
    #[test]
    fn a_classical_only_peer_is_refused_on_either_side() {
        let with = |group| {
            let kx_groups = vec![group];
            Arc::new(CryptoProvider {
                kx_groups,
                ..(*provider()).clone()
            })
        };
        let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
        let classical = aws_lc_rs::kx_group::X25519;
        for (client, server, welcome) in [
            (hybrid, hybrid, true),
            (classical, hybrid, false),
            (hybrid, classical, false),
        ] {
            let client = client_with(with(client), None, Some(public(2)), Records::OneFrame);
            let server = server_with(with(server), &key(2), Admit::Anyone);
            assert_eq!(handshake(client, server).is_ok(), welcome);
        }
    }

    /// LNK-5: a hello that offers TLS 1.2 is answered with `protocol_version`; the same bytes
    /// with TLS 1.3 in place of it fail later, for want of a key share.
    #[test]
    fn tls_1_2_is_refused() {
        let alert_for = |version: u8| {
            let mut hello = vec![0x03, 0x03];
            hello.extend([7; 32]); // random
            hello.extend([0, 0, 2, 0x13, 0x01, 1, 0]); // no session, one suite, no compression
            let extensions = [
                [0x00, 0x2b, 0, 3, 2, 0x03, version].as_slice(), // supported versions
                &[0x00, 0x0a, 0, 4, 0, 2, 0x11, 0xec],           // groups: X25519MLKEM768
                &[0x00, 0x0d, 0, 4, 0, 2, 0x08, 0x07],           // signatures: Ed25519
            ]
            .concat();
            hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
            hello.extend(extensions);
            let length = u8::try_from(hello.len()).unwrap();
            let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 1, 0, 0, length];
            record.extend(hello);

            let config = server(&key(2), Admit::Anyone);
            let mut server = ServerConnection::new(config).unwrap();
            server.read_tls(&mut record.as_slice()).unwrap();
            assert!(server.process_new_packets().is_err());
            let mut answer = Vec::new();
            server.write_tls(&mut answer).unwrap();
            *answer.last().unwrap()
        };
        const PROTOCOL_VERSION: u8 = 70;
        assert_eq!(alert_for(0x03), PROTOCOL_VERSION);
        assert_ne!(alert_for(0x04), PROTOCOL_VERSION);
    }

    /// LNK-1: on a client link each frame is a record of its own, however it was written.
    #[test]
    fn a_client_writes_one_frame_per_record() {
        const SEALED: usize = 5 + FRAME_LEN + 1 + 16; // header, frame, content type, AEAD tag
        for (records, expected) in [(Records::OneFrame, 3), (Records::Packed, 1)] {
            let client = client(None, None, records);
            let (mut client, _) = handshake(client, server(&key(2), Admit::Anyone)).unwrap();
            client.writer().write_all(&[0; 3 * FRAME_LEN]).unwrap();
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut lengths = Vec::new();
            let mut rest = wire.as_slice();
            while let [_, _, _, high, low, ..] = rest {
                let length = 5 + usize::from(u16::from_be_bytes([*high, *low]));
                lengths.push(length);
                rest = &rest[length..];
            }
            assert_eq!(lengths.len(), expected);
            assert!(expected == 1 || lengths.iter().all(|length| *length == SEALED));
        }
    }
}
