//! A PostgreSQL server for one test or benchmark: started as a child process, gone with its owner.
//!
//! | what     | how                                                                              |
//! |----------|----------------------------------------------------------------------------------|
//! | programs | Debian's, in `/usr/lib/postgresql/*/bin`, the newest; else those in `PATH`        |
//! | folder   | new, private, in the system's folder for temporary files                          |
//! | socket   | in that folder; no port, so that nobody else reaches it                           |
//! | user     | nobody's, if this process is root's: PostgreSQL refuses to run as root            |
//! | settings | as it ships: what it confirms is on the disk                                      |
//!
//! Not for a gateway that is meant to last: its data goes when it is dropped.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::{
        fs::{DirBuilderExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::entropy::seed;

const DEBIAN: &str = "/usr/lib/postgresql";
const NOBODY: u32 = 65_534;

/// A running server.
#[derive(Debug)]
pub struct PostgreSql {
    folder: PathBuf,
    programs: PathBuf,
    child: Child,
}

impl PostgreSql {
    /// Makes an empty database server and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is not installed, which says how to install it; or what it says itself.
    pub fn start() -> io::Result<Self> {
        let programs = programs()?;
        let name: String = seed()[..8].iter().map(|b| format!("{b:02x}")).collect();
        let folder = env::temp_dir().join(format!("lacuna-postgresql-{name}"));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        if geteuid().is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY))?;
        }
        let made = command(&programs, &folder, "initdb")
            .args(["--username=lacuna", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata=data"])
            .output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(io::Error::other(said));
        }
        let child = serve(&programs, &folder)?;
        Ok(Self {
            folder,
            programs,
            child,
        })
    }

    /// The connection string of the database `name`; there is one named `postgres`.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        format!("host={} user=lacuna dbname={name}", self.folder.display())
    }

    /// Ends the server in the middle of its work, without writing out anything, and starts it
    /// again on what is on the disk.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn crash(&mut self) -> io::Result<()> {
        self.end()?;
        self.child = serve(&self.programs, &self.folder)?;
        Ok(())
    }

    /// Ends the server as [`PostgreSql::crash`] does.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::QUIT)?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        let _nobody_to_tell = self.end();
        let _nobody_to_tell = fs::remove_dir_all(&self.folder);
    }
}

/// The folder of the newest installation.
fn programs() -> io::Result<PathBuf> {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path()).max_by_key(version);
    let of_debian = newest.map(|path| path.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = of_debian.into_iter().chain(env::split_paths(&path));
    let holds = |folder: &PathBuf| {
        ["initdb", "postgres"]
            .iter()
            .all(|name| folder.join(name).exists())
    };
    found.into_iter().find(holds).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "PostgreSQL is not installed; on Debian: apt-get install postgresql",
        )
    })
}

fn command(programs: &Path, folder: &Path, name: &str) -> Command {
    let mut command = Command::new(programs.join(name));
    command
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Starts the server and waits until it says that it takes connections.
fn serve(programs: &Path, folder: &Path) -> io::Result<Child> {
    let mut child = command(programs, folder, "postgres")
        .args(["-D", "data", "-c", "listen_addresses=", "-k"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("ready to accept connections") {
        if log.read_line(&mut said)? == 0 {
            child.wait()?;
            return Err(io::Error::other(said));
        }
    }
    // What it says later must not fill the pipe.
    thread::spawn(move || log.read_to_end(&mut Vec::new()));
    Ok(child)
}
