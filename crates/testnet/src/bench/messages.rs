//! `bench messages`: how long messages take, and how many bytes a second a large one makes, by profile.
//!
//! | quantity  | what                                                                               |
//! |-----------|------------------------------------------------------------------------------------|
//! | latency   | ms from the hand-over to the sender's daemon until the recipient's application has  |
//! |           | opened it; [`SHORT`] bytes, the next when the one before is acknowledged             |
//! | predicted | the demo's model, with the loss that clients assume before they have measured it     |
//! | file      | seconds for [`FILE`] bytes, the same way                                            |
//! | goodput   | the file's bytes by that time, and by the bytes of all frames with content that its sender wrote |
//! | CPU       | of the sender's daemon, and of a mix on the mean (the loops of all nodes and the       |
//! |           | traffic of all clients of the network among it): shares of one processor over the run |
//!
//! A whole network for each profile, as in the demo, with the mean delay that belongs to it.

use core::fmt;
use std::path::Path;

use anyhow::Context;
use client::api::Wait;
use proto::{Time, directory::Params, wire::FRAME_LEN};
use serde::Serialize;
use shell::clock::Clock;

use crate::{
    conversation::{ALICE, Conversation},
    demo::model,
    ledger::Purpose,
    network::{Network, Plan},
    progress::Progress,
    report::{Quantiles, measured},
};

/// Bytes of a short message.
pub const SHORT: usize = 100;
/// Bytes of the large one.
pub const FILE: usize = 500_000;
/// Profiles, each with its mean delay in ms: Nym's parameters, and our defaults.
const PROFILES: [(&str, u32); 2] = [("nym-like", 15), ("interactive", 50)];

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One profile each.
    pub profiles: Vec<Run>,
}

/// One profile.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Its name.
    pub profile: String,
    /// Mean delay of one mix, in ms.
    pub delay_mean_ms: u32,
    /// Short messages.
    pub messages: u64,
    /// How long they took, in ms.
    pub latency_ms: Quantiles,
    /// The same by the model.
    pub predicted_ms: Quantiles,
    /// How long the large one took, in s.
    pub file_s: f64,
    /// Its bytes, kB/s.
    pub goodput_kb_per_s: f64,
    /// The same as a share of the bytes of the frames that carried it.
    pub goodput_of_frames: f64,
    /// CPU of the sender's daemon, share of one processor.
    pub client_cpu: f64,
    /// CPU of a mix on the mean, share of one processor.
    pub mix_cpu: f64,
}

/// Runs it in the empty folder `root`, with so many short messages each.
///
/// # Errors
///
/// If a network does not come up, or a message does not arrive.
pub async fn run(root: &Path, messages: u64, progress: &Progress) -> anyhow::Result<Report> {
    let mut profiles = Vec::new();
    for (profile, delay_mean_ms) in PROFILES {
        let folder = root.join(profile);
        profiles.push(one(&folder, profile, delay_mean_ms, messages, progress).await?);
    }
    Ok(Report { profiles })
}

async fn one(
    root: &Path,
    profile: &str,
    delay_mean_ms: u32,
    messages: u64,
    progress: &Progress,
) -> anyhow::Result<Run> {
    let params = Params {
        delay_mean_ms,
        ..Params::default()
    };
    let model = model(&params, profile)?;
    let plan = Plan {
        profile: profile.to_owned(),
        params: format!("delay_mean_ms = {delay_mean_ms}\n"),
        ..Plan::demo(root)?
    };
    let clock = Clock::start();
    let network = Network::start(plan, clock, progress).await?;
    let mut talk = Conversation::over(network, clock);
    talk.introduce().await?;
    let began = clock.now();
    let (cpu, mix_cpu) = (talk.network.client_cpu(ALICE)?, talk.network.mix_cpu()?);
    progress.steps(&format!("{profile}: short messages"), messages);
    for done in 0..messages {
        settle(&mut talk, SHORT, Purpose::Measured).await?;
        progress.done(done + 1);
    }
    progress.step(&format!("{profile}: a large message"));
    let before = talk.status(ALICE).await?.counts.of("payload_sent");
    let file = settle(&mut talk, FILE, Purpose::Other).await?;
    let frames = talk.status(ALICE).await?.counts.of("payload_sent") - before;
    let cpu = talk.network.client_cpu(ALICE)?.saturating_sub(cpu);
    let mix_cpu = talk.network.mix_cpu()?.saturating_sub(mix_cpu);
    let seconds = |since: Time| clock.now().since(since).as_secs_f64();
    let [client_cpu, mix_cpu] = [cpu, mix_cpu].map(|cpu| cpu.as_secs_f64() / seconds(began));
    let file_s = talk.ledger.seconds(file).context("it is opened")?;
    let latency_ms = measured(&talk.ledger.latencies_ns());
    talk.network.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let [bytes, carried] = [FILE as f64, (frames * FRAME_LEN as u64) as f64];
    Ok(Run {
        profile: profile.to_owned(),
        delay_mean_ms,
        messages,
        latency_ms,
        predicted_ms: model.quantiles(),
        file_s,
        goodput_kb_per_s: bytes / 1e3 / file_s,
        goodput_of_frames: bytes / carried,
        client_cpu,
        mix_cpu,
    })
}

/// Sends one message and waits until it is opened and acknowledged; its number.
async fn settle(talk: &mut Conversation, bytes: usize, purpose: Purpose) -> anyhow::Result<u64> {
    let number = talk.send(ALICE, bytes, purpose).await?;
    talk.until("message and its ack", |ledger| {
        ledger.is_opened(number) && ledger.has_reached(number, Wait::Acked)
    })
    .await?;
    Ok(number)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:>8}{:>8}{:>8}",
            "latency, ms", "p50", "p95", "p99"
        )?;
        for run in &self.profiles {
            let lines = [
                (
                    format!("{}, {} messages", run.profile, run.messages),
                    run.latency_ms,
                ),
                (
                    format!("  predicted, mixes of {} ms", run.delay_mean_ms),
                    run.predicted_ms,
                ),
            ];
            for (name, Quantiles { p50, p95, p99 }) in lines {
                writeln!(f, "{name:<34}{p50:>8.0}{p95:>8.0}{p99:>8.0}")?;
            }
        }
        writeln!(f)?;
        write!(
            f,
            "{:<34}{:>8}{:>8}{:>10}{:>8}{:>8}",
            "500 kB", "s", "kB/s", "of frames", "CPU", "mix"
        )?;
        for run in &self.profiles {
            let Run {
                file_s,
                goodput_kb_per_s: rate,
                ..
            } = run;
            let shares = [run.goodput_of_frames, run.client_cpu, run.mix_cpu];
            let [share, cpu, mix] = shares.map(|share| share * 1e2);
            write!(
                f,
                "\n{:<34}{file_s:>8.1}{rate:>8.1}{share:>9.1}%{cpu:>7.1}%{mix:>7.1}%",
                run.profile
            )?;
        }
        Ok(())
    }
}
