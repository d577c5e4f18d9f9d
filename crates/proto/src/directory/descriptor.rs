//! What a node says of itself, signed by its identity key.
//!
//! Spec: docs/spec/directory.md, rules DIR-3, DIR-4.
//!
//! | document                | CBOR array of                                              |
//! |-------------------------|------------------------------------------------------------|
//! | [`LinkCertificate`]     | id, link key, not before, not after, signature             |
//! | [`Descriptor`]          | role, id, address, certificate, family, period, packet keys, self-check |
//! | [`SelfCheck`]           | path, packets a second, threads                            |
//! | [`SignedDescriptor`]    | the descriptor's encoding as a byte string, signature      |
//!
//! Invariant: what [`SignedDescriptor::verify`] returns is by the identity it names, in the one
//! encoding, with packet keys that only their owner can compute with, and with a link certificate
//! by the same identity.
//!
//! Not checked here: whether the certificate is valid at some time, and whether the packet keys
//! are as many as the consensus asks for; those are the consensus' rules (DIR-5).

use core::{net::SocketAddr, ops::Range};

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use sphinx::{Path, PublicKey};

use crate::{
    NetworkId, NodeId,
    directory::{
        cbor::{self, DocumentError},
        sign,
    },
};

/// Longest encoding of a descriptor: 128 packet keys and all texts at their longest fit.
pub const DESCRIPTOR_LEN_MAX: usize = 8_192;
/// Longest encoding of a link certificate.
pub const CERTIFICATE_LEN_MAX: usize = 256;
/// Longest address, in characters.
pub const ADDRESS_LEN_MAX: usize = 255;
/// Longest family name, in characters.
pub const FAMILY_LEN_MAX: usize = 64;
/// Longest name of a path, in characters.
pub const PATH_LEN_MAX: usize = 16;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// A mix.
    #[n(0)]
    Mix,
    /// A gateway.
    #[n(1)]
    Gateway,
}

/// An identity key's word for the key that a node's links present (DIR-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkCertificate {
    /// The identity.
    #[n(0)]
    pub id: NodeId,
    /// The Ed25519 key that TLS presents.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub link_key: [u8; 32],
    /// First second of its validity, UTC.
    #[n(2)]
    pub not_before_s: u64,
    /// First second after its validity, UTC.
    #[n(3)]
    pub not_after_s: u64,
    /// By the identity key, over the network and all of the above.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why a link certificate is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// Its bytes are none.
    Document(DocumentError),
    /// The identity or the link key is no usable Ed25519 key, or the signature does not hold.
    Signature,
    /// It does not hold yet: one of the two clocks is wrong, or it is for a later period.
    NotYet,
    /// It holds no more.
    Expired,
}

impl LinkCertificate {
    /// `identity` certifies `link_key` for the UTC seconds `validity` on one network.
    #[must_use]
    pub fn sign(
        network: &NetworkId,
        identity: &SigningKey,
        link_key: [u8; 32],
        validity: Range<u64>,
    ) -> Self {
        let mut certificate = Self {
            id: NodeId(identity.verifying_key().to_bytes()),
            link_key,
            not_before_s: validity.start,
            not_after_s: validity.end,
            signature: [0; 64],
        };
        certificate.signature = sign::sign(identity, &certificate.statement(network));
        certificate
    }

    fn statement(&self, network: &NetworkId) -> Vec<u8> {
        [
            b"lacuna link certificate v1".as_slice(),
            &network.0,
            &self.id.0,
            &self.link_key,
            &self.not_before_s.to_be_bytes(),
            &self.not_after_s.to_be_bytes(),
        ]
        .concat()
    }

    /// Whether it is by its identity for this network, whenever it may be valid (DIR-3).
    ///
    /// # Errors
    ///
    /// [`CertificateError::Signature`].
    pub fn verify_signature(&self, network: &NetworkId) -> Result<(), CertificateError> {
        let usable = sign::verifying_key(&self.link_key).is_some();
        let holds = usable && sign::holds(&self.id.0, &self.statement(network), &self.signature);
        holds.then_some(()).ok_or(CertificateError::Signature)
    }

    /// Whether it is by its identity for this network and valid at `now_s`, in UTC seconds.
    ///
    /// # Errors
    ///
    /// The first of [`CertificateError`]'s reasons that holds.
    pub fn verify(&self, network: &NetworkId, now_s: u64) -> Result<(), CertificateError> {
        self.verify_signature(network)?;
        match now_s {
            now if now < self.not_before_s => Err(CertificateError::NotYet),
            now if now >= self.not_after_s => Err(CertificateError::Expired),
            _ => Ok(()),
        }
    }

    /// Whether it is valid throughout the UTC seconds `span`.
    #[must_use]
    pub fn covers(&self, span: &Range<u64>) -> bool {
        self.not_before_s <= span.start && span.end <= self.not_after_s
    }

    /// Its canonical encoding, which fits a frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads [`LinkCertificate::to_bytes`]; believes nothing yet.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Document`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        cbor::decode(bytes, CERTIFICATE_LEN_MAX).map_err(CertificateError::Document)
    }
}

/// A node's own description (DIR-4).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Descriptor {
    /// Mix or gateway.
    #[n(0)]
    pub role: Role,
    /// Its identity.
    #[n(1)]
    pub id: NodeId,
    /// Where its links are accepted, `host:port`; at most 255 characters.
    #[n(2)]
    pub address: String,
    /// Its link key.
    #[n(3)]
    pub link: LinkCertificate,
    /// Who runs it; no two nodes of one family stand in one route. 1 to 64 printable ASCII
    /// characters, no space.
    #[n(4)]
    pub family: String,
    /// The period that its packet keys are for.
    #[n(5)]
    pub period: u64,
    /// Its packet keys, one for each epoch of that period and of the one after.
    #[cbor(n(6), with = "cbor::packet_keys")]
    pub packet_keys: Vec<PublicKey>,
    /// What it can do, by its own measure.
    #[n(7)]
    pub check: SelfCheck,
}

/// How fast a node opens packets, as it measured when it started. Nobody rests anything on it: it
/// is for people who plan a network, and for balancing layers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SelfCheck {
    /// By which code: a name of [`Path`], or of a path that is yet to come. 1 to 16
    /// characters of `a-z 0-9 -`.
    #[n(0)]
    pub path: String,
    /// Packets per second that one processor opens, above zero.
    #[n(1)]
    pub rate_per_s: u32,
    /// Threads that open packets, above zero.
    #[n(2)]
    pub threads: u16,
}

/// A descriptor as its node signed it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedDescriptor {
    /// Canonical CBOR of the descriptor.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// By the identity key, over the network and the body.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why a descriptor is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorError {
    /// Its bytes are none, or one of its packet keys is none.
    Document(DocumentError),
    /// The identity is no usable key, or its signature does not hold.
    Signature,
    /// The address is not `host:port`.
    Address,
    /// The family is empty, too long, or not printable.
    Family,
    /// The path has no name of its form, or a rate or number of threads is zero.
    SelfCheck,
    /// The link certificate is not by the same identity, or does not hold.
    Certificate,
}

impl Descriptor {
    /// Whether its texts have their form (DIR-4).
    fn check(&self) -> Result<(), DescriptorError> {
        if !is_address(&self.address) {
            return Err(DescriptorError::Address);
        }
        let length = (1..=FAMILY_LEN_MAX).contains(&self.family.len());
        if !length || !self.family.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(DescriptorError::Family);
        }
        self.check.check()
    }
}

impl SelfCheck {
    /// Of a node that opens `rate_per_s` packets by `path` on each processor, on `threads` threads.
    #[must_use]
    pub fn new(path: Path, rate_per_s: u32, threads: u16) -> Self {
        Self {
            path: path.name().to_owned(),
            rate_per_s,
            threads,
        }
    }

    /// Whether it has its form (DIR-4).
    fn check(&self) -> Result<(), DescriptorError> {
        let usable = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let named = (1..=PATH_LEN_MAX).contains(&self.path.len()) && self.path.bytes().all(usable);
        let sound = named && self.rate_per_s > 0 && self.threads > 0;
        sound.then_some(()).ok_or(DescriptorError::SelfCheck)
    }
}

impl SignedDescriptor {
    /// `identity` signs `descriptor` for one network.
    ///
    /// # Errors
    ///
    /// Any of [`DescriptorError`]'s reasons but the signature: a node that is set up wrongly
    /// learns it here, not from the authorities.
    pub fn sign(
        network: &NetworkId,
        identity: &SigningKey,
        descriptor: &Descriptor,
    ) -> Result<Self, DescriptorError> {
        let body = cbor::encode(descriptor);
        let signature = sign::sign(identity, &statement(network, &body));
        let signed = Self { body, signature };
        signed.verify(network).map(|_| signed)
    }

    /// What the node says, if it said so for this network (DIR-4).
    ///
    /// # Errors
    ///
    /// The first of [`DescriptorError`]'s reasons that holds.
    pub fn verify(&self, network: &NetworkId) -> Result<Descriptor, DescriptorError> {
        let said: Descriptor =
            cbor::decode(&self.body, DESCRIPTOR_LEN_MAX).map_err(DescriptorError::Document)?;
        let statement = statement(network, &self.body);
        if !sign::holds(&said.id.0, &statement, &self.signature) {
            return Err(DescriptorError::Signature);
        }
        said.check()?;
        let same = said.link.id == said.id && said.link.verify_signature(network).is_ok();
        same.then_some(said).ok_or(DescriptorError::Certificate)
    }

    /// Names this descriptor among all.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let hash = Sha256::new()
            .chain_update(b"lacuna descriptor hash v1")
            .chain_update(&self.body)
            .finalize();
        hash.into()
    }
}

fn statement(network: &NetworkId, body: &[u8]) -> Vec<u8> {
    [b"lacuna descriptor v2".as_slice(), &network.0, body].concat()
}

/// Whether `text` says where links are accepted: `host:port`, `1.2.3.4:port` or `[::1]:port`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    if text.len() > ADDRESS_LEN_MAX {
        return false;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let label = |label: &str| {
        let usable = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(usable) && !label.starts_with('-')
    };
    // A name whose last label is a number would be an address that did not parse.
    let last = host.rsplit('.').next().unwrap_or(host);
    let last_is_name = last.parse::<u64>().is_err();
    let decimal = port.bytes().all(|c| c.is_ascii_digit());
    let port = port.parse::<u16>().is_ok_and(|port| port != 0);
    host.split('.').all(label) && last_is_name && decimal && port
}
