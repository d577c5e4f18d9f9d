//! Two applications that write to each other through a network, and the ledger of what they say.
//!
//! | verb        | does                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | `introduce` | exchanges cards out of band, begins sessions, listens                    |
//! | `send`      | asks one to send to the other                                            |
//! | `until`     | takes reports until the ledger shows something, within a limit           |
//! | `hear`      | takes reports until one of a kind comes, within a limit                  |
//! | `count`     | what a client's status has counted                                       |
//!
//! Deliberately not here: what is sent and why (the demo's phases, the tests' steps).

use core::time::Duration;

use anyhow::{Context, bail};
use client::status::Status;
use proto::Time;
use shell::clock::Clock;

use crate::{
    app::{Card, Command, Report as Said},
    ledger::{Ledger, Purpose},
    network::{CLIENTS, Network},
};

/// The first client.
pub const ALICE: usize = 0;
/// The second client.
pub const BOB: usize = 1;

/// Longest that any one step may take.
const LIMIT: Duration = Duration::from_secs(75);

/// Two applications, their network, and what became of their messages.
#[derive(Debug)]
pub struct Conversation {
    clock: Clock,
    /// The network; its processes may be stopped and started between steps.
    pub network: Network,
    /// What was asked for, and what was opened.
    pub ledger: Ledger,
    /// Reports that nobody has asked for yet.
    said: Vec<(usize, Said)>,
}

impl Conversation {
    /// A conversation over `network`, whose applications run.
    #[must_use]
    pub fn over(network: Network, clock: Clock) -> Self {
        Self {
            clock,
            network,
            ledger: Ledger::default(),
            said: Vec::new(),
        }
    }

    /// Both publish a card, get the other's, and listen.
    ///
    /// # Errors
    ///
    /// As [`Conversation::hear`].
    pub async fn introduce(&mut self) -> anyhow::Result<()> {
        for who in [ALICE, BOB] {
            self.tell(who, &Command::Card).await?;
        }
        let cards = [self.card(ALICE).await?, self.card(BOB).await?];
        for (who, other) in [(ALICE, BOB), (BOB, ALICE)] {
            let name = CLIENTS[other].to_owned();
            let card = cards[other].clone();
            self.tell(who, &Command::Meet { name, card }).await?;
            self.connect(who).await?;
        }
        Ok(())
    }

    async fn card(&mut self, who: usize) -> anyhow::Result<Card> {
        self.hear(who, "card", |said| {
            let Said::Card(card) = said else { return None };
            Some(card.clone())
        })
        .await
    }

    /// Has `who` take messages from its daemon, which runs.
    ///
    /// # Errors
    ///
    /// As [`Conversation::hear`].
    pub async fn connect(&mut self, who: usize) -> anyhow::Result<()> {
        self.tell(who, &Command::Connect).await?;
        let connected = |said: &Said| (*said == Said::Connected).then_some(());
        self.hear(who, "connection", connected).await
    }

    /// Asks `from` to send `bytes` to the other; the number of the message.
    ///
    /// # Errors
    ///
    /// If the application is gone.
    pub async fn send(
        &mut self,
        from: usize,
        bytes: usize,
        purpose: Purpose,
    ) -> anyhow::Result<u64> {
        let to = 1 - from;
        let number = self.ledger.expect(to, bytes, purpose);
        let name = CLIENTS[to].to_owned();
        self.tell(
            from,
            &Command::Send {
                name,
                number,
                bytes,
            },
        )
        .await?;
        Ok(number)
    }

    /// Asks `from` to send to the other without saying who it is; the number of the message.
    ///
    /// # Errors
    ///
    /// If the application is gone.
    pub async fn send_unnamed(&mut self, from: usize, bytes: usize) -> anyhow::Result<u64> {
        let to = 1 - from;
        let number = self.ledger.expect(to, bytes, Purpose::Other);
        let name = CLIENTS[to].to_owned();
        self.tell(
            from,
            &Command::SendUnnamed {
                name,
                number,
                bytes,
            },
        )
        .await?;
        Ok(number)
    }

    /// Asks whoever received message `to` to answer it; the number of the answer.
    ///
    /// # Errors
    ///
    /// If the application is gone.
    pub async fn answer(&mut self, from: usize, to: u64, bytes: usize) -> anyhow::Result<u64> {
        let number = self.ledger.expect(1 - from, bytes, Purpose::Other);
        self.tell(from, &Command::Answer { to, number, bytes })
            .await?;
        Ok(number)
    }

    /// What the client of `who` tells of itself.
    ///
    /// # Errors
    ///
    /// As [`Conversation::hear`].
    pub async fn status(&mut self, who: usize) -> anyhow::Result<Status> {
        self.tell(who, &Command::Status).await?;
        self.hear(who, "status", |said| {
            let Said::Status(status) = said else {
                return None;
            };
            Some((**status).clone())
        })
        .await
    }

    async fn tell(&mut self, who: usize, command: &Command) -> anyhow::Result<()> {
        let command = serde_json::to_value(command)?;
        self.network.app(who).tell(&command).await
    }

    /// Takes reports until the ledger shows what is waited for.
    ///
    /// # Errors
    ///
    /// If that takes too long, an application fails or ends, or something wrong is opened.
    pub async fn until(
        &mut self,
        what: &str,
        done: impl Fn(&Ledger) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = self.clock.now().after(LIMIT);
        while !done(&self.ledger) {
            self.step(what, deadline).await?;
        }
        Ok(())
    }

    /// Takes reports until `who` says what is waited for, or finds it among those that came.
    ///
    /// # Errors
    ///
    /// As [`Conversation::until`].
    pub async fn hear<T>(
        &mut self,
        who: usize,
        what: &str,
        wanted: impl Fn(&Said) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = self.clock.now().after(LIMIT);
        loop {
            let is_wanted = |(by, said): &(usize, Said)| *by == who && wanted(said).is_some();
            if let Some(at) = self.said.iter().position(is_wanted) {
                let (_, said) = self.said.remove(at);
                return wanted(&said).context("it was just found");
            }
            self.step(what, deadline).await?;
        }
    }

    /// Takes one report.
    async fn step(&mut self, what: &str, deadline: Time) -> anyhow::Result<()> {
        let left = deadline.since(self.clock.now());
        let Ok(line) = tokio::time::timeout(left, self.network.line()).await else {
            let logs = self.network.root().display();
            bail!(
                "no {what} within {} s; see the logs in {logs}",
                LIMIT.as_secs()
            );
        };
        let (who, line) = line?;
        let said: Said = serde_json::from_value(line.value)?;
        self.ledger.note(who, line.at, &said)?;
        if !matches!(said, Said::Sealed { .. } | Said::Progress { .. }) {
            self.said.push((who, said));
        }
        Ok(())
    }
}
