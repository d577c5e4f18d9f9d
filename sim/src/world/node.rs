//! Mixes and gateways as the world sees them: a machine, its peel stage, its disk.
//!
//! The stage and the journal stand here as they do in the shell: open, admit, write the
//! fingerprints, and only then finish. A crash loses the machine and the stage; the journal and the
//! mailboxes stay.

use std::sync::Arc;

use proto::{
    Machine, NetworkId, NodeId, Time,
    calendar::{Calendar, Epoch},
    directory::Consensus,
    gateway::{self, Gateway, Limits},
    mix::{self, Mix},
    peel::{Arrival, PeelDrop, Peeled, Stage},
    replay::{Fingerprint, ReplaySet},
};
use sphinx::{Packet, SecretKey};

use super::{Sabotage, periods::Says, setup::NodePlan, store::Mailboxes};

/// Packets that each key of a simulated node may open at first. Replay sets then grow with what was opened, unlike a
/// deployed node's: a world has so many nodes and keys that full ones would take gigabytes.
const REPLAY_FIRST: usize = 1 << 10;
/// Packets that a simulated mix holds at most: far above what any scenario reaches.
const POOL_MAX: usize = 1 << 20;
const GATEWAY: Limits = Limits {
    mailboxes_max: 1 << 20,
    links_max: 1 << 20,
    read_ahead: 64,
    quota: 1 << 20,
};

/// The machine of a node.
pub(super) enum Role {
    Mix(Mix),
    Gateway(Box<Gateway>),
}

/// A node. Without a role it is down.
pub(super) struct Node {
    pub(super) id: NodeId,
    keys: Vec<(Epoch, SecretKey)>,
    is_mix: bool,
    pub(super) role: Option<Role>,
    stage: Stage,
    journal: Vec<(Epoch, Fingerprint)>,
    /// Packets that each key may open.
    capacity: usize,
    pub(super) mailboxes: Mailboxes,
}

impl Node {
    /// A node that is down.
    pub(super) fn new(plan: NodePlan, consensus: &Consensus) -> Self {
        Self {
            id: plan.id,
            keys: consensus
                .schedule()
                .epochs()
                .zip(plan.packet_keys)
                .collect(),
            is_mix: consensus.layer(&plan.id).is_some(),
            role: None,
            stage: Stage::default(),
            journal: Vec::new(),
            capacity: REPLAY_FIRST,
            mailboxes: Mailboxes::default(),
        }
    }

    /// Starts it, for the first time or after a crash, from what its disk holds.
    pub(super) fn start(
        &mut self,
        now: Time,
        network: NetworkId,
        seed: [u8; 32],
        says: &Says,
        calendar: Calendar,
    ) {
        self.install();
        if self.is_mix {
            self.role = Some(Role::Mix(Mix::new(POOL_MAX)));
            return self.heed(now, says);
        }
        let mut gateway = Gateway::new(GATEWAY, network, seed);
        gateway.handle(now, gateway::Input::Calendar(calendar));
        self.role = Some(Role::Gateway(Box::new(gateway)));
        self.heed(now, says);
        if let Some(Role::Gateway(gateway)) = &mut self.role {
            let registered = self.mailboxes.usage();
            gateway.handle(now, gateway::Input::Registered(registered));
        }
    }

    /// Puts its keys in, with what the journal remembers.
    fn install(&mut self) {
        for (epoch, secret) in &self.keys {
            let mut seen = ReplaySet::new(secret, self.capacity);
            for (_, fingerprint) in self.journal.iter().filter(|(of, _)| of == epoch) {
                seen.admit(*fingerprint).expect("it was admitted before");
            }
            self.stage.install(*epoch, secret.clone(), seen);
        }
    }

    /// Tells its machine what its documents say.
    pub(super) fn heed(&mut self, now: Time, says: &Says) {
        match &mut self.role {
            Some(Role::Mix(mix)) => mix.handle(now, mix::Input::Next(says.next.clone())),
            Some(Role::Gateway(gateway)) => {
                for document in &says.documents {
                    gateway.handle(now, gateway::Input::Consensus(Arc::clone(document)));
                }
            }
            None => {}
        }
    }

    /// Everything that is not on its disk is lost; the journal too, if `sabotage` says so.
    pub(super) fn crash(&mut self, sabotage: Sabotage) {
        if sabotage == Sabotage::ForgetTags {
            self.journal.clear();
        }
        self.role = None;
        self.stage = Stage::default();
    }

    /// One packet from a link: opened, admitted, journaled, finished. `None` if it is dropped.
    pub(super) fn peel(
        &mut self,
        consensus: &Consensus,
        calendar: Calendar,
        now: Time,
        packet: Box<Packet>,
        dropped: impl FnMut(PeelDrop),
    ) -> Option<Peeled> {
        if self.journal.len() >= self.capacity {
            self.capacity = 2 * self.journal.len();
            self.install();
        }
        let arrival = Arrival {
            received: now,
            packet,
        };
        let pending = self.stage.open(
            &consensus.schedule(),
            calendar.utc(now),
            consensus.params.delay_cap(),
            vec![arrival],
            dropped,
        );
        self.journal.extend_from_slice(&pending.journal); // the journal's write returns
        pending.finish().next()
    }

    /// Packets that a mix holds; none in a gateway or while down.
    pub(super) fn held(&self) -> Option<usize> {
        match &self.role {
            Some(Role::Mix(mix)) => Some(mix.held()),
            Some(Role::Gateway(_)) | None => None,
        }
    }
}
