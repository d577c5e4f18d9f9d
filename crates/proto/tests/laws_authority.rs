//! The laws of `Machine` for the authority, its verdicts, and four of them together.
//!
//! Together they run over a driver that loses questions, delays disks and restarts authorities:
//! at no time are two documents made (DIR-8), and once faults stop all have the one.

mod harness;

use core::time::Duration;
use std::sync::LazyLock;

use harness::{
    Call, call, deterministic, drain, harmless_wake,
    network::{TestNetwork, TestNode, VALID_FROM_S},
    progress,
};
use proptest::prelude::*;
use proto::{
    Machine, Time,
    authority::{
        Authority, AuthorityDrop, Config, Event, Input, Output, Record, StartError, VOTES_KEPT,
    },
    calendar::{Calendar, Utc},
    directory::{
        Answer, Ballot, Consensus, Params, Proposal, Question, Refusal, Role, SignedConsensus,
        SignedDescriptor,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn town() -> TestNetwork {
    TestNetwork::new(3, 3, 1)
}

fn config(town: &TestNetwork) -> Config {
    Config {
        network: town.network.clone(),
        terms: town.terms.clone(),
        mixes_min: 3,
        gateways_min: 1,
        nodes_max: 6,
        settle: SECOND * 2,
        round: SECOND,
    }
}

fn authority(town: &TestNetwork, own: usize) -> Authority {
    Authority::new(config(town), town.authorities[own].clone(), None).unwrap()
}

/// The driver's time zero is when the test networks' documents start.
fn calendar() -> Input {
    Input::Calendar(Calendar {
        at: Time::ZERO,
        utc: Utc::from_secs(VALID_FROM_S),
    })
}

fn at(secs: u64) -> Time {
    Time::from_nanos(secs * 1_000_000_000)
}

/// The first round from `from` on that is `authority`'s turn. Rounds are one second here.
fn turn(authority: u8, from: u64) -> u32 {
    let first = u32::try_from(VALID_FROM_S + from).unwrap();
    (first..)
        .find(|round| round % 4 == u32::from(authority))
        .unwrap()
}

fn proposal(town: &TestNetwork, by: u8, round: u32, body: Vec<u8>) -> Proposal {
    let key = &town.authorities[usize::from(by)];
    Proposal::sign(&town.network.id, key, by, 7, round, body)
}

fn ballot(town: &TestNetwork, by: u8, round: u32, hash: [u8; 32]) -> Ballot {
    let key = &town.authorities[usize::from(by)];
    Ballot::sign(&town.network.id, key, by, 7, round, hash)
}

/// What was dropped, or nothing.
fn dropped(outputs: &[Output]) -> Option<AuthorityDrop> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::Dropped(why)) => Some(*why),
        _ => None,
    })
}

fn asked(machine: &mut Authority, now: Time, question: Question) -> Vec<Output> {
    call(machine, now, Some(Input::Asked(question)))
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
        (start(&|c| c.terms.layers = 4, None), StartError::Terms),
        (
            start(&|c| c.terms.network.0[0] ^= 1, None),
            StartError::Terms,
        ),
        (start(&|_| (), record(8, body.clone())), StartError::Record),
        (start(&|_| (), record(7, vec![])), StartError::Record),
        (
            start(&|c| c.terms.layers = 2, record(7, body)),
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
        let event = match answer {
            Answer::Accepted => {
                let said = signed.verify(&town.network.id).unwrap();
                Event::Submitted(said.id)
            }
            Answer::Refused(why) => Event::Refused(why),
            _ => unreachable!("a submission is taken or not"),
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
        said.link = proto::directory::LinkCertificate::sign(
            &town.network.id,
            &node.identity,
            said.link.link_key,
            span,
        );
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
    let fewer = {
        let mut terms = town.terms.clone();
        terms.layers = 2;
        let town = TestNetwork::new(2, 2, 1);
        Consensus::build(&terms, VALID_FROM_S, town.descriptors()).unwrap()
    };
    let mut few = config(&town);
    few.terms.layers = 2;
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
    let mut machine = Authority::new(few, town.authorities[0].clone(), None).unwrap();
    call(&mut machine, at(0), Some(calendar()));
    let outputs = asked(&mut machine, at(0), Question::Propose(by(fewer.body())));
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
        let votes = outputs.iter().filter_map(|output| match output {
            Output::Ask {
                question: Question::Vote(ballot),
                ..
            } => Some(*ballot),
            _ => None,
        });
        votes.collect::<Vec<_>>()
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
        outputs.into_iter().find_map(|output| match output {
            Output::Ask {
                question: Question::Propose(proposal),
                ..
            } => Some(proposal.body),
            _ => None,
        })
    });
    assert_eq!(proposed, Some(body));
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

/// Everything that a schedule draws from; most of it sound.
static INPUTS: LazyLock<Vec<Input>> = LazyLock::new(|| {
    let town = town();
    let mut all = vec![calendar(), Input::Stored, Input::Stored, Input::Stored];
    let extra = TestNode::new(&town.terms, 20, Role::Gateway).descriptor;
    let mut bodies = vec![town.consensus().body()];
    let more = town.descriptors().chain([extra.clone()]);
    bodies.push(
        Consensus::build(&town.terms, VALID_FROM_S + 1, more)
            .unwrap()
            .body(),
    );
    let submissions = town.descriptors().chain([extra]).map(Question::Submit);
    let mut questions: Vec<_> = submissions.collect();
    for body in &bodies {
        for by in 1..4 {
            let round = turn(by, 0);
            questions.push(Question::Propose(proposal(&town, by, round, body.clone())));
            questions.push(Question::Vote(ballot(
                &town,
                by,
                turn(1, 0),
                Consensus::hash_of(body),
            )));
            questions.push(Question::Vote(ballot(
                &town,
                by,
                turn(0, 0),
                Consensus::hash_of(body),
            )));
        }
    }
    questions.extend((0..8).map(|round| Question::Vote(ballot(&town, 3, round, [9; 32]))));
    all.extend(questions.into_iter().map(Input::Asked));
    all.push(Input::Answered(Answer::NotYet));
    all.push(Input::Answered(Answer::Consensus(
        town.signed(0, &[0, 1, 2]),
    )));
    all
});

/// The calls of a driver; every fourth step brings nothing.
fn schedule() -> impl Strategy<Value = Vec<Call<Input>>> {
    let input = (0..INPUTS.len() * 4 / 3).prop_map(|i| INPUTS.get(i).cloned());
    let step = (0u64..800_000_000, input);
    prop::collection::vec(step, 0..60).prop_map(|steps| {
        let mut now = 0;
        let steps = steps.into_iter().map(|(gap, input)| {
            now += gap;
            (Time::from_nanos(now), input)
        });
        let start = [(Time::ZERO, Some(calendar()))];
        start.into_iter().chain(steps).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn authority_law_2_drain(calls in schedule()) {
        drain(authority(&town(), 0), calls)?;
    }

    #[test]
    fn authority_law_3_progress(calls in schedule()) {
        progress(authority(&town(), 0), calls)?;
    }

    #[test]
    fn authority_law_4_harmless_wake(calls in schedule()) {
        harmless_wake(|| authority(&town(), 0), calls, 8)?;
    }

    #[test]
    fn authority_law_5_bounded(calls in schedule()) {
        let mut machine = authority(&town(), 0);
        // To each other: a question each round, a proposal, the votes owed; and for itself a
        // record, a document, and one event for each of these and for what came.
        let most = 1 + 3 * (1 + VOTES_KEPT) + 2 + (3 + VOTES_KEPT);
        for (now, input) in calls {
            prop_assert!(call(&mut machine, now, input).len() <= most);
            prop_assert!(machine.held() <= 6);
        }
    }

    #[test]
    fn authority_law_6_deterministic(calls in schedule()) {
        deterministic(|| authority(&town(), 0), calls, 8)?;
    }
}

/// Law 1, for each of the two calls that carry a time.
fn goes_back(input: Option<Input>) {
    let mut machine = authority(&town(), 0);
    machine.wake(Time::from_nanos(2));
    call(&mut machine, Time::from_nanos(1), input);
}

#[test]
#[should_panic(expected = "law 1")]
fn authority_law_1_monotone_wake() {
    goes_back(None);
}

#[test]
#[should_panic(expected = "law 1")]
fn authority_law_1_monotone_handle() {
    goes_back(Some(Input::Stored));
}

/// One authority as its driver keeps it.
struct Seat {
    machine: Authority,
    record: Option<Record>,
    /// Written, but not yet told.
    storing: bool,
}

/// Four authorities, a network between them, and what went wrong.
struct Ceremony {
    town: TestNetwork,
    seats: Vec<Seat>,
    now: Time,
    published: Vec<[u8; 32]>,
}

impl Ceremony {
    fn new(town: TestNetwork) -> Self {
        let seat = |own| Seat {
            machine: authority(&town, own),
            record: None,
            storing: false,
        };
        let mut ceremony = Self {
            seats: (0..4).map(seat).collect(),
            town,
            now: Time::ZERO,
            published: Vec::new(),
        };
        for own in 0..4 {
            ceremony.give(own, calendar(), &mut || true);
        }
        ceremony
    }

    fn give(&mut self, own: usize, input: Input, arrives: &mut dyn FnMut() -> bool) {
        let outputs = call(&mut self.seats[own].machine, self.now, Some(input));
        self.carry_out(own, outputs, arrives);
    }

    fn carry_out(&mut self, own: usize, outputs: Vec<Output>, arrives: &mut dyn FnMut() -> bool) {
        for output in outputs {
            match output {
                Output::Ask {
                    authority,
                    question,
                } => {
                    let to = usize::from(authority);
                    if arrives() {
                        let answer = self.seats[to].machine.answer(&question);
                        self.give(to, Input::Asked(question), arrives);
                        if arrives() {
                            self.give(own, Input::Answered(answer), arrives);
                        }
                    }
                }
                Output::Store(record) => {
                    let seat = &mut self.seats[own];
                    (seat.record, seat.storing) = (Some(record), true);
                }
                Output::Publish(signed) => {
                    let consensus = signed.verify(&self.town.network, None).expect("valid");
                    self.published.push(consensus.hash());
                }
                Output::Event(event) => assert_ne!(event, Event::Split),
            }
        }
    }

    /// Lets time go to `now`: wakes, and disks that finish.
    fn advance(&mut self, now: Time, arrives: &mut dyn FnMut() -> bool) {
        loop {
            let wakes = self.seats.iter().map(|seat| seat.machine.next_wake());
            let due = (0..)
                .zip(wakes)
                .filter_map(|(own, at)| Some((at?, own)))
                .min();
            let Some((at, own)) = due.filter(|(at, _)| *at <= now) else {
                break;
            };
            self.now = at.max(self.now);
            let outputs = call(&mut self.seats[own].machine, self.now, None);
            self.carry_out(own, outputs, arrives);
            for own in 0..4 {
                if self.seats[own].storing && arrives() {
                    self.seats[own].storing = false;
                    self.give(own, Input::Stored, arrives);
                }
            }
        }
        self.now = now;
    }

    /// A process that ends at once and starts again with what its disk holds.
    fn restart(&mut self, own: usize) {
        let key = self.town.authorities[own].clone();
        let record = self.seats[own].record.clone();
        let machine = Authority::new(config(&self.town), key, record).expect("its own record");
        self.seats[own].machine = machine;
        self.seats[own].storing = false;
        self.give(own, calendar(), &mut || true);
    }
}

#[test]
fn without_faults_all_have_the_document_within_a_turn_of_each() {
    let mut ceremony = Ceremony::new(town());
    for signed in ceremony.town.descriptors().collect::<Vec<_>>() {
        for own in 0..4 {
            ceremony.give(
                own,
                Input::Asked(Question::Submit(signed.clone())),
                &mut || true,
            );
        }
    }
    ceremony.advance(at(2 + 5), &mut || true);
    assert_eq!(ceremony.published.len(), 4);
    assert!(ceremony.published.windows(2).all(|two| two[0] == two[1]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    /// DIR-8: lost questions and answers, slow disks, restarts, nodes that reach some
    /// authorities only. Safety always; once faults stop, the document comes wherever one has
    /// or can still get a threshold.
    #[test]
    fn faults_never_make_two_documents(
        loss in 0u32..60,
        seed in any::<u64>(),
        restarts in prop::collection::vec((0usize..4, 1u64..20), 0..6),
        reaches in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), 5),
    ) {
        let mut town = town();
        town.nodes.push(TestNode::new(&town.terms, 20, Role::Gateway));
        let mut state = seed | 1;
        let mut arrives = || {
            state ^= state << 13; // xorshift
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state % 100).unwrap() >= loss
        };
        let mut ceremony = Ceremony::new(town);
        let nodes: Vec<_> = ceremony.town.descriptors().collect();
        for (signed, reaches) in nodes.iter().zip(reaches) {
            for own in (0..4).filter(|own| reaches[*own]) {
                ceremony.give(own, Input::Asked(Question::Submit(signed.clone())), &mut arrives);
            }
        }
        let mut restarts = restarts;
        restarts.sort_by_key(|(_, secs)| *secs);
        for (own, secs) in restarts {
            ceremony.advance(at(secs), &mut arrives);
            ceremony.restart(own);
        }
        ceremony.advance(at(20), &mut arrives);

        // Faults stop; every node submits itself again, everywhere.
        for seat in 0..4 {
            for signed in &nodes {
                ceremony.give(seat, Input::Asked(Question::Submit(signed.clone())), &mut || true);
            }
        }
        ceremony.advance(at(40), &mut || true);
        prop_assert!(ceremony.published.windows(2).all(|two| two[0] == two[1]));
        let records: Vec<_> = ceremony.seats.iter().map(|seat| &seat.record).collect();
        let most = records.iter().map(|one| records.iter().filter(|r| *r == one).count()).max();
        let finished = ceremony.seats.iter().filter(|seat| seat.machine.finished().is_some());
        prop_assert_eq!(finished.count() == 4, most >= Some(3));
    }
}
