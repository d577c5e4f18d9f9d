//! `lacuna address`, `lacuna move`, `lacuna moved`: one request each, and what is printed of it.

use clap::{Arg, ArgMatches, Command};

use super::{Failure, json_line, print, switch, unexpected};
use crate::{
    api::{Labelled, Request, Response},
    call::Call,
    settings::Config,
};

pub(super) fn command() -> Command {
    let label = || {
        Arg::new("label")
            .long("label")
            .value_name("NAME")
            .required(true)
            .help("Your name for it; it never leaves this machine")
    };
    let verbs = [
        Command::new("list").about("Print all addresses, with their labels"),
        Command::new("new")
            .about("Make an address, for one correspondent, and print it")
            .arg(label()),
        Command::new("revoke")
            .about("Forget an address for good: nothing sent there is read any more")
            .arg(label()),
    ];
    Command::new("address")
        .about("Print where this client is reached")
        .subcommands(verbs)
}

pub(super) fn move_command() -> Command {
    Command::new("move")
        .about("Move all addresses to another gateway, and tell the correspondents that know them")
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("GATEWAY")
                .help("Which, 64 hex digits; else one is drawn"),
        )
}

pub(super) fn moved_command() -> Command {
    Command::new("moved")
        .about("Print which correspondents have moved: label, from, to")
        .arg(switch("follow", "Go on with those that move later"))
        .arg(switch("json", "One JSON object for each"))
}

fn listed(addresses: &[Labelled]) -> String {
    let line = |own: &Labelled| format!("{} {}\n", own.address, own.label);
    addresses.iter().map(line).collect()
}

pub(super) async fn move_to(config: &Config, matches: &ArgMatches) -> Result<(), Failure> {
    let to = matches.get_one::<String>("to").cloned();
    let mut call = Call::open(&config.socket).await?;
    let answer = call.ask(&Request::Move { to }).await?;
    let Response::Addresses { addresses } = &answer else {
        return Err(unexpected(&answer));
    };
    print(&listed(addresses)).map_err(Failure::Failed)
}

pub(super) async fn moved(config: &Config, matches: &ArgMatches) -> Result<(), Failure> {
    let (follow, json) = (matches.get_flag("follow"), matches.get_flag("json"));
    let mut call = Call::open(&config.socket).await?;
    let mut answer = call.ask(&Request::Moved { follow }).await?;
    while let Response::Moved { label, from, to } = &answer {
        let line = if json {
            json_line(&answer)?
        } else {
            format!("{label} {from} {to}\n")
        };
        print(&line).map_err(Failure::Failed)?;
        answer = call.next().await?;
    }
    let Response::End = answer else {
        return Err(unexpected(&answer));
    };
    Ok(())
}

pub(super) async fn run(
    config: &Config,
    verb: Option<&str>,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let label = || {
        matches
            .get_one::<String>("label")
            .cloned()
            .unwrap_or_default()
    };
    let request = match verb {
        Some("new") => Request::NewAddress { label: label() },
        Some("revoke") => Request::RevokeAddress { label: label() },
        Some(_) => Request::Addresses {},
        None => Request::Address {},
    };
    let answer = Call::open(&config.socket).await?.ask(&request).await?;
    let text = match &answer {
        Response::Address { address } => format!("{address}\n"),
        Response::Addresses { addresses } => listed(addresses),
        Response::Ok => String::new(),
        Response::Status(_)
        | Response::Progress { .. }
        | Response::Message { .. }
        | Response::Moved { .. }
        | Response::End
        | Response::Error { .. } => return Err(unexpected(&answer)),
    };
    print(&text).map_err(Failure::Failed)
}
