//! How a daemon is: for `lacuna status`, for the API, for embedders.
//!
//! | quantity            | unit                                                              |
//! |---------------------|-------------------------------------------------------------------|
//! | `up_bytes_per_day`  | (λP + λL + 1/confirm) × 2432 B × 86 400 s, whatever is sent        |
//! | `down_bytes_per_day`| μD × 2432 B × 86 400 s, whatever arrives                           |
//! | `measured`          | frames that both links carried since the start, scaled to a day    |
//!
//! Both follow from the profile alone: nothing that a user does changes them. TLS and TCP add
//! 5 to 6 %, the directory a document per period.

use core::fmt;

use proto::{
    Time,
    client::{AddressError, Entrance, MOVES_MAX, PATIENCE, Stage, Watching},
    directory::Profile,
    wire::FRAME_LEN,
};
use serde::{Deserialize, Serialize};
use shell::client::Known;

use crate::expect::{Floor, Latency};

/// The three states of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not running, or no epoch any more: nothing is sent.
    #[default]
    Off,
    /// Fetching the consensus, or dialling.
    Bootstrapping,
    /// Both links are up.
    Ready,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Bootstrapping => "bootstrapping",
            Self::Ready => "ready",
        })
    }
}

/// What a daemon tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Why it is not ready: one line. Empty when it is.
    pub reason: String,
    /// Name of its traffic profile.
    pub profile: String,
    /// The key epoch that the calendar shows, if there is one.
    pub epoch: Option<u64>,
    /// Its entry gateway and whether the link is up.
    pub entry: Link,
    /// How often the entry gateway was dead or withdrew and another one was taken, since the daemon
    /// started.
    pub entries_replaced: u64,
    /// Its mailbox gateway and whether the link is up.
    pub mailbox: Link,
    /// Gateways where mailboxes from before a move are read.
    pub former: Vec<Former>,
    /// Correspondents that a move is not known to have reached.
    pub untold: u64,
    /// New mailboxes that are not known to be open: nobody is told of them yet.
    pub unopened: u64,
    /// Labels of addresses that are not open yet on the mailbox link: what comes there waits.
    pub addresses_unopened: Vec<String>,
    /// What it sends in a day, in bytes, by formula.
    pub up_bytes_per_day: u64,
    /// What it receives in a day, in bytes, by formula.
    pub down_bytes_per_day: u64,
    /// What the links carried since the daemon started.
    pub measured: Measured,
    /// Expected time from `send` to delivery; none without a consensus.
    pub latency: Option<Latency>,
    /// The least anonymity: with node loops alone, as if nobody else used the network.
    pub floor: Option<Floor>,
    /// Messages on their way out: not acked, or without a way back not sent, nor given up.
    pub messages_under_way: u64,
    /// Those of them to a gateway that the document does not have.
    pub messages_stranded: u64,
    /// Probability that a packet is lost, as first bursts are sized for: the 95 % upper bound of
    /// what the own loops measured.
    pub loss: f64,
    /// How its loops are watched; none: this profile sends too few, and claims no alarm.
    pub watch: Option<Watch>,
    /// Messages that arrived and nobody has taken yet.
    pub messages_waiting: u64,
    /// Bytes of them, and of what has come of others.
    pub incoming_bytes: u64,
    /// At so many, what comes is dropped until some of them are taken.
    pub incoming_bytes_max: u64,
    /// Counts since the daemon started.
    pub counts: Counts,
}

/// What the links carried, as a day of the same would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds since the daemon started, links down or up.
    pub seconds: u64,
    /// Bytes sent a day.
    pub up_bytes_per_day: u64,
    /// Bytes received a day.
    pub down_bytes_per_day: u64,
}

impl Measured {
    /// So many frames, up and down, in so many seconds.
    #[must_use]
    pub fn of([up, down]: [u64; 2], seconds: u64) -> Self {
        let a_day = |frames: u64| {
            let bytes = u128::from(frames) * FRAME_LEN as u128 * 86_400;
            u64::try_from(bytes / u128::from(seconds.max(1))).unwrap_or(u64::MAX)
        };
        Self {
            seconds,
            up_bytes_per_day: a_day(up),
            down_bytes_per_day: a_day(down),
        }
    }
}

/// The test for loops that are lost, and how far it has brought the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// calm, moved, warned or paused; blind in place of calm if for long no loop has said anything.
    pub stage: String,
    /// Alarms since the daemon started.
    pub alarms: u64,
    /// Added for a loop that is lost; 1 is taken off for one that comes back.
    pub step: u32,
    /// Sum at which it alarms.
    pub threshold: u32,
    /// Loss of loops that counts as natural.
    pub natural_loss: f64,
    /// Days between two false alarms at that loss, on the mean.
    pub false_alarm_days: f64,
    /// Seconds until an alarm when one mix lets nothing through, on the mean.
    pub noticed_s: f64,
}

impl Watch {
    /// What is to be seen of `watching` in a client with this profile.
    #[must_use]
    pub fn of(watching: &Watching, profile: Option<&Profile>, now: Time) -> Option<Self> {
        let (detector, profile) = (watching.detector?, profile?);
        let (between, until) = watching.run_lengths()?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let hz = profile.loops_uhz as f64 / 1e6;
        let is_blind = watching.is_blind(profile, Time::ZERO, now);
        let stage = match watching.stage {
            Stage::Calm if is_blind => "blind",
            Stage::Calm => "calm",
            Stage::Moved => "moved",
            Stage::Warned => "warned",
            Stage::Paused => "paused",
        };
        Some(Self {
            stage: stage.to_owned(),
            alarms: watching.alarms,
            step: detector.step,
            threshold: detector.alarm,
            natural_loss: watching.natural,
            false_alarm_days: between / hz / 86_400.0,
            noticed_s: until / hz + PATIENCE.as_secs_f64(),
        })
    }
}

/// One of the links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The gateway's identity, hex.
    pub gateway: Option<String>,
    /// Whether the link carries frames.
    pub up: bool,
    /// How often it was made since the daemon started.
    pub made: u64,
    /// What is wrong with it, and what becomes of it. Empty when it is up.
    pub trouble: String,
}

/// The link to the gateway of mailboxes from before a move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The link.
    pub link: Link,
    /// Seconds until they are closed.
    pub seconds: u64,
}

/// What a person should know of an entry link that is down (CLI-29, CLI-30).
pub(crate) fn entry_trouble(link: &Known, entrance: &Entrance, now: Time) -> Option<String> {
    if link.up {
        return None;
    }
    let gone = if entrance.withdrew {
        "this gateway has withdrawn"
    } else {
        "this gateway is dead"
    };
    let then = match (entrance.dead, entrance.leaving) {
        _ if link.failed == 0 => "dialling".to_owned(),
        (_, true) => format!("{gone}; within seconds another one is entered by"),
        (true, false) => format!(
            "{gone} and there is no other to enter by now: the others are its mailbox's, or were left within the last 10 minutes, or four were tried today; redialling"
        ),
        (false, false) => {
            "nothing comes from the mailbox gateway either: check this machine's connection; redialling".to_owned()
        }
    };
    Some(format!("{}; {then}", attempts(link, now)))
}

/// What a person should know of a mailbox link that is down, and of whether a move would help.
pub(crate) fn mailbox_trouble(
    link: &Known,
    entered: bool,
    refused: Option<AddressError>,
    now: Time,
) -> Option<String> {
    if link.up {
        return None;
    }
    let then = if link.failed > 0 && entered {
        format!(
            "this gateway is dead or has withdrawn: what it stored waits there, nothing new arrives until it is back; redialling. {}",
            way_out(refused)
        )
    } else {
        "dialling".to_owned()
    };
    Some(format!("{}; {then}", attempts(link, now)))
}

/// What `lacuna move` would do, if it would be refused for this (CLI-40, CLI-44).
pub(crate) fn way_out(refused: Option<AddressError>) -> String {
    match refused {
        None => "`lacuna move` takes another one".to_owned(),
        Some(AddressError::TooSoon { wait_s }) => format!(
            "There were {MOVES_MAX} moves: the next one is possible in {}",
            counted(wait_s.div_ceil(3600), "hour", "hours")
        ),
        Some(AddressError::NoOther) => {
            "No other gateway is known to live: a move must name one, `lacuna move --to GATEWAY`"
                .to_owned()
        }
        Some(_) => "No move is possible now".to_owned(),
    }
}

fn attempts(link: &Known, now: Time) -> String {
    let Some(since) = link.down_since else {
        return "no word yet".to_owned();
    };
    format!(
        "{}; down for {} s, {} attempts failed",
        link.trouble,
        now.since(since).as_secs(),
        link.failed
    )
}

/// Counts since the daemon started. They name no one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Packets by what they were, and by why they were dropped.
    #[serde(flatten)]
    pub by_name: std::collections::BTreeMap<String, u64>,
}

impl Counts {
    /// Counts one more `name`.
    pub(crate) fn add(&mut self, name: &str) {
        match self.by_name.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.by_name.insert(name.to_owned(), 1);
            }
        }
    }

    /// How often `name` was counted.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.by_name.get(name).copied().unwrap_or(0)
    }
}

/// What `profile` sends and receives in a day, in bytes.
#[must_use]
pub fn bytes_per_day(profile: &Profile) -> (u64, u64) {
    let up_uhz = profile.payload_uhz.saturating_add(profile.loops_uhz);
    (
        of_frames(up_uhz.saturating_add(confirm_uhz(profile))),
        of_frames(profile.downstream_uhz),
    )
}

/// The part of it that each mailbox link costs: a move adds one until the former mailboxes are closed.
#[must_use]
pub fn mailbox_bytes_per_day(profile: &Profile) -> (u64, u64) {
    (
        of_frames(confirm_uhz(profile)),
        of_frames(profile.downstream_uhz),
    )
}

fn confirm_uhz(profile: &Profile) -> u64 {
    1_000_000_000 / u64::from(profile.confirm_ms.max(1))
}

/// Bytes a day of so many frames.
fn of_frames(uhz: u64) -> u64 {
    let bytes = u128::from(uhz) * FRAME_LEN as u128 * 86_400 / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Three digits, as docs/CLIENT.md has them.
fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let megabytes = bytes as f64 / 1e6;
    let decimals = usize::from(megabytes < 99.95);
    format!("{megabytes:.decimals$} MB")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl Status {
    /// Why some messages do not leave, in words; `of` which.
    pub(crate) fn stranded(&self, of: &str) -> Option<String> {
        let (many, wait) = match self.messages_stranded {
            0 => return None,
            1 => (1, "waits"),
            many => (many, "wait"),
        };
        Some(format!(
            "{many} {of} {wait} for a gateway that this network's document does not have: the address is of another network, or its gateway has left"
        ))
    }

    /// Whether so little room is left that the owner should know.
    fn is_filling(&self) -> bool {
        self.incoming_bytes * 5 > self.incoming_bytes_max * 4
    }
}

/// For a person.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = |link: &Link| {
            let name = link
                .gateway
                .as_deref()
                .map_or("none yet", |id| &id[..8.min(id.len())]);
            let made = match link.made {
                1 => "made once".to_owned(),
                made => format!("made {made} times"),
            };
            if link.up {
                format!("{name} up ({made})")
            } else {
                format!("{name} down ({made}): {}", link.trouble)
            }
        };
        write!(f, "state     {}", self.state)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "profile   {}: {} up and {} down a day, whatever you do",
            self.profile,
            megabytes(self.up_bytes_per_day),
            megabytes(self.down_bytes_per_day),
        )?;
        writeln!(
            f,
            "measured  {} up and {} down a day, over the {} s since the start",
            megabytes(self.measured.up_bytes_per_day),
            megabytes(self.measured.down_bytes_per_day),
            self.measured.seconds,
        )?;
        if let Some(latency) = &self.latency {
            writeln!(
                f,
                "latency   of a short message to a client of the same profile: mean {:.1} s, half within {:.1} s, 95 % within {:.1} s",
                latency.mean_s, latency.p50_s, latency.p95_s,
            )?;
        }
        if let Some(floor) = &self.floor {
            writeln!(
                f,
                "anonymity node loops alone (a floor; other users add to it): {:.1} other packets in each of three mixes; 1 packet in {:.0} meets no other",
                floor.others_in_mix,
                1.0 / floor.alone,
            )?;
        }
        match self.epoch {
            Some(epoch) => writeln!(f, "epoch     {epoch}")?,
            None => writeln!(f, "epoch     none")?,
        }
        write!(f, "entry     {}", link(&self.entry))?;
        match self.entries_replaced {
            0 => writeln!(f)?,
            many => writeln!(f, "; {many} that were dead or withdrew replaced")?,
        }
        write!(f, "mailbox   {}", link(&self.mailbox))?;
        match self.addresses_unopened.as_slice() {
            [] => writeln!(f)?,
            labels => writeln!(f, "; addresses not open yet: {}", labels.join(", "))?,
        }
        for former in &self.former {
            writeln!(
                f,
                "moving    former mailbox {}; read for {} more; not open yet: {}; may not know yet: {}",
                link(&former.link),
                counted(former.seconds.div_ceil(3600), "hour", "hours"),
                counted(self.unopened, "new mailbox", "new mailboxes"),
                counted(self.untold, "correspondent", "correspondents"),
            )?;
        }
        match &self.watch {
            Some(watch) => writeln!(
                f,
                "loops     {}: {}; step {}, threshold {}: a false alarm in {:.0} days at {:.1} % loss, \
                 a mix that lets nothing through noticed in {:.0} s",
                watch.stage,
                counted(watch.alarms, "alarm", "alarms"),
                watch.step,
                watch.threshold,
                watch.false_alarm_days,
                watch.natural_loss * 100.0,
                watch.noticed_s,
            )?,
            None => writeln!(f, "loops     too few to notice that packets are held back")?,
        }
        writeln!(
            f,
            "messages  {} under way, {} waiting to be received; sent to survive a loss of {:.1} %, the most that the own loops allow",
            self.messages_under_way,
            self.messages_waiting,
            self.loss * 100.0,
        )?;
        if let Some(why) = self.stranded("of them") {
            writeln!(f, "          {why}")?;
        }
        writeln!(
            f,
            "memory    {} of {} hold messages that wait to be received and parts of others{}",
            megabytes(self.incoming_bytes),
            megabytes(self.incoming_bytes_max),
            if self.is_filling() {
                ": when it is full, what comes is dropped; take messages, `lacuna receive`"
            } else {
                ""
            },
        )?;
        write!(f, "counts   ")?;
        for (name, count) in &self.counts.by_name {
            write!(f, " {name} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
