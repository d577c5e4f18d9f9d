//! What every daemon does around its role: runtime, signals, lines for its supervisor, exit code.
//!
//! | exit code | meaning                                |
//! |-----------|----------------------------------------|
//! | 0         | done, or stopped as asked              |
//! | 1         | failed while running                   |
//! | 2         | settings or usage, or a file that a    |
//! |           | person has to mend                     |
//!
//! Standard output carries one JSON object a line, for supervisors; logs and last words go to
//! standard error. SIGINT or SIGTERM asks the daemon to stop; a second one, or the end of the
//! grace period, ends the wait for it.

use core::{fmt::Display, future::Future, time::Duration};
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    keys::Keys,
    state::{StateDir, StateError},
};

/// Something went wrong while running.
pub const FAILED: u8 = 1;
/// The settings or the command line are wrong.
pub const USAGE: u8 = 2;

/// Runs `role` on a runtime of its own until it returns; a signal cancels its token, after which
/// it has `grace` to come to an end.
pub fn daemon<E, F>(
    name: &str,
    grace: Duration,
    role: impl FnOnce(CancellationToken) -> F,
) -> ExitCode
where
    E: Display,
    F: Future<Output = Result<(), E>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(name, &error, FAILED),
    };
    let code = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return fail(name, &error, FAILED),
        };
        let mut role = core::pin::pin!(role(stop.clone()));
        let ended = tokio::select! {
            ended = &mut role => Some(ended),
            () = signals.next() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                stop.cancel();
                tokio::select! {
                    ended = &mut role => ended,
                    () = signals.next() => return fail(name, &"stopped by a second signal", FAILED),
                    () = tokio::time::sleep(grace) => return fail(name, &"did not come to an end within its grace period", FAILED),
                }
            }
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(name, &error, FAILED),
        }
    });
    // Threads that still wait for a disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Writes one JSON line to standard output, for whoever started this process. That nobody
/// listens any more is no error.
pub fn announce(line: &impl Serialize) {
    let Ok(mut text) = serde_json::to_string(line) else {
        return;
    };
    text.push('\n');
    let mut out = io::stdout().lock();
    let _nobody_listens = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says each change of a role's state once: in the log, and as `{"state":"ready"}` to whoever
/// started this process.
#[derive(Debug, Default)]
pub struct Reporter {
    said: Option<&'static str>,
}

impl Reporter {
    /// The state is `state`.
    pub fn say(&mut self, state: &'static str) {
        if self.said.replace(state) != Some(state) {
            tracing::info!(state, "state");
            announce(&serde_json::json!({ "state": state }));
        }
    }
}

/// Writes the last words of the process, with every cause of `error`, and gives its exit code.
pub fn fail(name: &str, error: &impl Display, code: u8) -> ExitCode {
    let _nobody_listens = writeln!(io::stderr(), "{name}: {error:#}");
    ExitCode::from(code)
}

/// Why a role has no keys to start with: one line, with the remedy. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum KeysMissing {
    /// `init` would have replaced an identity.
    #[error("{0} holds an identity already; keep it, or choose another state_dir")]
    Exists(String),
    /// `run` came before `init`.
    #[error("no identity in {path}; run: {name} init --state-dir {path}")]
    None {
        /// Of the program.
        name: &'static str,
        /// The state directory.
        path: String,
    },
    /// The state directory can't be used.
    #[error(transparent)]
    State(#[from] StateError),
}

fn has_identity(path: &Path) -> bool {
    path.join("identity").exists()
}

/// Makes the state directory at `path` with fresh keys.
///
/// # Errors
///
/// [`KeysMissing::Exists`] or [`KeysMissing::State`].
pub fn make_keys(path: &Path) -> Result<Keys, KeysMissing> {
    if has_identity(path) {
        return Err(KeysMissing::Exists(path.display().to_string()));
    }
    Ok(Keys::open(StateDir::open(path)?)?)
}

/// Opens the keys that [`make_keys`] made, and locks the directory for the program `name`.
///
/// # Errors
///
/// [`KeysMissing::None`] or [`KeysMissing::State`].
pub fn open_keys(name: &'static str, path: &Path) -> Result<Keys, KeysMissing> {
    if !has_identity(path) {
        let path = path.display().to_string();
        return Err(KeysMissing::None { name, path });
    }
    Ok(Keys::open(StateDir::open_patiently(path)?)?)
}
