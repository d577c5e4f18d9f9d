//! The local API: what programs say to a running daemon, over a UNIX socket.
//!
//! Spec: docs/CLIENT.md. One JSON object a line, in both directions, UTF-8, at most
//! [`LINE_MAX`] bytes. The socket is 0600: whoever opens it is the user. A connection carries one
//! [`Request`] at a time; its answers follow in order. Unknown requests and unknown keys are
//! refused with an [`Response::Error`], and the connection stays usable.
//!
//! | request                                                         | answers                          |
//! |-----------------------------------------------------------------|----------------------------------|
//! | `{"op":"status"}`                                               | one `status`                     |
//! | `{"op":"address"}`                                              | one `address`                    |
//! | `{"op":"addresses"}`                                            | one `addresses`                  |
//! | `{"op":"new_address","label":L}`                                | one `address`                    |
//! | `{"op":"revoke_address","label":L}`                             | one `ok`                         |
//! | `{"op":"send","to":A,"body":B64,"reply":R,"wait":W}`            | `progress`, until W or the end   |
//! | `{"op":"send","reply_to":T,"body":B64}`                         | the same                         |
//! | `{"op":"receive","follow":F,"timeout_s":N}`                     | `message`s, then `end`           |
//! | `{"op":"taken","id":I}`                                         | one `ok`                         |
//! | `{"op":"move","to":G}`                                          | one `addresses`, the new ones    |
//! | `{"op":"moved","follow":F}`                                     | `moved`s, then `end`             |
//! | `{"op":"stop"}`                                                 | one `ok`, then the daemon stops  |
//!
//! | field   | values                                                                       |
//! |---------|------------------------------------------------------------------------------|
//! | A       | an address, `lacuna1…`                                                       |
//! | B64     | Base64 with padding, at most 128 MiB of bytes                                |
//! | L       | a label, 1 to 64 bytes                                                       |
//! | G       | a gateway, 64 hex digits; left out: one is drawn                             |
//! | R       | `"none"` (default), `"address"`, `{"at":L}` or `{"surbs":N}`, N from 1 to 96   |
//! | T       | the `reply` of a message that was received                                   |
//! | W       | `"queued"` (default), `"sent"`, `"acked"`                                    |
//! | I       | id of a message, 32 hex digits                                               |
//!
//! A message that `receive` hands out is leased to that connection: nobody else is offered it. The
//! receiver writes it where it belongs and then says `taken`, on the same connection, and only
//! then is it gone; a `receive` without `follow` ends after one message, and the connection stays
//! open for the `taken`. If the connection closes before, the message is offered again. So a
//! message is taken at least once, and twice only by a receiver that died between writing it and
//! saying so.
//!
//! While `receive` with `follow` runs, `taken` is the one request that its connection accepts
//! besides; its `ok` stands in the stream.

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Longest line: a message of 128 MiB in Base64, and what stands around it.
pub const LINE_MAX: usize = (128 << 20) / 3 * 4 + 4096;

/// SURBs that a message brings at most.
pub const SURBS_MAX: u8 = 96;
/// SURBs of a request that asks for some without saying how many.
pub const SURBS_DEFAULT: u8 = 5;

/// What a program asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is.
    Status {},
    /// Where this client is reached.
    Address {},
    /// All addresses of this client.
    Addresses {},
    /// Make one.
    NewAddress {
        /// The owner's name for it.
        label: String,
    },
    /// Forget one, for good.
    RevokeAddress {
        /// Its label.
        label: String,
    },
    /// Give all addresses mailboxes at another gateway.
    Move {
        /// Which, 64 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Which correspondents have moved.
    Moved {
        /// Go on with those that move later.
        #[serde(default)]
        follow: bool,
    },
    /// Send a message; exactly one of `to` and `reply_to`.
    Send {
        /// An address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Reply token of a message that was received.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
        /// The message, Base64.
        body: String,
        /// How the recipient may answer.
        #[serde(default)]
        reply: Reply,
        /// Up to which state to report.
        #[serde(default)]
        wait: Wait,
    },
    /// Hand out messages.
    Receive {
        /// Go on after the first.
        #[serde(default)]
        follow: bool,
        /// End after this long without a message; never, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_s: Option<u64>,
    },
    /// The receiver has a message: forget its body.
    Taken {
        /// Its id.
        id: String,
    },
    /// Stop the daemon, as SIGTERM would.
    Stop {},
}

/// How a recipient may answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Not at all.
    #[default]
    None,
    /// To the sender's oldest address, which it thereby learns.
    Address,
    /// To the sender's address of this label.
    At(String),
    /// By so many single-use reply blocks, which name nobody.
    Surbs(u8),
}

/// States of a message at its sender, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// On this machine's disk.
    #[default]
    Queued,
    /// The first burst has left: the sender may go offline.
    Sent,
    /// The recipient's client has it.
    Acked,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Response {
    /// How the daemon is.
    Status(Box<Status>),
    /// Where this client is reached.
    Address {
        /// `lacuna1…`
        address: String,
    },
    /// This client's addresses.
    Addresses {
        /// The oldest first.
        addresses: Vec<Labelled>,
    },
    /// A correspondent has moved.
    Moved {
        /// Label of the address that was told so.
        label: String,
        /// Where the correspondent was.
        from: String,
        /// Where it is now.
        to: String,
    },
    /// A message reached a state.
    Progress {
        /// Its id.
        id: String,
        /// The state.
        state: Wait,
    },
    /// A message for this client.
    Message {
        /// Its id.
        id: String,
        /// Base64.
        body: String,
        /// Label of the address that it came to; absent if that was revoked meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// How to answer, if its sender gave a way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<String>,
    },
    /// No (further) message.
    End,
    /// Done.
    Ok,
    /// Not done.
    Error {
        /// What kind of failure.
        code: Code,
        /// One line for a person, with the remedy.
        message: String,
    },
}

/// One of this client's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// The owner's name for it.
    pub label: String,
    /// `lacuna1…`
    pub address: String,
    /// Whether its mailbox is open on the present link: until then what comes there waits.
    pub open: bool,
}

/// What kind of failure. Numbers in docs/CLIENT.md are the exit codes of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is wrong; it will be wrong again (exit code 2).
    Usage,
    /// Not now: the daemon is still bootstrapping, or full (exit code 1).
    Unavailable,
    /// The message can no longer be delivered (exit code 1).
    Failed,
    /// The daemon is stopping (exit code 1).
    Stopping,
}

impl Response {
    /// An error.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Error { code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let send = |to: &str, reply, wait| Request::Send {
            to: Some(to.to_owned()),
            reply_to: None,
            body: "Zg==".to_owned(),
            reply,
            wait,
        };
        for (line, expected) in [
            (r#"{"op":"status"}"#, Request::Status {}),
            (
                r#"{"op":"send","to":"lacuna1x","body":"Zg=="}"#,
                send("lacuna1x", Reply::None, Wait::Queued),
            ),
            (
                r#"{"op":"send","to":"lacuna1x","body":"Zg==","reply":{"surbs":3},"wait":"acked"}"#,
                send("lacuna1x", Reply::Surbs(3), Wait::Acked),
            ),
            (
                r#"{"op":"send","to":"lacuna1x","body":"Zg==","reply":"address","wait":"sent"}"#,
                send("lacuna1x", Reply::Address, Wait::Sent),
            ),
            (
                r#"{"op":"send","to":"lacuna1x","body":"Zg==","reply":{"at":"bob"}}"#,
                send("lacuna1x", Reply::At("bob".to_owned()), Wait::Queued),
            ),
            (
                r#"{"op":"new_address","label":"bob"}"#,
                Request::NewAddress {
                    label: "bob".to_owned(),
                },
            ),
            (r#"{"op":"move"}"#, Request::Move { to: None }),
            (r#"{"op":"moved"}"#, Request::Moved { follow: false }),
            (
                r#"{"op":"receive","follow":true}"#,
                Request::Receive {
                    follow: true,
                    timeout_s: None,
                },
            ),
            (
                r#"{"op":"receive","timeout_s":5}"#,
                Request::Receive {
                    follow: false,
                    timeout_s: Some(5),
                },
            ),
            (
                r#"{"op":"taken","id":"00"}"#,
                Request::Taken {
                    id: "00".to_owned(),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), expected);
            let again = serde_json::to_string(&expected).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), expected);
        }
        for line in [
            r#"{"op":"status","extra":1}"#,
            r#"{"op":"launch"}"#,
            r#"{"op":"send","to":"lacuna1x","body":"Zg==","reply":"maybe"}"#,
            r#"{"op":"send","to":"lacuna1x","body":"Zg==","reply":{"surbs":256}}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}
