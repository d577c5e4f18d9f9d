//! The laws of `Machine` for the authority, and four of them together: whatever is lost, slow or
//! restarted, at no time are two documents made (DIR-8), and once faults stop all have the one.

mod harness;

use std::sync::LazyLock;

use harness::{
    Call, call,
    ceremony::{Ceremony, at, authority, ballot, calendar, proposal, town, turn},
    deterministic, drain, harmless_wake,
    network::{TestNode, VALID_FROM_S},
    progress,
};
use proptest::prelude::*;
use proto::{
    Machine, Time,
    authority::{Input, VOTES_KEPT},
    directory::{Answer, Consensus, Question, Role},
};

/// Everything that a schedule draws from; most of it sound.
static INPUTS: LazyLock<Vec<Input>> = LazyLock::new(|| {
    let town = town();
    let mut all = vec![calendar(), Input::Stored, Input::Stored, Input::Stored];
    let extra = TestNode::new(&town.terms, 20, Role::Gateway).descriptor;
    let mut bodies = vec![town.consensus().body()];
    let more = town.descriptors().chain([extra.clone()]);
    bodies.push(
        Consensus::build(&town.terms, VALID_FROM_S + 1, more)
            .expect("sound nodes")
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
        // One call may pay what waited for the disk and, when a round has begun since, take a turn
        // in that as well: to each other a proposal or a vote, and an event for each of them.
        let (others, waited, turn) = (3, 1 + VOTES_KEPT, 2);
        let (asks_for_the_document, document) = (1, 2);
        let most = (others + 1) * (waited + turn) + asks_for_the_document + document;
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
            u32::try_from(state % 100).expect("small") >= loss
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
