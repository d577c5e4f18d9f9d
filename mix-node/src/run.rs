//! The packet path of a mix: peeled packets into the machine, released ones to the next layer.
//!
//! ```text
//! link ─ peeler ─▶ inbox ─▶ Mix ─▶ link queue of the next hop
//!                    │       └ dropped: counted        └ full: dropped, counted
//!                    └ full: packets are dropped and counted before it, links are not made to wait
//!
//! All but the opening of other threads' packets on one thread, [`shell::peeler`]'s first.
//! ```
//!
//! | metric                               | what                                              |
//! |--------------------------------------|---------------------------------------------------|
//! | `lacuna_packets_received_total`      | read from links ([`shell::node`])                 |
//! | `lacuna_packets_peeled_total`        | opened and journaled ([`shell::node`])            |
//! | `lacuna_packets_held`                | in the machine or on the way into it              |
//! | `lacuna_packets_queued`              | waiting for their link ([`shell::dial`])          |
//! | `lacuna_packets_sent_total`          | written to the link of a next hop                 |
//! | `lacuna_packets_dropped_total`       | by reason, wherever it was                        |
//! | `lacuna_mix_holds_total`             | times that output was held back (MIX-6)           |
//! | `lacuna_crypto_rate`                 | packets/s that a processor opens, by path         |
//!
//! Received are what was sent, what was dropped, what is held, what is queued, and for some milliseconds
//! what waits to be opened.

use std::sync::Arc;

use anyhow::Context;
use proto::{
    directory::Role,
    mix::{Input, Mix, MixDrop, Output},
};
use serde_json::json;
use shell::{
    accept::Limits,
    budget,
    clock::Clock,
    dial::Outgoing,
    drive::drive,
    entropy,
    follow::{Directory, State},
    loops,
    metrics::{self, Cell, Metrics},
    neighbours::{Neighbours, next_of},
    node, notices,
    role::{Reporter, announce},
    selfcheck,
    watching::Standing,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::Node;

impl Node {
    /// Mixes until `stop`.
    ///
    /// # Errors
    ///
    /// What failed.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (clock, metrics) = (Clock::start(), Metrics::default());
        let config = self.config;
        let setup = node::Setup {
            keys: Arc::new(self.keys),
            network: Arc::new(self.network),
            role: Role::Mix,
            family: config.family,
            listen: config.listen,
            advertise: config.advertise,
            path: selfcheck::path(&config.crypto_path)?,
            threads: selfcheck::threads(config.threads),
            replay_max: budget::replay_max(config.replay_max, &config.state_dir),
            tags: None,
            pool_max: config.pool_max,
            clients: 0,
            link_queue_max: config.link_queue_max,
            tell: Arc::new(|_| ()), // a mix has no clients
            limits: Limits::default(),
            clock,
            metrics: metrics.clone(),
        };
        let (machine, inbox) = mpsc::channel(node::INBOX);
        let held = metrics.cell("lacuna_packets_held", "");
        let entering = held.clone();
        let peeled = move |packet| {
            entering.add(1);
            Input::Peeled(packet)
        };
        let no_clients = |_| core::future::ready(());
        let inputs = machine.clone();
        let mut node = node::Node::start(setup, inputs, peeled, no_clients, stop.clone()).await?;
        let (holding, state) = (machine.clone(), node.directory.state.clone());
        node.start_loops(move || {
            let Some(delay_mean) = state
                .borrow()
                .consensus()
                .map(|consensus| consensus.params.delay_mean())
            else {
                return;
            };
            let seed = entropy::seed();
            // A full inbox drops it: the next alarm says it again.
            let _busy = holding.try_send(Input::Hold { delay_mean, seed });
        });

        let (directory, outgoing) = (node.directory.clone(), node.outgoing.clone());
        let status = status(&node, &outgoing, &metrics);
        let serving = metrics::serve(config.metrics_listen, metrics.clone(), status, stop.clone());
        let serving = serving
            .await
            .with_context(|| format!("listening on {}", config.metrics_listen));
        if let Ok(address) = &serving {
            announce(&json!({"listening": node.listening, "metrics": address}));
        }

        let steering = steer(
            directory,
            node.standing.clone(),
            node.id,
            machine,
            stop.clone(),
        );
        let effect = effect(&outgoing, &metrics, held);
        // Where the packets are: another thread would have to be woken for each.
        let driving = node.runtime().spawn(drive(
            Mix::new(config.pool_max),
            clock,
            inbox,
            effect,
            stop.clone(),
        ));
        let ended = match serving {
            Ok(_) => tokio::select! {
                ended = driving => match ended {
                    Ok(ended) => ended.map(drop).context("the machine's timer"),
                    Err(panicked) => Err(panicked).context("the machine's task"),
                },
                () = steering => Ok(()),
                () = node.packets_ended.cancelled() => Err(node::NodeError::PacketsEnded.into()),
            },
            Err(error) => Err(error),
        };
        node.stop().await;
        ended
    }
}

/// Carries out the machine's outputs; nothing here waits.
fn effect(outgoing: &Outgoing, metrics: &Metrics, held: Cell) -> impl FnMut(Output) + use<> {
    let mut sending = outgoing.sender();
    let holds = metrics.cell("lacuna_mix_holds_total", "");
    let dropped = |reason| metrics.cell("lacuna_packets_dropped_total", reason);
    let (pool_full, wrong_next) = (dropped("pool_full"), dropped("wrong_next"));
    move |output| match output {
        Output::Holding { .. } => holds.add(1),
        Output::Send { to, packet } => {
            let _counted = sending.send(&to, packet);
            held.sub(1);
        }
        Output::Dropped(why) => {
            let dropped = match why {
                MixDrop::PoolFull => &pool_full,
                MixDrop::WrongNext => &wrong_next,
            };
            dropped.add(1);
            held.sub(1);
        }
    }
}

/// Tells the machine who comes next (MIX-4), and the supervisor how things stand.
async fn steer(
    mut directory: Directory,
    mut standing: watch::Receiver<Standing>,
    id: proto::NodeId,
    machine: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut reporter = Reporter::default();
    let steer = async {
        loop {
            let next = next_of(&directory.in_use.borrow_and_update(), &id);
            let _stopping = machine.send(Input::Next(next)).await;
            reporter.say(standing.borrow_and_update().name());
            tokio::select! {
                changed = directory.in_use.changed() => if changed.is_err() {
                    return; // nobody follows the consensus any more: what was said last holds
                },
                Ok(()) = standing.changed() => {}
            }
        }
    };
    stop.run_until_cancelled(steer).await;
    stop.cancelled().await;
}

fn neighbours(state: &State, id: &proto::NodeId) -> Option<Neighbours> {
    Neighbours::of(state.consensus()?, id)
}

/// What `/status` says.
fn status(
    node: &node::Node,
    outgoing: &Outgoing,
    metrics: &Metrics,
) -> impl Fn() -> serde_json::Value + Clone + Send + Sync + 'static {
    let (id, crypto) = (node.id, node.crypto);
    let (in_force, standing) = (node.in_force.clone(), node.standing.clone());
    let outgoing = outgoing.clone();
    let metrics = metrics.clone();
    let up = outgoing.up();
    move || {
        let state = in_force.borrow().clone();
        let layer = neighbours(&state, &id).and_then(|both| both.layer);
        json!({
            "role": "mix",
            "id": id.to_string(),
            "state": standing.borrow().name(),
            "period": state.consensus().map(|consensus| consensus.period),
            "layer": layer.map(|layer| layer + 1),
            "links_up": *up.borrow(),
            "links_wanted": outgoing.wanted(),
            "crypto": crypto.status(),
            "loops": loops::status(&metrics),
            "notices": notices::status(&metrics),
        })
    }
}
