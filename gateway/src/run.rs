//! The machine of a gateway, and everything around it.
//!
//! ```text
//! clients ─ frames ─┐                     ┌─▶ first layer (links of shell::node)
//! peeler ─ peeled ──┼─▶ inbox ─▶ Gateway ─┼─▶ clients' links
//! store ─ answers ──┘                     └─▶ store
//! ```
//!
//! | metric                                   | what                                          |
//! |------------------------------------------|-----------------------------------------------|
//! | `lacuna_packets_received_total`          | read from node links ([`shell::node`])        |
//! | `lacuna_packets_peeled_total`            | opened and journaled ([`shell::node`])        |
//! | `lacuna_packets_queued`                  | waiting for their link ([`shell::dial`])      |
//! | `lacuna_packets_sent_total`              | written to the links of the first layer       |
//! | `lacuna_packets_dropped_total`           | by reason, wherever it was                    |
//! | `lacuna_client_frames_in_total`, `_out_` | by link kind; by frame kind                   |
//! | `lacuna_client_links`, `lacuna_mailboxes`| now                                           |
//! | `lacuna_mailbox_packets_*`               | stored, confirmed, expired; held now          |
//! | `lacuna_gateway_events_total`            | what else the machine tells, by reason        |
//!
//! A store that fails ends the process with code 1: what it holds is known only after a restart. Until then the machine is closed (GW-18).

use core::time::Duration;
use std::sync::Arc;

use anyhow::{Context, bail};
use proto::{
    directory::Role,
    gateway::{Gateway, GatewayDrop, GatewayEvent, Input, Limits, Output},
};
use serde_json::json;
use shell::{
    accept,
    budget::{self, QUEUED_LEN},
    clock::Clock,
    dial::Outgoing,
    drive::drive,
    entropy,
    follow::Directory,
    loops,
    metrics::{self, Metrics, Reasons},
    node, notices,
    role::{Reporter, announce},
    selfcheck,
    state::StateDir,
    store::{
        self, StoreError, Tags,
        postgres::{self, SharedTags},
        redb,
    },
    watching::Standing,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Node,
    clients::{self, Clients},
    mailboxes::Mailboxes,
};

const CALENDAR_EVERY: Duration = Duration::from_secs(30);

impl Node {
    /// Serves clients and mixes until `asked` to stop, and says then that it leaves.
    ///
    /// # Errors
    ///
    /// What failed.
    pub async fn run(self, asked: CancellationToken) -> anyhow::Result<()> {
        let (clock, metrics) = (Clock::start(), Metrics::default());
        let stop = CancellationToken::new();
        let config = self.config;
        let (machine, inbox) = mpsc::channel(node::INBOX);
        let (store, tags) = open_store(&config, self.keys.state())?;
        if config.front_ends {
            self.keys.follow_a_chain()?; // GW-27
        }
        let tags_failed = tags.as_ref().map(SharedTags::failed).unwrap_or_default();
        let started = Mailboxes::start(store, machine.clone(), &metrics).await;
        let (mailboxes, calls, registered) = started?;
        machine.send(registered).await.context("the inbox is new")?;
        let limits = Limits {
            mailboxes_max: config.mailboxes_max,
            links_max: config.links_max,
            read_ahead: config.read_ahead,
            quota: config.mailbox_packets_max,
        };
        let gateway = Gateway::new(limits, self.network.id, entropy::seed());

        let telling = machine.clone();
        let held_for_clients = held_for_clients(&config);
        let setup = node::Setup {
            keys: Arc::new(self.keys),
            network: Arc::new(self.network),
            role: Role::Gateway,
            family: config.family,
            listen: config.listen,
            advertise: config.advertise,
            path: selfcheck::path(&config.crypto_path)?,
            threads: selfcheck::threads(config.threads),
            replay_max: budget::replay_max(config.replay_max, &config.state_dir),
            tags: tags.map(|tags| Arc::new(tags) as Arc<dyn Tags>),
            pool_max: 0,
            clients: held_for_clients,
            link_queue_max: config.link_queue_max,
            tell: Arc::new(move |notice| {
                // A full inbox drops it: clients hear of most through their own loops.
                let _busy = telling.try_send(Input::Notice(notice.clone()));
            }),
            limits: accept::Limits {
                links: config.links_max,
                ..accept::Limits::default()
            },
            clock,
            metrics: metrics.clone(),
        };
        let clients = Clients::new(machine.clone(), &metrics);
        let (serving, inputs) = (clients.clone(), machine.clone());
        let handle = move |incoming| serving.clone().serve(incoming);
        let started = node::Node::start(setup, inputs, Input::Peeled, handle, stop.clone());
        let mut node = started.await?;
        node.start_loops(|| ()); // a gateway holds nothing back

        let status = status(&node, &metrics);
        let shown = metrics::serve(config.metrics_listen, metrics.clone(), status, stop.clone());
        let shown = shown
            .await
            .with_context(|| format!("listening on {}", config.metrics_listen));
        if let Ok(address) = &shown {
            announce(&json!({"listening": node.listening, "metrics": address}));
        }

        let steering = steer(
            node.directory.clone(),
            node.standing.clone(),
            clock,
            machine,
            stop.clone(),
        );
        let broken = CancellationToken::new();
        let effect = effect(Hands {
            outgoing: node.outgoing.clone(),
            clients,
            mailboxes,
            metrics,
            broken: broken.clone(),
        });
        let driving = drive(gateway, clock, inbox, effect, stop.clone());
        let answering = async {
            if calls.run().await.is_err() {
                broken.cancel();
            }
            stop.cancelled().await;
        };
        let withdraw = node.withdraw();
        let leaving = async {
            asked.cancelled().await;
            if !config.front_ends {
                withdraw.await; // GW-31: others go on
            }
            stop.cancel();
        };
        let ended = match shown {
            Ok(_) => tokio::select! {
                ended = driving => ended.map(drop).context("the machine's timer"),
                () = broken.cancelled() => store_failed(),
                () = tags_failed.cancelled() => store_failed(),
                () = node.packets_ended.cancelled() => Err(node::NodeError::PacketsEnded.into()),
                () = async { tokio::join!(steering, answering, leaving); } => Ok(()),
            },
            Err(error) => Err(error),
        };
        node.stop().await;
        ended
    }
}

/// Opens the engine that the settings name, and what front ends share besides.
fn open_store(
    config: &Config,
    state: &StateDir,
) -> anyhow::Result<(store::Mailboxes, Option<SharedTags>)> {
    let (day_keys, quota) = (state.path("mailbox-keys"), config.mailbox_packets_max);
    let Some(mut server) = config.server()? else {
        let file = state.path("mailboxes.redb");
        let store = redb::open(&file, &day_keys, quota);
        return Ok((store.with_context(|| file.display().to_string())?, None));
    };
    if let Some(password) = state.read("postgres-password")? {
        server = server.with_password(&password);
    }
    let opened = || {
        let store = postgres::open(&server, &day_keys, quota, config.front_ends)?;
        let tags = config.front_ends.then(|| SharedTags::open(&server));
        Ok::<_, StoreError>((store, tags.transpose()?))
    };
    opened().context("the setting `postgres`")
}

fn store_failed() -> anyhow::Result<()> {
    bail!("the mailbox store failed; the log says why, and a restart shows what it holds")
}

/// Bytes at most: frames that wait for clients, and packets read ahead for them.
fn held_for_clients(config: &Config) -> usize {
    let frames = config.links_max * clients::QUEUE_MAX;
    let packets = config.mailboxes_max.saturating_mul(config.read_ahead);
    packets.saturating_add(frames).saturating_mul(QUEUED_LEN)
}

/// Tells the machine the consensus and the time, and the supervisor how things stand.
async fn steer(
    mut directory: Directory,
    mut standing: watch::Receiver<Standing>,
    clock: Clock,
    machine: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut reporter = Reporter::default();
    let mut tick = tokio::time::interval(CALENDAR_EVERY);
    let mut followed = true;
    let steer = async {
        loop {
            let state = directory.state.borrow_and_update().clone();
            // At an edge also the one before, which a gateway that was just started has not heard (GW-2).
            let using = directory.in_use.borrow().clone();
            let period = state.consensus().map(|current| current.period);
            for consensus in using
                .into_iter()
                .filter(|known| Some(known.period) <= period)
            {
                let _stopping = machine.send(Input::Consensus(consensus)).await;
            }
            reporter.say(standing.borrow_and_update().name());
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        let calendar = Input::Calendar(clock.calendar());
                        let _stopping = machine.send(calendar).await;
                    }
                    changed = directory.state.changed(), if followed => {
                        followed = changed.is_ok();
                        break;
                    }
                    Ok(()) = standing.changed() => reporter.say(standing.borrow_and_update().name()),
                }
            }
        }
    };
    stop.run_until_cancelled(steer).await;
}

/// What the machine's outputs are carried out with; nothing here waits.
struct Hands {
    outgoing: Outgoing,
    clients: Clients,
    mailboxes: Mailboxes,
    metrics: Metrics,
    /// Cancelled when the store has failed.
    broken: CancellationToken,
}

fn effect(hands: Hands) -> impl FnMut(Output) {
    let mut sending = hands.outgoing.sender();
    let mut dropped = Reasons::of(&hands.metrics, "lacuna_packets_dropped_total");
    let mut events = Reasons::of(&hands.metrics, "lacuna_gateway_events_total");
    move |output| {
        let mut event = |reason| events.add(reason, 1);
        match hands.mailboxes.carry_out(output) {
            None => {}
            Some(Output::Relay { to, packet }) => {
                let _counted = sending.send(&to, packet);
            }
            Some(Output::Frame { link, frame }) => hands.clients.send(link, frame),
            Some(Output::Close { link }) => hands.clients.close(link),
            Some(Output::Dropped(why)) => dropped.add(reason(why), 1),
            Some(Output::Event(what)) => match what {
                GatewayEvent::LinkRefused => event("link_refused"),
                GatewayEvent::Opened => event("mailbox_opened"),
                GatewayEvent::Displaced => event("mailbox_displaced"),
                GatewayEvent::TicksSkipped(ticks) => events.add("tick_skipped", ticks),
                GatewayEvent::MailboxesUnserved(mailboxes) => {
                    tracing::warn!(mailboxes, "more mailboxes in the store than mailboxes_max");
                    event("mailboxes_unserved");
                }
                GatewayEvent::StoreFailed => hands.broken.cancel(),
            },
            Some(
                Output::Register { .. }
                | Output::Store { .. }
                | Output::Peek { .. }
                | Output::Confirm { .. }
                | Output::Expire { .. }
                | Output::Open { .. },
            ) => unreachable!("the mailboxes took it"),
        }
    }
}

fn reason(why: GatewayDrop) -> &'static str {
    match why {
        GatewayDrop::Closed => "closed",
        GatewayDrop::NoLink => "no_link",
        GatewayDrop::Kind => "frame_kind",
        GatewayDrop::Rate => "rate",
        GatewayDrop::WrongFirst => "wrong_first",
        GatewayDrop::DelayNotZero => "delay_not_zero",
        GatewayDrop::NoMailbox => "no_mailbox",
        GatewayDrop::Quota => "quota",
        GatewayDrop::StoreRefused => "store_refused",
        GatewayDrop::Malformed => "malformed",
        GatewayDrop::BadOpen => "bad_open",
        GatewayDrop::SlotTaken => "slot_taken",
        GatewayDrop::MailboxesFull => "mailboxes_full",
        GatewayDrop::Cursor => "cursor",
    }
}

/// What `/status` says.
fn status(
    node: &node::Node,
    metrics: &Metrics,
) -> impl Fn() -> serde_json::Value + Clone + Send + Sync + 'static {
    let (id, crypto) = (node.id, node.crypto);
    let (in_force, standing) = (node.in_force.clone(), node.standing.clone());
    let outgoing = node.outgoing.clone();
    let (up, metrics) = (outgoing.up(), metrics.clone());
    move || {
        let state = in_force.borrow().clone();
        json!({
            "role": "gateway",
            "id": id.to_string(),
            "state": standing.borrow().name(),
            "period": state.consensus().map(|consensus| consensus.period),
            "links_up": *up.borrow(),
            "links_wanted": outgoing.wanted(),
            "clients": metrics.sum("lacuna_client_links"),
            "mailboxes": metrics.sum("lacuna_mailboxes"),
            "crypto": crypto.status(),
            "loops": loops::status(&metrics),
            "notices": notices::status(&metrics),
        })
    }
}
