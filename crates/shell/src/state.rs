//! A program's state directory: private, locked, written atomically.
//!
//! | what        | rule                                                                      |
//! |-------------|---------------------------------------------------------------------------|
//! | directory   | mode 0700; refused if group or others have any right in it                |
//! | files       | mode 0600                                                                 |
//! | a write     | new file, `fsync`, rename over the old, `fsync` of the directory          |
//! | an erasure  | overwritten with zeros, `fsync`, removed or left so; killed in between, it |
//! |             | leaves zeros: who reads a secret takes those for none                     |
//! | `lock`      | held while the program runs: two on one state would replay and equivocate |
//!
//! Who runs on keys that are there waits for a lock that is held, for a second: a process that was killed,
//! that a supervisor is replacing, or whose open files another one is looking at (`lsof`, `ss -p`) keeps
//! it a moment longer.
//!
//! Limit, documented: what a disk or file system keeps of overwritten blocks (flash, copy on
//! write, snapshots) is not erased.

use core::time::Duration;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};
use zeroize::Zeroizing;

/// How often a lock that is held is asked for again, and how long after the time before: a second in all.
const ASK_AGAIN: u32 = 20;
const ASK_AFTER: Duration = Duration::from_millis(50);

/// What is wrong with the state directory: one line, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Others may read keys in it.
    #[error("{path} is open to others (mode {mode:03o}); run: chmod 700 {path}")]
    NotPrivate {
        /// The directory.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process runs on it.
    #[error("{0} is in use by another process; stop it, or choose another state_dir")]
    InUse(String),
    /// A file in it is not what this program wrote.
    #[error("{0} is damaged; restore it from a backup, or remove it to start anew")]
    Damaged(String),
    /// A file in it holds no key.
    #[error("{path} is damaged; {remedy}")]
    DamagedKey {
        /// The file.
        path: String,
        /// What to do, for this key.
        remedy: &'static str,
    },
    /// A file that is to be new is there.
    #[error("{0} exists already; choose another name, or move it away")]
    Exists(String),
    /// A folder can't be made, since something else has its name.
    #[error(
        "{0} is no folder: a file, or a link to nowhere; remove it, or choose another state_dir"
    )]
    NoFolder(String),
    /// The system refused.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: String,
        /// What the system says; not a `source`, which a chain of errors would say again.
        why: io::Error,
    },
}

/// A state directory in use by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Closing it releases the lock.
    _lock: File,
}

impl StateDir {
    /// Opens `path`, or makes it, and locks it until `self` is dropped.
    ///
    /// # Errors
    ///
    /// [`StateError::NotPrivate`], [`StateError::InUse`], [`StateError::NoFolder`] or
    /// [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::open_asking(path, 0, || ())
    }

    /// [`StateDir::open`], but waits for a second, blocking the thread, if it is locked already.
    ///
    /// # Errors
    ///
    /// As [`StateDir::open`].
    pub fn open_patiently(path: &Path) -> Result<Self, StateError> {
        Self::open_asking(path, ASK_AGAIN, || thread::sleep(ASK_AFTER))
    }

    fn open_asking(path: &Path, again: u32, mut wait: impl FnMut()) -> Result<Self, StateError> {
        make_private(path)?;
        let lock_path = path.join("lock");
        let lock = private().open(&lock_path).map_err(io_at(&lock_path))?;
        let ask = || flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let mut answer = ask();
        for _ in 0..again {
            if answer != Err(Errno::WOULDBLOCK) {
                break;
            }
            wait();
            answer = ask();
        }
        match answer {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::InUse(path.display().to_string())),
            Err(error) => return Err(io_at(&lock_path)(error.into())),
        }
        let path = path.to_owned();
        Ok(Self { path, _lock: lock })
    }

    /// Where `name` is or would be.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A private directory in this one.
    ///
    /// # Errors
    ///
    /// As [`StateDir::open`].
    pub fn folder(&self, name: &str) -> Result<PathBuf, StateError> {
        let path = self.path(name);
        make_private(&path)?;
        Ok(path)
    }

    /// The contents of `name`, if it exists.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_at(&path)(error)),
        }
    }

    /// Replaces `name` by `bytes`: after a crash it holds the old or the new, and what was
    /// returned from is on the disk.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        write(&self.path(name), bytes)
    }

    /// Overwrites `name` with as many zeros.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn blank(&self, name: &str) -> Result<(), StateError> {
        let path = self.path(name);
        blank(&path).map_err(io_at(&path))
    }

    /// Erases `name`, if it exists.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn erase(&self, name: &str) -> Result<(), StateError> {
        erase(&self.path(name))
    }

    /// Gives `from` the name `to`, in place of what had it: durable.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let path = self.path(to);
        let renamed = fs::rename(self.path(from), &path);
        renamed
            .and_then(|()| sync_folder(&path))
            .map_err(io_at(&path))
    }

    /// Names of the files in the folder `name`, sorted.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn list(&self, name: &str) -> Result<Vec<String>, StateError> {
        let path = self.folder(name)?;
        let entries = fs::read_dir(&path).map_err(io_at(&path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_at(&path))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// How the name of a file ends while it is written.
pub(crate) const UNFINISHED: &str = "new";

/// [`StateDir::write`] for a file anywhere.
///
/// # Errors
///
/// [`StateError::Io`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let new = path.with_added_extension(UNFINISHED);
    let written = || {
        let mut file = private().truncate(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    };
    written().map_err(io_at(path))
}

/// Makes a file, private and durable, whole or not at all; one that exists is left as it is.
///
/// # Errors
///
/// [`StateError::Exists`], [`StateError::Io`].
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let new = path.with_added_extension(UNFINISHED);
    let created = || {
        if path.try_exists()? {
            return Err(ErrorKind::AlreadyExists.into());
        }
        erase(&new).map_err(io::Error::other)?;
        let mut file = private().create_new(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Another one may have been made meanwhile.
        renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)?;
        sync_folder(path)
    };
    created().map_err(taken_at(path, StateError::Exists))
}

/// [`StateDir::erase`] for a file anywhere.
///
/// # Errors
///
/// [`StateError::Io`].
pub fn erase(path: &Path) -> Result<(), StateError> {
    let erased = || {
        blank(path)?;
        fs::remove_file(path)?;
        sync_folder(path)
    };
    match erased() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_at(path)),
    }
}

fn blank(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    io::copy(&mut io::repeat(0).take(length), &mut file)?;
    file.sync_all()
}

/// Opens a file that is written in place, to be read too: made, private, if there is none, and never
/// cut.
pub(crate) fn in_place() -> OpenOptions {
    let mut options = private();
    options.read(true).truncate(false);
    options
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

fn make_private(path: &Path) -> Result<(), StateError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(taken_at(path, StateError::NoFolder))?;
    let mode = fs::metadata(path)
        .map_err(io_at(path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display().to_string();
        return Err(StateError::NotPrivate { path, mode });
    }
    Ok(())
}

/// Makes a change of the names in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The error of what could not be made at `path`: `taken`, if there is something.
fn taken_at(
    path: &Path,
    taken: impl FnOnce(String) -> StateError,
) -> impl FnOnce(io::Error) -> StateError {
    let shown = path.display().to_string();
    move |why| {
        if why.kind() == ErrorKind::AlreadyExists {
            taken(shown)
        } else {
            StateError::Io { path: shown, why }
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.display().to_string();
    move |why| StateError::Io { path, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_open_to_others_is_refused_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        drop(StateDir::open(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("mode 750") && error.contains("chmod 700"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_folder_is_told_once_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| root.path().join(name));
        fs::write(&file, b"").unwrap();
        std::os::unix::fs::symlink(root.path().join("nowhere"), &link).unwrap();
        for path in [file, link] {
            let error = StateDir::open(&path).unwrap_err();
            assert!(std::error::Error::source(&error).is_none(), "said twice");
            let error = error.to_string();
            assert!(error.contains("choose another state_dir"), "{error}");
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let mut first = Some(StateDir::open(&path).unwrap());
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse(_))));
        let mut waited = 0;
        let second = StateDir::open_asking(&path, ASK_AGAIN, || waited += 1);
        assert!(matches!(second, Err(StateError::InUse(_))));
        assert_eq!(waited, ASK_AGAIN, "asked until its patience ends");

        waited = 0;
        let second = StateDir::open_asking(&path, ASK_AGAIN, || {
            waited += 1;
            first.take_if(|_| waited == 3);
        });
        assert!(second.is_ok(), "the first went while the second asked");
        assert_eq!(waited, 3);
        drop(second);
        StateDir::open_asking(&path, ASK_AGAIN, || panic!("nobody holds it")).unwrap();
    }

    #[test]
    fn a_new_file_is_private_and_takes_no_other_ones_place() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("backup");
        fs::write(
            root.path().join("backup.new"),
            b"of an attempt that was killed",
        )
        .unwrap();
        create(&path, b"one").unwrap();
        let again = create(&path, b"two").unwrap_err();
        assert!(std::error::Error::source(&again).is_none(), "said twice");
        let again = again.to_string();
        assert!(again.contains("choose another name"), "{again}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_are_private_replaced_and_erased() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("a/b")).unwrap();
        assert_eq!(state.read("x").unwrap(), None);
        for text in [b"one".as_slice(), b"two"] {
            state.write("x", text).unwrap();
            assert_eq!(state.read("x").unwrap().unwrap().as_slice(), text);
        }
        let mode = |name| fs::metadata(state.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("x"), mode("")), (0o600, 0o700));
        state.folder("keys").unwrap();
        state.write("keys/7", b"secret").unwrap();
        assert_eq!(state.list("keys").unwrap(), ["7"]);
        state.blank("keys/7").unwrap();
        assert_eq!(state.read("keys/7").unwrap().unwrap().as_slice(), [0; 6]);
        state.erase("keys/7").unwrap();
        state.erase("keys/7").unwrap();
        assert!(state.list("keys").unwrap().is_empty());
    }
}
