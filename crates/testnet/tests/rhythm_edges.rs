//! When real clients write to their entry links, around connect, reconnect and shutdown, on a capture of the loopback.
//!
//! Rules CLI-2, CLI-4, ATTACKS t07, t12. `LACUNA_SYSTEM=1` runs it, with `tcpdump` and the right to capture. Some clients are started
//! and stopped again and again, and their links are cut; another one runs all the while, and is what they are compared
//! with.
//!
//! | sample   | of each link                                        | law                                   |
//! |----------|-----------------------------------------------------|---------------------------------------|
//! | first    | from the hello to the first frame                   | exponential, at the rate of the profile |
//! | early    | the next [`NEAR`] gaps                              | the same                              |
//! | late     | the last [`NEAR`] gaps before the client stops, or its link is cut | the same               |
//! | last     | from the last frame to the link's end                | the same                              |
//! | idle     | all gaps of the client that runs on                  | the same                              |
//!
//! At the end one of them is stopped for some seconds and goes on: nothing is made up for.
//!
//! Distances are Kolmogorov's. The bound is that of samples of these sizes, which one pair in a thousand of one law
//! passes, and [`SLACK`] for a machine that wakes processes late. Which links are a client's is read from the process,
//! which an observer knows by its address.

use core::time::Duration;
use std::collections::BTreeSet;

use anyhow::Context;
use rustix::process::Signal;

use kolmogorov::distance;
use rhythm::{
    GATEWAYS, RATE, Stage,
    own::Own,
    wire::{Link, may_capture},
};

#[path = "../../proto/tests/kolmogorov/mod.rs"]
mod kolmogorov;
mod rhythm;

/// Gaps at either end of a link that count as near.
const NEAR: usize = 8;
/// Frames of a link before it may end: more than twice as many.
const FRAMES: u64 = 24;
/// A mean gap is 45 ms; a machine under load wakes a process some milliseconds late.
const SLACK: f64 = 0.05;
/// Frames of another client while one is stopped: some seconds.
const HALT: u64 = 60;
/// After a stop there are 5 or 6 frames in this time; one in ten thousand times there are more than so many.
const SOON: Duration = Duration::from_millis(250);
const SOON_MAX: usize = 16;
const CLIENTS: usize = 6;
const ROUNDS: usize = 8;
const CUTS: usize = 2;

/// Seconds, of all links of one kind.
#[derive(Clone, Default)]
struct Samples {
    first: Vec<f64>,
    early: Vec<f64>,
    late: Vec<f64>,
    last: Vec<f64>,
    all: Vec<f64>,
}

impl Samples {
    /// When the hello, each frame and the end of a link were.
    fn add(&mut self, times: &[Duration], end: Duration) {
        let gap = |pair: &[Duration]| pair[1].saturating_sub(pair[0]).as_secs_f64();
        let gaps: Vec<f64> = times.windows(2).map(gap).collect();
        let (first, gaps) = gaps.split_first().expect("a link of many frames");
        self.first.push(*first);
        self.early.extend(&gaps[..NEAR]);
        self.late.extend(&gaps[gaps.len() - NEAR..]);
        self.last.push(gap(&[times[times.len() - 1], end]));
        self.all.extend(gaps);
    }
}

/// Kolmogorov's distance of a sample from the exponential law.
fn from_law(sample: &[f64]) -> f64 {
    let mut sample = sample.to_vec();
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let apart = |(i, gap): (usize, &f64)| {
        let law = 1.0 - (-RATE * gap).exp();
        (law - i as f64 / n)
            .abs()
            .max((law - (i + 1) as f64 / n).abs())
    };
    sample.iter().enumerate().map(apart).fold(0.0, f64::max)
}

fn bound(a: usize, b: usize) -> f64 {
    kolmogorov::bound(a, b) + SLACK
}

/// Times of the hello and the frames after it on a client's entry link; of another link, none.
fn entry(link: &Link) -> Option<(Vec<Duration>, Duration)> {
    let times: Vec<Duration> = link.frames(0).iter().map(|record| record.at).collect();
    let end = link.ended?;
    let span = times.last()?.saturating_sub(times[0]).as_secs_f64();
    // A mailbox link confirms once a second.
    let is_entry = times.len() > 2 * NEAR + 2 && times.len() as f64 > span * RATE / 3.0;
    is_entry.then_some((times, end))
}

#[tokio::test]
async fn attack_t07_connecting_and_stopping_do_not_show_in_the_rhythm() -> anyhow::Result<()> {
    if !may_capture() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let network = &stage.network;
    let mut steady = Own::make(network, "steady".to_owned()).await?;
    steady.start(network)?;
    let mut all = Vec::new();
    for i in 0..CLIENTS {
        all.push(Own::make(network, format!("client-{i}")).await?);
    }
    let (mut moving, mut idle) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        for own in &mut all {
            own.start(network)?;
        }
        for own in &mut all {
            network
                .until_ready(own.process.as_mut().context("it runs")?)
                .await?;
        }
        let cuts = if round == 0 { CUTS } else { 0 };
        let mut sent = vec![0; all.len()];
        for link in 1..=1 + cuts as u64 {
            for (own, sent) in all.iter().zip(&mut sent) {
                *sent = own.until_sent(link, *sent + FRAMES).await?;
            }
            all.iter().try_for_each(|own| own.links(&mut moving))?;
            if round == 0 && link <= cuts as u64 {
                (0..GATEWAYS).for_each(|at| network.cut(at));
            }
        }
        steady.links(&mut idle)?;
        for own in &mut all {
            own.stop().await?;
        }
    }
    let [stopped, ..] = all.as_mut_slice() else {
        anyhow::bail!("no client");
    };
    stopped.start(network)?;
    network
        .until_ready(stopped.process.as_mut().context("it runs")?)
        .await?;
    let sent = stopped.until_sent(1, FRAMES).await?;
    let mut halted = BTreeSet::new();
    stopped.links(&mut halted)?;
    stopped.signal(Signal::STOP)?;
    let others = steady.until_sent(1, 0).await?;
    steady.until_sent(1, others + HALT).await?;
    stopped.signal(Signal::CONT)?;
    stopped.until_sent(1, sent + FRAMES).await?;
    stopped.stop().await?;
    steady.stop().await?;
    let links = stage.strike().await?;
    let of = |ports: &BTreeSet<(u16, u16)>| {
        let mut samples = Samples::default();
        let own = links.iter().filter(|link| ports.contains(&link.ports));
        own.filter_map(entry)
            .for_each(|(times, end)| samples.add(&times, end));
        samples
    };
    let (moving, idle) = (of(&moving), of(&idle).all);
    assert!(
        idle.len() > 10 * NEAR,
        "{} gaps to compare with",
        idle.len()
    );
    assert!(
        moving.first.len() >= CLIENTS * ROUNDS,
        "{} links",
        moving.first.len()
    );
    let judge = |samples: &Samples| -> Vec<(&'static str, f64, f64)> {
        let Samples {
            first,
            early,
            late,
            last,
            ..
        } = samples;
        [
            ("first", first),
            ("early", early),
            ("late", late),
            ("last", last),
        ]
        .map(|(name, sample)| {
            (
                name,
                distance(sample, &idle),
                bound(sample.len(), idle.len()),
            )
        })
        .to_vec()
    };
    println!(
        "idle: {} gaps, {:.4} from the law",
        idle.len(),
        from_law(&idle)
    );
    assert!(from_law(&idle) < bound(idle.len(), usize::MAX));
    for (name, apart, most) in judge(&moving) {
        println!("{name}: {apart:.4} of {most:.4}");
        assert!(apart < most, "{name}: {apart}");
    }

    // The controls: a frame with the hello; three at once after the first; as many before the end; an end that waits for
    // the next slot and sends at once.
    let tight = Duration::from_micros(100).as_secs_f64();
    let few = |sample: &[f64]| -> Vec<f64> {
        let burst = |(i, gap): (usize, &f64)| if i % NEAR < 3 { tight } else { *gap };
        sample.iter().enumerate().map(burst).collect()
    };
    let at_once = |sample: &[f64]| vec![tight; sample.len()];
    let wrong = Samples {
        first: at_once(&moving.first),
        early: few(&moving.early),
        late: few(&moving.late),
        last: at_once(&moving.last),
        all: Vec::new(),
    };
    for (name, apart, most) in judge(&wrong) {
        println!("control, {name}: {apart:.4}");
        assert!(apart > most, "control, {name}: {apart}");
    }

    // t12
    let link = links
        .iter()
        .find(|link| halted.contains(&link.ports) && entry(link).is_some());
    let (times, _) = link.and_then(entry).context("the link that was stopped")?;
    let made_up = |times: &[Duration]| {
        let longest = times
            .windows(2)
            .max_by_key(|pair| pair[1].saturating_sub(pair[0]));
        let (from, to) = longest.map(|pair| (pair[0], pair[1])).expect("frames");
        let soon = times
            .iter()
            .filter(|at| (to..to + SOON).contains(at))
            .count();
        (to.saturating_sub(from), soon)
    };
    let (halt, soon) = made_up(&times);
    println!("stopped for {halt:?}, then {soon} frames within {SOON:?}");
    assert!(halt > Duration::from_secs(1), "{halt:?}");
    assert!(soon < SOON_MAX, "{soon} frames");
    // The control: the frames that another client sent meanwhile, all at the end of the stop.
    let resumed = times
        .windows(2)
        .find(|pair| pair[1].saturating_sub(pair[0]) == halt);
    let resumed = resumed.context("it went on")?[1];
    let mut hasty = times.clone();
    hasty.extend(core::iter::repeat_n(resumed, usize::try_from(HALT)?));
    hasty.sort_unstable();
    assert!(made_up(&hasty).1 > SOON_MAX, "control");
    Ok(())
}
