//! The other end of the local API: how a program talks to the running daemon.
//!
//! | call              | requests | answers                              |
//! |-------------------|----------|--------------------------------------|
//! | [`Call::open`]    | none     |                                      |
//! | [`Call::ask`]     | one      | the first                            |
//! | [`Call::next`]    | none     | the next of a request with several   |
//!
//! Deliberately not here: reconnecting. A daemon that went away is for the caller to judge.

use std::{io, path::Path};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
};

use crate::api::{Code, LINE_MAX, Request, Response};

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// No daemon listens on the socket.
    NoDaemon(String),
    /// The daemon answered with an error.
    Refused(Code, String),
    /// The daemon went away, or its answer is none.
    Lost(io::Error),
}

impl core::fmt::Display for CallError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoDaemon(socket) => write!(
                f,
                "no daemon runs on {socket}; start it with `lacuna run` and the same settings"
            ),
            Self::Refused(_, message) => f.write_str(message),
            Self::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => f.write_str(
                "the daemon ended before it answered: what `lacuna run` said last is why; what was queued goes on when it runs again",
            ),
            Self::Lost(error) => write!(f, "the daemon went away: {error}"),
        }
    }
}

impl core::error::Error for CallError {}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Call {
    input: BufReader<tokio::net::unix::OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Call {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    ///
    /// [`CallError::NoDaemon`] if nobody listens.
    pub async fn open(socket: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|_| CallError::NoDaemon(socket.display().to_string()))?;
        let (input, output) = stream.into_split();
        Ok(Self {
            input: BufReader::new(input),
            output,
        })
    }

    /// Sends `request`.
    ///
    /// # Errors
    ///
    /// [`CallError::Lost`] if the daemon went away.
    pub async fn say(&mut self, request: &Request) -> Result<(), CallError> {
        let lost = |error: serde_json::Error| CallError::Lost(error.into());
        let mut line = serde_json::to_string(request).map_err(lost)?;
        line.push('\n');
        self.output
            .write_all(line.as_bytes())
            .await
            .map_err(CallError::Lost)
    }

    /// Sends `request` and reads the first answer.
    ///
    /// # Errors
    ///
    /// As [`Call::say`] and [`Call::next`].
    pub async fn ask(&mut self, request: &Request) -> Result<Response, CallError> {
        // A daemon without room says so and hangs up before it has read anything.
        let said = self.say(request).await;
        match self.next().await {
            Err(CallError::Lost(error)) => Err(said.err().unwrap_or(CallError::Lost(error))),
            answer => answer,
        }
    }

    /// Reads the next answer. Not cancel safe: a caller that gives up drops the connection.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] if the answer is an error, [`CallError::Lost`] if there is none.
    pub async fn next(&mut self) -> Result<Response, CallError> {
        let line = read_line(&mut self.input).await.map_err(CallError::Lost)?;
        let line = line.ok_or_else(|| CallError::Lost(io::ErrorKind::UnexpectedEof.into()))?;
        match serde_json::from_slice(&line) {
            Ok(Response::Error { code, message }) => Err(CallError::Refused(code, message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(CallError::Lost(error.into())),
        }
    }
}

/// Reads one line of at most [`LINE_MAX`] bytes, without its end; none at the end of the input.
pub(crate) async fn read_line(
    input: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = LINE_MAX as u64 + 1;
    input.take(limit).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= LINE_MAX => Err(io::ErrorKind::InvalidData.into()),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not what the system calls it.
    #[tokio::test]
    async fn a_daemon_that_ends_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let daemon = tokio::net::UnixListener::bind(&path).unwrap();
        let mut call = Call::open(&path).await.unwrap();
        drop(daemon.accept().await.unwrap());
        let lost = call.next().await.unwrap_err().to_string();
        assert!(lost.contains("`lacuna run`"), "{lost}");
    }

    #[tokio::test]
    async fn lines_end_with_their_end() {
        let mut input: &[u8] = b"one\ntwo\n";
        assert_eq!(read_line(&mut input).await.unwrap(), Some(b"one".to_vec()));
        assert_eq!(read_line(&mut input).await.unwrap(), Some(b"two".to_vec()));
        assert_eq!(read_line(&mut input).await.unwrap(), None);
        let mut cut: &[u8] = b"half";
        assert!(read_line(&mut cut).await.is_err());
    }
}
