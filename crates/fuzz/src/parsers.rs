//! The parsers of documents, questions, addresses, frames and what packets carry.
//!
//! A parser must take any bytes without a panic; and whatever it takes, it must write again as it
//! was (DIR-1, ADR-2). Where a signature guards what lies behind it, the target signs the input
//! itself, with keys that it knows, so that mutation reaches the rules behind.
//!
//! | target       | input                                                                     |
//! |--------------|---------------------------------------------------------------------------|
//! | `address`    | text, a host name, or the 96 bytes                                        |
//! | `ask`        | a question or an answer                                                   |
//! | `consensus`  | a body, which three authorities of the test network then sign             |
//! | `content`    | what a packet carries, and what its symbol decodes to                     |
//! | `descriptor` | a body, which node 0 of the test network then signs                       |
//! | `frame`      | a frame, filled up with zeros; notices too                                |

use std::sync::LazyLock;

use proto::{
    address::{ADDRESS_LEN, Address},
    calendar::{Epoch, Utc},
    client::{
        Identity, MessageId, Relocation,
        content::{Content, Fragment, ReturnPart},
        fountain,
    },
    directory::{
        Answer, Ballot, Consensus, Descriptor, LinkCertificate, Question, SignedConsensus,
        SignedDescriptor, ask::QUESTION_LEN_MAX, cbor,
    },
    notice::{Heard, Notice, What},
    wire::{Confirmation, FRAME_LEN, Frame, Hello, Open},
};

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../proto/tests/harness/network.rs"]
mod network;

use network::{TestNetwork, VALID_FROM_S};

static TOWN: LazyLock<TestNetwork> = LazyLock::new(|| TestNetwork::new(3, 3, 1));
static DOCUMENT: LazyLock<Consensus> = LazyLock::new(|| TOWN.consensus());

/// Reads the input as an address in each of its forms.
pub fn address(input: &[u8]) {
    if let Some(bytes) = input.first_chunk::<ADDRESS_LEN>()
        && let Ok(address) = Address::from_bytes(bytes)
    {
        assert_eq!(address.to_bytes(), *bytes);
    }
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let written = text.to_ascii_lowercase();
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string(), written);
        assert_eq!(Address::from_host(&address.to_host()), Ok(address));
    }
    if let Ok(address) = Address::from_host(text) {
        assert_eq!(address.to_host(), written);
    }
}

/// Reads the input as a question and as an answer.
pub fn ask(input: &[u8]) {
    if let Ok(question) = Question::parse(input, QUESTION_LEN_MAX) {
        assert_eq!(question.to_bytes(), input);
    }
    if let Ok(answer) = Answer::parse(input) {
        assert_eq!(answer.to_bytes(), input);
    }
}

/// Has the input signed as a document, and reads it.
pub fn consensus(input: &[u8]) {
    if let Ok(signed) = SignedConsensus::parse(input) {
        assert_eq!(signed.to_bytes(), input);
    }
    let (town, hash) = (&*TOWN, Consensus::hash_of(input));
    let votes = (0..3).map(|authority| {
        let key = &town.authorities[usize::from(authority)];
        let (id, period) = (&town.network.id, town.terms.period);
        Ballot::sign(id, key, authority, period, 0, hash).vote
    });
    let signed = SignedConsensus {
        body: input.to_vec(),
        votes: votes.collect(),
    };
    let now = Utc::from_secs(VALID_FROM_S);
    if let Ok(consensus) = signed.verify(&town.network, Some(now)) {
        assert_eq!(consensus.body(), input);
        assert!(!consensus.layers.is_empty() && consensus.gateways().count() > 0);
        for node in &consensus.nodes {
            for epoch in consensus.schedule().epochs() {
                assert!(consensus.packet_key(node, epoch).is_some());
            }
        }
    }
}

/// Reads the input as what a packet carries: bytes that any stranger may send a recipient. A
/// fragment's symbol goes through the decoder alone, and what comes out is read as a block.
pub fn content(input: &[u8]) {
    let Some(content) = Content::parse(input) else {
        return;
    };
    assert_eq!(content.to_bytes(), input);
    if let Content::Move(news) = &content {
        let _ = news.is_proven(&TOWN.network.id);
    }
    if let Content::Fragment(fragment) = content {
        let symbols = [(fragment.esi, fragment.symbol.clone())].into();
        if let Some(block) = fountain::decode(fragment.block_len(), &symbols) {
            assert_eq!(block.len(), fragment.block_len());
            let _ = ReturnPart::parse(&block[..usize::from(fragment.return_len)]);
        }
    }
}

/// Has the input signed as a descriptor, and reads it; reads it as a link certificate too.
pub fn descriptor(input: &[u8]) {
    if let Ok(certificate) = LinkCertificate::parse(input) {
        assert_eq!(certificate.to_bytes(), input);
    }
    let (network, identity) = (&TOWN.network.id, &TOWN.nodes[0].identity);
    let Ok(said) = cbor::decode::<Descriptor>(input, usize::MAX) else {
        return;
    };
    assert_eq!(cbor::encode(&said), input);
    if let Ok(signed) = SignedDescriptor::sign(network, identity, &said) {
        assert_eq!(signed.verify(network), Ok(said));
    }
}

/// Reads the input as a frame of each kind.
pub fn frame(input: &[u8]) {
    let mut bytes = Box::new([0; FRAME_LEN]);
    bytes
        .iter_mut()
        .zip(input)
        .for_each(|(to, byte)| *to = *byte);
    let frame = Frame::from_bytes(bytes.clone());
    assert_eq!(frame.as_bytes(), &*bytes);
    let _ = (frame.slot(), frame.field(), frame.numbers());
    if let Some(hello) = Hello::parse(&frame) {
        assert_eq!(Hello::parse(&hello.to_frame()), Some(hello));
    }
    if let Some(confirmation) = Confirmation::parse(&frame) {
        let again = Confirmation::parse(&confirmation.to_frame());
        assert_eq!(again, Some(confirmation));
    }
    let (id, now) = (&TOWN.network.id, Utc::from_secs(VALID_FROM_S));
    if let Ok(notice) = Heard::default().hear(&frame, now, id, &DOCUMENT) {
        let said_by = TOWN.nodes.iter().find(|node| node.id == notice.node);
        let said_by = said_by.expect("a node of the document");
        assert_eq!(notice.sign(id, &said_by.identity), frame);
    }
}

/// Real encodings of everything above: target, name of the file, input.
pub fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use proto::{
        MailboxId,
        directory::{Proposal, Refusal},
        wire::{Kind, Purpose, WIRE_VERSION, field_of},
    };
    let town = &*TOWN;
    let (id, key, node) = (&town.network.id, &town.authorities[1], &town.nodes[0]);
    let said = node.descriptor.verify(id).expect("a sound descriptor");
    let address = Address {
        gateway: node.id,
        mailbox: MailboxId([7; 32]),
        key: said.packet_keys[0],
    };
    let body = town.consensus().body();
    let proposal = Proposal::sign(id, key, 1, 7, 1, body.clone());
    let confirmation = Confirmation {
        cursors: vec![(1, 2), (3, u64::MAX)],
        opens: vec![Open {
            slot: 9,
            key: [1; 32],
            signature: [2; 64],
        }],
    };
    let hello = Hello {
        version: WIRE_VERSION,
        purpose: Purpose::Mailbox,
        profile: 1,
    };
    let fragment = |esi, return_len| {
        let fragment = Fragment {
            message: MessageId([5; 16]),
            length: 1000,
            block: 0,
            esi,
            epoch: Epoch(70),
            return_len,
            symbol: vec![0; fountain::SYMBOL_LEN],
        };
        Content::Fragment(fragment).to_bytes()
    };
    let owner = |mut bytes: [u8; 97]| {
        bytes[0] = 1;
        Identity::from_bytes(&bytes).expect("the version of today")
    };
    let (old, new) = (owner([1; 97]), owner([2; 97]));
    let named = (MessageId([5; 16]), Epoch(70));
    let relocation = Box::new(Relocation::sign(id, named, 9, &old, &new));
    let acks = Content::Acks {
        left: 2,
        blocks: vec![(MessageId([5; 16]), 0), (MessageId([6; 16]), 3)],
    };
    let blob = Frame::with_body(Kind::Blob, field_of(4, 0), b"part");
    let now = Utc::from_secs(VALID_FROM_S);
    let notice = Notice::new(What::Alarm, node.id, now).sign(id, &node.identity);
    let bytes = |frame: Frame| frame.as_bytes().to_vec();
    vec![
        ("address", "text", address.to_string().into_bytes()),
        ("address", "host", address.to_host().into_bytes()),
        ("address", "bytes", address.to_bytes().to_vec()),
        (
            "ask",
            "newest",
            Question::Consensus { period: None }.to_bytes(),
        ),
        (
            "ask",
            "submit",
            Question::Submit(node.descriptor.clone()).to_bytes(),
        ),
        ("ask", "propose", Question::Propose(proposal).to_bytes()),
        (
            "ask",
            "vote",
            Question::Vote(Ballot::sign(id, key, 1, 7, 1, [3; 32])).to_bytes(),
        ),
        (
            "ask",
            "consensus",
            Answer::Consensus(town.signed(0, &[0, 1, 2])).to_bytes(),
        ),
        ("ask", "refused", Answer::Refused(Refusal::Full).to_bytes()),
        ("ask", "gathering", {
            let params = town.terms.params.clone();
            Answer::Gathering { period: 7, params }.to_bytes()
        }),
        ("consensus", "body", body),
        ("consensus", "signed", town.signed(2, &[0, 1, 3]).to_bytes()),
        ("content", "source-symbol", fragment(0, 1)),
        ("content", "repair-symbol", fragment(9, 97)),
        ("content", "acks", acks.to_bytes()),
        ("content", "move", Content::Move(relocation).to_bytes()),
        ("content", "loop", Content::Loop([8; 16]).to_bytes()),
        ("descriptor", "body", node.descriptor.body.clone()),
        ("descriptor", "certificate", said.link.to_bytes()),
        ("frame", "hello", bytes(hello.to_frame())),
        ("frame", "confirmation", bytes(confirmation.to_frame())),
        ("frame", "blob", bytes(blob)),
        ("frame", "notice", bytes(notice)),
    ]
}
