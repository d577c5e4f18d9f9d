//! Settings of the client: `example.toml` names, explains and defaults them; [`Config`] is their
//! shape. Merging is [`shell::settings`]'s, the command line is [`crate::cli`]'s.
//!
//! | path     | given     | default                                                               |
//! |----------|-----------|-----------------------------------------------------------------------|
//! | state    | as it is  | `$XDG_STATE_HOME/lacuna`, else `$HOME/.local/state/lacuna`            |
//! | socket   | as it is  | `lacuna.sock` in the given `state_dir`, else in `$XDG_RUNTIME_DIR`,   |
//! |          |           | else in the state directory                                           |
//! | network  | as it is  | `network.toml` in the state directory                                 |
//!
//! Deliberately no setting: rates, delays, sizes. They are the network's.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use proto::{NodeId, directory::params::is_profile_name};
use serde::{Deserialize, Serialize};
use shell::settings::{Flag, Settings, SettingsError};

/// Every setting with its default and its help.
pub const EXAMPLE: &str = include_str!("../example.toml");
const ENV_PREFIX: &str = "LACUNA_CLIENT_";
/// Longest path of a UNIX socket: Linux takes 107 bytes, and it is made as `….new` first.
const SOCKET_PATH_MAX: usize = 103;

/// The settings in force; `example.toml` says what each means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory of everything that outlives the process.
    pub state_dir: PathBuf,
    /// Socket of the local API.
    pub socket: PathBuf,
    /// The `network.toml`.
    pub network: PathBuf,
    /// Name of the traffic profile; empty: the one that the client was made with.
    pub profile: String,
    /// Preferred entry gateway, hex.
    pub entry: String,
    /// Mailbox gateway of a new identity, hex.
    pub mailbox: String,
    /// Whether to acknowledge messages.
    pub acks: bool,
    /// Most API connections at once.
    pub api_connections_max: usize,
    /// When a missing consensus becomes worth a word, in seconds.
    pub bootstrap_timeout_s: u64,
    /// Longest dial, in seconds.
    pub connect_timeout_s: u64,
    /// Grace of a stopping daemon, in seconds.
    pub stop_grace_s: u64,
    /// What to log.
    pub log: String,
}

/// A flag for each setting.
#[must_use]
pub fn flags() -> Vec<Flag> {
    known().flags()
}

fn known() -> Settings {
    Settings::new(EXAMPLE, ENV_PREFIX)
}

impl Config {
    /// The settings in force. `file` is the text of the settings file and its name, `environment`
    /// the process's, `flags` the settings given on the command line, by key.
    ///
    /// # Errors
    ///
    /// In one line what is wrong, where, and what would be right.
    pub fn load(
        file: (&str, &str),
        environment: &[(OsString, OsString)],
        flags: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let (text, name) = file;
        let given: Self = known().merge(text, name, environment.iter().cloned(), flags)?;
        let variable = |name: &str| {
            let (_, value) = environment.iter().find(|(known, _)| known == name)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        };
        let config = given.with_paths(variable)?;
        config.check()?;
        Ok(config)
    }

    /// The defaults, with everything below `state_dir`: what tests and embedders start from.
    ///
    /// # Errors
    ///
    /// If the path of the socket would be too long.
    pub fn in_folder(state_dir: &Path) -> anyhow::Result<Self> {
        let flags = [("state_dir".to_owned(), state_dir.display().to_string())];
        Self::load(("", ""), &[], &flags.into())
    }

    fn with_paths(mut self, variable: impl Fn(&str) -> Option<PathBuf>) -> anyhow::Result<Self> {
        let is_given = !self.state_dir.as_os_str().is_empty();
        if !is_given {
            let home = || Some(variable("HOME")?.join(".local/state"));
            self.state_dir = variable("XDG_STATE_HOME")
                .or_else(home)
                .context(
                    "settings: state_dir must be given where neither XDG_STATE_HOME nor HOME is",
                )?
                .join("lacuna");
        }
        if self.socket.as_os_str().is_empty() {
            let runtime = variable("XDG_RUNTIME_DIR").filter(|_| !is_given);
            let folder = runtime.unwrap_or_else(|| self.state_dir.clone());
            self.socket = folder.join("lacuna.sock");
        }
        if self.network.as_os_str().is_empty() {
            self.network = self.state_dir.join("network.toml");
        }
        Ok(self)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "settings: socket: {} has more than {SOCKET_PATH_MAX} bytes; give a shorter path",
            self.socket.display(),
        );
        for (name, value) in [
            ("api_connections_max", self.api_connections_max as u64),
            ("connect_timeout_s", self.connect_timeout_s),
        ] {
            ensure!(value > 0, "settings: {name} must be above 0");
        }
        ensure!(
            self.profile.is_empty() || is_profile_name(&self.profile),
            "settings: profile must have 1 to 16 characters of a-z 0-9 -, not `{}`",
            self.profile
        );
        self.entry()?;
        self.mailbox()?;
        Ok(())
    }

    /// The preferred entry gateway.
    ///
    /// # Errors
    ///
    /// If it is no identity.
    pub fn entry(&self) -> Result<Option<NodeId>, SettingsError> {
        node_id("entry", &self.entry)
    }

    /// The mailbox gateway of a new identity.
    ///
    /// # Errors
    ///
    /// If it is no identity.
    pub fn mailbox(&self) -> Result<Option<NodeId>, SettingsError> {
        node_id("mailbox", &self.mailbox)
    }

    /// How long a stopping daemon waits.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_s)
    }
}

/// Reads 64 hex digits; none if `text` is empty.
fn node_id(key: &str, text: &str) -> Result<Option<NodeId>, SettingsError> {
    if text.is_empty() {
        return Ok(None);
    }
    shell::network::unhex(text)
        .map(|bytes| Some(NodeId(bytes)))
        .ok_or_else(|| SettingsError::Refused(format!("{key} must be 64 hex digits, not `{text}`")))
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    fn load(file: &str, environment: &[&str], flags: &[(&str, &str)]) -> anyhow::Result<Config> {
        let environment: Vec<_> = environment
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let flags = flags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load((file, "lacuna.toml"), &environment, &flags.collect())
    }

    /// Neither more nor fewer settings than [`Config`] has, and each with its help.
    #[test]
    fn the_example_file_is_exhaustive() {
        let defaults: Table = EXAMPLE.parse().unwrap();
        let config: Config = defaults.clone().try_into().unwrap();
        assert_eq!(Table::try_from(config).unwrap(), defaults);
        let named: Vec<_> = flags().into_iter().map(|flag| flag.key).collect();
        assert_eq!(named.len(), defaults.len());
        assert!(named.iter().all(|key| defaults.contains_key(key)));
    }

    #[test]
    fn a_later_source_wins() {
        let (home, file) = ("HOME=/h", "profile = 'frugal'");
        let env = "LACUNA_CLIENT_PROFILE=service";
        for (config, expected) in [
            (load("", &[home], &[]), ""),
            (load(file, &[home], &[]), "frugal"),
            (load(file, &[home, env], &[]), "service"),
            (
                load(file, &[home, env], &[("profile", "interactive")]),
                "interactive",
            ),
        ] {
            assert_eq!(config.unwrap().profile, expected);
        }
    }

    #[test]
    fn paths_follow_xdg_unless_given() {
        let all = ["HOME=/h", "XDG_STATE_HOME=/s", "XDG_RUNTIME_DIR=/r"];
        for (environment, flags, state, socket) in [
            (
                &all[..1],
                &[][..],
                "/h/.local/state/lacuna",
                "/h/.local/state/lacuna/lacuna.sock",
            ),
            (&all, &[], "/s/lacuna", "/r/lacuna.sock"),
            (&all, &[("state_dir", "/d")], "/d", "/d/lacuna.sock"),
            (&all, &[("state_dir", "/d"), ("socket", "/x")], "/d", "/x"),
        ] {
            let config = load("", environment, flags).unwrap();
            assert_eq!(config.state_dir, Path::new(state));
            assert_eq!(config.socket, Path::new(socket));
            assert_eq!(config.network, Path::new(state).join("network.toml"));
        }
    }

    #[test]
    fn what_is_wrong_is_one_line_with_the_remedy() {
        let long = format!("/{}", "x".repeat(120));
        for (result, expected) in [
            (
                load("profil = 'x'", &["HOME=/h"], &[]),
                "did you mean `profile`?",
            ),
            (
                load("", &["HOME=/h", "LACUNA_CLIENT_ACK=true"], &[]),
                "did you mean `acks`?",
            ),
            (
                load("", &["HOME=/h"], &[("entry", "abc")]),
                "entry must be 64 hex digits",
            ),
            (
                load("", &["HOME=/h"], &[("profile", "Frugal!")]),
                "profile must have 1 to 16",
            ),
            (
                load("", &["HOME=/h"], &[("acks", "maybe")]),
                "`acks` must be a boolean",
            ),
            (load("", &[], &[]), "state_dir must be given"),
            (
                load("", &[], &[("state_dir", &long)]),
                "give a shorter path",
            ),
            (
                load("connect_timeout_s = 0", &["HOME=/h"], &[]),
                "connect_timeout_s must be above 0",
            ),
        ] {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
