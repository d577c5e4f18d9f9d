//! The command `lacuna`: its command line, and what each subcommand does.
//!
//! | subcommand | needs a running daemon | standard output                                      |
//! |------------|------------------------|------------------------------------------------------|
//! | `init`     | no                     | what it made                                         |
//! | `backup`   | no, it must not run    | the key that opens the backup, unless `--key FILE`   |
//! | `restore`  | no                     | what it made, and the addresses that it opens        |
//! | `run`      | it is the daemon       | JSON lines: `{"listening":…}`, `{"state":…}`         |
//! | `address`  | yes                    | the oldest address; `new`: a new one; `list`: all     |
//! | `move`     | yes                    | the new addresses                                    |
//! | `moved`    | yes                    | correspondents that moved: label, from, to, or JSON lines |
//! | `send`     | yes                    | the message's id and state                           |
//! | `receive`  | yes                    | message bodies, or JSON lines                        |
//! | `status`   | yes                    | a table, or JSON                                     |
//!
//! | exit code | meaning                                                                       |
//! |-----------|-------------------------------------------------------------------------------|
//! | 0         | done                                                                          |
//! | 1         | failed while running: no daemon, no message in time, not delivered            |
//! | 2         | settings or usage                                                             |
//!
//! `receive` says that a message is taken only after its last byte was written and flushed.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use shell::{
    role::{FAILED, USAGE, fail},
    settings::Flag,
};
use zeroize::Zeroizing;

use crate::{
    api::{Code, Reply, Request, Response, SURBS_DEFAULT, SURBS_MAX, Wait},
    backup, base64,
    call::{Call, CallError},
    run, settings,
    settings::Config,
    state_dir::StateDir,
};

mod addresses;

const NAME: &str = "lacuna";

/// Longest text of a key that is read, bytes.
const KEY_MAX: usize = 128;
/// Largest message, bytes.
const MESSAGE_MAX: u64 = 128 << 20;

/// Why a command did not do what it was asked, and with it the exit code.
enum Failure {
    Usage(anyhow::Error),
    Failed(anyhow::Error),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if matches!(error, CallError::Refused(Code::Usage, _)) {
            return Self::Usage(error.into());
        }
        Self::Failed(error.into())
    }
}

/// The command line.
#[must_use]
pub fn command() -> Command {
    let seconds = |help: &'static str| {
        Arg::new("timeout")
            .long("timeout")
            .value_name("SECONDS")
            .value_parser(value_parser!(u64))
            .help(help)
    };
    let send = Command::new("send")
        .about("Send a message, from a file or from standard input")
        .arg(
            Arg::new("address")
                .value_name("ADDRESS")
                .help("Where to: lacuna1… (left out with --reply-to)"),
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .help("What to send; - or nothing: standard input"),
        )
        .arg(
            Arg::new("reply-to")
                .long("reply-to")
                .value_name("TOKEN")
                .help("Answer a message by the reply token that came with it"),
        )
        .arg(
            Arg::new("reply")
                .long("reply")
                .value_name("HOW")
                .default_value("none")
                .help("How the recipient may answer: none, address, at=LABEL, surbs or surbs=N"),
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("STATE")
                .default_value("queued")
                .value_parser(["queued", "sent", "acked"])
                .help("Return when the message is in this state"),
        )
        .arg(seconds(
            "Give up waiting after this long; the message stays under way",
        ));
    let receive = Command::new("receive")
        .about("Take the messages that arrived")
        .arg(switch("follow", "Go on after the first message"))
        .arg(switch(
            "json",
            "One JSON object a message: id, body (Base64), reply token",
        ))
        .arg(seconds("End after this long without a message"));
    let status = Command::new("status")
        .about("Say how the daemon is")
        .arg(switch("json", "As one JSON object"));
    let root = Command::new(NAME)
        .about("Send and receive over Lacuna: nobody sees who talks to whom, when or how much")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("init")
                .about("Make this client's identity, and choose its profile; needs --network FILE"),
            file(
                "backup",
                "Write this client to a sealed file, and the key that opens it",
            )
            .arg(
                Arg::new("key")
                    .long("key")
                    .value_name("FILE")
                    .default_value("-")
                    .help("New file for the key, readable by you alone; -: standard output"),
            ),
            file(
                "restore",
                "Make the client of a backup in a new state directory",
            )
            .arg(
                Arg::new("key")
                    .long("key")
                    .value_name("FILE")
                    .default_value("-")
                    .help("File with the key that `backup` printed; -: standard input"),
            ),
            Command::new("run")
                .about("Run the daemon, which owns the links, until it is told to stop"),
            addresses::command(),
            addresses::move_command(),
            addresses::moved_command(),
            send,
            receive,
            status,
        ]);
    with_settings(root)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn file(name: &'static str, about: &'static str) -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .required(true)
        .help("The backup");
    Command::new(name).about(about).arg(file)
}

/// Settings stand before or after any word: `lacuna address --state-dir … new`.
fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("TOML file of settings");
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .global(true)
        .help("Print the settings in force as TOML, then exit");
    let flag = |Flag { key, help, default }: Flag| {
        Arg::new(key.clone())
            .long(key.replace('_', "-"))
            .value_name("VALUE")
            .global(true)
            .help_heading("Settings")
            .help(format!("{help} [default: {default}]"))
    };
    command
        .arg(config)
        .arg(print)
        .args(settings::flags().into_iter().map(flag))
}

/// Runs the command line `args`, whose first is the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let _nobody_listens = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let Some((name, matches)) = matches.subcommand() else {
        return ExitCode::from(USAGE); // clap requires one
    };
    // The last word knows all settings.
    let (verb, matches) = match matches.subcommand() {
        Some((verb, matches)) => (Some(verb), matches),
        None => (None, matches),
    };
    let config = match load(matches) {
        Ok(config) => config,
        Err(error) => return fail(NAME, &error, USAGE),
    };
    if matches.get_flag("print-config") {
        return match toml::to_string(&config)
            .map_err(Into::into)
            .and_then(|text| print(&text))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(NAME, &error, FAILED),
        };
    }
    let done = match name {
        "init" => init(&config).map_err(Failure::Usage),
        "backup" => backup(&config, matches).map_err(Failure::Usage),
        "restore" => in_runtime(async { restore(&config, matches).await.map_err(Failure::Usage) }),
        "run" => return run::main(config),
        _ => in_runtime(async {
            match name {
                "address" => addresses::run(&config, verb, matches).await,
                "move" => addresses::move_to(&config, matches).await,
                "moved" => addresses::moved(&config, matches).await,
                "send" => send(&config, matches).await,
                "receive" => receive(&config, matches).await,
                _ => status(&config, matches).await,
            }
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => fail(NAME, &error, USAGE),
        Err(Failure::Failed(error)) => fail(NAME, &error, FAILED),
    }
}

fn load(matches: &ArgMatches) -> anyhow::Result<Config> {
    let (text, name) = match matches.get_one::<PathBuf>("config") {
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
            (text, name)
        }
        None => Default::default(),
    };
    let given: BTreeMap<String, String> = settings::flags()
        .into_iter()
        .filter_map(|flag| {
            let text = matches.get_one::<String>(&flag.key)?.clone();
            Some((flag.key, text))
        })
        .collect();
    let environment: Vec<_> = std::env::vars_os().collect();
    Config::load((&text, &name), &environment, &given)
}

fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.into()))?;
    runtime.block_on(work)
}

fn init(config: &Config) -> anyhow::Result<()> {
    let made = StateDir::create(config)?;
    let (folder, profile) = (config.state_dir.display(), made.profile(&config.profile)?);
    print(&format!(
        "made an identity in {folder}, with the profile {profile}; nobody else has it: `lacuna backup` seals a copy\n\
         next: lacuna run --state-dir {folder}\n"
    ))
}

fn backup(config: &Config, matches: &ArgMatches) -> anyhow::Result<()> {
    let file = matches
        .get_one::<PathBuf>("file")
        .context("backup: name a FILE")?;
    let key_file = matches.get_one::<String>("key").filter(|name| *name != "-");
    let key = backup::make(config, file, key_file.map(Path::new))?;
    match key_file {
        None => print(&backup::key_text(&key)),
        Some(_) => Ok(()),
    }
}

async fn restore(config: &Config, matches: &ArgMatches) -> anyhow::Result<()> {
    let file = matches
        .get_one::<PathBuf>("file")
        .context("restore: name a FILE")?;
    let from = matches.get_one::<String>("key").map_or("-", String::as_str);
    let key = backup::parse_key(&read_key(from)?)?;
    let opened = backup::restore(config, file, &key).await?;
    let folder = config.state_dir.display();
    let labels: String = opened
        .iter()
        .map(|own| format!("  {}\n", own.label))
        .collect();
    print(&format!(
        "restored the client to {folder}; run it nowhere else at the same time\n\
         it opens these addresses, also those that were revoked since the backup was made:\n{labels}\
         next: lacuna run --state-dir {folder}\n"
    ))
}

async fn status(config: &Config, matches: &ArgMatches) -> Result<(), Failure> {
    let answer = Call::open(&config.socket)
        .await?
        .ask(&Request::Status {})
        .await?;
    let Response::Status(status) = answer else {
        return Err(unexpected(&answer));
    };
    let text = if matches.get_flag("json") {
        serde_json::to_string(&status).map_err(|error| Failure::Failed(error.into()))?
    } else {
        status.to_string()
    };
    print(&format!("{text}\n")).map_err(Failure::Failed)
}

async fn send(config: &Config, matches: &ArgMatches) -> Result<(), Failure> {
    let (request, wait) = send_request(matches).map_err(Failure::Usage)?;
    let mut call = Call::open(&config.socket).await?;
    let reached = async {
        let mut answer = call.ask(&request).await?;
        loop {
            let Response::Progress { id, state } = answer else {
                return Err(unexpected(&answer));
            };
            if state >= wait {
                return Ok(id);
            }
            answer = call.next().await?;
        }
    };
    let wait = serde_json::to_value(wait).unwrap_or_default();
    let state = wait.as_str().unwrap_or_default();
    let id = match matches.get_one::<u64>("timeout") {
        None => reached.await?,
        Some(limit_s) => match tokio::time::timeout(Duration::from_secs(*limit_s), reached).await {
            Ok(reached) => reached?,
            Err(_) => {
                let why = late(&format!("not {state} within {limit_s} s"), config).await;
                return Err(Failure::Failed(anyhow!(why)));
            }
        },
    };
    print(&format!("{id} {state}\n")).map_err(Failure::Failed)
}

/// `what`, and why it is so if the daemon knows.
async fn late(what: &str, config: &Config) -> String {
    let status = async {
        let mut call = Call::open(&config.socket).await.ok()?;
        match call.ask(&Request::Status {}).await {
            Ok(Response::Status(status)) => status.stranded("of the messages under way"),
            _ => None,
        }
    };
    match status.await {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    }
}

fn send_request(matches: &ArgMatches) -> anyhow::Result<(Request, Wait)> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let reply_to = text("reply-to");
    let (to, file) = match (&reply_to, text("address"), text("file")) {
        (None, Some(to), file) => (Some(to), file),
        (None, None, _) => bail!("send: give an address, or --reply-to with a reply token"),
        (Some(_), file, None) => (None, file),
        (Some(_), _, Some(_)) => bail!("send: --reply-to replaces the address; leave that out"),
    };
    if let Some(to) = &to {
        to.parse::<proto::address::Address>()?;
    }
    let wait = match text("wait").as_deref() {
        Some("sent") => Wait::Sent,
        Some("acked") => Wait::Acked,
        _ => Wait::Queued,
    };
    let request = Request::Send {
        to,
        reply_to,
        reply: reply(&text("reply").unwrap_or_default())?,
        wait,
        body: base64::encode(&read(file.as_deref().unwrap_or("-"))?),
    };
    Ok((request, wait))
}

fn reply(text: &str) -> anyhow::Result<Reply> {
    Ok(match text.split_once('=') {
        None if text == "none" => Reply::None,
        None if text == "address" => Reply::Address,
        Some(("at", label)) => Reply::At(label.to_owned()),
        None if text == "surbs" => Reply::Surbs(SURBS_DEFAULT),
        Some(("surbs", count)) => {
            let good = |count: &u8| (1..=SURBS_MAX).contains(count);
            let count = count.parse().ok().filter(good);
            Reply::Surbs(
                count.with_context(|| format!("send: --reply surbs=N takes 1 to {SURBS_MAX}"))?,
            )
        }
        _ => bail!("send: --reply takes none, address, at=LABEL, surbs or surbs=N, not `{text}`"),
    })
}

/// Reads the first line or so of the file called `name`, or of standard input for `-`, without
/// leaving copies of it.
fn read_key(name: &str) -> anyhow::Result<Zeroizing<String>> {
    let path = if name == "-" { "/dev/stdin" } else { name };
    let mut text = Zeroizing::new(String::with_capacity(4 * KEY_MAX));
    fs::File::open(path)
        .and_then(|file| file.take(KEY_MAX as u64).read_to_string(&mut text))
        .with_context(|| format!("reading the key from {name}"))?;
    Ok(text)
}

/// Reads the file called `name`, or standard input for `-`.
fn read(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    let limit = MESSAGE_MAX + 1;
    let read = if name == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut body)
    } else {
        fs::File::open(name).and_then(|file| file.take(limit).read_to_end(&mut body))
    };
    read.with_context(|| format!("reading {name}"))?;
    ensure!(
        body.len() as u64 <= MESSAGE_MAX,
        "send: a message has at most 128 MiB; split {name}"
    );
    Ok(body)
}

async fn receive(config: &Config, matches: &ArgMatches) -> Result<(), Failure> {
    let (follow, json) = (matches.get_flag("follow"), matches.get_flag("json"));
    let timeout_s = matches.get_one::<u64>("timeout").copied();
    let mut call = Call::open(&config.socket).await?;
    let mut received = 0_u64;
    let mut answer = call.ask(&Request::Receive { follow, timeout_s }).await?;
    loop {
        match &answer {
            Response::Message { id, body, .. } => {
                let bytes = if json {
                    json_line(&answer)?.into_bytes()
                } else {
                    base64::decode(body).ok_or_else(|| unexpected(&Response::End))?
                };
                write(&bytes).map_err(Failure::Failed)?;
                call.say(&Request::Taken { id: id.clone() }).await?;
                received += 1;
            }
            Response::Ok if follow => {} // one for each `taken`
            Response::Ok => return Ok(()),
            Response::End if received > 0 => return Ok(()),
            Response::End => return Err(Failure::Failed(anyhow!("no message in time"))),
            Response::Status(_)
            | Response::Address { .. }
            | Response::Addresses { .. }
            | Response::Moved { .. }
            | Response::Progress { .. }
            | Response::Error { .. } => return Err(unexpected(&answer)),
        }
        answer = call.next().await?;
    }
}

fn json_line(answer: &Response) -> Result<String, Failure> {
    let line = serde_json::to_string(answer).map_err(|error| Failure::Failed(error.into()))?;
    Ok(line + "\n")
}

fn unexpected(answer: &Response) -> Failure {
    let kind = core::mem::discriminant(answer);
    Failure::Failed(anyhow!(
        "the daemon gave an answer of another kind ({kind:?}); are both of one version?"
    ))
}

fn print(text: &str) -> anyhow::Result<()> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn settings_stand_anywhere() {
        for line in [
            "address --state-dir /x new --label bob",
            "address new --state-dir /x --label bob",
            "--state-dir /x address new --label bob",
            "address --state-dir /x",
            "--state-dir /x status",
        ] {
            let args = ["lacuna"].into_iter().chain(line.split(' '));
            let matches = command().try_get_matches_from(args).expect(line);
            let mut last = &matches;
            while let Some((_, next)) = last.subcommand() {
                last = next;
            }
            let config = load(last).unwrap();
            assert_eq!(config.state_dir, Path::new("/x"), "{line}");
        }
    }

    #[test]
    fn ways_to_reply_are_read() {
        for (text, expected) in [
            ("none", Some(Reply::None)),
            ("address", Some(Reply::Address)),
            ("surbs", Some(Reply::Surbs(SURBS_DEFAULT))),
            ("surbs=9", Some(Reply::Surbs(9))),
            ("at=bob", Some(Reply::At("bob".to_owned()))),
            ("surbs=0", None),
            ("surbs=97", None),
            ("never", None),
        ] {
            assert_eq!(reply(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_target_is_an_address_or_a_token() {
        for (args, expected) in [
            (&["send"][..], "give an address"),
            (&["send", "--reply-to", "t", "x", "y"], "leave that out"),
            (&["send", "nym1x"], "lacuna1"),
            (
                &["send", "--reply-to", "t", "/nowhere/at/all"],
                "/nowhere/at/all",
            ),
        ] {
            let args = ["lacuna"].iter().chain(args);
            let matches = command().try_get_matches_from(args).unwrap();
            let (_, matches) = matches.subcommand().unwrap();
            let error = format!("{:#}", send_request(matches).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
