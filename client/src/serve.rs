//! Serves the local API of [`crate::api`] on a UNIX socket.
//!
//! | limit                   | value                                                           |
//! |-------------------------|-----------------------------------------------------------------|
//! | connections             | a setting; one more is told so and closed at once               |
//! | line                    | [`LINE_MAX`](crate::api::LINE_MAX) bytes                        |
//! | requests under way      | one a connection, and one that waits                            |
//! | messages handed out     | 16 a connection that are not taken yet                          |
//!
//! The socket is made under another name, set to 0600 and renamed into place, so that it is never
//! open to others and replaces what a killed daemon left behind. Whoever may open it is the user:
//! there is no other authentication.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use proto::{
    NodeId,
    client::{AddressError, OwnAddress, ReplyToken, Return, Target},
};
use shell::network::{hex, unhex};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    addresses::AddressRefused,
    api::{Code, Labelled, Reply, Request, Response, SURBS_MAX, Wait},
    base64,
    call::read_line,
    handle::{Handle, Received},
    outbox::SendError,
};

/// Messages that one connection may hold untaken.
const LEASES_MAX: usize = 16;

/// A bound socket; the file is removed when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

impl Server {
    /// Binds the socket.
    ///
    /// # Errors
    ///
    /// If another daemon listens there, or the path can't be bound.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another daemon listens on {shown}; stop it, or choose another socket");
        }
        let draft = path.with_extension("sock.new");
        let bind = || {
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&draft)?;
            fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
            fs::rename(&draft, path)?;
            Ok(listener)
        };
        let listener = bind().with_context(|| format!("binding {shown}"))?;
        let path = path.to_owned();
        Ok(Self { listener, path })
    }

    /// Serves `handle` until the daemon ends, at most `connections_max` programs at once.
    pub async fn serve(&self, handle: &Handle, connections_max: usize) {
        let room = Arc::new(Semaphore::new(connections_max));
        let mut connections = JoinSet::new();
        let ended = handle.ended();
        let mut ended = core::pin::pin!(ended);
        loop {
            tokio::select! {
                _ = &mut ended => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match (accepted, Arc::clone(&room).try_acquire_owned()) {
                    (Ok((stream, _)), Ok(place)) => {
                        let handle = handle.clone();
                        connections.spawn(async move {
                            // An error here is a program that went away.
                            let _gone = Connection::new(stream, handle).serve().await;
                            drop(place);
                        });
                    }
                    (Ok((stream, _)), Err(_)) => turn_away(stream, connections_max),
                    // Out of descriptors, most likely: do not spin.
                    (Err(_), _) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }
}

/// Says that there is no room, and hangs up. Its buffer is empty, so that this never waits; a program
/// that is gone already hears nothing.
fn turn_away(stream: UnixStream, connections_max: usize) {
    let why = format!(
        "{connections_max} programs talk to the daemon already, as many as api_connections_max allows: end one of them, or raise it and restart the daemon"
    );
    let said = serde_json::to_vec(&Response::error(Code::Unavailable, why));
    if let (Ok(mut line), Ok(mut stream)) = (said, stream.into_std()) {
        line.push(b'\n');
        let _gone = io::Write::write_all(&mut stream, &line);
    }
}

struct Connection {
    lines: mpsc::Receiver<Vec<u8>>,
    /// A request that came while another was under way.
    waiting: Option<Vec<u8>>,
    output: OwnedWriteHalf,
    handle: Handle,
    leases: BTreeMap<String, Received>,
}

impl Connection {
    fn new(stream: UnixStream, handle: Handle) -> Self {
        let (input, output) = stream.into_split();
        let (read, lines) = mpsc::channel(1);
        // Ends with the connection, or when nobody waits for lines any more.
        tokio::spawn(async move {
            let mut input = BufReader::new(input);
            while let Ok(Some(line)) = read_line(&mut input).await {
                if read.send(line).await.is_err() {
                    return;
                }
            }
        });
        Self {
            lines,
            waiting: None,
            output,
            handle,
            leases: BTreeMap::new(),
        }
    }

    async fn serve(mut self) -> io::Result<()> {
        loop {
            let line = match self.waiting.take() {
                Some(line) => Some(line),
                None => self.lines.recv().await,
            };
            let Some(line) = line else { return Ok(()) };
            match beside(move || serde_json::from_slice(&line)).await? {
                Err(error) => self.say(&unreadable(&error)).await?,
                Ok(Request::Status {}) => {
                    let status = self.handle.status();
                    self.say(&Response::Status(Box::new(status))).await?;
                }
                Ok(Request::Address {}) => {
                    let answer = match self.handle.address() {
                        Some(address) => Response::Address {
                            address: address.to_string(),
                        },
                        None => unaddressed(AddressRefused::NotReady),
                    };
                    self.say(&answer).await?;
                }
                Ok(Request::Addresses {}) => {
                    self.say(&labelled(&self.handle, self.handle.addresses()))
                        .await?;
                }
                Ok(Request::Move { to }) => {
                    let gateway = to.map(|text| unhex(&text).map(NodeId).ok_or(()));
                    let answer = match gateway.transpose() {
                        Err(()) => Response::error(Code::Usage, "a gateway has 64 hex digits"),
                        Ok(gateway) => match self.handle.move_to(gateway).await {
                            Ok(own) => labelled(&self.handle, own),
                            Err(why) => unaddressed(why),
                        },
                    };
                    self.say(&answer).await?;
                }
                Ok(Request::Moved { follow }) => self.moved(follow).await?,
                Ok(Request::NewAddress { label }) => {
                    let answer = match self.handle.new_address(&label).await {
                        Ok(own) => Response::Address {
                            address: own.address.to_string(),
                        },
                        Err(why) => unaddressed(why),
                    };
                    self.say(&answer).await?;
                }
                Ok(Request::RevokeAddress { label }) => {
                    let answer = match self.handle.revoke_address(&label).await {
                        Ok(()) => Response::Ok,
                        Err(why) => unaddressed(why),
                    };
                    self.say(&answer).await?;
                }
                Ok(Request::Send {
                    to,
                    reply_to,
                    body,
                    reply,
                    wait,
                }) => {
                    let body = beside(move || base64::decode(&body)).await?;
                    match message(&self.handle, to, reply_to, body, reply) {
                        Err(refusal) => self.say(&refusal).await?,
                        Ok((to, body, back)) => self.send(to, body, back, wait).await?,
                    }
                }
                Ok(Request::Receive { follow, timeout_s }) => {
                    self.receive(follow, timeout_s.map(Duration::from_secs))
                        .await?;
                }
                Ok(Request::Taken { id }) => self.taken(&id).await?,
                Ok(Request::Stop {}) => {
                    self.say(&Response::Ok).await?;
                    self.handle.ask_to_stop();
                }
            }
        }
    }

    async fn say(&mut self, answer: &Response) -> io::Result<()> {
        self.output.write_all(&line_of(answer)?).await
    }

    /// Reports the states up to `wait`, unless the program goes away.
    async fn send(
        &mut self,
        to: Target,
        body: Vec<u8>,
        back: Return,
        wait: Wait,
    ) -> io::Result<()> {
        if wait == Wait::Acked && back == Return::None {
            return self.say(&refused(SendError::NoAck)).await;
        }
        let mut sending = match self.handle.send(to, body, back).await {
            Ok(sending) => sending,
            Err(error) => return self.say(&refused(error)).await,
        };
        let mut next = Wait::Queued;
        loop {
            let reached = tokio::select! {
                reached = sending.reached(next) => reached,
                line = self.lines.recv(), if self.waiting.is_none() => {
                    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
                    self.waiting = Some(line.ok_or_else(gone)?);
                    continue;
                }
            };
            let (id, state) = match reached {
                Ok(reached) => reached,
                Err(error) => return self.say(&refused(error)).await,
            };
            let id = hex(&id);
            self.say(&Response::Progress { id, state }).await?;
            next = match state {
                _ if state >= wait => return Ok(()),
                Wait::Queued => Wait::Sent,
                Wait::Sent | Wait::Acked => Wait::Acked,
            };
        }
    }

    /// Hands out one message, or all that come.
    async fn receive(&mut self, follow: bool, patience: Option<Duration>) -> io::Result<()> {
        loop {
            let timeout = async {
                match patience {
                    Some(patience) => tokio::time::sleep(patience).await,
                    None => core::future::pending().await,
                }
            };
            let line = tokio::select! {
                biased;
                line = self.lines.recv(), if self.waiting.is_none() => Some(line),
                received = self.handle.receive(), if self.leases.len() < LEASES_MAX => {
                    let Ok(received) = received else {
                        return self.say(&refused(SendError::Stopped)).await;
                    };
                    self.hand_out(received).await?;
                    if !follow {
                        return Ok(());
                    }
                    None
                }
                () = timeout => return self.say(&Response::End).await,
            };
            match line {
                None => {}
                Some(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Some(line)) => match serde_json::from_slice(&line) {
                    Ok(Request::Taken { id }) => self.taken(&id).await?,
                    _ if follow => {
                        let message = "while `receive` follows, its connection takes only `taken`";
                        self.say(&Response::error(Code::Usage, message)).await?;
                    }
                    _ => self.waiting = Some(line),
                },
            }
        }
    }

    /// Tells which correspondents have moved; with `follow` until the program says something else.
    async fn moved(&mut self, follow: bool) -> io::Result<()> {
        let mut told = BTreeSet::new();
        loop {
            let (all, own) = (self.handle.moved(), self.handle.addresses());
            for news in all.difference(&told) {
                if let Some(own) = own.iter().find(|own| own.slot == news.slot) {
                    let answer = Response::Moved {
                        label: own.label.clone(),
                        from: news.from.to_string(),
                        to: news.to.to_string(),
                    };
                    self.say(&answer).await?;
                }
            }
            told = all;
            if !follow || self.waiting.is_some() || self.handle.is_stopping() {
                return self.say(&Response::End).await;
            }
            tokio::select! {
                () = self.handle.correspondent_moves(&told) => {}
                line = self.lines.recv() => {
                    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
                    self.waiting = Some(line.ok_or_else(gone)?);
                }
            }
        }
    }

    async fn hand_out(&mut self, received: Received) -> io::Result<()> {
        let (received, line) = beside(move || {
            let line = line_of(&Response::Message {
                id: hex(&received.id()),
                body: base64::encode(received.body()),
                to: received.to(),
                reply: received.reply().map(|token| hex(&token.to_bytes())),
            });
            (received, line)
        })
        .await?;
        self.leases.insert(hex(&received.id()), received);
        self.output.write_all(&line?).await
    }

    async fn taken(&mut self, id: &str) -> io::Result<()> {
        let answer = match self.leases.remove(id) {
            Some(received) => {
                received.taken().await;
                Response::Ok
            }
            None => Response::error(
                Code::Usage,
                "this connection holds no message of that id: it is taken already, or was handed to another",
            ),
        };
        self.say(&answer).await
    }
}

/// Does what takes long for a long body where nobody waits for it.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
}

fn line_of(answer: &Response) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads what a request to send is about.
fn message(
    handle: &Handle,
    to: Option<String>,
    reply_to: Option<String>,
    body: Option<Vec<u8>>,
    reply: Reply,
) -> Result<(Target, Vec<u8>, Return), Response> {
    let usage = |message: String| Response::error(Code::Usage, message);
    let to = match (to, reply_to) {
        (Some(to), None) => Target::Address(to.parse().map_err(|e| usage(format!("{e}")))?),
        (None, Some(token)) => {
            let wrong =
                || usage("a reply token has 32 hex digits: take `reply` of the message".to_owned());
            Target::Reply(ReplyToken::from_bytes(unhex(&token).ok_or_else(wrong)?))
        }
        _ => {
            return Err(usage(
                "send takes exactly one of `to` and `reply_to`".to_owned(),
            ));
        }
    };
    let body = body.ok_or_else(|| usage("`body` must be Base64 with padding".to_owned()))?;
    let back = match reply {
        Reply::None => Return::None,
        // The message came to one of them: the answer must not show another by default (CLI-33).
        Reply::Address if matches!(to, Target::Reply(_)) && handle.addresses().len() > 1 => {
            return Err(usage(
                "this client has several addresses: say which one the answer shows, \"reply\":{\"at\":LABEL} or --reply at=LABEL".to_owned(),
            ));
        }
        Reply::Address => Return::Address,
        Reply::At(label) => Return::At(handle.slot_of(&label).map_err(unaddressed)?),
        Reply::Surbs(count) if (1..=SURBS_MAX).contains(&count) => Return::Surbs(count),
        Reply::Surbs(_) => return Err(usage(format!("`surbs` takes 1 to {SURBS_MAX}"))),
    };
    Ok((to, body, back))
}

fn labelled(handle: &Handle, own: Vec<OwnAddress>) -> Response {
    let unopened = handle.unopened();
    let label = |own: OwnAddress| Labelled {
        open: !unopened.contains(&own.slot),
        label: own.label,
        address: own.address.to_string(),
    };
    let addresses = own.into_iter().map(label).collect();
    Response::Addresses { addresses }
}

fn unreadable(error: &serde_json::Error) -> Response {
    Response::error(Code::Usage, format!("this line is no request: {error}"))
}

fn unaddressed(why: AddressRefused) -> Response {
    let code = match why {
        AddressRefused::NotReady
        | AddressRefused::Refused(
            AddressError::NotReady
            | AddressError::Moving
            | AddressError::NoOther
            | AddressError::TooSoon { .. },
        ) => Code::Unavailable,
        AddressRefused::Refused(_) => Code::Usage,
        AddressRefused::Stopped => Code::Stopping,
    };
    Response::error(code, why.to_string())
}

fn refused(error: SendError) -> Response {
    let code = match error {
        SendError::Stopped => Code::Stopping,
        SendError::Expired => Code::Failed,
        _ if error.is_usage() => Code::Usage,
        SendError::Refused(_) | SendError::NoAck => Code::Unavailable,
    };
    Response::error(code, error.to_string())
}
