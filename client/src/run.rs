//! `lacuna run`: the daemon as a process.
//!
//! | line on standard output      | when                                                     |
//! |------------------------------|----------------------------------------------------------|
//! | `{"listening":"SOCKET"}`     | the local API answers                                    |
//! | `{"state":"bootstrapping"}`  | at the start, and whenever a link is lost                |
//! | `{"state":"ready"}`          | both links are up                                        |
//! | `{"state":"off"}`            | stopped, also after a proof of a split                   |
//!
//! SIGINT or SIGTERM stops it within the grace period. Logs go to standard error.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use shell::role::{self, USAGE, announce};
use tokio_util::sync::CancellationToken;

use crate::{Daemon, daemon::Ended, serve::Server, settings::Config, status::State};

const NAME: &str = "lacuna";

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Listening(&'a str),
    State(State),
}

/// Runs the daemon until it is told to stop; its exit code.
pub(crate) fn main(config: Config) -> ExitCode {
    if let Err(error) = shell::log::start(&config.log) {
        return role::fail(NAME, &format!("settings: log: {error}"), USAGE);
    }
    // What keeps it from starting is a matter of settings; what ends it later mostly is not.
    let usage = AtomicBool::new(true);
    let grace = config.stop_grace();
    let code = role::daemon(NAME, grace, |stop| async {
        let ended = run(config, stop, &usage).await;
        if let Err(error) = &ended
            && let Some(Ended::Settings(_)) = error.downcast_ref()
        {
            usage.store(true, Ordering::Relaxed);
        }
        ended
    });
    if code != ExitCode::SUCCESS && usage.load(Ordering::Relaxed) {
        return ExitCode::from(USAGE);
    }
    code
}

async fn run(config: Config, stop: CancellationToken, usage: &AtomicBool) -> anyhow::Result<()> {
    let (socket, connections_max) = (config.socket.clone(), config.api_connections_max);
    let handle = Daemon::start(config).await?;
    let server = Server::bind(&socket)?;
    usage.store(false, Ordering::Relaxed);
    announce(&Line::Listening(&socket.display().to_string()));
    let states = async {
        let (mut state, _) = handle.state();
        loop {
            announce(&Line::State(state));
            state = handle.left(state).await;
            if state == State::Off && handle.is_stopping() {
                return;
            }
        }
    };
    let serve = server.serve(&handle, connections_max);
    let stopped = async {
        stop.cancelled().await;
        handle.ask_to_stop();
    };
    tokio::select! {
        () = serve => {}
        () = async { tokio::join!(states, stopped); } => {}
    }
    handle.ended().await
}
