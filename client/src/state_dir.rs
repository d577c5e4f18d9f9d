//! The client's folder: what outlives the process.
//!
//! | file             | what                                                                 |
//! |------------------|----------------------------------------------------------------------|
//! | `identity`       | [`Identity`], 97 bytes, its gateway zero until one is chosen; zeros  |
//! |                  | from when the records hold it, so that it is erased in one place     |
//! | `network.toml`   | what to start from, copied by `init`                                 |
//! | `profile`        | the name of the traffic profile, chosen by `init` or `restore`       |
//! | `client.redb`    | the machine's records                                                |
//! | `restored.redb`  | the same, until `restore` has written all of them                    |
//! | `consensus…`     | the last document, so that a restart needs no fetch                  |
//! | `lock`           | held while a daemon runs                                             |
//!
//! A daemon founds the records on the identity before it does anything else. Whatever happened to
//! the last one, the identity is blank once there are records of addresses.
//!
//! | `identity` | `client.redb`       | what it is                | `run`, `backup` | `init`  | `restore` |
//! |------------|---------------------|---------------------------|-----------------|---------|-----------|
//! | there      |                     | a client                  | go on           | refuses | refuses   |
//! | none       | with addresses      | a client                  | make it, blank  | refuses | refuses   |
//! | none       | without, or a draft | an unfinished `restore`   | refuse          | refuses | makes     |
//! | none       | none                | nothing                   | refuse          | makes   | makes     |
//!
//! Why a blank one may be made again: records are written whole or not at all, and once they have
//! addresses the file says nothing. An unfinished `restore` is not taken for nothing, since `init` would
//! make another client.
//!
//! Modes, atomic writes and the lock are [`shell::state`]'s. `init` never overwrites an identity or
//! records: whoever holds the old address would write into the void.
//!
//! Deliberately not here: a passphrase. Whoever reads the folder is the client. `backup` writes what
//! of it may be restored, sealed ([`crate::backup`]).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use chacha20::ChaCha20Rng;
use proto::{
    NodeId,
    client::{IDENTITY_LEN, Identity, addresses_of},
    directory::params::is_profile_name,
};
use rand_core::SeedableRng;
use shell::{
    entropy, network, state,
    store::kv::{Record, Records},
};
use zeroize::Zeroizing;

use crate::settings::Config;

const IDENTITY: &str = "identity";
const NETWORK: &str = "network.toml";
const PROFILE: &str = "profile";
/// The profile of a client that is made without naming one.
const PROFILE_DEFAULT: &str = "messaging";
/// Of the machine's records.
pub(crate) const RECORDS: &str = "client.redb";
/// Of a client that is being restored.
const DRAFT: &str = "restored.redb";
const BLANK: [u8; IDENTITY_LEN] = [0; IDENTITY_LEN];
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
        let made = Self::begin(config)?;
        ensure!(
            !made.has_records() && !made.path(DRAFT).exists(),
            unfinished(&config.state_dir)
        );
        made.settle(&text, or_default(&config.profile))?;
        let mut rng = ChaCha20Rng::from_seed(entropy::seed());
        let identity = Identity::generate(&mut rng, mailbox);
        made.state.write(IDENTITY, &*identity.to_bytes())?;
        Ok(made)
    }

    /// Makes a folder that holds no client, or takes what a `restore` left behind that did not come to
    /// its end.
    ///
    /// # Errors
    ///
    /// If it holds a client already, or records that can't be read.
    pub(crate) fn begin(config: &Config) -> anyhow::Result<Self> {
        let path = &config.state_dir;
        let elsewhere = "choose another --state-dir, or move the whole folder away";
        ensure!(
            !path.join(IDENTITY).exists(),
            "{} holds an identity already; {elsewhere}",
            path.display()
        );
        let state = state::StateDir::open(path)?;
        let folder = Self { state };
        ensure!(
            !folder.has_addresses()?,
            "{} holds a client already, whose file `identity` alone is missing: `lacuna run` makes it again; or {elsewhere}",
            path.display()
        );
        Ok(folder)
    }

    fn has_records(&self) -> bool {
        Records::are_at(&self.path(RECORDS))
    }

    /// Whether there are records of addresses: with them it is a client.
    fn has_addresses(&self) -> anyhow::Result<bool> {
        if !self.has_records() {
            return Ok(false);
        }
        let (_, found) = self.records()?;
        Ok(addresses_of(&Zeroizing::new(found)).is_some())
    }

    /// Gives it its network and its profile.
    pub(crate) fn settle(&self, network: &[u8], profile: &str) -> anyhow::Result<()> {
        self.state.write(NETWORK, network)?;
        Ok(self.state.write(PROFILE, profile.as_bytes())?)
    }

    /// Empty records beside those of a client; what an attempt left behind is erased.
    ///
    /// # Errors
    ///
    /// If they can't be made.
    pub(crate) fn draft(&self) -> anyhow::Result<Records> {
        self.state.erase(DRAFT)?;
        let (records, _none) = Records::open(&self.path(DRAFT))?;
        Ok(records)
    }

    /// Makes it a folder that can be run: the draft, closed, is its records, and addresses stand in them.
    pub(crate) fn adopt(&self) -> anyhow::Result<()> {
        self.state.rename(DRAFT, RECORDS)?;
        Ok(self.state.write(IDENTITY, &BLANK)?)
    }

    /// Opens a folder that [`StateDir::create`] or a restored backup has made.
    ///
    /// # Errors
    ///
    /// If it was not made, if others may read it, or if another daemon runs on it.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let path = &config.state_dir;
        ensure!(
            Records::are_at(&path.join(RECORDS))
                || [IDENTITY, DRAFT]
                    .iter()
                    .any(|name| path.join(name).exists()),
            "{} holds no identity; make one: lacuna init --network FILE --state-dir {}",
            path.display(),
            path.display(),
        );
        let state = state::StateDir::open_patiently(path)?;
        let folder = Self { state };
        if !folder.path(IDENTITY).exists() {
            ensure!(folder.has_addresses()?, unfinished(path));
            // Somebody took zeros for rubbish, or a `restore` was killed at its end.
            folder.state.write(IDENTITY, &BLANK)?;
        }
        Ok(folder)
    }

    /// The profile that the client was made with. `given` is that one, or empty: at other rates it
    /// would show its gateways that its owner chose anew.
    ///
    /// # Errors
    ///
    /// If `given` is another, or the file can't be read.
    pub fn profile(&self, given: &str) -> anyhow::Result<String> {
        let Some(kept) = self.state.read(PROFILE)? else {
            // Made before profiles were kept: chosen now.
            let first = or_default(given);
            self.state.write(PROFILE, first.as_bytes())?;
            return Ok(first.to_owned());
        };
        let kept = core::str::from_utf8(&kept)
            .ok()
            .filter(|name| is_profile_name(name));
        let kept = kept.with_context(|| self.damaged(PROFILE))?;
        ensure!(
            given.is_empty() || given == kept,
            "settings: profile: this client was made with `{kept}`, not `{given}`: leave it out, or make another client; to change it all the same, `lacuna backup`, then `lacuna restore --profile {given}` into another folder"
        );
        Ok(kept.to_owned())
    }

    fn damaged(&self, name: &str) -> state::StateError {
        state::StateError::Damaged(self.path(name).display().to_string())
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.state.path(name)
    }

    /// The machine's records, and what stands in them.
    ///
    /// # Errors
    ///
    /// If they can't be opened.
    pub(crate) fn records(&self) -> anyhow::Result<(Records, Vec<Record>)> {
        let path = self.path(RECORDS);
        Records::open(&path).with_context(|| {
            format!(
                "{}: if it is damaged, restore a backup into another folder with `lacuna restore`",
                path.display()
            )
        })
    }

    /// The identity that `init` made, unless `found`, which stands in the records, tells of
    /// addresses: then it is of no use any more, and erased.
    ///
    /// # Errors
    ///
    /// If the file can't be read, erased or understood, or there is neither.
    pub fn identity(&self, found: &[Record]) -> anyhow::Result<Option<Identity>> {
        let bytes = self.identity_bytes()?;
        let is_blank = *bytes == BLANK;
        if addresses_of(found).is_some() {
            if !is_blank {
                self.blank()?;
            }
            return Ok(None);
        }
        if is_blank {
            bail!(
                "{} holds no address: restore a backup, or make a client elsewhere",
                self.path(RECORDS).display()
            );
        }
        let identity = Identity::from_bytes(&bytes);
        identity
            .context("the identity was made by another version of lacuna")
            .map(Some)
    }

    /// Erases the identity: the records hold it.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub(crate) fn blank(&self) -> anyhow::Result<()> {
        Ok(self.state.blank(IDENTITY)?)
    }

    fn identity_bytes(&self) -> anyhow::Result<Zeroizing<[u8; IDENTITY_LEN]>> {
        let damaged = || self.damaged(IDENTITY);
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

fn unfinished(folder: &Path) -> String {
    format!(
        "{} holds a `lacuna restore` that did not come to its end: run that again, or choose another --state-dir",
        folder.display()
    )
}

/// The profile of a client that is made with `given`.
fn or_default(given: &str) -> &str {
    if given.is_empty() {
        PROFILE_DEFAULT
    } else {
        given
    }
}

/// The identity with its mailbox gateway, if that is chosen.
pub(crate) fn chosen(identity: &Identity) -> Option<&Identity> {
    (identity.gateway() != UNCHOSEN).then_some(identity)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use proto::client::founding;

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
        for file in [IDENTITY, NETWORK, PROFILE] {
            assert_eq!(mode(&config.state_dir.join(file)), 0o600, "{file}");
        }
        let again = StateDir::create(&config).unwrap_err().to_string();
        assert!(again.contains("holds an identity already"), "{again}");

        let first = StateDir::open(&config).unwrap();
        let identity = first.identity(&[]).unwrap().unwrap();
        assert!(chosen(&identity).is_none(), "no gateway is chosen yet");
        let second = StateDir::open(&config).unwrap_err().to_string();
        assert!(second.contains("in use by another process"), "{second}");
        // Once the records hold it, also as one that was revoked, it is erased.
        let [address, _] = founding(&identity.at(NodeId([7; 32])));
        let revoked = (address.0.clone(), Vec::new());
        for found in [address, revoked] {
            assert!(first.identity(&[found]).unwrap().is_none());
            assert_eq!(fs::read(first.path(IDENTITY)).unwrap(), BLANK);
            let lost = first.identity(&[]).unwrap_err().to_string();
            assert!(lost.contains("restore a backup"), "{lost}");
        }
        drop(first);

        fs::set_permissions(&config.state_dir, Permissions::from_mode(0o750)).unwrap();
        let open = StateDir::open(&config).unwrap_err().to_string();
        assert!(open.contains("chmod 700"), "{open}");
    }

    /// Whoever removes the zeros of a client that ran loses nothing: `run` makes them again, and `init`
    /// and `restore` touch nothing.
    #[tokio::test]
    async fn a_client_without_its_blank_identity_is_the_same_client() {
        for killed in [false, true] {
            keeps_its_records(killed).await;
        }
    }

    /// Also if it was `killed` while its records were written anew.
    async fn keeps_its_records(killed: bool) {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let own = StateDir::create(&config).unwrap();
        let identity = own.identity(&[]).unwrap().unwrap();
        let founding = founding(&identity.at(NodeId([7; 32])));
        let (records, _) = own.records().unwrap();
        let put = |(key, value)| proto::client::Op::Put { key, value };
        records.apply(founding.map(put).into()).await.unwrap();
        drop(records);
        fs::remove_file(own.path(IDENTITY)).unwrap();
        drop(own);
        for refuses in [StateDir::create, StateDir::begin] {
            if killed {
                let file = |end| config.state_dir.join(RECORDS).with_added_extension(end);
                fs::copy(config.state_dir.join(RECORDS), file("new")).unwrap();
                fs::rename(config.state_dir.join(RECORDS), file("old")).unwrap();
            }
            let refused = refuses(&config).unwrap_err().to_string();
            assert!(
                refused.contains("`lacuna run`") && !refused.contains('\n'),
                "{refused}"
            );
        }
        let own = StateDir::open(&config).unwrap();
        assert_eq!(fs::read(own.path(IDENTITY)).unwrap(), BLANK);
        let (_, found) = own.records().unwrap();
        assert!(
            own.identity(&found).unwrap().is_none(),
            "its records hold it"
        );
    }

    /// A `restore` that was killed is neither a client to run nor room for another one.
    #[test]
    fn an_unfinished_restore_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        for left in [DRAFT, RECORDS] {
            let own = StateDir::begin(&config).unwrap();
            drop(Records::open(&own.path(left)).unwrap());
            drop(own);
            for refused in [StateDir::create(&config), StateDir::open(&config)] {
                let refused = refused.unwrap_err().to_string();
                assert!(
                    refused.contains("`lacuna restore`") && !refused.contains('\n'),
                    "{refused}"
                );
            }
            let path = config.state_dir.join(left);
            assert!(path.exists(), "{left} is as it was");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_profile_is_chosen_once() {
        for (given, kept) in [("", "messaging"), ("frugal", "frugal")] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = config(folder.path());
            config.profile = given.to_owned();
            let own = StateDir::create(&config).unwrap();
            for again in ["", kept] {
                assert_eq!(own.profile(again).unwrap(), kept);
            }
            let other = own.profile("service").unwrap_err().to_string();
            assert!(
                other.contains(kept) && other.contains("`lacuna restore --profile service`"),
                "{other}"
            );
            fs::write(own.path(PROFILE), b"two words").unwrap();
            assert!(own.profile("").is_err());
            fs::remove_file(own.path(PROFILE)).unwrap();
            assert_eq!(own.profile("service").unwrap(), "service");
            assert_eq!(own.profile("").unwrap(), "service");
        }
    }

    #[test]
    fn damaged_records_name_the_backup() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let own = StateDir::create(&config).unwrap();
        fs::write(own.path(RECORDS), [7; 8192]).unwrap();
        let error = format!("{:#}", own.records().map(drop).unwrap_err());
        assert!(error.contains("`lacuna restore`"), "{error}");
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
