//! One child process: started, heard, stopped.
//!
//! A child is this same executable, re-executed as a role. It reports on standard output, one
//! JSON object a line; whoever waits, waits for one of those lines, never for time to pass. Its
//! standard error goes to `log` in its folder.
//!
//! Nothing outlives the supervisor: a child asks the kernel for a death signal before it does
//! anything else ([`die_with_parent`]), and a dropped [`Process`] is killed.
//!
//! Deliberately not here: restarts by policy. Who wants a process again, starts it again.

use core::time::Duration;
use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use proto::Time;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::Value;
use shell::clock::Clock;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

/// Longest that a role may take until it is ready.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// Longest that a role may take to stop.
pub(crate) const STOP: Duration = Duration::from_secs(10);

/// Names the parent's process id to a child, so that it notices a parent that is gone already.
const PARENT: &str = "LACUNA_TESTNET_PARENT";

/// Asks the kernel to kill this process when the thread that started it ends, and ends it at
/// once if that has happened already. The first thing every role does.
///
/// # Errors
///
/// If the kernel refuses, or the parent is gone.
pub fn die_with_parent() -> anyhow::Result<()> {
    let Some(parent) = std::env::var_os(PARENT) else {
        return Ok(()); // started by hand
    };
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking for a death signal")?;
    let alive = getppid()
        .map(Pid::as_raw_nonzero)
        .map(|pid| pid.to_string());
    if alive.map(OsString::from) != Some(parent) {
        bail!("the testnet that started this role is gone");
    }
    Ok(())
}

/// One line of a child's standard output.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was read.
    pub at: Time,
    /// What it says.
    pub value: Value,
}

/// A running role.
#[derive(Debug)]
pub struct Process {
    name: String,
    folder: PathBuf,
    child: Child,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<Line>,
}

/// Starts roles: an executable that has them all, and the clock that stamps what they say.
#[derive(Clone, Debug)]
pub struct Starter {
    /// `lacuna-testnet`.
    pub executable: PathBuf,
    /// The supervisor's clock.
    pub clock: Clock,
}

impl Starter {
    /// Starts `role` with `args`; its log goes to `folder/log`. Call it on a thread that lives as
    /// long as the child is to live: the child dies with it.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written or the process not be started.
    pub fn start(
        &self,
        name: &str,
        folder: &Path,
        role: &str,
        args: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Process> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let log = folder.join("log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut child = Command::new(&self.executable)
            .arg("role")
            .arg(role)
            .args(args)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = child.stdout.take().context("stdout is piped")?;
        let (said, lines) = mpsc::unbounded_channel();
        let clock = self.clock;
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                let at = clock.now();
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if said.send(Line { at, value }).is_err() {
                    return;
                }
            }
        });
        Ok(Process {
            name: name.to_owned(),
            folder: folder.to_owned(),
            child,
            input,
            lines,
        })
    }
}

impl Process {
    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, until it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// CPU time of all its threads, in steps of a clock tick of the kernel's.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let id = self.id().context("it has ended")?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // After the name, which may hold anything: fields 3 and on; 14 and 15 are user and system.
        let (_, fields) = stat.rsplit_once(") ").context("no stat")?;
        let fields = fields.split(' ').skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let each = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis(ticks * 1000 / each))
    }

    /// The next line it prints.
    ///
    /// # Errors
    ///
    /// If it ended instead: with what it said last.
    pub async fn line(&mut self) -> anyhow::Result<Line> {
        match self.lines.recv().await {
            Some(line) => Ok(line),
            None => {
                let status = self.child.wait().await?;
                bail!("{} ended ({status}): {}", self.name, self.last_words())
            }
        }
    }

    /// Waits for the first line in which `wanted` finds something; other lines are skipped.
    ///
    /// # Errors
    ///
    /// If it ends before, or `limit` passes.
    pub async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Line) -> Option<T>,
    ) -> anyhow::Result<T> {
        let found = tokio::time::timeout(limit, async {
            loop {
                if let Some(found) = wanted(&self.line().await?) {
                    return Ok(found);
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => bail!(
                "{}: no {what} within {} s: {}",
                self.name,
                limit.as_secs(),
                self.last_words()
            ),
        }
    }

    /// Writes one line to its standard input.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub async fn tell(&mut self, value: &Value) -> anyhow::Result<()> {
        let line = format!("{value}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("telling {}", self.name))
    }

    /// Stops it by SIGTERM; by SIGKILL after `grace`.
    ///
    /// # Errors
    ///
    /// If it had to be killed, or did not exit with 0.
    pub async fn stop(mut self, grace: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(status) => match status? {
                status if status.success() => Ok(()),
                status => bail!("{} stopped with {status}: {}", self.name, self.last_words()),
            },
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not stop within {} s", self.name, grace.as_secs())
            }
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// If it does not exit with 0: what it said last.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        match self.child.wait().await? {
            status if status.success() => Ok(()),
            status => bail!("{} ended with {status}: {}", self.name, self.last_words()),
        }
    }

    /// Sends `signal`, if it still runs.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal); // gone already: nothing to do
        }
    }

    /// The last line of its log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it logged nothing").to_owned()
    }
}
