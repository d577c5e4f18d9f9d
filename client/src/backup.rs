//! `lacuna backup` and `lacuna restore`: the client in one sealed file.
//!
//! | in the file                        | not in it, and why                                          |
//! |------------------------------------|-------------------------------------------------------------|
//! | identity, `network.toml`           | reply blocks and what needs them: none may be used twice    |
//! | addresses and labels               | cursors, fragments: the mailbox has them                    |
//! | the entry gateways of the day      | the consensus: fetched anew                                 |
//! | messages not taken; ids of others  |                                                             |
//! | messages on their way to addresses |                                                             |
//!
//! So a backup can be restored more than once, and late, without using anything twice
//! ([`proto::client::backup`], CLI-34). The file is sealed ([`shell::sealed`]) under a key that is
//! drawn for it and printed once. Layout of the text: identity (97), then `network.toml` and each
//! record's key and value, each with its length (u32) first.
//!
//! Not here: two clients that run on one identity at a time. The gateway serves whichever linked
//! last, and each takes what the other then misses.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context, bail};
use proto::client::{IDENTITY_LEN, Identity, Op, backup};
use shell::{
    network::{hex, unhex},
    sealed::{self, Key, Magic},
    state::StateError,
    store::kv::{Record, Records},
};
use zeroize::Zeroizing;

use crate::{
    settings::Config,
    state_dir::{RECORDS, StateDir},
};

const MAGIC: &Magic = b"lacuna backup  1";

/// What a backup holds.
pub(crate) struct Contents {
    pub(crate) identity: Zeroizing<[u8; IDENTITY_LEN]>,
    pub(crate) network: Vec<u8>,
    pub(crate) records: Vec<Record>,
}

impl Contents {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(self.identity.to_vec());
        let mut put = |part: &[u8]| {
            let length = u32::try_from(part.len()).expect("a record is below 4 GiB");
            bytes.extend(length.to_be_bytes());
            bytes.extend(part);
        };
        put(&self.network);
        for (key, value) in &self.records {
            put(key);
            put(value);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (identity, mut rest) = bytes.split_first_chunk()?;
        Identity::from_bytes(identity)?;
        let mut take = || {
            let (length, more) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (part, more) = more.split_at_checked(length)?;
            rest = more;
            Some((part.to_vec(), more.is_empty()))
        };
        let (network, mut done) = take()?;
        let mut records = Vec::new();
        while !done {
            let (key, _) = take()?;
            let (value, last) = take()?;
            records.push((key, value));
            done = last;
        }
        Some(Self {
            identity: Zeroizing::new(*identity),
            network,
            records,
        })
    }
}

/// Writes a backup of the client to `file`, which must not exist, and gives the key that opens it.
///
/// # Errors
///
/// If a daemon runs, there is no identity or no gateway chosen, or the file can't be written.
pub fn make(config: &Config, file: &Path) -> anyhow::Result<Key> {
    let folder = StateDir::open(config).map_err(|error| {
        let is_used = matches!(error.downcast_ref(), Some(StateError::InUse(_)));
        let hint = "backup: stop the daemon first, so that nothing changes meanwhile";
        if is_used { error.context(hint) } else { error }
    })?;
    let identity = folder.identity()?.context(
        "backup: the mailbox gateway is not chosen yet; run the daemon until it is ready",
    )?;
    let network = fs::read(&config.network)
        .with_context(|| format!("reading {}", config.network.display()))?;
    let (_, found) = Records::open(&folder.path(RECORDS))?;
    let contents = Contents {
        identity: identity.to_bytes(),
        network,
        records: backup(&found),
    };
    let (key, sealed) = sealed::seal(MAGIC, contents.to_bytes());
    let write = || {
        let mut options = OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        out.write_all(&sealed)?;
        out.sync_all()
    };
    write().with_context(|| format!("writing {}", file.display()))?;
    Ok(key)
}

/// Makes the client of a backup in a folder that holds none.
///
/// # Errors
///
/// If the folder holds an identity, or the file is no backup that `key` opens: nothing is made
/// then.
pub async fn restore(config: &Config, file: &Path, key: &Key) -> anyhow::Result<()> {
    let sealed = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let contents = sealed::open(MAGIC, key, &sealed).and_then(|text| Contents::parse(&text));
    let Some(contents) = contents else {
        bail!(
            "restore: {} is no backup that this key opens: check the key, and that the file is whole",
            file.display()
        );
    };
    let folder = StateDir::begin(config, &contents.network)?;
    let (records, _none) = Records::open(&folder.path(RECORDS))?;
    let put = |(key, value)| Op::Put { key, value };
    records
        .apply(contents.records.into_iter().map(put).collect())
        .await?;
    // Last: a folder with an identity is whole.
    folder.adopt(&contents.identity)
}

/// A key as it is printed.
#[must_use]
pub fn key_text(key: &Key) -> Zeroizing<String> {
    Zeroizing::new(hex(key.as_slice()))
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

    use super::*;
    use crate::state_dir::tests::config;

    fn records(config: &Config) -> Vec<Record> {
        let (_, found) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        found
    }

    async fn made(folder: &Path) -> (Config, PathBuf) {
        let mut config = config(folder);
        config.mailbox = "05".repeat(32);
        drop(StateDir::create(&config).unwrap());
        let (records, _) = Records::open(&config.state_dir.join(RECORDS)).unwrap();
        let put = |key: &[u8], value: &[u8]| Op::Put {
            key: key.to_vec(),
            value: value.to_vec(),
        };
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
        let key = make(&config, &file).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let again = format!("{:#}", make(&config, &file).unwrap_err());
        assert!(again.contains("exists"), "{again}");
        let key = parse_key(&format!(" {}\n", &*key_text(&key))).unwrap();

        for name in ["second", "third"] {
            let mut other = Config::in_folder(&folder.path().join(name)).unwrap();
            other.log = config.log.clone();
            restore(&other, &file, &key).await.unwrap();
            let open = |config: &Config| StateDir::open(config).unwrap().identity().unwrap();
            let (old, new) = (open(&config).unwrap(), open(&other).unwrap());
            assert_eq!(new.to_bytes(), old.to_bytes());
            assert_eq!(records(&other), [(b"e".to_vec(), vec![7; 32])]);
            assert!(shell::network::read(&other.network).is_ok());
            let twice = restore(&other, &file, &key).await.unwrap_err();
            assert!(format!("{twice:#}").contains("holds an identity already"));
        }
        assert_eq!(records(&config).len(), 2, "the original is as it was");
    }

    #[tokio::test]
    async fn what_is_no_backup_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (config, file) = made(folder.path()).await;
        let running = StateDir::open(&config).unwrap();
        let error = format!("{:#}", make(&config, &file).unwrap_err());
        assert!(
            error.contains("stop the daemon first") && !file.exists(),
            "{error}"
        );
        drop(running);
        let key = make(&config, &file).unwrap();
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
