//! What an authority takes, what it votes for, and what it does not.

mod harness;

use harness::{
    call,
    ceremony::{
        SECOND, asked, at, authority, ballot, calendar, config, dropped, proposal, town, turn,
    },
    network::{TestNode, VALID_FROM_S},
};
use proto::{
    Machine,
    authority::{Authority, AuthorityDrop, Config, Event, Input, Output, Record, StartError},
    directory::{
        Answer, Ballot, Consensus, LinkCertificate, Params, Question, Refusal, Role,
        SignedConsensus, SignedDescriptor,
    },
};

/// What an output asks.
fn question_of(output: &Output) -> Option<&Question> {
    if let Output::Ask { question, .. } = output {
        Some(question)
    } else {
        None
    }
}

#[test]
fn an_authority_that_is_set_up_wrongly_does_not_start() {
    let town = town();
    let key = town.authorities[0].clone();
    let start = |change: &dyn Fn(&mut Config), record| {
        let mut config = config(&town);
        change(&mut config);
        Authority::new(config, key.clone(), record).err()
    };
    assert_eq!(start(&|_| (), None), None);
    let record = |period, body| Some(Record { period, body });
    let body = town.consensus().body();
    assert_eq!(start(&|_| (), record(7, body.clone())), None);
    for (verdict, why) in [
        (start(&|c| c.round = SECOND / 2, None), StartError::Round),
        (start(&|c| c.nodes_max = 3, None), StartError::Nodes),
        (
            start(&|c| c.nodes_max = usize::MAX, None),
            StartError::Nodes,
        ),
        (start(&|c| c.terms.layers = 4, None), StartError::Layers),
        (start(&|c| c.terms.layers = 2, None), StartError::Layers),
        (
            start(&|c| c.terms.network.0[0] ^= 1, None),
            StartError::Terms,
        ),
        (start(&|_| (), record(8, body.clone())), StartError::Record),
        (start(&|_| (), record(7, vec![])), StartError::Record),
        (
            start(&|c| c.terms.previous = [9; 32], record(7, body)),
            StartError::Record,
        ),
    ] {
        assert_eq!(verdict, Some(why));
    }
    let stranger = town.nodes[0].identity.clone();
    let verdict = Authority::new(config(&town), stranger, None).err();
    assert_eq!(verdict, Some(StartError::Key));
}

/// DIR-12
#[test]
fn descriptors_are_judged() {
    let town = town();
    let mut machine = authority(&town, 0);
    call(&mut machine, at(0), Some(calendar()));
    let submit = |machine: &mut Authority, signed: &SignedDescriptor| {
        let question = Question::Submit(signed.clone());
        let answer = machine.answer(&question);
        let outputs = asked(machine, at(0), question);
        let event = if let Answer::Refused(why) = answer {
            Event::Refused(why)
        } else {
            Event::Submitted(signed.verify(&town.network.id).unwrap().id)
        };
        assert!(
            outputs.contains(&Output::Event(event)),
            "the answer is what is done"
        );
        answer
    };
    let node = &town.nodes[0];
    let said = node.descriptor.verify(&town.network.id).unwrap();
    let certified = |from_s: u64, to_s: u64| {
        let mut said = said.clone();
        let span = from_s..to_s;
        said.link =
            LinkCertificate::sign(&town.network.id, &node.identity, said.link.link_key, span);
        SignedDescriptor::sign(&town.network.id, &node.identity, &said).unwrap()
    };
    let lifetime_s = 4 * 10_800;
    let newer = certified(VALID_FROM_S, VALID_FROM_S + lifetime_s);
    let short = certified(VALID_FROM_S, VALID_FROM_S + lifetime_s - 1);
    let early = certified(VALID_FROM_S + 1, VALID_FROM_S + 2 * lifetime_s);
    let mut bent = node.descriptor.clone();
    bent.signature[0] ^= 1;
    let mut terms = town.terms.clone();
    terms.period = 8;
    let other_period = TestNode::new(&terms, 0, Role::Mix).descriptor;
    terms = town.terms.clone();
    terms.params.epochs = 3;
    let other_count = TestNode::new(&terms, 0, Role::Mix).descriptor;
    for (signed, expected) in [
        (&bent, Answer::Refused(Refusal::Descriptor)),
        (&other_period, Answer::Refused(Refusal::PacketKeys)),
        (&other_count, Answer::Refused(Refusal::PacketKeys)),
        (&short, Answer::Refused(Refusal::Certificate)),
        (&early, Answer::Refused(Refusal::Certificate)),
        (&node.descriptor, Answer::Accepted),
        (&newer, Answer::Accepted),
        (&newer, Answer::Accepted),
        (&node.descriptor, Answer::Refused(Refusal::Older)),
    ] {
        assert_eq!(submit(&mut machine, signed), expected);
    }
    assert_eq!(machine.held(), 1);
    for i in 10..15 {
        let signed = TestNode::new(&town.terms, i, Role::Mix).descriptor;
        assert_eq!(submit(&mut machine, &signed), Answer::Accepted);
    }
    let one_more = TestNode::new(&town.terms, 15, Role::Mix).descriptor;
    assert_eq!(
        submit(&mut machine, &one_more),
        Answer::Refused(Refusal::Full)
    );
    assert_eq!(machine.held(), 6);
    let Answer::Descriptors(held) = machine.answer(&Question::Descriptors) else {
        unreachable!("descriptors are answered with descriptors")
    };
    assert_eq!(held.len(), 6);

    let signed = town.signed(0, &[0, 1, 2]);
    assert_eq!(
        machine.answer(&Question::Consensus { period: None }),
        Answer::NotYet
    );
    assert!(matches!(
        machine.answer(&Question::Gathering),
        Answer::Gathering { period: 7, .. }
    ));
    let finished = Answer::Consensus(signed);
    call(&mut machine, at(0), Some(Input::Answered(finished.clone())));
    for (period, expected) in [
        (None, finished.clone()),
        (Some(7), finished),
        (Some(8), Answer::NotYet),
    ] {
        assert_eq!(machine.answer(&Question::Consensus { period }), expected);
    }
    assert_eq!(machine.answer(&Question::Gathering), Answer::NotYet);
    assert_eq!(
        submit(&mut machine, &newer),
        Answer::Refused(Refusal::Closed)
    );
}

/// DIR-8, DIR-12: what an authority doesn't vote for, and why.
#[test]
fn proposals_are_judged() {
    let town = town();
    let good = town.consensus();
    let body = good.body();
    let round = turn(1, 0);
    let mut late = good.clone();
    late.valid_from_s += 2_701; // a quarter epoch and a second
    let mut swapped = good.clone();
    swapped.layers.rotate_left(1);
    let mut more = config(&town);
    more.mixes_min = 4;
    let mut other_params = good.clone();
    other_params.params = Params {
        expiry_s: 3600,
        ..other_params.params
    };
    let mut bent = proposal(&town, 1, round, body.clone());
    bent.signature[9] ^= 1;
    let mut other_period = proposal(&town, 1, round, body.clone());
    other_period.period = 8;
    let by = |body: Vec<u8>| proposal(&town, 1, round, body);
    for (question, why) in [
        (other_period, AuthorityDrop::Period),
        (
            proposal(&town, 1, round + 1, body.clone()),
            AuthorityDrop::Turn,
        ),
        (
            proposal(&town, 0, turn(0, 0), body.clone()),
            AuthorityDrop::Turn,
        ), // its own
        (bent, AuthorityDrop::Signature),
        (by(vec![0]), AuthorityDrop::Document),
        (by(swapped.body()), AuthorityDrop::Terms),
        (by(other_params.body()), AuthorityDrop::Terms),
        (by(late.body()), AuthorityDrop::Clock),
    ] {
        let mut machine = authority(&town, 0);
        call(&mut machine, at(0), Some(calendar()));
        let outputs = asked(&mut machine, at(0), Question::Propose(question));
        assert_eq!(dropped(&outputs), Some(why));
        assert!(
            !outputs
                .iter()
                .any(|output| matches!(output, Output::Store(_)))
        );
    }
    let mut machine = Authority::new(more, town.authorities[0].clone(), None).unwrap();
    call(&mut machine, at(0), Some(calendar()));
    let outputs = asked(&mut machine, at(0), Question::Propose(by(body.clone())));
    assert_eq!(dropped(&outputs), Some(AuthorityDrop::Nodes));
    // Without a calendar nothing is near.
    let mut machine = authority(&town, 0);
    let outputs = asked(&mut machine, at(0), Question::Propose(by(body)));
    assert_eq!(dropped(&outputs), Some(AuthorityDrop::Clock));
}

/// DIR-8: the record first, then the vote; one document a period, in any round.
#[test]
fn one_document_is_voted_for_and_the_disk_knows_it_first() {
    let town = town();
    let (body, round) = (town.consensus().body(), turn(1, 0));
    // At second 0 it would be its own turn.
    let mut machine = authority(&town, 0);
    call(&mut machine, at(1), Some(calendar()));
    let question = Question::Propose(proposal(&town, 1, round, body.clone()));
    let outputs = asked(&mut machine, at(1), question);
    let record = Record {
        period: 7,
        body: body.clone(),
    };
    assert_eq!(outputs, [Output::Store(record.clone())]);
    assert_eq!(Record::parse(&record.to_bytes()), Ok(record.clone()));
    let votes = |outputs: &[Output]| {
        let questions = outputs.iter().filter_map(question_of);
        let vote = |question: &Question| {
            if let Question::Vote(ballot) = question {
                Some(*ballot)
            } else {
                None
            }
        };
        questions.filter_map(vote).collect::<Vec<_>>()
    };
    let outputs = call(&mut machine, at(1), Some(Input::Stored));
    let own = ballot(&town, 0, round, Consensus::hash_of(&body));
    assert_eq!(votes(&outputs), [own; 3]);

    let mut other = town.consensus();
    other.valid_from_s += 1;
    let hears = |machine: &mut Authority, round, body| {
        asked(
            machine,
            at(1),
            Question::Propose(proposal(&town, 1, round, body)),
        )
    };
    let outputs = hears(&mut machine, round, other.body());
    assert_eq!(dropped(&outputs), Some(AuthorityDrop::Conflict));
    let outputs = hears(&mut machine, round + 4, other.body());
    assert_eq!(dropped(&outputs), Some(AuthorityDrop::Conflict));
    assert_eq!(
        votes(&hears(&mut machine, round + 4, body.clone())).len(),
        3
    );

    // Restarted, it remembers; and proposes the same when its turn comes.
    let key = town.authorities[0].clone();
    let mut machine = Authority::new(config(&town), key, Some(record)).unwrap();
    call(&mut machine, at(1), Some(calendar()));
    let outputs = hears(&mut machine, round, other.body());
    assert_eq!(dropped(&outputs), Some(AuthorityDrop::Conflict));
    let proposed = (0..4).find_map(|_| {
        let now = machine.next_wake()?;
        let outputs = call(&mut machine, now, None);
        outputs.iter().filter_map(question_of).find_map(|question| {
            if let Question::Propose(proposal) = question {
                Some(proposal.body.clone())
            } else {
                None
            }
        })
    });
    assert_eq!(proposed, Some(body));
}

/// DIR-12: a proposal that comes late in a round could meet the next proposer's own.
#[test]
fn a_turn_is_used_at_its_start_or_not_at_all() {
    let town = town();
    for (late_ms, proposes) in [(0, true), (249, true), (250, false), (999, false)] {
        let mut machine = authority(&town, 0);
        call(&mut machine, at(0), Some(calendar()));
        for signed in town.descriptors() {
            asked(&mut machine, at(0), Question::Submit(signed));
        }
        let turn = u64::from(turn(0, 2)) - VALID_FROM_S;
        let now = at(turn).after(core::time::Duration::from_millis(late_ms));
        let outputs = call(&mut machine, now, None);
        let settles = |output: &Output| matches!(output, Output::Store(_));
        assert_eq!(outputs.iter().any(settles), proposes, "{late_ms} ms");
        // It is not lost: its next turn comes.
        let outputs = call(&mut machine, at(turn + 4), None);
        assert_eq!(outputs.iter().any(settles), !proposes);
    }
}

/// DIR-12: a node that says something else about itself every second puts nothing off.
#[test]
fn a_node_that_changes_its_descriptor_does_not_stall_the_ceremony() {
    let town = town();
    let mut machine = authority(&town, 0);
    call(&mut machine, at(0), Some(calendar()));
    for signed in town.descriptors() {
        asked(&mut machine, at(0), Question::Submit(signed));
    }
    let node = &town.nodes[0];
    let mut said = node.descriptor.verify(&town.network.id).unwrap();
    let settles = |output: &Output| matches!(output, Output::Store(_));
    let settled = (1..=20).any(|second| {
        said.address = format!("127.0.0.1:{second}");
        let changed = SignedDescriptor::sign(&town.network.id, &node.identity, &said).unwrap();
        asked(&mut machine, at(second), Question::Submit(changed))
            .iter()
            .any(settles)
    });
    assert!(settled);
}

/// DIR-7
#[test]
fn votes_are_judged_and_two_of_one_round_are_proof() {
    let town = town();
    let body = town.consensus().body();
    let (hash, round) = (Consensus::hash_of(&body), turn(1, 0));
    let mut machine = authority(&town, 0);
    call(&mut machine, at(0), Some(calendar()));
    let good = ballot(&town, 2, round, hash);
    let mut bent = good;
    bent.vote.signature[1] ^= 1;
    let mut stranger = good;
    stranger.vote.authority = 4;
    for (vote, why) in [
        (bent, Some(AuthorityDrop::Signature)),
        (stranger, Some(AuthorityDrop::Authority)),
        (
            ballot(&town, 0, round, hash),
            Some(AuthorityDrop::Authority),
        ), // its own
        (Ballot { period: 8, ..good }, Some(AuthorityDrop::Period)),
        (good, None),
        (good, None),
    ] {
        let outputs = asked(&mut machine, at(0), Question::Vote(vote));
        assert_eq!(dropped(&outputs), why);
    }
    let second = ballot(&town, 2, round, [1; 32]);
    let outputs = asked(&mut machine, at(0), Question::Vote(second));
    let proof = Event::Equivocated {
        first: good,
        second,
    };
    assert_eq!(outputs, [Output::Event(proof)]);
    // Voting in two rounds is no proof.
    let outputs = asked(
        &mut machine,
        at(0),
        Question::Vote(ballot(&town, 2, round + 1, hash)),
    );
    assert_eq!(outputs, []);

    // Votes that came before the proposal count when it comes.
    asked(
        &mut machine,
        at(0),
        Question::Vote(ballot(&town, 1, round, hash)),
    );
    let question = Question::Propose(proposal(&town, 1, round, body.clone()));
    asked(&mut machine, at(0), question);
    assert_eq!(machine.finished(), None);
    call(&mut machine, at(0), Some(Input::Stored));
    let signed = machine.finished().unwrap();
    assert_eq!(signed.verify(&town.network, None), Ok(town.consensus()));
    assert_eq!(machine.next_wake(), None);
}

/// DIR-9
#[test]
fn two_documents_of_one_period_are_told() {
    let town = town();
    let first = town.signed(0, &[0, 1, 2]);
    let mut other = town.clone();
    other.terms.layers = 1;
    let second = other.signed(0, &[1, 2, 3]);
    let mut machine = authority(&town, 0);
    let mut hears = |signed: &SignedConsensus| {
        let input = Input::Answered(Answer::Consensus(signed.clone()));
        call(&mut machine, at(0), Some(input))
    };
    assert!(hears(&first).contains(&Output::Publish(first.clone())));
    assert_eq!(hears(&first), []);
    assert_eq!(hears(&second), [Output::Event(Event::Split)]);
    let unsigned = SignedConsensus {
        votes: Vec::new(),
        ..second
    };
    assert_eq!(dropped(&hears(&unsigned)), Some(AuthorityDrop::Document));
}
