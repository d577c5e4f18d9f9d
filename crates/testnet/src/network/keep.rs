//! A network that stays up for people to use and to break.

use core::{future::Future, pin::pin};

use super::{Network, first};
use crate::process::Process;

impl Network {
    /// Keeps it running until `stop`, whatever happens to single processes, then stops it. A process
    /// that ends is told of and does without: the others show what its end means to them.
    ///
    /// # Errors
    ///
    /// As [`Network::stop`].
    pub async fn keep(
        mut self,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(&anyhow::Error),
    ) -> anyhow::Result<()> {
        let mut stop = pin!(stop);
        loop {
            let (name, end) = tokio::select! {
                ended = self.one_ended() => ended,
                () = &mut stop => return self.stop().await,
            };
            tell(&end);
            self.forget(&name);
        }
    }

    /// Waits until a process ends: its name, and what it said last.
    async fn one_ended(&mut self) -> (String, anyhow::Error) {
        let gateways = self.gateways.iter_mut().flatten();
        let nodes = gateways
            .map(|gateway| &mut gateway.process)
            .chain(&mut self.mixes);
        let running = nodes
            .chain(&mut self.authorities)
            .chain(self.clients.iter_mut().flatten());
        let ends = running.map(|process| async move {
            loop {
                if let Err(end) = process.line().await {
                    return (process.name().to_owned(), end);
                }
            }
        });
        first(ends).await
    }

    fn forget(&mut self, name: &str) {
        let other = |process: &Process| process.name() != name;
        self.authorities.retain(other);
        self.mixes.retain(other);
        for client in &mut self.clients {
            client.take_if(|client| !other(client));
        }
        for gateway in &mut self.gateways {
            gateway.take_if(|gateway| !other(&gateway.process));
        }
    }
}
