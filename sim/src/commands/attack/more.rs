//! Flags of the attacks that watch a client and its gateways.

use anyhow::anyhow;
use sim::attacks::{flood, least_squares, pause, receiving, resend};

use super::{check, positive, replications, share, share_or_none, small};
use crate::commands::{Failure, usage};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct LeastSquares {
    /// Users that send
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=500))]
    senders: u32,
    /// Users that receive
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=5000))]
    receivers: u32,
    /// Friends of each sender
    #[arg(long, default_value_t = 5)]
    friends: u32,
    /// Messages of a round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10000))]
    batch: u32,
    /// Payload slots of each sender per round, with cover
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    slots: f64,
    /// Gateways
    #[arg(long, default_value_t = 10)]
    gateways: u32,
    /// Rounds after which the attacker gives up
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    rounds: u32,
    /// Independent attacks
    #[arg(long, default_value_t = 64, value_parser = replications)]
    replications: u64,
}

impl LeastSquares {
    pub(super) fn settings(&self) -> Result<least_squares::LeastSquares, Failure> {
        check("friends", self.friends, self.receivers)?;
        check("gateways", self.gateways, self.receivers)?;
        if self.rounds < self.senders + 2 {
            return Err(usage(anyhow!(
                "--rounds {}: must be above --senders {} + 1",
                self.rounds,
                self.senders
            )));
        }
        if f64::from(self.batch) >= 0.95 * self.slots * f64::from(self.senders) {
            return Err(usage(anyhow!(
                "--slots {}: must be at least --batch / --senders / 0.95, or queues grow without end",
                self.slots
            )));
        }
        Ok(least_squares::LeastSquares {
            senders: self.senders as usize,
            receivers: self.receivers as usize,
            friends: self.friends as usize,
            batch: self.batch as usize,
            slots: self.slots,
            gateways: self.gateways as usize,
            rounds: self.rounds as usize,
            replications: self.replications,
        })
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Receiving {
    /// Loops of the client per second
    #[arg(long, default_value_t = 0.1, value_parser = positive)]
    loops_per_s: f64,
    /// Packets of the message
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100000))]
    packets: u32,
    /// Length of the window
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    window_s: f64,
    /// Independent windows of each kind
    #[arg(long, default_value_t = 10_000, value_parser = replications)]
    replications: u64,
}

impl Receiving {
    pub(super) fn settings(&self) -> receiving::Receiving {
        receiving::Receiving {
            loops_per_s: self.loops_per_s,
            packets: self.packets.into(),
            window_s: self.window_s,
            replications: self.replications,
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Resend {
    /// Gateways where the recipient may be
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=4096))]
    gateways: u32,
    /// Payload slots per second
    #[arg(long, default_value_t = 0.5, value_parser = positive)]
    payload_per_s: f64,
    /// Loops per second
    #[arg(long, default_value_t = 0.1, value_parser = positive)]
    loops_per_s: f64,
    /// Packets of the message
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    packets: u32,
    /// Seconds after which a message that was not acknowledged is sent again
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    timeout_s: f64,
    /// Seconds that the attacker watches from then on
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    window_s: f64,
    /// Searches whose votes are counted together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    searches: u32,
    /// Independent attacks
    #[arg(long, default_value_t = 10_016, value_parser = replications)]
    replications: u64,
}

impl Resend {
    pub(super) fn settings(&self) -> resend::Resend {
        resend::Resend {
            gateways: self.gateways as usize,
            payload_per_s: self.payload_per_s,
            loops_per_s: self.loops_per_s,
            packets: self.packets as usize,
            timeout_s: self.timeout_s,
            window_s: self.window_s,
            searches: self.searches as usize,
            replications: self.replications,
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Pause {
    /// Mailboxes, one of which the victim writes to
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    candidates: u32,
    /// Loops of the victim per second
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    loops_per_s: f64,
    /// Packets per second to its correspondent
    #[arg(long, default_value_t = 0.5, value_parser = positive)]
    real_per_s: f64,
    /// Packets per second that a mailbox gets from others
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    background_per_s: f64,
    /// Share of loops that links lose
    #[arg(long, default_value_t = 0.01, value_parser = small)]
    loss: f64,
    /// Share of the victim's packets that the attacker drops
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    throttled: f64,
    /// Seconds for which it does
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    throttle_s: f64,
    /// Seconds that it watches
    #[arg(long, default_value_t = 900.0, value_parser = positive)]
    watch_s: f64,
    /// Longest PAUSE in seconds
    #[arg(long, default_value_t = 120.0, value_parser = positive)]
    pause_s: f64,
    /// Largest wait before a PAUSE in seconds
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    jitter_s: f64,
    /// Least seconds between two
    #[arg(long, default_value_t = 600.0, value_parser = positive)]
    apart_s: f64,
    /// The attacker is on the victim's access line, and not at its entry gateway
    #[arg(long)]
    on_access_line: bool,
    /// A node says all the while that its loops are lost: the attacker's, or one that it blocks
    #[arg(long)]
    node_cries: bool,
    /// Independent attacks
    #[arg(long, default_value_t = 1600, value_parser = replications)]
    replications: u64,
}

impl Pause {
    pub(super) fn settings(&self) -> pause::Pause {
        pause::Pause {
            candidates: self.candidates as usize,
            loops_per_s: self.loops_per_s,
            real_per_s: self.real_per_s,
            background_per_s: self.background_per_s,
            loss: self.loss,
            throttled: self.throttled,
            throttle_s: self.throttle_s,
            watch_s: self.watch_s,
            pause_s: self.pause_s,
            jitter_s: self.jitter_s,
            apart_s: self.apart_s,
            on_access_line: self.on_access_line,
            node_cries: self.node_cries,
            replications: self.replications,
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Flood {
    /// Loops per second
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    loops_per_s: f64,
    /// Packets per second from others
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    inbound_per_s: f64,
    /// Downstream frames per second
    #[arg(long, default_value_t = 40.0, value_parser = positive)]
    downstream_per_s: f64,
    /// Packets of the flood per second
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    flood_per_s: f64,
    /// Length of the flood
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    flood_s: f64,
    /// Packets that the mailbox holds
    #[arg(long, default_value_t = 1_000_000)]
    quota: u32,
    /// Seconds after which a loop that was due is missed
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    patience_s: f64,
    /// Share of loops that links lose
    #[arg(long, default_value_t = 0.01, value_parser = small)]
    loss: f64,
    /// Share of packets that the attacker blocks after the flood; 0 for none
    #[arg(long, default_value_t = 0.0, value_parser = share_or_none)]
    blocked: f64,
    /// Least mean time between false alarms
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    days_between_false_alarms: f64,
    /// Length of a run
    #[arg(long, default_value_t = 600.0, value_parser = positive)]
    seconds: f64,
    /// Independent runs
    #[arg(long, default_value_t = 320, value_parser = replications)]
    replications: u64,
}

impl Flood {
    pub(super) fn settings(&self) -> flood::Flood {
        flood::Flood {
            loops_per_s: self.loops_per_s,
            inbound_per_s: self.inbound_per_s,
            downstream_per_s: self.downstream_per_s,
            flood_per_s: self.flood_per_s,
            flood_s: self.flood_s,
            quota: self.quota as usize,
            patience_s: self.patience_s,
            loss: self.loss,
            blocked: self.blocked,
            days_between_false_alarms: self.days_between_false_alarms,
            seconds: self.seconds,
            replications: self.replications,
        }
    }
}
