//! Client links: dialled, up, lost, dialled again.
//!
//! A link lives from its hello until its client or its gateway is gone. Both ends learn of the other's end one
//! link delay later, and a client dials again [`REDIAL`] after that.

use core::time::Duration;
use std::collections::BTreeMap;

use proto::{LinkId, NodeId, client, gateway, wire, wire::Frame};

use super::{
    World,
    agenda::Event,
    node::Role,
    setup::{Purpose, seed_of},
};

/// How long a client waits before it dials again.
const REDIAL: Duration = Duration::from_secs(1);

/// A client's two links, by place.
pub(super) const ENTRY: usize = 0;
pub(super) const MAILBOX: usize = 1;

#[derive(Clone, Copy)]
struct Link {
    client: usize,
    gateway: usize,
    which: usize,
    up: bool,
}

/// All links that a client knows of.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    /// Each client's links, by place.
    dialled: BTreeMap<(usize, usize), LinkId>,
    given: u64,
}

impl Links {
    fn dial(&mut self, client: usize, gateway: usize, which: usize) -> LinkId {
        let link = LinkId(self.given);
        self.given += 1;
        let state = Link {
            client,
            gateway,
            which,
            up: false,
        };
        self.links.insert(link, state);
        self.dialled.insert((client, which), link);
        link
    }

    fn forget(&mut self, link: LinkId) -> Option<Link> {
        let state = self.links.remove(&link)?;
        self.dialled.remove(&(state.client, state.which));
        Some(state)
    }

    /// The link of a client that is up at a place.
    pub(super) fn up(&self, client: usize, which: usize) -> Option<LinkId> {
        let link = self.dialled.get(&(client, which))?;
        self.links[link].up.then_some(*link)
    }

    /// The gateway of a link.
    pub(super) fn gateway(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).map(|state| state.gateway)
    }

    /// The client of a link that is up.
    pub(super) fn client_up(&self, link: LinkId) -> Option<usize> {
        let state = self.links.get(&link).filter(|state| state.up)?;
        Some(state.client)
    }

    /// Every link of a client.
    pub(super) fn of_client(&self, client: usize) -> Vec<LinkId> {
        self.those(|link| link.client == client)
    }

    /// Every link of a gateway.
    pub(super) fn of_gateway(&self, gateway: usize) -> Vec<LinkId> {
        self.those(|link| link.gateway == gateway)
    }

    fn those(&self, are: impl Fn(&Link) -> bool) -> Vec<LinkId> {
        let those = self.links.iter().filter(|(_, link)| are(link));
        those.map(|(id, _)| *id).collect()
    }

    /// Every link with its client and its gateway.
    pub(super) fn all(&self) -> Vec<(LinkId, usize, usize)> {
        let all = self.links.iter();
        all.map(|(id, link)| (*id, link.client, link.gateway))
            .collect()
    }

    /// A client forgets all its links: it crashed.
    pub(super) fn drop_client(&mut self, client: usize) {
        for link in self.of_client(client) {
            self.forget(link);
        }
    }
}

impl World<'_> {
    /// Dials what a client has no link to.
    pub(super) fn connect(&mut self, client: usize) {
        let Some(machine) = &self.seats[client].client else {
            return;
        };
        let home = machine.mailbox_gateway();
        for (which, wanted) in [(ENTRY, machine.entry()), (MAILBOX, Some(home))] {
            let Some(gateway) = wanted.and_then(|id| self.by_id.get(&id).copied()) else {
                continue;
            };
            if self.links.dialled.contains_key(&(client, which)) {
                continue;
            }
            let link = self.links.dial(client, gateway, which);
            let there = self.now.after(self.link_delay());
            self.agenda.put(there, Event::Linked(link));
        }
    }

    /// A client that enters elsewhere now hangs up and dials.
    pub(super) fn follow_entry(&mut self, client: usize, entry: Option<NodeId>) {
        let Some(&link) = self.links.dialled.get(&(client, ENTRY)) else {
            return;
        };
        let gateway = self.links.gateway(link).map(|at| self.nodes[at].id);
        if entry.is_none() || entry == gateway {
            return;
        }
        self.links.forget(link);
        let there = self.now.after(self.link_delay());
        self.agenda.put(there, Event::Unlinked(link));
        self.agenda.put(self.now, Event::Connect(client));
    }

    /// A hello arrives: the gateway takes the link, or nobody answers.
    pub(super) fn linked(&mut self, link: LinkId) {
        let Some(&Link {
            client,
            gateway,
            which,
            ..
        }) = self.links.links.get(&link)
        else {
            return;
        };
        let back = self.now.after(self.link_delay());
        let cut = self
            .faults
            .cut(self.nodes.len() + client, gateway, self.now);
        if cut || !matches!(self.nodes[gateway].role, Some(Role::Gateway(_))) {
            return self.agenda.put(back, Event::Down(link));
        }
        let purpose = [wire::Purpose::Entry, wire::Purpose::Mailbox][which];
        let exporter = self.exporter(link);
        let input = gateway::Input::Linked {
            link,
            purpose,
            profile: self.profile(client),
            exporter,
        };
        self.ask_gateway(gateway, input);
        self.agenda.put(back, Event::Up(link));
    }

    fn exporter(&self, link: LinkId) -> [u8; 32] {
        seed_of(self.seed, usize::MAX, Purpose::Keys, link.0)
    }

    pub(super) fn up(&mut self, link: LinkId) {
        let Some(state) = self.links.links.get_mut(&link) else {
            return;
        };
        state.up = true;
        let Link {
            client,
            gateway,
            which,
            ..
        } = *state;
        let exporter = self.exporter(link);
        let gateway = self.nodes[gateway].id;
        let input = [
            client::Input::EntryUp { gateway },
            client::Input::MailboxUp { gateway, exporter },
        ][which]
            .clone();
        self.tell(client, input);
    }

    /// The client learns that a link is gone, and dials again.
    pub(super) fn down(&mut self, link: LinkId) {
        let Some(Link {
            client,
            gateway,
            which,
            ..
        }) = self.links.forget(link)
        else {
            return;
        };
        let gateway = self.nodes[gateway].id;
        let input = [
            client::Input::EntryDown { gateway },
            client::Input::MailboxDown { gateway },
        ][which]
            .clone();
        self.tell(client, input);
        self.agenda
            .put(self.now.after(REDIAL), Event::Connect(client));
    }

    /// The gateway learns that a link is gone; its client has forgotten it already.
    pub(super) fn unlinked(&mut self, link: LinkId) {
        for gateway in 0..self.nodes.len() {
            self.ask_gateway(gateway, gateway::Input::Unlinked { link });
        }
    }

    /// A client writes a frame to one of its links.
    pub(super) fn write(&mut self, client: usize, which: usize, frame: Frame) {
        let Some(link) = self.links.up(client, which) else {
            return self.tally.count_named("NoLink");
        };
        self.tally
            .note(self.now, b'U', client as u64, link.0, frame.as_bytes());
        if let Some(gateway) = self.links.gateway(link) {
            self.see_upstream(client, gateway);
        }
        let entity = self.nodes.len() + client;
        if which == ENTRY && self.loses(entity) {
            return;
        }
        let at = self.now.after(self.link_delay());
        self.agenda.put(at, Event::Upstream { link, frame });
    }

    pub(super) fn upstream(&mut self, link: LinkId, frame: Frame) {
        if let Some(gateway) = self.links.gateway(link) {
            self.ask_gateway(gateway, gateway::Input::Frame { link, frame });
        }
    }

    pub(super) fn downstream(&mut self, link: LinkId, frame: Frame) {
        if let (Some(client), Some(at)) = (self.links.client_up(link), self.links.gateway(link)) {
            let gateway = self.nodes[at].id;
            self.tell(client, client::Input::Frame { gateway, frame });
        }
    }
}
