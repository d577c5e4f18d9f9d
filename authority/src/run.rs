//! Runs the ceremony machine over directory links.
//!
//! Spec: docs/spec/directory.md, rules DIR-7, DIR-8, DIR-11.
//!
//! | quantity          | value                                                             |
//! |-------------------|-------------------------------------------------------------------|
//! | [`INBOX`]         | papers that wait for the machine; whoever brings more waits       |
//! | [`ASKING_MAX`]    | questions to other authorities under way; more are left out        |
//! | [`CALENDAR_EVERY`]| how often the machine hears what UTC is                           |

use core::time::Duration;
use std::sync::Arc;

use anyhow::Context;
use proto::{
    NodeId,
    authority::{Event, Input, Output},
    directory::{Answer, Consensus, Network, Question, ask::QUESTION_LEN_MAX},
    wire::Purpose,
};
use serde_json::json;
use shell::{
    accept::{Door, Incoming, Limits, accept},
    ask,
    clock::Clock,
    drive::drive,
    keys::Keys,
    link::{Dialler, Target, certificate_frame},
    metrics::{self, Metrics},
    role::{Reporter, announce},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Node,
    desk::{Desk, Paper, Shown},
    disk,
};

const INBOX: usize = 64;
const ASKING_MAX: usize = 64;
const CALENDAR_EVERY: Duration = Duration::from_secs(30);
const DAY_S: u64 = 86_400;

impl Node {
    /// Serves the directory until `stop`.
    ///
    /// # Errors
    ///
    /// What failed.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (clock, metrics) = (Clock::start(), Metrics::default());
        let period = disk::period(&self.config, &self.network);
        let keys = Arc::new(self.keys);
        let settings = &self.config;

        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("listening on {}", settings.listen))?;
        let listening = listener.local_addr()?;
        let (show, shown) = watch::channel(Shown::default());
        let page = shown.clone();
        let id = keys.id().to_string();
        let status = move || {
            let Shown { held, kept } = *page.borrow();
            let state = state(kept);
            json!({"role": "authority", "id": id, "state": state, "period": period, "nodes": held})
        };
        let served = metrics::serve(
            settings.metrics_listen,
            metrics.clone(),
            status,
            stop.clone(),
        );
        let shown_at = served
            .await
            .with_context(|| format!("listening on {}", settings.metrics_listen))?;
        announce(&json!({"listening": listening, "metrics": shown_at}));

        let (desk, inbox) = mpsc::channel(INBOX);
        let hands = Hands {
            dialler: Dialler {
                network: self.network.id,
                key: None,
                clock,
            },
            targets: targets(&self.network).into(),
            keys: Arc::clone(&keys),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
            metrics: metrics.clone(),
            desk: desk.clone(),
            show: show.clone(),
        };
        if let Some(finished) = disk::finished(&keys, period)? {
            let answered = Input::Answered(Answer::Consensus(finished));
            desk.try_send(Paper::Other(answered))
                .context("the desk is new")?;
        }
        let door = door(&keys, &self.network, settings.links_max, clock, &metrics);
        let taking = accept(
            listener,
            door,
            at_the_desk(desk.clone(), metrics),
            stop.clone(),
        );
        let telling = tell_time(clock, desk, stop.clone());
        let reporting = report(shown, stop.clone());
        let machine = Desk::new(self.machine, show);
        let driving = drive(
            machine,
            clock,
            inbox,
            |output| hands.carry_out(output),
            stop.clone(),
        );

        let all = async { tokio::join!(taking, telling, reporting) };
        tokio::pin!(all);
        tokio::select! {
            ended = driving => { ended.context("the machine's timer")?; }
            _ = &mut all => return Ok(()),
        }
        stop.cancel();
        all.await;
        Ok(())
    }
}

fn state(kept: bool) -> &'static str {
    if kept { "ready" } else { "bootstrapping" }
}

fn targets(network: &Network) -> Vec<Target> {
    let both = network.authorities.iter().zip(&network.authority_addresses);
    both.map(|(key, address)| Target {
        id: NodeId(*key),
        address: address.clone(),
        link_key: None,
    })
    .collect()
}

fn door(
    keys: &Arc<Keys>,
    network: &Network,
    links: usize,
    clock: Clock,
    metrics: &Metrics,
) -> Door {
    let (signer, id) = (Arc::clone(keys), network.id);
    let certificate = move || {
        let now_s = clock.utc().as_secs();
        let validity = now_s.saturating_sub(DAY_S)..now_s + DAY_S;
        certificate_frame(&signer.certificate(&id, validity))
    };
    Door {
        key: keys.link().clone(),
        certificate: Arc::new(certificate),
        purposes: &[Purpose::Directory],
        admit: Arc::new(|_| None),
        limits: Limits {
            links,
            ..Limits::default()
        },
        clock,
        metrics: metrics.clone(),
    }
}

/// Takes questions to the desk and answers back.
fn at_the_desk(
    desk: mpsc::Sender<Paper>,
    metrics: Metrics,
) -> impl Fn(Incoming) -> BoxedTask + Clone + Send + Sync + 'static {
    move |incoming| {
        let (desk, metrics) = (desk.clone(), metrics.clone());
        let answer = move |question| {
            let desk = desk.clone();
            async move {
                let (reply, answer) = oneshot::channel();
                // Both fail only while this process stops.
                let _ = desk.send(Paper::Asked(question, reply)).await;
                answer.await.unwrap_or(Answer::NotYet)
            }
        };
        Box::pin(async move {
            if ask::answer(incoming.link, QUESTION_LEN_MAX, answer)
                .await
                .is_err()
            {
                metrics.count("lacuna_links_broken_total", "directory");
            }
        })
    }
}

type BoxedTask = core::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn tell_time(clock: Clock, desk: mpsc::Sender<Paper>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(CALENDAR_EVERY);
    let tell = async {
        loop {
            tick.tick().await;
            let calendar = Input::Calendar(clock.calendar());
            let _stopping = desk.send(Paper::Other(calendar)).await;
        }
    };
    stop.run_until_cancelled(tell).await;
}

async fn report(mut shown: watch::Receiver<Shown>, stop: CancellationToken) {
    let report = async {
        let mut reporter = Reporter::default();
        loop {
            let kept = shown.borrow_and_update().kept;
            reporter.say(state(kept));
            if shown.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(report).await;
}

/// Carries out what the machine asks for; nothing here waits.
struct Hands {
    dialler: Dialler,
    targets: Arc<[Target]>,
    keys: Arc<Keys>,
    asking: Arc<Semaphore>,
    metrics: Metrics,
    desk: mpsc::Sender<Paper>,
    show: watch::Sender<Shown>,
}

impl Hands {
    fn carry_out(&self, output: Output) {
        match output {
            Output::Ask {
                authority,
                question,
            } => self.ask(usize::from(authority), question),
            Output::Store(record) => {
                let desk = self.desk.clone();
                self.write(
                    disk::record_of(record.period),
                    record.to_bytes(),
                    move || {
                        let _stopping = desk.blocking_send(Paper::Other(Input::Stored));
                    },
                );
            }
            Output::Publish(signed) => {
                let show = self.show.clone();
                if let Ok(document) = Consensus::parse_body(&signed.body) {
                    let name = disk::consensus_of(document.period);
                    self.write(name, signed.to_bytes(), move || {
                        show.send_modify(|shown| shown.kept = true);
                    });
                }
            }
            Output::Event(event) => self.count(&event),
        }
    }

    /// Asks, and brings the answer to the desk; no answer is none.
    fn ask(&self, authority: usize, question: Question) {
        let Ok(permit) = Arc::clone(&self.asking).try_acquire_owned() else {
            return self.metrics.count("lacuna_asks_failed_total", "too_many");
        };
        let (dialler, targets) = (self.dialler.clone(), Arc::clone(&self.targets));
        let (metrics, desk) = (self.metrics.clone(), self.desk.clone());
        tokio::spawn(async move {
            match ask::ask(&dialler, &targets[authority], &question).await {
                Ok(answer) => {
                    let _stopping = desk.send(Paper::Other(Input::Answered(answer))).await;
                }
                Err(error) => {
                    metrics.count("lacuna_asks_failed_total", "link");
                    tracing::debug!(authority, %error, "no answer");
                }
            }
            drop(permit);
        });
    }

    /// Writes a file, then does `then`. A write that fails says nothing, so what waits for it
    /// never happens (DIR-8).
    fn write(&self, name: String, bytes: Vec<u8>, then: impl FnOnce() + Send + 'static) {
        let keys = Arc::clone(&self.keys);
        spawn_blocking(move || match keys.state().write(&name, &bytes) {
            Ok(()) => then(),
            Err(error) => tracing::error!(%error, "nothing is signed before this can be written"),
        });
    }

    fn count(&self, event: &Event) {
        let count = |reason| self.metrics.count("lacuna_authority_events_total", reason);
        match event {
            Event::Submitted(node) => {
                tracing::debug!(?node, "descriptor taken");
                count("submitted");
            }
            Event::Refused(why) => {
                tracing::warn!(?why, "descriptor refused");
                count("refused");
            }
            Event::Dropped(why) => {
                tracing::warn!(?why, "proposal or vote not taken");
                count("dropped");
            }
            Event::NoDocument(why) => {
                tracing::warn!(?why, "these nodes make no document");
                count("no_document");
            }
            Event::Proposed { round } => {
                tracing::info!(round, "proposed");
                count("proposed");
            }
            Event::Voted { round } => {
                tracing::info!(round, "voted");
                count("voted");
            }
            Event::Equivocated { first, second } => {
                tracing::error!(
                    ?first,
                    ?second,
                    "an authority signed two votes of one round"
                );
                count("equivocated");
            }
            Event::Split => {
                tracing::error!(
                    "there are two documents of this period; a third of the authorities cheat"
                );
                count("split");
            }
            Event::Finished { .. } => {
                tracing::info!("the document is made");
                count("finished");
            }
        }
    }
}
