//! What the machines ask for, carried out: the counterpart of the shell's effects.

use std::collections::VecDeque;

use proto::{Machine, Time, client, client::State, gateway, mix};

use super::{World, agenda::Event, links, node::Role, store::Request};

impl World<'_> {
    /// Drains a machine, carries out what it asks for, and arms its next wake.
    pub(super) fn settle(&mut self, entity: usize) {
        let wake = match entity.checked_sub(self.nodes.len()) {
            Some(client) => self.settle_client(client),
            None => self.settle_node(entity),
        };
        if let Some(at) = wake
            && self.armed[entity].is_none_or(|armed| at < armed || armed < self.now)
        {
            self.armed[entity] = Some(at);
            self.agenda.put(at, Event::Wake(entity));
        }
    }

    fn settle_node(&mut self, node: usize) -> Option<Time> {
        match &mut self.nodes[node].role {
            None => None,
            Some(Role::Mix(mix)) => {
                let wake = mix.next_wake();
                let outputs: Vec<_> = core::iter::from_fn(|| mix.poll()).collect();
                for output in outputs {
                    match output {
                        mix::Output::Send { to, packet } => self.transmit(node, to, packet),
                        mix::Output::Dropped(why) => self.tally.count(why),
                        mix::Output::Holding { .. } => {
                            self.tally.count_named("Holding");
                            self.tally.holds.push((node, self.now));
                        }
                    }
                }
                wake
            }
            Some(Role::Gateway(gateway)) => {
                let wake = gateway.next_wake();
                let outputs: Vec<_> = core::iter::from_fn(|| gateway.poll()).collect();
                for output in outputs {
                    self.gateway_asks(node, output);
                }
                wake
            }
        }
    }

    fn gateway_asks(&mut self, node: usize, output: gateway::Output) {
        use gateway::Output;
        match Request::from(output) {
            Ok(request) => {
                let served = Event::Served {
                    node,
                    start: self.starts[node],
                    request,
                };
                let at = self.answer_time(node);
                self.agenda.put(at, served);
            }
            Err(Output::Open { .. }) => {} // nobody shares this store
            Err(Output::Relay { to, packet }) => self.transmit(node, to, packet),
            Err(Output::Frame { link, frame }) => {
                self.tally
                    .note(self.now, b'F', node as u64, link.0, frame.as_bytes());
                if let Some(client) = self.links.client_up(link) {
                    self.see_downstream(node, client);
                }
                let at = self.now.after(self.link_delay());
                self.agenda.put(at, Event::Downstream { link, frame });
            }
            Err(Output::Close { link }) => {
                let at = self.now.after(self.link_delay());
                self.agenda.put(at, Event::Down(link));
            }
            Err(Output::Dropped(why)) => self.tally.count(why),
            Err(Output::Event(what)) => self.tally.count(what),
            Err(
                Output::Register { .. }
                | Output::Store { .. }
                | Output::Peek { .. }
                | Output::Confirm { .. }
                | Output::Expire { .. },
            ) => unreachable!("requests to the store"),
        }
    }

    fn settle_client(&mut self, client: usize) -> Option<Time> {
        let mut outputs: VecDeque<client::Output> = VecDeque::new();
        loop {
            let machine = self.seats[client].client.as_mut()?;
            outputs.extend(core::iter::from_fn(|| machine.poll()));
            let Some(output) = outputs.pop_front() else {
                let (wake, entry) = (machine.next_wake(), machine.entry());
                self.follow_entry(client, entry);
                return wake;
            };
            self.client_asks(client, output);
        }
    }

    fn client_asks(&mut self, client: usize, output: client::Output) {
        use client::{ClientEvent, Output};
        let inside = self.seats[client].looping.is_some();
        match output {
            Output::Entry(frame) => self.write(client, links::ENTRY, frame),
            Output::Addressed { .. } | Output::Relocated(_) => {
                unreachable!("nobody asked for an address, or moves")
            }
            Output::Mailbox { frame, .. } => self.write(client, links::MAILBOX, frame),
            Output::Store { txn, ops } => {
                let written = Event::Written {
                    client,
                    start: self.starts[self.nodes.len() + client],
                    txn,
                    ops,
                };
                let at = self.answer_time(self.nodes.len() + client);
                self.agenda.put(at, written);
            }
            Output::Deliver(delivery) => {
                let to = self.name(client, 0).client;
                let crashes = &self.seats[client].crashes;
                self.tally.delivered(self.now, to, crashes, &delivery.body);
                let message = delivery.message;
                if let Some(machine) = &mut self.seats[client].client {
                    machine.handle(self.now, client::Input::Taken { message });
                }
            }
            Output::Progress(progress) => {
                let message = usize::try_from(progress.ticket).expect("a ticket of the script");
                let name = self.name(client, message);
                let fate = self.tally.fates.get_mut(&name).expect("in the script");
                match progress.state {
                    State::Queued => fate.queued = true,
                    State::Sent => {
                        fate.sent.get_or_insert(self.now);
                        self.has_sent(client);
                    }
                    State::Acked => self.tally.acked(name),
                    State::Expired | State::Failed(_) => {
                        let state = progress.state;
                        self.tally.violations.push(format!("{name:?} is {state:?}"));
                    }
                }
            }
            Output::Event(ClientEvent::LoopReturned { .. }) if inside => {
                self.tally.count_named("NodeLoopReturned");
            }
            Output::Event(event @ (ClientEvent::LoopSent | ClientEvent::LoopLost)) if inside => {
                self.tally.count_named(&format!("Node{event:?}"));
            }
            Output::Event(ClientEvent::LoopAlarm) => {
                self.tally.alarms.push((client, self.now));
                self.tally
                    .count_named(if inside { "NodeLoopAlarm" } else { "LoopAlarm" });
                if let Some((node, Some(_))) = self.seats[client].looping {
                    self.hold(node);
                }
            }
            Output::Event(ClientEvent::LoopReturned { latency }) => {
                self.tally.count_named("LoopReturned");
                self.tally.loop_latencies_s.push(latency.as_secs_f64());
            }
            Output::Event(event) => {
                self.tally.count(event);
                if event == ClientEvent::PayloadSent {
                    self.has_sent_packet(client);
                }
            }
        }
    }
}
