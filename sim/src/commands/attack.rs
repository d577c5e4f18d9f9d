//! `lacuna-sim attack`: attacks over many rounds, with their rates of success.

mod more;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;
use sim::{
    attacks::{
        blending, correlation, disclosure, flood, intersection, least_squares, path, pause,
        receiving, resend,
    },
    outcome::Outcome,
    report,
};

use super::{Failure, clock, failure, running, usage, with_threads, write};

/// Most packets of a path study: some minutes.
const PACKETS_MAX: u64 = 10_000_000_000;

/// What `attack` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    attack: Attack,
    /// Seed of every random number
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
    /// Folder for summary.json and report.html; made if absent
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    /// Print JSON in place of the table
    #[arg(long, global = true, conflicts_with = "quiet")]
    json: bool,
    /// No sign of progress and no table
    #[arg(long, global = true)]
    quiet: bool,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0, global = true)]
    threads: usize,
}

#[derive(Clone, Debug, Subcommand)]
enum Attack {
    /// Statistical disclosure of one sender's friends, with cover on and off
    Sda {
        /// Users that may receive
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
        users: u32,
        /// Friends of the target
        #[arg(long, default_value_t = 10)]
        friends: u32,
        /// Messages of a round
        #[arg(long, default_value_t = 50)]
        batch: u32,
        /// Share of rounds in which the target sends
        #[arg(long, default_value_t = 0.2, value_parser = share)]
        active: f64,
        /// Gateways
        #[arg(long, default_value_t = 10)]
        gateways: u32,
        /// Rounds after which the attacker gives up
        #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
        rounds: u32,
        /// Independent attacks
        #[arg(long, default_value_t = 96, value_parser = replications)]
        replications: u64,
    },
    /// Least-squares disclosure of every sender's friends, with cover on and off
    Lsda(more::LeastSquares),
    /// What a mailbox gateway sees of receiving, online and offline
    Receiving(more::Receiving),
    /// Confirmation by blocking gateways and watching for resends
    Resend(more::Resend),
    /// PAUSE as an oracle: throttling one client, and who gets less
    Pause(more::Pause),
    /// A flooded mailbox: loops that come late
    Flood(more::Flood),
    /// Intersection of who was online, with and without mailboxes
    Intersection {
        /// Users, the target among them
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
        users: u32,
        /// Share of time that each other user is online
        #[arg(long, default_value_t = 0.5, value_parser = inside)]
        online: f64,
        /// Mean session in rounds; 0 for no memory
        #[arg(long, default_value_t = 0.0)]
        session: f64,
        /// The others are online at the same hours every day
        #[arg(long, conflicts_with = "session")]
        habits: bool,
        /// Mailboxes keep messages for those who are offline
        #[arg(long)]
        mailboxes: bool,
        /// Rounds after which the attacker gives up
        #[arg(long, default_value_t = 10_000)]
        rounds: u32,
        /// Independent attacks
        #[arg(long, default_value_t = 2000, value_parser = replications)]
        replications: u64,
    },
    /// Correlation of flows by likelihood ratio
    Correlate {
        /// Mixes on the way
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
        layers: u32,
        /// Mean delay of each, in milliseconds
        #[arg(long, default_value_t = 50.0, value_parser = positive)]
        delay_mean_ms: f64,
        /// Packets of the flow per second
        #[arg(long, default_value_t = 5.0, value_parser = positive)]
        flow_per_s: f64,
        /// Packets of others on the output per second
        #[arg(long, default_value_t = 5.0, value_parser = positive)]
        noise_per_s: f64,
        /// Length of the observation
        #[arg(long, default_value_t = 10.0, value_parser = positive)]
        seconds: f64,
        /// Client links are shaped, as deployed
        #[arg(long)]
        shaped: bool,
        /// Pairs of each kind
        #[arg(long, default_value_t = 10_000, value_parser = replications)]
        replications: u64,
    },
    /// (n−1): blocking at a mix, noticed by its loops
    #[command(name = "n-1")]
    Blending {
        /// Loops of the mix per second
        #[arg(long, default_value_t = 1.0, value_parser = positive)]
        loops_per_s: f64,
        /// Share of loops that links lose
        #[arg(long, default_value_t = 0.01, value_parser = small)]
        loss: f64,
        /// Share of packets that the attacker blocks
        #[arg(long, default_value_t = 0.9, value_parser = share)]
        blocked: f64,
        /// Least mean time between false alarms
        #[arg(long, default_value_t = 30.0, value_parser = positive)]
        days_between_false_alarms: f64,
        /// Independent attacks
        #[arg(long, default_value_t = 10_000, value_parser = replications)]
        replications: u64,
    },
    /// Paths of corrupt mixes alone, per strategy of choosing routes
    Path {
        /// Layers
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
        layers: u32,
        /// Mixes of each layer
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        width: u32,
        /// Corrupt mixes of each layer
        #[arg(long, default_value_t = 2)]
        corrupt: u32,
        /// Packets of a session
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        session: u64,
        /// Packets between two drawings of the layers; 0 for never
        #[arg(long, default_value_t = 0)]
        period: u64,
        /// Packets that each user sends, cover and acks included
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        packets: u64,
        /// Users
        #[arg(long, default_value_t = 4096, value_parser = replications)]
        replications: u64,
    },
}

fn number(text: &str, allowed: &str, holds: impl Fn(f64) -> bool) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|x: &f64| x.is_finite() && holds(*x));
    number.ok_or_else(|| format!("must be a number {allowed}"))
}

fn replications(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|n| (32..=1_000_000).contains(n));
    count.ok_or_else(|| "must be a whole number from 32 to 1000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    number(text, "above 0, at most 1", |x| x > 0.0 && x <= 1.0)
}

fn share_or_none(text: &str) -> Result<f64, String> {
    number(text, "from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

fn inside(text: &str) -> Result<f64, String> {
    number(text, "between 0 and 1", |x| x > 0.0 && x < 1.0)
}

fn small(text: &str) -> Result<f64, String> {
    number(text, "from 0.0001 to 0.25", |x| (1e-4..=0.25).contains(&x))
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, "above 0, at most 1e6", |x| x > 0.0 && x <= 1e6)
}

impl Attack {
    fn title(&self) -> &'static str {
        match self {
            Self::Sda { .. } => "Statistical disclosure",
            Self::Lsda(_) => "Least-squares disclosure",
            Self::Receiving(_) => "What a mailbox gateway sees of receiving",
            Self::Resend(_) => "Resends as confirmation",
            Self::Pause(_) => "PAUSE as an oracle",
            Self::Flood(_) => "A flooded mailbox",
            Self::Intersection { .. } => "Intersection",
            Self::Correlate { .. } => "Flow correlation",
            Self::Blending { .. } => "(n−1) against loops",
            Self::Path { .. } => "Path compromise",
        }
    }

    fn run(&self, seed: u64) -> Result<Outcome, Failure> {
        Ok(match *self {
            Self::Lsda(ref flags) => least_squares::run(&flags.settings()?, seed),
            Self::Receiving(ref flags) => {
                receiving::run(&flags.settings(), seed).map_err(failure)?
            }
            Self::Resend(ref flags) => resend::run(&flags.settings(), seed).map_err(failure)?,
            Self::Pause(ref flags) => pause::run(&flags.settings(), seed).map_err(failure)?,
            Self::Flood(ref flags) => flood::run(&flags.settings(), seed).map_err(failure)?,
            Self::Sda {
                users,
                friends,
                batch,
                active,
                gateways,
                rounds,
                replications,
            } => {
                for (name, value, most) in [
                    ("friends", friends, users),
                    ("batch", batch, 1_000_000),
                    ("gateways", gateways, users),
                ] {
                    check(name, value, most)?;
                }
                let [users, friends, batch, gateways, rounds] =
                    [users, friends, batch, gateways, rounds].map(|n| n as usize);
                let settings = disclosure::Disclosure {
                    users,
                    friends,
                    batch,
                    active,
                    gateways,
                    rounds,
                    replications,
                };
                disclosure::run(&settings, seed)
            }
            Self::Intersection {
                users,
                online,
                session,
                habits,
                mailboxes,
                rounds,
                replications,
            } => {
                let users = users as usize;
                // Shorter ones could not make up that share of the time.
                let least = (online / (1.0 - online)).max(1.0);
                if session != 0.0 && session < least {
                    return Err(usage(anyhow!(
                        "--session {session}: must be 0, or at least {least:.2} rounds for \
                         --online {online}"
                    )));
                }
                let settings = intersection::Intersection {
                    users,
                    online,
                    session,
                    habits,
                    mailboxes,
                    rounds,
                    replications,
                };
                intersection::run(&settings, seed)
            }
            Self::Correlate {
                layers,
                delay_mean_ms,
                flow_per_s,
                noise_per_s,
                seconds,
                shaped,
                replications,
            } => {
                let delay_mean_s = delay_mean_ms / 1e3;
                let settings = correlation::Correlation {
                    layers,
                    delay_mean_s,
                    flow_per_s,
                    noise_per_s,
                    seconds,
                    shaped,
                    replications,
                };
                correlation::run(&settings, seed).map_err(failure)?
            }
            Self::Blending {
                loops_per_s,
                loss,
                blocked,
                days_between_false_alarms,
                replications,
            } => {
                let settings = blending::Blending {
                    loops_per_s,
                    loss,
                    blocked,
                    days_between_false_alarms,
                    replications,
                };
                blending::run(&settings, seed).map_err(failure)?
            }
            Self::Path {
                layers,
                width,
                corrupt,
                session,
                period,
                packets,
                replications,
            } => {
                if corrupt > width {
                    return Err(usage(anyhow!(
                        "--corrupt {corrupt}: must be at most --width {width}"
                    )));
                }
                if packets.saturating_mul(replications) > PACKETS_MAX {
                    return Err(usage(anyhow!(
                        "--packets {packets}: times --replications {replications} must be at most \
                         {PACKETS_MAX}"
                    )));
                }
                let [width, corrupt] = [width, corrupt].map(|n| n as usize);
                let settings = path::Path {
                    layers,
                    width,
                    corrupt,
                    session,
                    period,
                    packets,
                    replications,
                };
                path::run(&settings, seed)
            }
        })
    }
}

fn check(name: &str, value: u32, most: u32) -> Result<(), Failure> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(usage(anyhow!("--{name} {value}: must be from 1 to {most}")))
}

/// Runs it.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        attack,
        seed,
        out,
        json,
        quiet,
        threads,
    } = arguments;
    if let Some(out) = out {
        write::folder(out).map_err(running)?;
    }
    with_threads(*threads, || {
        let clock = clock(*quiet);
        let outcome = attack.run(*seed);
        clock.finish_and_clear();
        let outcome = outcome?;
        let settings = super::command(*seed);
        let summary = report::study_summary(attack.title(), &settings, *seed, &outcome);
        let summary = serde_json::to_string_pretty(&summary).map_err(running)? + "\n";
        if let Some(out) = out {
            let page = report::study_page(attack.title(), &settings, *seed, &outcome);
            write::whole(&out.join("report.html"), page.as_bytes()).map_err(running)?;
            write::whole(&out.join("summary.json"), summary.as_bytes()).map_err(running)?;
        }
        if *json {
            print!("{summary}");
        } else if !quiet {
            super::run::show_figures(&outcome);
        }
        Ok(())
    })
}
