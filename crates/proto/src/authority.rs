//! A directory authority: gathers descriptors and signatures into the document of one period.
//!
//! Spec: docs/spec/directory.md, rules DIR-7, DIR-8, DIR-12.
//!
//! ```text
//! Submit ─ judge ─┐ enough nodes, settled, own turn      threshold of one round
//!                 └─ propose ─ Store ─ Stored ─ vote ─ votes ─ Publish
//! Propose (another's turn) ─ check ─ Store ─ Stored ─ vote ───┘
//! ```
//!
//! | quantity        | type         | unit, range                                            |
//! |-----------------|--------------|--------------------------------------------------------|
//! | round           | `u32`        | ⌊UTC / `round`⌋; its proposer is authority round mod n, |
//! |                 |              | which proposes in its first quarter or not at all       |
//! | nodes held      | map          | descriptors, <= `nodes_max`                            |
//! | votes held      | per authority| ballots, <= [`VOTES_KEPT`] each                        |
//! | votes owed      | set          | rounds, <= [`VOTES_KEPT`], while the record is written |
//! | record          | [`Record`]   | the one document that this authority votes for         |
//!
//! This is a ceremony, simple because it may fail to end: an authority votes for **one** document
//! per period, whatever the round, and which one is on disk before its first vote is sent (DIR-8).
//! So two documents of one period can't both have certificates while fewer than a third of the
//! authorities cheat; but if the authorities divide over two documents, none ever has one. Then
//! operators start over with the next period number. Agreement that always ends replaces this
//! machine, not the document.
//!
//! Not done here: who may connect, and the disk. Everything that arrives is judged by the
//! signature in it, so a driver may bring what anyone sent.

mod event;
mod gather;
mod start;
mod votes;

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use ed25519_dalek::SigningKey;

use gather::{Gathered, enough};
use votes::Votes;

use crate::{
    Machine, Time,
    calendar::{Calendar, Utc},
    directory::{
        Answer, Ballot, Consensus, Descriptor, Proposal, Question, Refusal, SignedConsensus,
        SignedDescriptor,
    },
};

pub use event::{AuthorityDrop, Event};
pub use start::{Config, Record, StartError};
pub use votes::VOTES_KEPT;

/// What a driver brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What UTC is; nothing starts before the first.
    Calendar(Calendar),
    /// Someone asked. [`Authority::answer`] says what to answer, from the state before this.
    Asked(Question),
    /// An authority answered an [`Output::Ask`].
    Answered(Answer),
    /// The record is durable.
    Stored,
}

/// An effect of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask this authority; if it answers, bring [`Input::Answered`]. If not, let it be.
    Ask {
        /// Its index.
        authority: u8,
        /// What to ask.
        question: Question,
    },
    /// Make it durable, in place of any record of the period, then bring [`Input::Stored`].
    Store(Record),
    /// The document is made: keep it and serve it.
    Publish(SignedConsensus),
    /// Something to count.
    Event(Event),
}

/// The one document that this authority votes for.
struct Choice {
    hash: [u8; 32],
    body: Vec<u8>,
    durable: bool,
}

/// The state machine. Drive it as [`Machine`] describes.
pub struct Authority {
    config: Config,
    key: SigningKey,
    own: u8,
    now: Time,
    calendar: Option<Calendar>,
    nodes: Gathered,
    /// The round that has been acted upon.
    entered: Option<u32>,
    proposed: Option<u32>,
    choice: Option<Choice>,
    /// Rounds to propose and to vote in, once the record is durable.
    owed_proposal: Option<u32>,
    owed_votes: BTreeSet<u32>,
    votes: Votes,
    finished: Option<SignedConsensus>,
    out: VecDeque<Output>,
}

impl Authority {
    /// An authority that holds no descriptors. `record` is what its disk remembers of the period;
    /// a finished document that it keeps comes as [`Input::Answered`].
    ///
    /// # Errors
    ///
    /// The first of [`StartError`]'s reasons that holds.
    pub fn new(
        config: Config,
        key: SigningKey,
        record: Option<Record>,
    ) -> Result<Self, StartError> {
        config.check()?;
        let own = config.network.authority(&key.verifying_key().to_bytes());
        let own = own.ok_or(StartError::Key)?;
        let choice = record.map(|record| {
            let said = Consensus::parse_body(&record.body).ok();
            let sound = said.is_some_and(|consensus| consensus.is_of(&config.terms));
            let choice = sound.then(|| Choice {
                hash: Consensus::hash_of(&record.body),
                body: record.body,
                durable: true,
            });
            choice
                .filter(|_| record.period == config.terms.period)
                .ok_or(StartError::Record)
        });
        Ok(Self {
            nodes: Gathered::new(config.nodes_max),
            config,
            key,
            own,
            now: Time::ZERO,
            calendar: None,
            entered: None,
            proposed: None,
            choice: choice.transpose()?,
            owed_proposal: None,
            owed_votes: BTreeSet::new(),
            votes: Votes::default(),
            finished: None,
            out: VecDeque::new(),
        })
    }

    /// What to answer to `question` (DIR-11).
    #[must_use]
    pub fn answer(&self, question: &Question) -> Answer {
        let terms = &self.config.terms;
        match question {
            Question::Consensus { period } => match &self.finished {
                Some(signed) if period.is_none_or(|period| period == terms.period) => {
                    Answer::Consensus(signed.clone())
                }
                _ => Answer::NotYet,
            },
            Question::Gathering if self.finished.is_some() => Answer::NotYet,
            Question::Gathering => Answer::Gathering {
                period: terms.period,
                params: terms.params.clone(),
            },
            Question::Submit(signed) => match self.judge(signed) {
                Ok(_) => Answer::Accepted,
                Err(why) => Answer::Refused(why),
            },
            Question::Descriptors => Answer::Descriptors(self.nodes.signed().cloned().collect()),
            Question::Propose(_) | Question::Vote(_) => Answer::Accepted,
        }
    }

    /// The document, once it is made.
    #[must_use]
    pub fn finished(&self) -> Option<&SignedConsensus> {
        self.finished.as_ref()
    }

    /// How many nodes have submitted themselves.
    #[must_use]
    pub fn held(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a descriptor can stand in this period's document (DIR-12).
    fn judge(&self, signed: &SignedDescriptor) -> Result<Descriptor, Refusal> {
        if self.finished.is_some() {
            return Err(Refusal::Closed);
        }
        self.nodes.judge(&self.config.terms, self.utc(), signed)
    }

    fn utc(&self) -> Option<Utc> {
        self.calendar.map(|calendar| calendar.utc(self.now))
    }

    fn round_ns(&self) -> u64 {
        u64::try_from(self.config.round.as_nanos()).unwrap_or(u64::MAX)
    }

    fn round(&self) -> Option<u32> {
        let number = self.utc()?.0 / self.round_ns();
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Whose turn it is.
    fn proposer(&self, round: u32) -> u8 {
        let count = u32::try_from(self.config.network.authorities.len()).unwrap_or(u32::MAX);
        u8::try_from(round % count).expect("at most 100 authorities")
    }

    fn others(&self) -> impl Iterator<Item = u8> + use<> {
        let (own, count) = (self.own, self.config.network.authorities.len());
        (0u8..)
            .take(count)
            .filter(move |authority| *authority != own)
    }

    fn enough<'a>(&self, nodes: impl IntoIterator<Item = &'a Descriptor>) -> bool {
        enough(nodes, self.config.mixes_min, self.config.gateways_min)
    }

    /// When no new node will have come for long enough, if there are enough.
    fn settled(&self) -> Option<Time> {
        let enough = self.enough(self.nodes.said());
        enough.then(|| self.nodes.grown().after(self.config.settle))
    }

    fn submit(&mut self, signed: SignedDescriptor) {
        let event = match self.judge(&signed) {
            Ok(said) => {
                let id = said.id;
                self.nodes.take(self.now, said, signed);
                Event::Submitted(id)
            }
            Err(why) => Event::Refused(why),
        };
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Whether enough of the round is left for all to hear a proposal before the next turn, whose
    /// proposer would else make a document of its own.
    fn has_time(&self) -> bool {
        let round = self.round_ns();
        self.utc().is_some_and(|utc| utc.0 % round < round / 4)
    }

    /// What falls due with time alone: a new round, and this authority's turn in it.
    fn act(&mut self) {
        let Some(round) = self.round().filter(|_| self.finished.is_none()) else {
            return;
        };
        if self.entered != Some(round) {
            self.entered = Some(round);
            let others = self.config.network.authorities.len() - 1;
            let turn = usize::try_from(round).unwrap_or(0) % others;
            let period = Some(self.config.terms.period);
            if let Some(authority) = self.others().nth(turn) {
                let question = Question::Consensus { period };
                self.out.push_back(Output::Ask {
                    authority,
                    question,
                });
            }
        }
        let due = self.choice.is_some() || self.settled().is_some_and(|at| at <= self.now);
        if due
            && self.has_time()
            && self.proposer(round) == self.own
            && self.proposed != Some(round)
        {
            self.proposed = Some(round);
            self.propose(round);
        }
    }

    fn propose(&mut self, round: u32) {
        if self.choice.is_none() {
            let Some(now) = self.utc() else { return };
            let terms = &self.config.terms;
            let usable = self.nodes.usable(terms, now.as_secs());
            match Consensus::build(terms, now.as_secs(), usable) {
                Ok(consensus) if self.enough(&consensus.nodes) => self.choose(consensus.body()),
                Ok(_) => return, // certificates have run out since they were taken
                Err(why) => return self.event(Event::NoDocument(why)),
            }
        }
        self.owed_proposal = Some(round);
        self.vote(round);
    }

    /// Settles for one document, for the whole period (DIR-8).
    fn choose(&mut self, body: Vec<u8>) {
        let period = self.config.terms.period;
        self.choice = Some(Choice {
            hash: Consensus::hash_of(&body),
            body: body.clone(),
            durable: false,
        });
        self.out.push_back(Output::Store(Record { period, body }));
    }

    fn vote(&mut self, round: u32) {
        self.owed_votes.insert(round);
        if self.owed_votes.len() > VOTES_KEPT {
            self.owed_votes.pop_first();
        }
        self.send_owed();
    }

    /// Sends what waited for the record to be durable (DIR-8).
    fn send_owed(&mut self) {
        let Some(choice) = self.choice.as_ref().filter(|choice| choice.durable) else {
            return;
        };
        let (id, period) = (self.config.network.id, self.config.terms.period);
        let (hash, own) = (choice.hash, self.own);
        if let Some(round) = self.owed_proposal.take() {
            let body = choice.body.clone();
            let proposal = Proposal::sign(&id, &self.key, own, period, round, body);
            self.tell(&Question::Propose(proposal));
            self.event(Event::Proposed { round });
        }
        for round in core::mem::take(&mut self.owed_votes) {
            let ballot = Ballot::sign(&id, &self.key, own, period, round, hash);
            self.tell(&Question::Vote(ballot));
            self.event(Event::Voted { round });
            self.keep(ballot);
        }
        self.count();
    }

    fn tell(&mut self, question: &Question) {
        for authority in self.others() {
            let question = question.clone();
            self.out.push_back(Output::Ask {
                authority,
                question,
            });
        }
    }

    fn take_proposal(&mut self, proposal: Proposal) -> Result<(), AuthorityDrop> {
        let config = &self.config;
        if proposal.period != config.terms.period {
            return Err(AuthorityDrop::Period);
        }
        if self.proposer(proposal.round) != proposal.authority || proposal.authority == self.own {
            return Err(AuthorityDrop::Turn);
        }
        let key = &config.network.authorities[usize::from(proposal.authority)];
        if !proposal.holds(&config.network.id, key) {
            return Err(AuthorityDrop::Signature);
        }
        match &self.choice {
            Some(choice) if choice.hash != Consensus::hash_of(&proposal.body) => {
                return Err(AuthorityDrop::Conflict); // DIR-8
            }
            Some(_) => {}
            None => {
                self.check(&proposal.body)?;
                self.choose(proposal.body);
            }
        }
        self.vote(proposal.round);
        Ok(())
    }

    /// Whether this authority would vote for a document it has not seen before (DIR-12).
    fn check(&self, body: &[u8]) -> Result<(), AuthorityDrop> {
        let consensus = Consensus::parse_body(body).map_err(|_| AuthorityDrop::Document)?;
        if !consensus.is_of(&self.config.terms) {
            return Err(AuthorityDrop::Terms);
        }
        if !self.enough(&consensus.nodes) {
            return Err(AuthorityDrop::Nodes);
        }
        let schedule = consensus.schedule();
        let off = |now: Utc| now.0.abs_diff(schedule.valid_from.0);
        let near = self
            .utc()
            .is_some_and(|now| Duration::from_nanos(off(now)) <= schedule.grace());
        near.then_some(()).ok_or(AuthorityDrop::Clock)
    }

    fn take_vote(&mut self, ballot: Ballot) -> Result<(), AuthorityDrop> {
        let network = &self.config.network;
        if ballot.period != self.config.terms.period {
            return Err(AuthorityDrop::Period);
        }
        let authority = ballot.vote.authority;
        let key = network.authorities.get(usize::from(authority));
        let key = key.filter(|_| authority != self.own);
        let key = key.ok_or(AuthorityDrop::Authority)?;
        if !ballot.holds(&network.id, key) {
            return Err(AuthorityDrop::Signature);
        }
        self.keep(ballot);
        self.count();
        Ok(())
    }

    fn keep(&mut self, second: Ballot) {
        if let Some(first) = self.votes.keep(second) {
            self.event(Event::Equivocated { first, second });
        }
    }

    /// Makes the certificate, if one round has a threshold of votes (DIR-7).
    fn count(&mut self) {
        let Some(choice) = self.choice.as_ref().filter(|_| self.finished.is_none()) else {
            return;
        };
        let threshold = self.config.network.threshold();
        if let Some(votes) = self.votes.certificate(&choice.hash, threshold) {
            let body = choice.body.clone();
            self.finish(SignedConsensus { body, votes });
        }
    }

    fn finish(&mut self, signed: SignedConsensus) {
        let hash = Consensus::hash_of(&signed.body);
        self.finished = Some(signed.clone());
        self.out.push_back(Output::Publish(signed));
        self.event(Event::Finished { hash });
    }

    /// Takes a document that others finished.
    fn take_finished(&mut self, signed: SignedConsensus) -> Result<(), AuthorityDrop> {
        if self
            .finished
            .as_ref()
            .is_some_and(|held| held.body == signed.body)
        {
            return Ok(());
        }
        let consensus = signed.verify(&self.config.network, None);
        let consensus = consensus.map_err(|_| AuthorityDrop::Document)?;
        if consensus.period != self.config.terms.period {
            return Err(AuthorityDrop::Period);
        }
        if self.finished.is_some() {
            self.event(Event::Split); // DIR-9
        } else {
            self.finish(signed);
        }
        Ok(())
    }

    fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "driver broke law 1: time went backwards");
        self.now = now;
    }
}

impl Machine for Authority {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.advance(now);
        let open = self.finished.is_none();
        let taken = match input {
            Input::Calendar(calendar) => {
                self.calendar = Some(calendar);
                Ok(())
            }
            Input::Stored => {
                if let Some(choice) = &mut self.choice {
                    choice.durable = true;
                }
                self.send_owed();
                Ok(())
            }
            Input::Asked(Question::Submit(signed)) => {
                self.submit(signed);
                Ok(())
            }
            Input::Asked(Question::Propose(proposal)) if open => self.take_proposal(proposal),
            Input::Asked(Question::Vote(ballot)) if open => self.take_vote(ballot),
            Input::Answered(Answer::Consensus(signed)) => self.take_finished(signed),
            Input::Asked(_) | Input::Answered(_) => Ok(()),
        };
        if let Err(why) = taken {
            self.event(Event::Dropped(why));
        }
        self.act();
    }

    fn wake(&mut self, now: Time) {
        self.advance(now);
        self.act();
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_wake(&self) -> Option<Time> {
        let calendar = self.calendar.filter(|_| self.finished.is_none())?;
        let round = self.utc()?.0 / self.round_ns();
        let next = Utc((round + 1).saturating_mul(self.round_ns()));
        let settled = self.settled().filter(|_| self.choice.is_none());
        let wakes = [Some(calendar.time(next)), settled];
        wakes
            .into_iter()
            .flatten()
            .filter(|at| *at > self.now)
            .min()
    }
}

impl core::fmt::Debug for Authority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Authority({}, {} nodes)", self.own, self.nodes.len())
    }
}
