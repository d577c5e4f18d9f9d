//! The directory's documents: what is believed, and every way in which one is not.

mod harness;

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use harness::network::{TestNetwork, TestNode, VALID_FROM_S, params};
use proptest::prelude::*;
use proto::{
    NetworkId, NodeId,
    calendar::{Epoch, Utc},
    directory::{
        Answer, Ballot, CertificateError, Consensus, ConsensusError, Descriptor, DescriptorError,
        DocumentError, LinkCertificate, ParamsError, Proposal, Question, Refusal, Role,
        SignedConsensus, SignedDescriptor,
        ask::{self, QUESTION_LEN_MAX},
        cbor,
        descriptor::{DESCRIPTOR_LEN_MAX, is_address},
    },
};

fn small() -> TestNetwork {
    TestNetwork::new(3, 6, 2)
}

fn said(node: &TestNode, network: &NetworkId) -> Descriptor {
    node.descriptor.verify(network).expect("sound")
}

/// DIR-3
#[test]
fn a_link_certificate_holds_for_one_network_and_its_time() {
    let (identity, link) = (
        SigningKey::from_bytes(&[1; 32]),
        SigningKey::from_bytes(&[2; 32]),
    );
    let network = NetworkId([5; 32]);
    let link_key = link.verifying_key().to_bytes();
    let certificate = LinkCertificate::sign(&network, &identity, link_key, 100..200);
    for (now_s, expected) in [
        (99, Err(CertificateError::NotYet)),
        (100, Ok(())),
        (199, Ok(())),
        (200, Err(CertificateError::Expired)),
    ] {
        assert_eq!(certificate.verify(&network, now_s), expected);
    }
    let other = NetworkId([6; 32]);
    assert_eq!(
        certificate.verify(&other, 150),
        Err(CertificateError::Signature)
    );
    let changes: [fn(&mut LinkCertificate); 5] = [
        |c| c.link_key = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes(),
        |c| c.id = NodeId(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes()),
        |c| c.not_before_s -= 1,
        |c| c.not_after_s += 1,
        |c| c.signature[40] ^= 1,
    ];
    for change in changes {
        let mut changed = certificate;
        change(&mut changed);
        assert_eq!(
            changed.verify(&network, 150),
            Err(CertificateError::Signature)
        );
    }
    let bytes = certificate.to_bytes();
    assert_eq!(LinkCertificate::parse(&bytes), Ok(certificate));
    assert!(LinkCertificate::parse(&bytes[1..]).is_err());
    // A link key that anyone could sign for is refused although the identity certified it.
    let mut weak = [0; 32];
    weak[0] = 1;
    let weak = LinkCertificate::sign(&network, &identity, weak, 100..200);
    assert_eq!(weak.verify(&network, 150), Err(CertificateError::Signature));
}

/// DIR-4
#[test]
fn a_descriptor_is_believed_only_as_its_node_signed_it() {
    let town = small();
    let (network, node) = (&town.network.id, &town.nodes[0]);
    let honest = said(node, network);
    assert_eq!(honest.id, node.id);
    let elsewhere = node.descriptor.verify(&NetworkId([1; 32]));
    assert_eq!(elsewhere, Err(DescriptorError::Signature));

    type Change = fn(&mut Descriptor);
    let changes: [(Change, DescriptorError); 10] = [
        (|d| d.address = "nowhere".into(), DescriptorError::Address),
        (|d| d.family = String::new(), DescriptorError::Family),
        (|d| d.family = "a".repeat(65), DescriptorError::Family),
        (|d| d.family = "a b".into(), DescriptorError::Family),
        (|d| d.check.path = String::new(), DescriptorError::SelfCheck),
        (
            |d| d.check.path = "Lanes".into(),
            DescriptorError::SelfCheck,
        ),
        (|d| d.check.rate_per_s = 0, DescriptorError::SelfCheck),
        (|d| d.check.threads = 0, DescriptorError::SelfCheck),
        (|d| d.link.not_after_s += 1, DescriptorError::Certificate),
        (|d| d.id = NodeId([0xff; 32]), DescriptorError::Signature),
    ];
    for (change, why) in changes {
        let mut changed = honest.clone();
        change(&mut changed);
        let signed = SignedDescriptor::sign(network, &node.identity, &changed);
        assert_eq!(signed, Err(why));
    }
    // A certificate that holds, but is another node's.
    let mut changed = honest.clone();
    changed.link = said(&town.nodes[1], network).link;
    let signed = SignedDescriptor::sign(network, &node.identity, &changed);
    assert_eq!(signed, Err(DescriptorError::Certificate));

    let mut bent = node.descriptor.clone();
    bent.signature[3] ^= 1;
    assert_eq!(bent.verify(network), Err(DescriptorError::Signature));
    let mut long = node.descriptor.clone();
    long.body.resize(DESCRIPTOR_LEN_MAX + 1, 0);
    let too_long = DescriptorError::Document(DocumentError::TooLong);
    assert_eq!(long.verify(network), Err(too_long));
}

/// DIR-4: the address' packet key check, as it stands in a document.
#[test]
fn a_packet_key_that_is_none_is_refused() {
    let town = small();
    let node = &town.nodes[0];
    let key = *said(node, &town.network.id).packet_keys[0].as_bytes();
    let mut body = node.descriptor.body.clone();
    let at = body.windows(32).position(|window| *window == key).unwrap();
    body[at..at + 32].fill(0); // of low order
    let signed = SignedDescriptor {
        body,
        ..node.descriptor.clone()
    };
    let malformed = DescriptorError::Document(DocumentError::Malformed);
    assert_eq!(signed.verify(&town.network.id), Err(malformed));
}

#[test]
fn addresses_are_host_and_port() {
    for good in [
        "1.2.3.4:1",
        "[::1]:65535",
        "mix-1.example:9000",
        "localhost:1",
    ] {
        assert!(is_address(good), "{good}");
    }
    let long = format!("{}:1", "a.".repeat(127) + "a");
    for bad in [
        "",
        ":",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:+1",
        "1.2.3.4:0",
        "1.2.3:1",
        "::1:1",
        "-a:1",
        "a..b:1",
        "a b:1",
        "ä:1",
        "user@host:1",
        "http://host:1",
        &long,
    ] {
        assert!(!is_address(bad), "{bad}");
    }
}

/// DIR-5, DIR-6, EPO-6
#[test]
fn a_document_is_the_same_whoever_builds_it() {
    let town = small();
    let built = town.consensus();
    let mut turned: Vec<_> = town.descriptors().collect();
    turned.reverse();
    turned.push(turned[0].clone());
    let again = Consensus::build(&town.terms, VALID_FROM_S, turned).unwrap();
    assert_eq!(again, built);
    assert_eq!(Consensus::parse_body(&built.body()), Ok(built.clone()));
    assert!(built.is_of(&town.terms));

    assert_eq!(
        built.layers.iter().map(Vec::len).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    assert_eq!(built.gateways().count(), 2);
    for node in &town.nodes {
        let found = built.node(&node.id).unwrap();
        assert_eq!(built.layer(&node.id).is_some(), found.role == Role::Mix);
        for (epoch, key) in built.schedule().epochs().zip(&node.packet_keys) {
            assert_eq!(built.packet_key(found, epoch), Some(key.public()));
        }
        assert_eq!(built.packet_key(found, Epoch(7 * 2 - 1)), None);
        assert_eq!(built.packet_key(found, Epoch(7 * 2 + 4)), None);
    }
    assert_eq!(built.node(&NodeId([0; 32])), None);

    // Any other set of nodes or period deals anew.
    let fewer = town.descriptors().skip(1).chain(town.descriptors().take(1));
    assert_eq!(
        Consensus::build(&town.terms, VALID_FROM_S, fewer).unwrap(),
        built
    );
    let mut swapped = built.clone();
    let (a, b) = (swapped.layers[0][0], swapped.layers[1][0]);
    (swapped.layers[0][0], swapped.layers[1][0]) = (b, a);
    swapped
        .layers
        .iter_mut()
        .for_each(|layer| layer.sort_unstable());
    assert!(Consensus::parse_body(&swapped.body()).is_ok());
    assert!(!swapped.is_of(&town.terms));
}

/// DIR-6: layers are balanced, and which layer a mix gets depends on all descriptors.
#[test]
fn layers_are_balanced_and_change_with_the_nodes() {
    let mut placements = std::collections::BTreeSet::new();
    for gateways in 1..20 {
        let consensus = TestNetwork::new(3, 8, gateways).consensus();
        let mut widths: Vec<_> = consensus.layers.iter().map(Vec::len).collect();
        widths.sort_unstable();
        assert_eq!(widths, [2, 3, 3]);
        placements.insert(consensus.layers);
    }
    assert!(placements.len() > 15);
}

/// DIR-2, DIR-5: each way in which a body is wrong, signed or not.
#[test]
fn a_body_that_breaks_a_rule_is_refused() {
    let town = small();
    let good = town.consensus();
    let one_key_less = {
        let mut terms = town.terms.clone();
        terms.params.epochs = 1;
        TestNode::new(&terms, 0, Role::Mix).descriptor
    };
    let later = {
        let mut terms = town.terms.clone();
        terms.period = 8;
        TestNode::new(&terms, 0, Role::Mix).descriptor
    };
    let at = |id: &NodeId| good.nodes.iter().position(|node| node.id == *id).unwrap();
    let first = at(&town.nodes[0].id);
    type Change<'a> = &'a dyn Fn(&mut Consensus);
    let cases: [(Change<'_>, ConsensusError); 17] = [
        (&|c| c.period = 1 << 32, ConsensusError::Range),
        (&|c| c.valid_from_s = 1 << 34, ConsensusError::Range),
        (
            &|c| c.params.epochs = 0,
            ConsensusError::Params(ParamsError::Epochs),
        ),
        (&|c| c.params.epochs = 3, ConsensusError::PacketKeys),
        (&|c| c.period = 8, ConsensusError::PacketKeys),
        (
            &|c| c.descriptors[first] = one_key_less.clone(),
            ConsensusError::PacketKeys,
        ),
        (
            &|c| c.descriptors[first] = later.clone(),
            ConsensusError::PacketKeys,
        ),
        (
            &|c| c.valid_from_s += 31 * 86_400,
            ConsensusError::Certificate,
        ),
        (&|c| c.valid_from_s -= 86_401, ConsensusError::Certificate),
        (&|c| c.descriptors.swap(0, 1), ConsensusError::Order),
        (
            &|c| c.descriptors[0] = c.descriptors[1].clone(),
            ConsensusError::Order,
        ),
        (&|c| c.layers.clear(), ConsensusError::Layers),
        (&|c| c.layers.push(Vec::new()), ConsensusError::Layers),
        (&|c| c.layers[0].reverse(), ConsensusError::Layers),
        (&|c| c.layers[0][0] = c.layers[1][0], ConsensusError::Layers),
        (&|c| c.layers[0].truncate(1), ConsensusError::Layers),
        (
            &|c| {
                c.descriptors[first].signature[0] ^= 1;
            },
            ConsensusError::Descriptor(DescriptorError::Signature),
        ),
    ];
    for (i, (change, why)) in cases.into_iter().enumerate() {
        let mut changed = good.clone();
        change(&mut changed);
        assert_eq!(Consensus::parse_body(&changed.body()), Err(why), "case {i}");
    }
    for (layers, mixes, gateways, why) in [
        (3, 2, 1, ConsensusError::Layers),
        (3, 3, 0, ConsensusError::Gateways),
        (0, 0, 1, ConsensusError::Layers),
        (4, 8, 1, ConsensusError::Layers),
    ] {
        let town = TestNetwork::new(layers, mixes, gateways);
        let built = Consensus::build(&town.terms, VALID_FROM_S, town.descriptors());
        assert_eq!(built, Err(why));
    }
    for layers in 1..=3 {
        let town = TestNetwork::new(layers, 3, 1);
        assert_eq!(town.consensus().layers.len(), layers);
    }
    // A mix in two layers, though every mix stands in one.
    let mut twice = good.clone();
    let mix = twice.layers[0][0];
    twice.layers[1].push(mix);
    twice.layers[1].sort_unstable();
    assert_eq!(
        Consensus::parse_body(&twice.body()),
        Err(ConsensusError::Layers)
    );
    // More layers than fit a packet, though every mix stands in one.
    let mut four = TestNetwork::new(3, 4, 1).consensus();
    four.layers = four
        .layers
        .concat()
        .into_iter()
        .map(|mix| vec![mix])
        .collect();
    assert_eq!(four.layers.len(), 4);
    assert_eq!(
        Consensus::parse_body(&four.body()),
        Err(ConsensusError::Layers)
    );
}

/// DIR-7
#[test]
fn a_certificate_needs_a_threshold_of_one_round() {
    let town = small();
    let network = &town.network;
    let good = town.signed(2, &[0, 1, 3]);
    assert_eq!(good.verify(network, None), Ok(town.consensus()));
    let all = town.signed(0, &[0, 1, 2, 3]);
    assert_eq!(all.verify(network, None), Ok(town.consensus()));
    assert_eq!(SignedConsensus::parse(&good.to_bytes()), Ok(good.clone()));

    let mut mixed = town.signed(2, &[0, 1]);
    mixed.votes.extend(town.signed(3, &[3]).votes);
    let mut stranger = good.clone();
    stranger.votes[2].authority = 4;
    let mut other_name = good.clone();
    other_name.votes[2].authority = 2;
    let mut relabelled = good.clone();
    relabelled.votes.iter_mut().for_each(|vote| vote.round = 1);
    let mut extra = good.clone();
    extra.votes.insert(2, extra.votes[1]);
    extra.votes[2].authority = 2;
    let mut other_body = good.clone();
    let at = other_body.body.len() - 1;
    other_body.body[at] ^= 1;
    for (signed, why) in [
        (town.signed(0, &[0, 1]), ConsensusError::Votes),
        (town.signed(0, &[0, 1, 1]), ConsensusError::VoteOrder),
        (town.signed(0, &[1, 0, 2]), ConsensusError::VoteOrder),
        (mixed, ConsensusError::VoteOrder),
        (stranger, ConsensusError::VoteOrder),
        (other_name, ConsensusError::Signature),
        (relabelled, ConsensusError::Signature),
        (extra, ConsensusError::Signature),
        (other_body, ConsensusError::Signature),
    ] {
        assert_eq!(signed.verify(network, None), Err(why));
    }

    let mut elsewhere = network.clone();
    elsewhere.id = NetworkId([1; 32]);
    assert_eq!(good.verify(&elsewhere, None), Err(ConsensusError::Network));
    let mut later = network.clone();
    later.minimum_period = 8;
    assert_eq!(
        good.verify(&later, None),
        Err(ConsensusError::MinimumPeriod)
    );
    later.minimum_period = 7;
    assert!(good.verify(&later, None).is_ok());
    let mut seven = network.clone();
    seven.authorities.extend([[0; 32]; 3]);
    assert_eq!(good.verify(&seven, None), Err(ConsensusError::Votes));
}

/// DIR-7: a proposal or a vote of another kind, period or network counts for nothing.
#[test]
fn statements_do_not_stand_in_for_each_other() {
    let town = small();
    let (key, public) = (&town.authorities[0], &town.network.authorities[0]);
    let (network, body) = (&town.network.id, town.consensus().body());
    let hash = Consensus::hash_of(&body);
    let proposal = Proposal::sign(network, key, 0, 7, 0, body);
    let ballot = Ballot::sign(network, key, 0, 7, 0, hash);
    assert!(proposal.holds(network, public) && ballot.holds(network, public));
    let mut vote = ballot.vote;
    vote.signature = proposal.signature;
    assert!(!Ballot { vote, ..ballot }.holds(network, public));
    assert!(
        !Ballot {
            period: 8,
            ..ballot
        }
        .holds(network, public)
    );
    assert!(!ballot.holds(&NetworkId([1; 32]), public));
    assert!(!ballot.holds(network, &town.network.authorities[1]));
}

/// EPO-1, EPO-4
#[test]
fn a_document_holds_in_its_time() {
    let town = small();
    let signed = town.signed(0, &[0, 1, 2]);
    let ends_s = VALID_FROM_S + 4 * 10_800;
    assert_eq!(town.consensus().ends(), Utc::from_secs(ends_s));
    for (now_s, why) in [
        (VALID_FROM_S - 301, Some(ConsensusError::NotYet)),
        (VALID_FROM_S - 300, None),
        (ends_s - 1, None),
        (ends_s, Some(ConsensusError::Expired)),
    ] {
        let verdict = signed.verify(&town.network, Some(Utc::from_secs(now_s)));
        assert_eq!(verdict.err(), why, "{now_s}");
    }
}

/// DIR-9
#[test]
fn a_document_follows_the_last_or_is_refused() {
    let consensus = small().consensus();
    let hash = consensus.hash();
    for (period, last, expected) in [
        (8, [1; 32], Err(ConsensusError::Rollback)),
        (7, [1; 32], Err(ConsensusError::Split)),
        (7, hash, Ok(())),
        (6, [1; 32], Err(ConsensusError::Chain)),
        (6, [0; 32], Ok(())),
        (5, [1; 32], Ok(())), // the documents between were not seen
    ] {
        assert_eq!(consensus.follows(period, &last), expected);
    }
}

/// DIR-11
#[test]
fn questions_and_answers_read_back() {
    let town = small();
    let descriptor = town.nodes[0].descriptor.clone();
    let (network, key) = (&town.network.id, &town.authorities[1]);
    for question in [
        Question::Consensus { period: None },
        Question::Consensus {
            period: Some(u64::MAX),
        },
        Question::Submit(descriptor.clone()),
        Question::Propose(Proposal::sign(
            network,
            key,
            1,
            7,
            1,
            town.consensus().body(),
        )),
        Question::Vote(Ballot::sign(network, key, 1, 7, 1, [3; 32])),
        Question::Descriptors,
        Question::Gathering,
    ] {
        let bytes = question.to_bytes();
        let len = bytes.len();
        assert_eq!(
            Question::parse(&bytes, QUESTION_LEN_MAX),
            Ok(question.clone())
        );
        assert_eq!(
            Question::parse(&bytes, len - 1),
            Err(DocumentError::TooLong)
        );
        if matches!(question, Question::Consensus { .. }) {
            assert!(len <= ask::GATEWAY_QUESTION_LEN_MAX);
        }
    }
    for answer in [
        Answer::Consensus(town.signed(0, &[0, 1, 2])),
        Answer::NotYet,
        Answer::Accepted,
        Answer::Refused(Refusal::Full),
        Answer::Descriptors(town.descriptors().collect()),
        Answer::Gathering {
            period: 7,
            params: params(),
        },
    ] {
        assert_eq!(Answer::parse(&answer.to_bytes()), Ok(answer));
    }
    for (len, frames) in [(0, 32), (1, 32), (32 * 2396, 32), (32 * 2396 + 1, 64)] {
        assert_eq!(ask::frames_of(len), frames);
    }
}

/// The encodings of everything that a peer may send.
static ENCODINGS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let town = small();
    let (network, key) = (&town.network.id, &town.authorities[1]);
    let node = &town.nodes[0];
    vec![
        said(node, network).link.to_bytes(),
        node.descriptor.body.clone(),
        cbor::encode(&node.descriptor),
        town.signed(0, &[0, 1, 2]).to_bytes(),
        town.consensus().body(),
        Question::Vote(Ballot::sign(network, key, 1, 7, 1, [3; 32])).to_bytes(),
        Answer::Refused(Refusal::Closed).to_bytes(),
    ]
});

/// Every parser reads `bytes`; whatever one accepts, it writes as it was (DIR-1).
fn parse_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = LinkCertificate::parse(bytes) {
        prop_assert_eq!(value.to_bytes(), bytes);
    }
    if let Ok(value) = SignedConsensus::parse(bytes) {
        prop_assert_eq!(value.to_bytes(), bytes);
    }
    if let Ok(value) = Consensus::parse_body(bytes) {
        prop_assert_eq!(value.body(), bytes);
    }
    if let Ok(value) = Question::parse(bytes, QUESTION_LEN_MAX) {
        prop_assert_eq!(value.to_bytes(), bytes);
    }
    if let Ok(value) = Answer::parse(bytes) {
        prop_assert_eq!(value.to_bytes(), bytes);
    }
    let signed = SignedDescriptor {
        body: bytes.to_vec(),
        signature: [0; 64],
    };
    prop_assert!(signed.verify(&NetworkId([0xaa; 32])).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// DIR-1: a change of one byte of a real document, a cut, or an addition is refused or says
    /// the same thing when it is written again.
    #[test]
    fn parsers_take_one_encoding(
        which in 0usize..7,
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = ENCODINGS[which].clone();
        let mut bent = bytes.clone();
        bent[at.index(bytes.len())] ^= flip;
        parse_all(&bent)?;
        parse_all(&bytes[..cut.index(bytes.len())])?;
        parse_all(&[bytes, vec![flip]].concat())?;
    }
}
