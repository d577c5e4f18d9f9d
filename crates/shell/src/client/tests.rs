//! What a client is told of its links, and where they go.

use std::{collections::BTreeMap, path::Path};

use proto::{
    NetworkId,
    calendar::{Calendar, Utc},
    client::{Identity, Limits},
    directory::{Params, Role, SelfCheck, Terms},
};
use rand_core::SeedableRng as _;

use super::*;
use crate::{
    keys::{About, Keys},
    link::Outbox,
    state::StateDir,
};

const NETWORK: NetworkId = NetworkId([7; 32]);
const START_S: u64 = 1_000_000;

/// Three mixes and two gateways.
pub(crate) fn consensus() -> Consensus {
    consensus_in(tempfile::tempdir().unwrap().path())
}

/// Of nodes that keep their keys in folders there, called by their numbers.
pub(crate) fn consensus_in(folder: &Path) -> Consensus {
    let terms = Terms {
        network: NETWORK,
        period: 0,
        previous: [0; 32],
        layers: 3,
        params: Params::default(),
    };
    let nodes = (0..5u8).map(|i| {
        let path = folder.join(i.to_string());
        let keys = Keys::open(StateDir::open(&path).unwrap()).unwrap();
        let about = About {
            role: if i < 3 { Role::Mix } else { Role::Gateway },
            address: "127.0.0.1:9000".to_owned(),
            family: i.to_string(),
            check: SelfCheck::new(sphinx::Path::Portable, 1, 1),
        };
        let said = keys.descriptor(&NETWORK, &about, 0, &terms.params, START_S);
        said.unwrap()
    });
    let nodes: Vec<_> = nodes.collect();
    Consensus::build(&terms, START_S, nodes).unwrap()
}

/// A client whose entry link is up, as far as it knows, and what it is told of its links by.
fn observed() -> (Observed, Arc<Links>) {
    let consensus = Arc::new(consensus());
    let home = consensus.gateways().next().unwrap().id;
    let config = Config {
        network: NETWORK,
        entry: None,
        profile: "service".to_owned(),
        via: None,
        acks: true,
        limits: Limits::default(),
    };
    let identity = Identity::generate(&mut chacha20::ChaCha20Rng::from_seed([1; 32]), home);
    let links = Arc::new(Links::default());
    let client = Client::new(config, [2; 32], identity, []).unwrap();
    let mut machine = Observed::new(client, Arc::clone(&links));
    let calendar = Calendar {
        at: Time::ZERO,
        utc: Utc::from_secs(START_S + 60),
    };
    machine.handle(Time::ZERO, Input::Calendar(calendar));
    machine.handle(Time::ZERO, Input::Consensus(consensus));
    let gateway = machine.client.entry().unwrap();
    machine.handle(Time::ZERO, Input::EntryUp { gateway });
    (machine, links)
}

/// CLI-4: a client builds no packet that its entry link does not take: what counts as sent is what
/// the link was given.
#[test]
fn a_tick_that_finds_the_link_full_is_skipped() {
    let (mut machine, links) = observed();
    let mut said = BTreeMap::new();
    let mut ticks =
        |machine: &mut Observed, ticks: usize, mut writer: Option<&mut mpsc::Receiver<_>>| {
            for _ in 0..ticks {
                machine.wake(machine.next_wake().unwrap());
                while let Some(output) = machine.poll() {
                    if let Output::Event(event) = output {
                        *said.entry(event).or_insert(0) += 1;
                    } else if let Output::Entry(frame) = output {
                        links.entry.send(frame).unwrap();
                    }
                }
                if let Some(writer) = &mut writer {
                    while writer.try_recv().is_ok() {}
                }
            }
            let mut of = |event| said.remove(&event).unwrap_or(0);
            let sent = of(ClientEvent::DropSent) + of(ClientEvent::LoopSent);
            (sent, of(ClientEvent::TickSkipped))
        };
    assert_eq!(ticks(&mut machine, 9, None), (0, 9), "there is no link");
    let (outbox, mut writer) = Outbox::unwritten(2);
    links.entry.set(Some(outbox));
    assert_eq!(ticks(&mut machine, 9, Some(&mut writer)), (9, 0));
    assert_eq!(ticks(&mut machine, 9, None), (1, 8), "nobody writes");
    assert!(writer.try_recv().is_ok() && writer.try_recv().is_err());
    assert_eq!(
        ticks(&mut machine, 9, Some(&mut writer)),
        (9, 0),
        "no burst"
    );
}

/// CLI-13: nor does it build a confirmation that its mailbox link does not take: what rides on one is
/// said once.
#[test]
fn a_confirmation_that_finds_the_link_full_is_skipped() {
    let (mut machine, links) = observed();
    while machine.poll().is_some() {} // now the links are aimed
    let gateway = machine.client.mailbox_gateways()[0];
    let (outbox, mut writer) = Outbox::unwritten(2);
    links.to_mailbox(gateway).unwrap().set(Some(outbox));
    let exporter = [3; 32];
    machine.handle(Time::ZERO, Input::MailboxUp { gateway, exporter });
    let confirmed = |machine: &mut Observed, until_s: u64| {
        let (until, mut confirmed) = (Time::ZERO.after(Duration::from_secs(until_s)), 0);
        while let Some(at) = machine.next_wake().filter(|at| *at <= until) {
            machine.wake(at);
            while let Some(output) = machine.poll() {
                if let Output::Mailbox { frame, .. } = output {
                    links.home().send(frame).unwrap();
                    confirmed += 1;
                }
            }
        }
        confirmed
    };
    assert_eq!(confirmed(&mut machine, 9), 1, "nobody writes");
    assert!(writer.try_recv().is_ok() && writer.try_recv().is_err());
    assert_eq!(confirmed(&mut machine, 10), 1);
    assert_eq!(confirmed(&mut machine, 19), 0);
}

/// CLI-42: a move takes another link for the new gateway; the one to the former gateway stays up,
/// and is free again when its time is over.
#[test]
fn links_stay_where_they_are_through_a_move() {
    let id = |byte| NodeId([byte; 32]);
    let mut places = Places::default();
    places.aim(Some(id(9)), &[id(1)]);
    let [first, second, ..] = places.mailboxes;
    assert_eq!((first, second, places.home), (Some(id(1)), None, 0));
    places.aim(Some(id(9)), &[id(2), id(1)]);
    let [first, second, ..] = places.mailboxes;
    assert_eq!((first, second, places.home), (Some(id(1)), Some(id(2)), 1));
    places.aim(Some(id(9)), &[id(2)]);
    assert_eq!((places.mailboxes[0], places.home), (None, 1));
    places.aim(Some(id(9)), &[id(3), id(2)]);
    assert_eq!((places.mailboxes[0], places.home), (Some(id(3)), 0));
}

/// Logs show an error's own words, programs its causes as well.
#[test]
fn an_error_says_its_cause_once() {
    let cause = || io::Error::other("no timers left");
    let listen = crate::node::NodeError::Listen {
        address: ([127, 0, 0, 1], 9000).into(),
        why: cause(),
    };
    let errors: [Box<dyn core::error::Error>; 4] = [
        Box::new(ClientError::Timer(cause())),
        Box::new(crate::journal::JournalError::Io(cause())),
        Box::new(crate::link::LinkError::Io(cause())),
        Box::new(listen),
    ];
    for error in errors {
        let causes = core::iter::successors(Some(&*error), |error| error.source());
        let said: Vec<String> = causes.map(ToString::to_string).collect();
        let said = said.join(": ");
        assert_eq!(said.matches("no timers left").count(), 1, "{said}");
    }
}
