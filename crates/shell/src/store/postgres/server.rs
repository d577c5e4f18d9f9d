//! Where a PostgreSQL server is, how one connects to it, and what is asked of it first.
//!
//! Spec: docs/spec/gateway.md, rule GW-26.
//!
//! | asked                 | refused otherwise, because                                            |
//! |-----------------------|-----------------------------------------------------------------------|
//! | a socket of this      | the connection has no TLS: what is sent is sealed, but ids, times and |
//! | machine               | counts are not, nor is the password                                   |
//! | no password in text   | settings are printed, logged and seen in `ps`; a file is not           |
//! | `fsync`, `synchronous_commit` | what is answered would not be on the disk                     |
//!
//! A server on another machine is reached through a tunnel that ends on this one.

use core::time::Duration;
use std::{error::Error as _, net::IpAddr};

use tokio_postgres::{
    Client, Config, NoTls,
    config::{Host, SslMode},
};

/// Longest that the server may take to answer, and to be connected to.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Longest that an expiry may take: after days without a gateway it is of many packets, and one
/// that was cut short would be asked for again at each start.
pub(super) const EXPIRY_DEADLINE: Duration = Duration::from_secs(1800);
/// Longest that a store is waited for which another gateway uses: one that was killed lets go soon.
pub(super) const TAKING: Duration = Duration::from_secs(3);

/// A PostgreSQL server, not connected to.
#[derive(Clone)]
pub struct Server(Config);

/// Why a text does not name a server: one line, with the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It is no connection string.
    #[error("a connection string is like `host=/run/postgresql user=lacuna dbname=lacuna`")]
    Syntax,
    /// It holds a secret.
    #[error(
        "a password does not belong in settings; write it to the file `postgres-password` in state_dir, mode 600"
    )]
    Password,
    /// The server is on another machine, or nowhere.
    #[error(
        "host must be the folder of a socket or a loopback address, since the connection is not encrypted; to reach another machine, let a tunnel end on this one"
    )]
    Host,
}

impl Server {
    /// Reads a connection string of libpq's form, or a `postgresql://` address.
    ///
    /// # Errors
    ///
    /// [`ServerError`].
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let mut config: Config = text.parse().map_err(|_| ServerError::Syntax)?;
        if config.get_password().is_some() {
            return Err(ServerError::Password);
        }
        let here = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        };
        let hosts = config.get_hosts();
        if hosts.is_empty() || !hosts.iter().all(here) || !config.get_hostaddrs().is_empty() {
            return Err(ServerError::Host);
        }
        config
            .ssl_mode(SslMode::Disable)
            .connect_timeout(DEADLINE)
            .application_name("lacuna-gateway");
        Ok(Self(config))
    }

    /// The same server, with the password of a file (a line break at its end is not part of it).
    #[must_use]
    pub fn with_password(mut self, file: &[u8]) -> Self {
        self.0.password(file.trim_ascii_end());
        self
    }

    /// Connects, and checks that what is committed is on the disk. The connection lives as long as
    /// the runtime that this runs on.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) = self.0.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::error!(why = %Failure::from(error), "the connection to PostgreSQL ended");
            }
        });
        // Plans that do not change with the server's statistics: every statement has an index.
        client
            .batch_execute(
                "SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off;
                 SET enable_mergejoin = off",
            )
            .await?;
        for setting in ["fsync", "synchronous_commit"] {
            let is = client
                .query_one("SELECT current_setting($1)", &[&setting])
                .await?;
            let is: String = is.try_get(0)?;
            if is == "off" {
                return Err(Failure::NotDurable(setting));
            }
        }
        // Whatever becomes of the server's own settings while this runs.
        client.batch_execute("SET synchronous_commit = on").await?;
        Ok(client)
    }
}

/// Where it is and who connects may be secret to those who read logs.
impl core::fmt::Debug for Server {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Server(..)")
    }
}

/// What went wrong with the server. Its text holds no data: PostgreSQL says that in details, which
/// are left out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("PostgreSQL: {}", said(.0))]
    Server(tokio_postgres::Error),
    #[error(
        "PostgreSQL has `{0}` off, so what it confirms may be lost; set it to `on` in postgresql.conf (or for this user or database)"
    )]
    NotDurable(&'static str),
    #[error("PostgreSQL did not answer within {} s, or {} min for an expiry", DEADLINE.as_secs(), EXPIRY_DEADLINE.as_secs() / 60)]
    Late,
    #[error("PostgreSQL holds what this program did not write: {0}")]
    Damaged(&'static str),
    #[error(
        "another gateway is using this database; if it is another front end of this one, set `front_ends = true` at each of them, else give each gateway a database of its own"
    )]
    InUse,
    #[error(transparent)]
    Keys(#[from] crate::state::StateError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(told), _) => told.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GW-26.
    #[test]
    fn servers_of_this_machine_are_taken_and_secrets_are_not() {
        for text in [
            "host=/run/postgresql user=lacuna dbname=lacuna",
            "host=127.0.0.1 port=5433 user=lacuna",
            "postgresql://lacuna@[::1]/lacuna",
        ] {
            Server::parse(text).unwrap();
        }
        for (text, why) in [
            ("nonsense", ServerError::Syntax),
            ("host=/run/postgresql password=x", ServerError::Password),
            ("postgresql://lacuna:x@127.0.0.1", ServerError::Password),
            ("host=db.example.org", ServerError::Host),
            ("host=192.0.2.1", ServerError::Host),
            ("host=/run,192.0.2.1", ServerError::Host),
            ("host=127.0.0.1 hostaddr=192.0.2.1", ServerError::Host),
            ("user=lacuna", ServerError::Host),
        ] {
            assert_eq!(Server::parse(text).unwrap_err(), why, "{text}");
        }
        let server = Server::parse("host=/run user=lacuna").unwrap();
        let server = server.with_password(b"secret\n");
        assert_eq!(server.0.get_password(), Some(&b"secret"[..]));
        assert!(!format!("{server:?} {:?}", server.0).contains("secret"));
    }
}
