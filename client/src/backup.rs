//! `lacuna backup` and `lacuna restore`: the client in one sealed file.
//!
//! | in the file                        | not in it, and why                                          |
//! |------------------------------------|-------------------------------------------------------------|
//! | `network.toml`, the profile        | reply blocks and what needs them: none may be used twice    |
//! | addresses and labels               | cursors: the mailbox has what was not confirmed             |
//! | the entry gateways of the day      | the consensus: fetched anew                                 |
//! | messages not taken; ids of others  | addresses that were revoked: their secrets are gone         |
//! | parts of messages that came        |                                                             |
//! | messages on their way to addresses |                                                             |
//!
//! So a backup can be restored more than once, and late, without using anything twice
//! ([`proto::client::backup`], CLI-34). The file is sealed ([`shell::sealed`]) under a key that is
//! drawn for it and printed, or written, once. Layout of the text: `network.toml`, the name of the
//! profile, then each record's key and value, each with its length (u32) first. Copies of it in memory are overwritten.
//!
//! Not here: two clients that run on one identity at a time. The gateway serves whichever linked
//! last, and each takes what the other then misses.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use proto::client::{Op, OwnAddress, addresses_of, backup, founding};
use shell::{
    network::unhex,
    sealed::{self, Key, Magic},
    state::{self, StateError},
    store::kv::Record,
};
use zeroize::Zeroizing;

use crate::{
    settings::Config,
    state_dir::{StateDir, chosen},
};

const MAGIC: &Magic = b"lacuna backup  3";

/// What a backup holds.
struct Contents {
    network: Vec<u8>,
    profile: String,
    records: Zeroizing<Vec<Record>>,
}

impl Contents {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let records = self.records.iter().flat_map(|(key, value)| [key, value]);
        let records = records.map(Vec::as_slice);
        let parts = [&*self.network, self.profile.as_bytes()].into_iter();
        let parts = parts.chain(records);
        let length = parts.clone().map(|part| 4 + part.len()).sum();
        // Room for all of it: what grows is moved, and leaves copies.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        for part in parts {
            let length = u32::try_from(part.len()).expect("a record is below 4 GiB");
            bytes.extend(length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn parse(mut rest: &[u8]) -> Option<Self> {
        let mut take = || {
            let (length, more) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (part, more) = more.split_at_checked(length)?;
            rest = more;
            Some((part.to_vec(), more.is_empty()))
        };
        let (network, _) = take()?;
        let (profile, mut done) = take()?;
        let profile = String::from_utf8(profile).ok()?;
        let mut records = Zeroizing::new(Vec::new());
        while !done {
            let (key, _) = take()?;
            let (value, last) = take()?;
            records.push((key, value));
            done = last;
        }
        Some(Self {
            network,
            profile,
            records,
        })
    }
}

/// Writes a backup of the client to `file`, and the key that opens it to `key_file` if there is one;
/// neither may exist. Gives the key.
///
/// # Errors
///
/// If a daemon runs, there is no identity or no gateway chosen, or a file can't be written.
pub fn make(config: &Config, file: &Path, key_file: Option<&Path>) -> anyhow::Result<Key> {
    let folder = StateDir::open(config).map_err(|error| {
        let is_used = matches!(error.downcast_ref(), Some(StateError::InUse(_)));
        let hint = "backup: stop the daemon first, so that nothing changes meanwhile";
        if is_used { error.context(hint) } else { error }
    })?;
    let profile = folder.profile(&config.profile)?;
    let (_, found) = folder.records()?;
    let mut found = Zeroizing::new(found);
    if let Some(identity) = folder.identity(&found)? {
        let identity = chosen(&identity).context(
            "backup: the mailbox gateway is not chosen yet; run the daemon until it is ready",
        )?;
        found.extend(founding(identity));
    }
    let network = fs::read(&config.network)
        .with_context(|| format!("reading {}", config.network.display()))?;
    let records = Zeroizing::new(backup(&found));
    let contents = Contents {
        network,
        profile,
        records,
    };
    let (key, sealed) = sealed::seal(MAGIC, contents.to_bytes());
    if let Some(key_file) = key_file {
        state::create(key_file, key_text(&key).as_bytes()).context("writing the key")?;
    }
    let written = state::create(file, &sealed).context("writing the backup");
    if let (Err(_), Some(key_file)) = (&written, key_file) {
        state::erase(key_file)?; // it opens nothing
    }
    written.map(|()| key)
}

/// Makes the client of a backup in a folder that holds none, with the profile that the settings name or
/// its own. Gives the addresses that it opens.
///
/// # Errors
///
/// If the folder holds an identity, or the file is no backup that `key` opens: nothing is made
/// then.
pub async fn restore(config: &Config, file: &Path, key: &Key) -> anyhow::Result<Vec<OwnAddress>> {
    let sealed = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let contents = sealed::open(MAGIC, key, &sealed).and_then(|text| Contents::parse(&text));
    let known = contents.and_then(|contents| {
        let addresses = addresses_of(&contents.records)?;
        Some((contents, addresses))
    });
    let Some((mut contents, addresses)) = known else {
        bail!(
            "restore: {} is no backup that this key opens: check the key, and that the file is whole",
            file.display()
        );
    };
    let profile = Some(&config.profile).filter(|name| !name.is_empty());
    let profile = profile.unwrap_or(&contents.profile);
    let folder = StateDir::begin(config)?;
    // First: from here on the folder does not pass for an empty one.
    let records = folder.draft()?;
    folder.settle(&contents.network, profile)?;
    let put = |(key, value)| Op::Put { key, value };
    records
        .apply(contents.records.drain(..).map(put).collect())
        .await?;
    drop(records); // closes the file
    folder.adopt()?;
    Ok(addresses)
}

/// A key as it is printed: a line of 64 hex digits.
#[must_use]
pub fn key_text(key: &Key) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * key.len() + 1));
    for byte in key.iter() {
        let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
        text.extend(digits.into_iter().flatten());
    }
    text.push('\n');
    text
}

/// Reads a printed key.
///
/// # Errors
///
/// If these are not 64 hex digits.
pub fn parse_key(text: &str) -> anyhow::Result<Key> {
    let key =
        unhex(text.trim()).context("restore: a key is the 64 hex digits that `backup` printed")?;
    Ok(Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

    use chacha20::ChaCha20Rng;
    use proto::client::Identity;
    use rand_core::SeedableRng as _;
    use shell::store::kv::Records;

    use super::*;
    use crate::state_dir::{RECORDS, tests::config};

    fn put(key: &[u8], value: &[u8]) -> Op {
        Op::Put {
            key: key.to_vec(),
            value: value.to_vec(),
        }
    }

    fn records(config: &Config) -> Vec<Record> {
        let (_, found) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        found
    }

    async fn made(folder: &Path) -> (Config, PathBuf) {
        let mut config = config(folder);
        config.mailbox = "05".repeat(32);
        config.profile = "frugal".to_owned();
        drop(StateDir::create(&config).unwrap());
        let (records, _) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        let entry = put(b"e", &[7; 32]);
        let surb = put(&[b"r", [1; 16].as_slice()].concat(), &[0; 104]);
        records.apply(vec![entry, surb]).await.unwrap();
        (config, folder.join("backup"))
    }

    /// CLI-34
    #[tokio::test]
    async fn a_backup_is_private_and_restores_the_client_without_its_reply_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let (config, file) = made(folder.path()).await;
        let key_file = folder.path().join("key");
        let key = make(&config, &file, Some(&key_file)).unwrap();
        for path in [&file, &key_file] {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        let text = fs::read_to_string(&key_file).unwrap();
        assert_eq!(text, *key_text(&key));
        assert_eq!(parse_key(&text).unwrap(), key);
        let other_key = folder.path().join("other-key");
        for (key_file, left) in [
            (None, true),
            (Some(&key_file), true),
            (Some(&other_key), false),
        ] {
            let again = make(&config, &file, key_file.map(PathBuf::as_path));
            let again = format!("{:#}", again.unwrap_err());
            assert!(again.contains("exists"), "{again}");
            let kept = key_file.is_none_or(|path| path.exists());
            assert_eq!(kept, left, "no key without its backup");
        }

        let known = |mut records: Vec<Record>| {
            records.retain(|(key, _)| key[0] != b'r');
            records
        };
        let own = StateDir::open(&config).unwrap();
        let identity = own.identity(&[]).unwrap().unwrap();
        drop(own);
        let mut original = known(records(&config));
        original.extend(founding(&identity));
        original.sort();
        for (name, given, profile) in [("second", "", "frugal"), ("third", "service", "service")] {
            let mut other = Config::in_folder(&folder.path().join(name)).unwrap();
            other.profile = given.to_owned();
            other.log = config.log.clone();
            let opened = restore(&other, &file, &key).await.unwrap();
            assert_eq!((&*opened[0].label, opened.len()), ("main", 1));
            assert_eq!(opened[0].address, identity.address());
            assert_eq!(records(&other), original);
            let again = StateDir::open(&other).unwrap();
            assert!(again.identity(&records(&other)).unwrap().is_none());
            assert!(shell::network::read(&other.network).is_ok());
            assert_eq!(again.profile("").unwrap(), profile);
            drop(again);
            let twice = restore(&other, &file, &key).await.unwrap_err();
            assert!(format!("{twice:#}").contains("holds an identity already"));
        }
        assert_eq!(records(&config).len(), 2, "the original is as it was");
    }

    /// A `restore` that was killed can be run again, or was done.
    #[tokio::test]
    async fn a_restore_that_was_killed_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let (config, file) = made(folder.path()).await;
        let key = make(&config, &file, None).unwrap();
        let other = Config::in_folder(&folder.path().join("other")).unwrap();
        let killed = StateDir::begin(&other).unwrap();
        // While the draft was made: the file is none yet.
        fs::write(killed.path("restored.redb"), [0; 100]).unwrap();
        // As left by a version that had no draft.
        drop(Records::open(&killed.path(RECORDS)).unwrap());
        drop(killed);
        restore(&other, &file, &key).await.unwrap();
        let restored = records(&other);
        assert!(addresses_of(&restored).is_some());
        // After all but the identity.
        fs::remove_file(other.state_dir.join("identity")).unwrap();
        let again = restore(&other, &file, &key).await.unwrap_err().to_string();
        assert!(again.contains("`lacuna run`"), "{again}");
        let own = StateDir::open(&other).unwrap();
        assert!(own.identity(&restored).unwrap().is_none());
        assert_eq!(records(&other), restored);
    }

    /// CLI-32, CLI-34: a revoked address is in no later backup; one that was made before opens it
    /// again, and says so.
    #[tokio::test]
    async fn a_backup_holds_what_was_not_revoked_when_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let (config, before) = made(folder.path()).await;
        let own = StateDir::open(&config).unwrap();
        let identity = own.identity(&[]).unwrap().unwrap();
        drop(own);
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let other = Identity::generate(&mut rng, identity.gateway());
        let other = [other.to_bytes().as_slice(), b"other"].concat();
        let second = put(&[b'a', 0, 1], &other);
        let founding = founding(&identity).map(|(key, value)| put(&key, &value));
        let (store, _) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        store.apply(founding.into()).await.unwrap();
        store.apply(vec![second]).await.unwrap();
        drop(store);
        let before_key = make(&config, &before, None).unwrap();
        let (store, _) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        let revoked = vec![put(&[b'a', 0, 0], &[]), Op::Erase];
        store.apply(revoked).await.unwrap();
        drop(store);
        let after = folder.path().join("after");
        let after_key = make(&config, &after, None).unwrap();
        let secret = identity.to_bytes();
        let files = fs::read_dir(&config.state_dir).unwrap();
        for file in files.map(|file| file.unwrap().path()) {
            let bytes = fs::read(&file).unwrap();
            let mut parts = bytes.windows(64);
            assert!(
                parts.all(|part| part != &secret[1..65]),
                "{}",
                file.display()
            );
        }
        for (name, file, key, labels) in [
            ("second", &before, before_key, &["main", "other"][..]),
            ("third", &after, after_key, &["other"]),
        ] {
            let config = Config::in_folder(&folder.path().join(name)).unwrap();
            let opened = restore(&config, file, &key).await.unwrap();
            let opened: Vec<&str> = opened.iter().map(|own| &*own.label).collect();
            assert_eq!(opened, labels);
        }
    }

    #[tokio::test]
    async fn what_is_no_backup_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (config, file) = made(folder.path()).await;
        let running = StateDir::open(&config).unwrap();
        let error = format!("{:#}", make(&config, &file, None).unwrap_err());
        assert!(
            error.contains("stop the daemon first") && !file.exists(),
            "{error}"
        );
        drop(running);
        let key = make(&config, &file, None).unwrap();
        let other = Config::in_folder(&folder.path().join("other")).unwrap();
        let wrong = Zeroizing::new([1; 32]);
        for (key, cut) in [(&wrong, 0), (&key, 1)] {
            let bytes = fs::read(&file).unwrap();
            let part = folder.path().join("part");
            fs::write(&part, &bytes[..bytes.len() - cut]).unwrap();
            let error = restore(&other, &part, key).await.unwrap_err().to_string();
            assert!(error.contains("check the key"), "{error}");
            assert!(!other.state_dir.exists());
        }
        assert!(parse_key("abc").is_err());
    }
}
