//! A whole network, two applications, real messages, and what became of them.
//!
//! | phase    | what happens                                                                     |
//! |----------|----------------------------------------------------------------------------------|
//! | start    | 4 authorities, 3 × 3 mixes, 2 gateways, 2 clients, 2 applications as processes    |
//! | unnamed  | one writes without saying who it is; the other answers by reply blocks (SURBs)    |
//! | small    | short messages both ways, the next when the one before is acked: latency         |
//! | file     | 1 MB one way, short messages the other way meanwhile                             |
//! | offline  | the recipient's client is stopped, written to, started again                     |
//! | count    | statuses of clients, sizes seen by the taps, the report                          |
//!
//! Every step waits for an event, within a limit; nothing waits for time to pass. Keys of the
//! applications are exchanged by the supervisor, out of band; see [`crate::seal`]. Whatever ends
//! a run early, what happened until then is counted and told.

use anyhow::{Context, ensure};
use client::api::Wait;
use proto::{
    Time,
    client::{LOSS_PRIOR, fountain::first_burst},
    directory::Params,
};
use shell::clock::Clock;

use crate::{
    app::Report as Said,
    conversation::{ALICE, BOB, Conversation},
    ledger::{Ledger, Purpose},
    network::{Network, Plan},
    progress::Progress,
    report::{Model, Packets, Report, measured},
};

/// Short messages measured each way before the file.
const ROUNDS: u64 = 24;
/// Bytes of a short message.
const SHORT: usize = 200;
/// Bytes of the file.
const FILE: usize = 1_000_000;

/// Runs the demo in the folder that `plan` names.
///
/// # Errors
///
/// If the network does not come up or does not stop. Messages that are lost are no error here:
/// the report counts them.
pub async fn run(plan: Plan, progress: &Progress) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let model = model(&Params::default(), &plan.profile)?;
    let network = Network::start(plan, clock, progress).await?;
    let mut demo = Demo {
        talk: Conversation::over(network, clock),
        counted: Packets::default(),
        file: None,
    };
    let played = demo.play(progress).await;
    let ledger = &demo.talk.ledger;
    let (delivered, lost, duplicated) = ledger.outcome();
    let latencies = ledger.latencies_ns();
    let mut report = Report {
        delivered,
        lost,
        duplicated,
        packets: demo.counted,
        file_s: demo
            .file
            .and_then(|file| ledger.seconds(file))
            .unwrap_or(f64::NAN),
        failure: played.err().map(|error| format!("{error:#}")),
        ..Report::default()
    };
    report.latency_ms.measured = measured(&latencies);
    report.latency_ms.samples = latencies.len() as u64;
    report.latency_ms.predicted = model.quantiles();
    report.latency_ms.erlang = model.erlang();
    report.set_seen(&demo.talk.network.seen());
    progress.step("stopping every process");
    demo.talk.network.stop().await?;
    report.total_s = clock.now().since(Time::ZERO).as_secs_f64();
    Ok(report)
}

/// Whether a message is opened and its sender knows.
fn settled(ledger: &Ledger, number: u64) -> bool {
    ledger.is_opened(number) && ledger.has_reached(number, Wait::Acked)
}

/// What the network's parameters and a client's profile make one expect.
pub(crate) fn model(params: &Params, profile: &str) -> anyhow::Result<Model> {
    let (_, profile) = params
        .profile(profile)
        .context("the profile is a known one")?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates far below 2^52 microhertz"
    )]
    let hz = |uhz: u64| uhz as f64 / 1e6;
    Ok(Model {
        payload_hz: hz(profile.payload_uhz),
        downstream_hz: hz(profile.downstream_uhz),
        delay_mean_ms: params.delay_mean_ms.into(),
        burst: first_burst(1, LOSS_PRIOR),
    })
}

struct Demo {
    talk: Conversation,
    counted: Packets,
    file: Option<u64>,
}

impl Demo {
    async fn play(&mut self, progress: &Progress) -> anyhow::Result<()> {
        progress.step("exchanging cards");
        self.talk.introduce().await?;
        progress.step("writing without a name, answering by reply blocks");
        self.unnamed().await?;
        progress.steps("short messages both ways", ROUNDS * 2);
        self.short(progress).await?;
        progress.step("a file of 1 MB, short messages the other way");
        self.file().await?;
        progress.step("a message to a client that is offline");
        self.offline().await?;
        progress.step("counting");
        self.count(ALICE).await?;
        self.count(BOB).await
    }

    async fn unnamed(&mut self) -> anyhow::Result<()> {
        let number = self.talk.send_unnamed(ALICE, SHORT).await?;
        let opened = |said: &Said| {
            let Said::Opened {
                number: n,
                named,
                answerable,
                ..
            } = said
            else {
                return None;
            };
            (*n == number).then_some((*named, *answerable))
        };
        let sender = self.talk.hear(BOB, "unnamed message", opened).await?;
        ensure!(
            sender == (false, true),
            "its sender must be unknown, yet answerable"
        );
        let answer = self.talk.answer(BOB, number, SHORT).await?;
        let opened = |ledger: &Ledger| ledger.is_opened(answer);
        self.talk.until("answer by reply blocks", opened).await
    }

    /// Closed loops, one each way.
    async fn short(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let mut last = [0; 2];
        for who in [ALICE, BOB] {
            last[who] = self.talk.send(who, SHORT, Purpose::Measured).await?;
        }
        let mut done = [0; 2];
        while done != [ROUNDS; 2] {
            let any = |ledger: &Ledger| {
                (0..2).any(|who| done[who] < ROUNDS && settled(ledger, last[who]))
            };
            self.talk.until("short message and its ack", any).await?;
            for who in [ALICE, BOB] {
                if done[who] < ROUNDS && settled(&self.talk.ledger, last[who]) {
                    done[who] += 1;
                    if done[who] < ROUNDS {
                        last[who] = self.talk.send(who, SHORT, Purpose::Measured).await?;
                    }
                }
            }
            progress.done(done[0] + done[1]);
        }
        Ok(())
    }

    /// The file one way; the other way short messages, the next when the one before is acked.
    async fn file(&mut self) -> anyhow::Result<()> {
        let file = self.talk.send(ALICE, FILE, Purpose::Other).await?;
        self.file = Some(file);
        let mut back = self.talk.send(BOB, SHORT, Purpose::Measured).await?;
        loop {
            let either = |ledger: &Ledger| ledger.is_opened(file) || settled(ledger, back);
            self.talk.until("file", either).await?;
            if self.talk.ledger.is_opened(file) {
                break;
            }
            back = self.talk.send(BOB, SHORT, Purpose::Measured).await?;
        }
        let both = |ledger: &Ledger| settled(ledger, back) && settled(ledger, file);
        self.talk
            .until("last answer and the file's ack", both)
            .await
    }

    async fn offline(&mut self) -> anyhow::Result<()> {
        self.count(BOB).await?;
        self.talk.network.stop_client(BOB).await?;
        let number = self.talk.send(ALICE, SHORT, Purpose::Other).await?;
        let sent = |ledger: &Ledger| ledger.has_reached(number, Wait::Sent);
        self.talk.until("burst to the mailbox", sent).await?;
        ensure!(
            !self.talk.ledger.is_opened(number),
            "its recipient is offline"
        );
        self.talk.network.start_client(BOB).await?;
        self.talk.connect(BOB).await?;
        let settled =
            |ledger: &Ledger| ledger.is_opened(number) && ledger.has_reached(number, Wait::Acked);
        self.talk
            .until("message from the mailbox, and its ack", settled)
            .await
    }

    /// Adds what the client of `who` has counted since it started.
    async fn count(&mut self, who: usize) -> anyhow::Result<()> {
        let counts = self.talk.status(who).await?.counts;
        let (drops, loops) = (counts.of("drop_sent"), counts.of("loop_sent"));
        self.counted.real += counts.of("payload_sent");
        self.counted.drops += drops;
        self.counted.loops += loops;
        self.counted.cover += drops + loops;
        self.counted.loops_returned += counts.of("loop_returned");
        Ok(())
    }
}
