//! The client's folder: what outlives the process.
//!
//! | file             | what                                                                 |
//! |------------------|----------------------------------------------------------------------|
//! | `identity`       | [`Identity`], 97 bytes; its gateway is zero until one is chosen      |
//! | `network.toml`   | what to start from, copied by `init`                                 |
//! | `client.redb`    | the machine's records                                                |
//! | `consensus…`     | the last document, so that a restart needs no fetch                  |
//! | `lock`           | held while a daemon runs                                             |
//!
//! Modes, atomic writes and the lock are [`shell::state`]'s. `init` never overwrites an identity:
//! whoever holds the old address would write into the void.
//!
//! Deliberately not here: a passphrase. Whoever reads the folder is the client. `backup` writes what
//! of it may be restored, sealed ([`crate::backup`]).

use std::{fs, io::ErrorKind, path::PathBuf};

use anyhow::{Context, bail, ensure};
use chacha20::ChaCha20Rng;
use proto::{
    NodeId,
    client::{IDENTITY_LEN, Identity},
};
use rand_core::SeedableRng;
use shell::{entropy, network, state};
use zeroize::Zeroizing;

use crate::settings::Config;

const IDENTITY: &str = "identity";
const NETWORK: &str = "network.toml";
/// Of the machine's records.
pub(crate) const RECORDS: &str = "client.redb";
const GATEWAY_AT: usize = IDENTITY_LEN - 32;
/// Stands where no gateway is chosen yet; the key of nobody.
const UNCHOSEN: NodeId = NodeId([0; 32]);

/// The folder of one client, in use by this process.
#[derive(Debug)]
pub struct StateDir {
    state: state::StateDir,
}

impl StateDir {
    /// Makes the folder and an identity in it, and copies the `network.toml`.
    ///
    /// # Errors
    ///
    /// If there is an identity already, or `network.toml` is none: nothing is made then.
    pub fn create(config: &Config) -> anyhow::Result<Self> {
        let path = &config.state_dir;
        let own = path.join(NETWORK);
        ensure!(
            config.network != own || own.exists(),
            "init: name the network to join: --network FILE"
        );
        network::read(&config.network)?;
        let text = fs::read(&config.network)
            .with_context(|| format!("reading {}", config.network.display()))?;
        let mailbox = config.mailbox()?.unwrap_or(UNCHOSEN);
        let made = Self::begin(config, &text)?;
        let mut rng = ChaCha20Rng::from_seed(entropy::seed());
        made.adopt(&Identity::generate(&mut rng, mailbox).to_bytes())?;
        Ok(made)
    }

    /// Makes a folder that has a network and no identity yet. What an attempt left behind that did
    /// not come to its end is removed.
    ///
    /// # Errors
    ///
    /// If there is an identity already.
    pub(crate) fn begin(config: &Config, network: &[u8]) -> anyhow::Result<Self> {
        let path = &config.state_dir;
        ensure!(
            !path.join(IDENTITY).exists(),
            "{} holds an identity already; choose another --state-dir, or move it away",
            path.display()
        );
        let state = state::StateDir::open(path)?;
        match fs::remove_file(state.path(RECORDS)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        state.write(NETWORK, network)?;
        Ok(Self { state })
    }

    /// Makes it the folder of this identity: from now on it is one that can be run.
    pub(crate) fn adopt(&self, identity: &[u8; IDENTITY_LEN]) -> anyhow::Result<()> {
        Ok(self.state.write(IDENTITY, identity)?)
    }

    /// Opens a folder that [`StateDir::create`] has made.
    ///
    /// # Errors
    ///
    /// If it was not made, if others may read it, or if another daemon runs on it.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let path = &config.state_dir;
        ensure!(
            path.join(IDENTITY).exists(),
            "{} holds no identity; make one: lacuna init --network FILE --state-dir {}",
            path.display(),
            path.display(),
        );
        let state = state::StateDir::open(path)?;
        Ok(Self { state })
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.state.path(name)
    }

    /// The identity, if its mailbox gateway is chosen.
    ///
    /// # Errors
    ///
    /// If the file can't be read or is no identity.
    pub fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let bytes = self.identity_bytes()?;
        let identity = read(&bytes)?;
        Ok((identity.gateway() != UNCHOSEN).then_some(identity))
    }

    /// Chooses the mailbox gateway, once and for all.
    ///
    /// # Errors
    ///
    /// If one is chosen already, or the file can't be written.
    pub fn choose(&self, gateway: NodeId) -> anyhow::Result<Identity> {
        let mut bytes = self.identity_bytes()?;
        if read(&bytes)?.gateway() != UNCHOSEN {
            bail!("the mailbox gateway is chosen already");
        }
        bytes[GATEWAY_AT..].copy_from_slice(&gateway.0);
        self.state.write(IDENTITY, &*bytes)?;
        read(&bytes)
    }

    fn identity_bytes(&self) -> anyhow::Result<Zeroizing<[u8; IDENTITY_LEN]>> {
        let damaged = || state::StateError::Damaged(self.path(IDENTITY).display().to_string());
        let bytes = self.state.read(IDENTITY)?.ok_or_else(damaged)?;
        let bytes: [u8; IDENTITY_LEN] = bytes.as_slice().try_into().map_err(|_| damaged())?;
        Ok(bytes.into())
    }

    /// The shell's view of the folder, for what it keeps there itself.
    #[must_use]
    pub fn state(&self) -> &state::StateDir {
        &self.state
    }
}

fn read(bytes: &[u8; IDENTITY_LEN]) -> anyhow::Result<Identity> {
    let identity = Identity::from_bytes(bytes);
    identity.context("the identity was made by another version of lacuna")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn network_file(folder: &Path) -> PathBuf {
        let key = |seed: u8| {
            let key = shell::network::hex(&shell_key(seed));
            format!("key = \"{key}\"\n")
        };
        let authorities: String = (1..5)
            .map(|n| format!("[[authority]]\n{}", key(n)))
            .collect();
        let bootstrap = key(9).replace("key", "id");
        let text = format!(
            "id = \"{}\"\nminimum_period = 0\n{authorities}[[bootstrap]]\n{bootstrap}address = \"127.0.0.1:9\"\n",
            "07".repeat(32)
        );
        let path = folder.join("given.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// Some Ed25519 public key.
    fn shell_key(seed: u8) -> [u8; 32] {
        let identity = Identity::generate(&mut ChaCha20Rng::from_seed([seed; 32]), UNCHOSEN);
        let folder = tempfile::tempdir().unwrap();
        drop(identity);
        let state = state::StateDir::open(&folder.path().join("node")).unwrap();
        shell::keys::Keys::open(state).unwrap().id().0
    }

    pub(crate) fn config(folder: &Path) -> Config {
        let mut config = Config::in_folder(&folder.join("state")).unwrap();
        config.network = network_file(folder);
        config
    }

    #[test]
    fn init_makes_a_private_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        drop(StateDir::create(&config).unwrap());
        assert_eq!(mode(&config.state_dir), 0o700);
        for file in [IDENTITY, NETWORK] {
            assert_eq!(mode(&config.state_dir.join(file)), 0o600, "{file}");
        }
        let again = StateDir::create(&config).unwrap_err().to_string();
        assert!(again.contains("holds an identity already"), "{again}");

        let first = StateDir::open(&config).unwrap();
        assert!(
            first.identity().unwrap().is_none(),
            "no gateway is chosen yet"
        );
        let second = StateDir::open(&config).unwrap_err().to_string();
        assert!(second.contains("in use by another process"), "{second}");
        let chosen = first.choose(NodeId([7; 32])).unwrap();
        assert_eq!(
            first.identity().unwrap().unwrap().address(),
            chosen.address()
        );
        assert!(first.choose(NodeId([8; 32])).is_err());
        drop(first);

        fs::set_permissions(&config.state_dir, Permissions::from_mode(0o750)).unwrap();
        let open = StateDir::open(&config).unwrap_err().to_string();
        assert!(open.contains("chmod 700"), "{open}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        let error = StateDir::open(&config).unwrap_err().to_string();
        assert!(error.contains("lacuna init"), "{error}");
        config.network = config.state_dir.join(NETWORK);
        let error = StateDir::create(&config).unwrap_err().to_string();
        assert!(error.contains("--network FILE"), "{error}");
        config.network = folder.path().join("nowhere.toml");
        assert!(StateDir::create(&config).is_err());
        assert!(!config.state_dir.exists(), "nothing was made");
    }
}
