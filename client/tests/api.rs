//! The local API of a daemon whose network does not answer: everything but messages, which
//! `testnet`'s loopback test carries.
//!
//! | test                                       | rule of docs/CLIENT.md                         |
//! |--------------------------------------------|------------------------------------------------|
//! | states and refusals                        | states, error codes                            |
//! | lines that are no requests                 | a refused request leaves the connection usable |
//! | the socket                                 | mode 0600, one daemon, replaced after a crash  |
//! | too many programs                          | connections are bounded                        |
//! | a dropped runtime                          | nothing goes on that nobody can stop           |

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use client::{
    Daemon, Handle,
    api::{Code, Reply, Request, Response, Wait},
    call::{Call, CallError},
    serve::Server,
    settings::Config,
    state_dir::StateDir,
    status::State,
};
use proto::{NetworkId, NodeId, directory::Network};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// Some Ed25519 public key.
fn key(folder: &Path, n: u8) -> [u8; 32] {
    let state = shell::state::StateDir::open(&folder.join(format!("key-{n}"))).unwrap();
    shell::keys::Keys::open(state).unwrap().id().0
}

/// A client of a network whose one gateway nobody is.
fn made(folder: &Path) -> Config {
    let mut authorities: Vec<_> = (0..4).map(|n| key(folder, n)).collect();
    authorities.sort_unstable();
    let gateway = key(folder, 4);
    let network = Network {
        id: NetworkId([7; 32]),
        authorities,
        authority_addresses: Vec::new(),
        minimum_period: 0,
        bootstrap: vec![(NodeId(gateway), "127.0.0.1:1".to_owned())],
    };
    let file = folder.join("network.toml");
    fs::write(&file, shell::network::format(&network)).unwrap();
    let mut config = Config::in_folder(&folder.join("state")).unwrap();
    config.network = file;
    config.mailbox = shell::network::hex(&gateway);
    drop(StateDir::create(&config).unwrap());
    config
}

async fn served(config: &Config) -> (Handle, tokio::task::JoinHandle<()>) {
    let handle = Daemon::start(config.clone()).await.unwrap();
    let server = Server::bind(&config.socket).unwrap();
    let (serving, most) = (handle.clone(), config.api_connections_max);
    let task = tokio::spawn(async move { server.serve(&serving, most).await });
    (handle, task)
}

fn send(to: Option<String>, reply_to: Option<String>, reply: Reply, wait: Wait) -> Request {
    let body = "aGVsbG8=".to_owned();
    Request::Send {
        to,
        reply_to,
        body,
        reply,
        wait,
    }
}

#[tokio::test]
async fn states_and_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let (handle, serving) = served(&config).await;
    let mut call = Call::open(&config.socket).await.unwrap();

    let Response::Status(status) = call.ask(&Request::Status {}).await.unwrap() else {
        panic!("a status was asked for");
    };
    assert_eq!(status.state, State::Bootstrapping);
    assert!(
        status.reason.contains("no consensus yet"),
        "{}",
        status.reason
    );
    let Response::Address { address } = call.ask(&Request::Address {}).await.unwrap() else {
        panic!("an address was asked for");
    };
    assert_eq!(Some(address.parse().unwrap()), handle.address());

    let token = Some("00".repeat(16));
    let mistyped = Some(format!("{}q", &address[..address.len() - 1]));
    let address = Some(address);
    for (request, expected, words) in [
        (
            send(address.clone(), None, Reply::None, Wait::Sent),
            Code::Unavailable,
            "no consensus yet",
        ),
        (
            send(address.clone(), None, Reply::None, Wait::Acked),
            Code::Usage,
            "--reply",
        ),
        (
            send(mistyped, None, Reply::None, Wait::Sent),
            Code::Usage,
            "address",
        ),
        (
            send(None, None, Reply::None, Wait::Sent),
            Code::Usage,
            "exactly one",
        ),
        (
            send(address.clone(), None, Reply::Surbs(0), Wait::Sent),
            Code::Usage,
            "1 to 96",
        ),
        (
            send(address.clone(), None, Reply::Surbs(97), Wait::Sent),
            Code::Usage,
            "1 to 96",
        ),
        (
            send(address, token.clone(), Reply::None, Wait::Sent),
            Code::Usage,
            "exactly one",
        ),
        (
            send(None, Some("xyz".to_owned()), Reply::None, Wait::Sent),
            Code::Usage,
            "32 hex digits",
        ),
        (
            Request::Taken {
                id: "00".to_owned(),
            },
            Code::Usage,
            "no message of that id",
        ),
    ] {
        match call.ask(&request).await {
            Err(CallError::Refused(code, message)) => {
                assert_eq!(code, expected, "{message}");
                assert!(
                    message.contains(words) && !message.contains('\n'),
                    "{message}"
                );
            }
            other => panic!("{request:?}: {other:?}"),
        }
    }
    let receive = Request::Receive {
        follow: false,
        timeout_s: Some(0),
    };
    assert_eq!(call.ask(&receive).await.unwrap(), Response::End);

    assert_eq!(call.ask(&Request::Stop {}).await.unwrap(), Response::Ok);
    handle.ended().await.unwrap();
    serving.await.unwrap();
    assert_eq!(handle.state().0, State::Off);
    assert!(matches!(
        Call::open(&config.socket).await,
        Err(CallError::NoDaemon(_))
    ));
    assert!(!config.socket.exists(), "its socket is gone with it");
}

#[tokio::test]
async fn lines_that_are_no_requests_leave_the_connection_usable() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let (handle, _serving) = served(&config).await;
    let stream = UnixStream::connect(&config.socket).await.unwrap();
    let (input, mut output) = stream.into_split();
    let mut answers = BufReader::new(input).lines();
    for line in [
        "",
        "{}",
        "[1]",
        "{\"op\":\"launch\"}",
        "{\"op\":\"status\",\"x\":1}",
        "\u{fffd}",
    ] {
        output
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        let answer = answers.next_line().await.unwrap().unwrap();
        let answer: Response = serde_json::from_str(&answer).unwrap();
        assert!(
            matches!(
                answer,
                Response::Error {
                    code: Code::Usage,
                    ..
                }
            ),
            "{line}"
        );
    }
    // Two at once are answered in order.
    output
        .write_all(b"{\"op\":\"receive\",\"timeout_s\":0}\n{\"op\":\"status\"}\n")
        .await
        .unwrap();
    for expected in ["{\"is\":\"end\"}", "{\"is\":\"status\""] {
        let answer = answers.next_line().await.unwrap().unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn the_socket_is_private_and_of_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let (handle, serving) = served(&config).await;
    let mode = fs::metadata(&config.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let second = Server::bind(&config.socket).unwrap_err().to_string();
    assert!(second.contains("another daemon listens"), "{second}");
    let second = Daemon::start(config.clone()).await.unwrap_err().to_string();
    assert!(second.contains("in use by another process"), "{second}");
    handle.stop().await.unwrap();
    serving.await.unwrap();

    // What a killed daemon leaves behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
    assert!(config.socket.exists());
    drop(handle);
    let (handle, _serving) = served(&config).await;
    assert!(Call::open(&config.socket).await.is_ok());
    handle.stop().await.unwrap();
}

/// A program that drops its runtime instead of stopping the daemon leaves nothing that runs: its folder
/// is free.
#[test]
fn a_daemon_ends_with_its_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap()
    };
    let first = runtime();
    let handle = first.block_on(async {
        let (handle, _serving) = served(&config).await;
        let mut call = Call::open(&config.socket).await.unwrap();
        let to = handle.address().unwrap().to_string();
        // The machine answers, so it runs.
        let refused = call
            .ask(&send(Some(to), None, Reply::None, Wait::Sent))
            .await;
        assert!(refused.is_err());
        handle
    });
    assert!(!handle.is_stopping());
    drop(first);
    assert!(handle.is_stopping());
    runtime().block_on(async {
        let again = async {
            loop {
                match Daemon::start(config.clone()).await {
                    Ok(again) => break again.stop().await.unwrap(),
                    Err(why) => assert!(why.to_string().contains("in use"), "{why:#}"),
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again)
            .await
            .expect("its folder is free");
    });
}

#[tokio::test]
async fn programs_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = made(folder.path());
    config.api_connections_max = 1;
    let (handle, _serving) = served(&config).await;
    let mut first = Call::open(&config.socket).await.unwrap();
    assert!(first.ask(&Request::Status {}).await.is_ok());
    let mut second = Call::open(&config.socket).await.unwrap();
    let turned_away = second.ask(&Request::Status {}).await;
    let Err(CallError::Refused(Code::Unavailable, why)) = turned_away else {
        panic!("{turned_away:?}");
    };
    assert!(why.contains("api_connections_max"), "{why}");
    assert!(first.ask(&Request::Status {}).await.is_ok());
    handle.stop().await.unwrap();
}
