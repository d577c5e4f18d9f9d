//! A client that a test starts, stops and asks by hand.

use core::time::Duration;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use client::{
    api::{Request, Response},
    call::Call,
    status::Status,
};
use rustix::process::Signal;
use testnet::{network::Network, process::Process};

const LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
const STOP: Duration = Duration::from_secs(10);

/// One client, by hand.
pub(crate) struct Own {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) process: Option<Process>,
}

impl Own {
    fn args(&self, network: &Network, verb: &str) -> Vec<std::ffi::OsString> {
        let start = network.root().join("network.toml");
        vec![
            verb.into(),
            "--state-dir".into(),
            self.folder.join("state").into(),
            "--network".into(),
            start.into(),
            "--profile".into(),
            "interactive".into(),
        ]
    }

    pub(crate) async fn make(network: &Network, name: String) -> anyhow::Result<Self> {
        let own = Self {
            folder: network.folder(&name),
            name,
            process: None,
        };
        let args = own.args(network, "init");
        network
            .start_by_hand(&own.name, "client", args)?
            .ended()
            .await?;
        Ok(own)
    }

    pub(crate) fn start(&mut self, network: &Network) -> anyhow::Result<()> {
        let args = self.args(network, "run");
        self.process = Some(network.start_by_hand(&self.name, "client", args)?);
        Ok(())
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it runs")?.stop(STOP).await
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().context("it runs")?.signal(signal);
        Ok(())
    }

    pub(crate) async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        Ok(Call::open(&self.socket()).await?.ask(request).await?)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("state").join("lacuna.sock")
    }

    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let answer = self.ask(&Request::Status {}).await?;
        let Response::Status(status) = answer else {
            anyhow::bail!("asked for the status, got {answer:?}");
        };
        Ok(*status)
    }

    /// Waits until it has sent so many frames, on an entry link that was made so often.
    pub(crate) async fn until_sent(&self, made: u64, frames: u64) -> anyhow::Result<u64> {
        let mut ask = tokio::time::interval(ASK_EVERY);
        let sent = async {
            loop {
                let status = self.status().await?;
                let counts = ["drop_sent", "loop_sent", "payload_sent"];
                let sent = counts.iter().map(|name| status.counts.of(name)).sum();
                if status.entry.up && status.entry.made >= made && sent >= frames {
                    return anyhow::Ok(sent);
                }
                ask.tick().await;
            }
        };
        let sent = tokio::time::timeout(LIMIT, sent).await;
        sent.with_context(|| format!("{} sends too little", self.name))?
    }

    fn proc(&self) -> anyhow::Result<PathBuf> {
        let pid = self.process.as_ref().and_then(Process::id);
        Ok(Path::new("/proc").join(pid.context("it runs")?.to_string()))
    }

    /// What its rhythm's thread has worked since it started, and what the whole process has, in ticks of
    /// 10 ms.
    pub(crate) fn worked(&self) -> anyhow::Result<[u64; 2]> {
        let own = self.proc()?;
        // User and system time stand 12 and 13 words behind the name, which is in brackets.
        let worked = |of: &Path| {
            let stat = fs::read_to_string(of.join("stat"))?;
            let words = stat.rsplit(") ").next().unwrap_or_default();
            let times = words.split(' ').skip(11).take(2).map(str::parse::<u64>);
            anyhow::Ok(times.sum::<Result<u64, _>>()?)
        };
        let threads = fs::read_dir(own.join("task"))?.flatten();
        let is_rhythm = |of: &fs::DirEntry| {
            fs::read_to_string(of.path().join("comm")).is_ok_and(|name| name.trim() == "rhythm")
        };
        let rhythm = threads.into_iter().find(is_rhythm);
        let rhythm = rhythm.context("its rhythm has a thread")?;
        Ok([worked(&rhythm.path())?, worked(&own)?])
    }

    /// Adds the ports of its links, each with the port that it dialled.
    pub(crate) fn links(&self, to: &mut BTreeSet<(u16, u16)>) -> anyhow::Result<()> {
        let own = self.proc()?;
        let mut sockets = BTreeSet::new();
        for entry in fs::read_dir(own.join("fd"))? {
            let Ok(target) = fs::read_link(entry?.path()) else {
                continue; // closed meanwhile
            };
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            sockets.extend(inode.map(str::to_owned));
        }
        for line in fs::read_to_string(own.join("net/tcp"))?.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
            if sockets.contains(words[9]) {
                to.extend(port(words[1]).zip(port(words[2])));
            }
        }
        Ok(())
    }
}
