//! A whole small network of real processes on 127.0.0.1.
//!
//! | test                                             | rule                                        |
//! |--------------------------------------------------|---------------------------------------------|
//! | messages both ways, by address and reply blocks  | exactly once                                |
//! | one size on every link                           | LNK-1, seen by taps outside the roles       |
//! | `kill -9` of a gateway between store and delivery| GW: what is stored survives                 |
//! | `kill -9` of an entry gateway                    | CLI-29: another one is entered by           |
//! | `kill -9` of a client, and a restart             | CLI-16: nothing is lost, nothing comes twice|
//! | the command line against a running daemon        | docs/CLIENT.md                              |
//! | a gateway that stops says so to everyone         | LOOP-8 to LOOP-10                           |
//! | a client from its backup                         | CLI-34                                      |
//! | a client moves away from a gateway that is killed| CLI-40, MSG-24                              |
//! | a network that is kept outlives one of its mixes | `lacuna-testnet up`                         |
//!
//! One test, since starting a network is most of its cost: the steps share it. It waits on events
//! only, each within a limit. The network's delays are shortened; everything else is as deployed.

use core::time::Duration;
use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use client::{
    api::{Request, Response, Wait},
    call::Call,
    status::State,
};
use rustix::process::Signal;
use shell::clock::Clock;
use testnet::{
    conversation::{ALICE, BOB, Conversation},
    ledger::Purpose,
    network::{Network, Plan},
    progress::Progress,
};
use tokio::{io::AsyncWriteExt, process::Command, sync::oneshot};

/// Short delays, so that the test is about processes and not about waiting. Not shorter: the nodes'
/// loops keep two packets in each mix (LOOP-1), which at 5 ms were 400 a second through each.
const PARAMS: &str = "delay_mean_ms = 20\n";
const SHORT: usize = 200;
/// Counts packets that a gateway has put into mailboxes.
const STORED: &str = "lacuna_mailbox_packets_stored_total";
const LIMIT: Duration = Duration::from_secs(90);

fn plan(root: &Path) -> anyhow::Result<Plan> {
    Ok(Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        mixes_per_layer: 1,
        gateways: 4, // one may be the entry that was left, one is killed with a mailbox
        params: PARAMS.to_owned(),
        ..Plan::demo(root)?
    })
}

#[tokio::test]
async fn messages_survive_what_a_network_suffers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::start();
    let network = Network::start(plan(folder.path())?, clock, &Progress::new()).await?;
    let mut talk = Conversation::over(network, clock);
    talk.introduce().await?;
    both_ways(&mut talk).await?;
    without_a_name(&mut talk).await?;
    gateway_killed_with_a_message_in_its_mailbox(&mut talk).await?;
    clients_killed_with_a_message_under_way(&mut talk).await?;
    entry_gateway_killed(&mut talk).await?;
    let seen = talk.network.seen();
    assert_eq!(seen.client.keys().collect::<Vec<_>>(), [&2432], "LNK-1");
    assert_eq!(seen.node.keys().collect::<Vec<_>>(), [&2432], "LNK-1");
    assert_eq!(talk.ledger.outcome(), (9, 0, 0), "each exactly once");
    by_the_command_line(&mut talk.network).await?;
    moved_away_from_a_killed_gateway(&mut talk).await?;
    gateway_takes_its_leave(&mut talk).await?;
    kept_until_a_mix_is_killed(talk.network).await
}

/// Short ones and one of several fragments, each way, acknowledged.
async fn both_ways(talk: &mut Conversation) -> anyhow::Result<()> {
    let mut numbers = Vec::new();
    for from in [ALICE, BOB] {
        for bytes in [SHORT, 20_000] {
            numbers.push(talk.send(from, bytes, Purpose::Other).await?);
        }
    }
    talk.until("messages both ways, and their acks", |ledger| {
        let settled =
            |number: &u64| ledger.is_opened(*number) && ledger.has_reached(*number, Wait::Acked);
        numbers.iter().all(settled)
    })
    .await
}

async fn without_a_name(talk: &mut Conversation) -> anyhow::Result<()> {
    let number = talk.send_unnamed(ALICE, SHORT).await?;
    talk.until("unnamed message", |ledger| ledger.is_opened(number))
        .await?;
    let answer = talk.answer(BOB, number, SHORT).await?;
    talk.until("answer by reply blocks", |ledger| ledger.is_opened(answer))
        .await
}

/// The recipient is offline, its gateway stores and is killed, the sender goes offline: what
/// arrives then comes from the store.
async fn gateway_killed_with_a_message_in_its_mailbox(
    talk: &mut Conversation,
) -> anyhow::Result<()> {
    const FRAGMENTS: u64 = 20;
    talk.network.stop_client(BOB).await?;
    let before = talk.network.metric(BOB, STORED).await?;
    let bytes = usize::try_from(FRAGMENTS)? * 1984 - 500;
    let number = talk.send(ALICE, bytes, Purpose::Other).await?;
    talk.until("burst", |ledger| ledger.has_reached(number, Wait::Sent))
        .await?;
    // A few more than enough, for loops of the recipient that were under way.
    talk.network
        .until_metric(BOB, STORED, before + FRAGMENTS + 4)
        .await?;
    talk.network.stop_client(ALICE).await?;
    assert!(!talk.ledger.is_opened(number));
    talk.network.kill_gateway(BOB).await?;
    talk.network.start_gateway(BOB).await?;
    talk.network.start_client(BOB).await?;
    talk.connect(BOB).await?;
    talk.until("message that outlived its gateway", |ledger| {
        ledger.is_opened(number)
    })
    .await?;
    talk.network.start_client(ALICE).await?;
    talk.connect(ALICE).await
}

/// Both ends are killed while a message of many fragments is under way.
async fn clients_killed_with_a_message_under_way(talk: &mut Conversation) -> anyhow::Result<()> {
    let number = talk.send(ALICE, 60_000, Purpose::Other).await?;
    talk.until("message on disk", |ledger| {
        ledger.has_reached(number, Wait::Queued)
    })
    .await?;
    for who in [ALICE, BOB] {
        talk.network.kill_client(who).await?;
    }
    assert!(!talk.ledger.is_opened(number));
    for who in [ALICE, BOB] {
        talk.network.start_client(who).await?;
        talk.connect(who).await?;
    }
    talk.until("message that outlived both ends", |ledger| {
        ledger.is_opened(number)
    })
    .await
}

/// The gateway that one enters by is killed and stays dead: messages go on by another one.
async fn entry_gateway_killed(talk: &mut Conversation) -> anyhow::Result<()> {
    let before = talk.status(ALICE).await?.entry.gateway;
    let at = talk.network.gateway_called(before.as_deref())?;
    talk.network.kill_gateway(at).await?;
    // Two attempts fail, then at most five seconds: a status is no event.
    let mut ask = tokio::time::interval(Duration::from_millis(100));
    let replaced = async {
        loop {
            let status = talk.status(ALICE).await?;
            if status.entries_replaced == 1 && status.state == State::Ready {
                return anyhow::Ok(status.entry.gateway);
            }
            ask.tick().await;
        }
    };
    let after = tokio::time::timeout(LIMIT, replaced).await??;
    assert!(after.is_some() && after != before);
    if at == BOB {
        talk.network.start_gateway(at).await?; // it has the recipient's mailbox
    }
    let number = talk.send(ALICE, SHORT, Purpose::Other).await?;
    talk.until("message by another entry", |ledger| {
        ledger.is_opened(number)
    })
    .await?;
    if at != BOB {
        talk.network.start_gateway(at).await?;
    }
    Ok(())
}

/// The gateway of a mailbox is killed for good. Its client moves; the correspondent, who knows the old
/// address only, is told and follows.
async fn moved_away_from_a_killed_gateway(talk: &mut Conversation) -> anyhow::Result<()> {
    talk.network.kill_gateway(BOB).await?;
    let mut bob = Call::open(&talk.network.socket("bob")).await?;
    let moved = bob.ask(&Request::Move { to: None }).await?;
    let Response::Addresses { addresses } = moved else {
        anyhow::bail!("asked to move, got {moved:?}");
    };
    let mut alice = Call::open(&talk.network.socket("alice")).await?;
    let told = alice.ask(&Request::Moved { follow: true });
    let told = tokio::time::timeout(LIMIT, told).await??;
    let follows = matches!(&told, Response::Moved { to, .. } if *to == addresses[0].address);
    assert!(follows, "{told:?}");
    let number = talk.send(ALICE, SHORT, Purpose::Other).await?;
    talk.until("message to the new gateway, and its ack", |ledger| {
        ledger.is_opened(number) && ledger.has_reached(number, Wait::Acked)
    })
    .await?;
    let status = talk.status(BOB).await?;
    assert_eq!((status.state, status.former.len()), (State::Ready, 1));
    talk.network.start_gateway(BOB).await
}

/// The withdrawal goes round the layers to the gateway of the client's mailbox, and from there to the
/// client, which enters by the one that stops.
async fn gateway_takes_its_leave(talk: &mut Conversation) -> anyhow::Result<()> {
    const HEARD: &str = "lacuna_notices_total{reason=\"withdrawal\"}";
    assert_eq!(talk.network.metric(ALICE, HEARD).await?, 0);
    let entry = talk.status(ALICE).await?.entry.gateway;
    let at = talk.network.gateway_called(entry.as_deref())?;
    talk.network.stop_gateway(at).await?;
    talk.network.until_metric(ALICE, HEARD, 1).await?;
    let heard = async {
        // Every answer is a round trip through the daemon, so this does not spin.
        loop {
            let counts = talk.status(ALICE).await?.counts;
            if counts.by_name.get("notice_entry_leaves") == Some(&1) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LIMIT, heard).await?
}

/// A third client, by hand.
async fn by_the_command_line(network: &mut Network) -> anyhow::Result<()> {
    let state = network.folder("carol").join("state").display().to_string();
    let file = network.root().join("network.toml").display().to_string();
    let lacuna = |args: &[&str], input: &'static str| {
        let args = [&["role", "client"], args, &["--state-dir", &state]].concat();
        command(args.into_iter().map(str::to_owned).collect(), input)
    };
    let said = |output: &Output| {
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), out, err)
    };
    let check = |output: Output, code: i32, expected: &str| {
        let (found, out, err) = said(&output);
        assert_eq!(found, Some(code), "{out}{err}");
        assert!(
            format!("{out}{err}").contains(expected),
            "{expected}: {out}{err}"
        );
        assert!(
            code == 0 || err.lines().count() == 1,
            "one clear line: {err}"
        );
        out
    };
    check(lacuna(&["run"], "").await?, 2, "lacuna init");
    check(lacuna(&["init"], "").await?, 2, "--network FILE");
    check(
        lacuna(
            &["init", "--network", &file, "--profile", "interactive"],
            "",
        )
        .await?,
        0,
        "made an identity",
    );
    check(
        lacuna(&["init", "--network", &file], "").await?,
        2,
        "holds an identity already",
    );
    check(lacuna(&["status"], "").await?, 1, "no daemon runs on");

    let other = lacuna(&["run", "--profile", "frugal"], "").await?;
    check(other, 2, "was made with `interactive`");
    let at = network.folder("nope").join("state").display().to_string();
    let nope = |verb: &[&str]| {
        let args = [&["role", "client"], verb, &["--state-dir", &at]].concat();
        command(args.into_iter().map(str::to_owned).collect(), "")
    };
    let init = ["init", "--network", &file, "--profile", "nope"];
    check(nope(&init).await?, 0, "profile nope");
    check(
        nope(&["run", "--log", "error"]).await?,
        2,
        "profile must be one of the network's (interactive, messaging",
    );

    let run = ["run", "--state-dir", &state];
    let mut daemon = network.start_by_hand("carol", "client", run.map(Into::into))?;
    network.until_ready(&mut daemon).await?;
    check(lacuna(&["run"], "").await?, 2, "in use by another process");
    let address = check(lacuna(&["address"], "").await?, 0, "lacuna1");
    let address = address.trim();
    let (start, last) = address.split_at(address.len() - 1);
    let mistyped = format!("{start}{}", if last == "q" { 'p' } else { 'q' });
    check(lacuna(&["send", &mistyped], "hello").await?, 2, "address");
    check(
        lacuna(&["send", address, "--wait", "acked"], "hello").await?,
        2,
        "--reply",
    );
    let send = [
        "send",
        address,
        "-",
        "--reply",
        "address",
        "--wait",
        "acked",
        "--timeout",
        "60",
    ];
    check(lacuna(&send, "hello").await?, 0, "acked");
    let json = check(
        lacuna(&["receive", "--json", "--timeout", "60"], "").await?,
        0,
        "aGVsbG8=",
    );
    let message: serde_json::Value = serde_json::from_str(&json)?;
    let token = message["reply"].as_str().unwrap_or_default();
    let answer = [
        "send",
        "--reply-to",
        token,
        "--wait",
        "sent",
        "--timeout",
        "60",
    ];
    check(lacuna(&answer, "and back").await?, 0, "sent");
    let body = check(
        lacuna(&["receive", "--timeout", "60"], "").await?,
        0,
        "and back",
    );
    assert_eq!(body, "and back", "the body and nothing else");
    check(
        lacuna(&["receive", "--timeout", "0"], "").await?,
        1,
        "no message in time",
    );
    let status = check(
        lacuna(&["status", "--json"], "").await?,
        0,
        "up_bytes_per_day",
    );
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(
        (&status["state"], &status["messages_waiting"]),
        (&"ready".into(), &0.into())
    );
    assert_ne!(status["entry"]["gateway"], status["mailbox"]["gateway"]);

    // An address for bob alone, which survives `kill -9`, and is revoked.
    let bob = ["address", "new", "--label", "bob"];
    let for_bob = check(lacuna(&bob, "").await?, 0, "lacuna1");
    let for_bob = for_bob.trim();
    check(lacuna(&bob, "").await?, 2, "choose another label");
    daemon.kill().await?;
    let mut daemon = network.start_by_hand("carol", "client", run.map(Into::into))?;
    network.until_ready(&mut daemon).await?;
    let listed = check(lacuna(&["address", "list"], "").await?, 0, "bob");
    assert_eq!(listed, format!("{address} main\n{for_bob} bob\n"));
    let to_bob = ["send", for_bob, "-", "--reply", "at=bob"];
    check(lacuna(&to_bob, "hello").await?, 0, "queued");
    let json = check(
        lacuna(&["receive", "--json", "--timeout", "60"], "").await?,
        0,
        "aGVsbG8=",
    );
    let message: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(message["to"], "bob");
    let token = message["reply"].as_str().unwrap_or_default();
    check(
        lacuna(&["send", "--reply-to", token, "--reply", "address"], "x").await?,
        2,
        "--reply at=LABEL",
    );
    let revoke = ["address", "revoke", "--label", "bob"];
    check(lacuna(&revoke, "").await?, 0, "");
    check(lacuna(&revoke, "").await?, 2, "no address has that label");
    let listed = check(lacuna(&["address", "list"], "").await?, 0, "main");
    assert_eq!(listed, format!("{address} main\n"));

    // The client in a sealed file, and in another folder.
    let backup = network.folder("carol").join("backup").display().to_string();
    let running = lacuna(&["backup", &backup], "").await?;
    check(running, 2, "stop the daemon first");
    daemon.stop(LIMIT).await?;
    let key = network.folder("carol").join("key").display().to_string();
    let made = check(
        lacuna(&["backup", &backup, "--key", &key], "").await?,
        0,
        "",
    );
    assert_eq!(made, "", "the key is in its file");
    let again = network.folder("carol").join("again").display().to_string();
    let restore = [
        "role",
        "client",
        "restore",
        &backup,
        "--key",
        &key,
        "--state-dir",
        &again,
    ];
    let restored = command(restore.map(str::to_owned).to_vec(), "").await?;
    check(restored, 0, "revoked since the backup was made:\n  main\n");
    let run = ["run", "--state-dir", &again];
    let mut daemon = network.start_by_hand("carol", "client", run.map(Into::into))?;
    network.until_ready(&mut daemon).await?;
    let list = ["role", "client", "address", "list", "--state-dir", &again];
    let listed = command(list.into_iter().map(str::to_owned).collect(), "").await?;
    assert_eq!(check(listed, 0, "main"), format!("{address} main\n"));
    daemon.stop(LIMIT).await
}

async fn command(args: Vec<String>, input: &str) -> anyhow::Result<Output> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lacuna-testnet"))
        .args(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that takes no input may be gone already.
    let _gone = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    Ok(ended.map_err(|_| anyhow::anyhow!("{args:?} did not end"))??)
}

/// Whoever keeps it hears of the mix; everything else stops cleanly afterwards.
async fn kept_until_a_mix_is_killed(network: Network) -> anyhow::Result<()> {
    network.mix(0).signal(Signal::KILL);
    let (tell, told) = oneshot::channel();
    let (mut tell, mut ends) = (Some(tell), Vec::new());
    let hear = |end: &anyhow::Error| {
        ends.push(end.to_string());
        tell.take().map(|tell| tell.send(()));
    };
    let told = async { told.await.expect("told once") };
    let kept = network.keep(told, hear);
    tokio::time::timeout(LIMIT, kept).await??;
    assert!(
        ends.len() == 1 && ends[0].starts_with("mix-0 ended"),
        "{ends:?}"
    );
    Ok(())
}
