//! What a run's own identifiers look like wherever something prints them.
//!
//! | form                                  | found by                                            |
//! |---------------------------------------|-----------------------------------------------------|
//! | text                                  | itself, in either case                              |
//! | hexadecimal, whole, within, or cut to four bytes and more | the first eight bytes           |
//! | a list of numbers, one number         | the same                                            |
//! | `127.0.0.1:PORT`                      | a port that no public document names                |

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use proto::address::Address;

/// What must not be found, by how it may be printed.
#[derive(Default)]
pub(crate) struct Marks {
    /// In lower case.
    pub(crate) texts: Vec<(&'static str, String)>,
    /// The first eight bytes of an id, a key, a tag or a packet.
    pub(crate) heads: BTreeMap<[u8; 8], &'static str>,
    /// Ports that are in public documents.
    pub(crate) public: BTreeSet<u16>,
}

impl Marks {
    pub(crate) fn text(&mut self, what: &'static str, text: &str) {
        self.texts.push((what, text.to_lowercase()));
    }

    pub(crate) fn bytes(&mut self, what: &'static str, bytes: &[u8]) {
        let head = bytes.first_chunk().expect("ids and keys are longer");
        // A number, in a file that is as long as a key: none is drawn like this.
        if u64::from_be_bytes(*head) >> 40 != 0 {
            self.heads.insert(*head, what);
        }
    }

    pub(crate) fn hex(&mut self, what: &'static str, text: &str) -> anyhow::Result<()> {
        self.bytes(what, &unhex(text).context("an id is hexadecimal")?);
        Ok(())
    }

    pub(crate) fn address(&mut self, text: &str) -> anyhow::Result<Address> {
        let address: Address = text.parse().ok().context("an address")?;
        // Who quotes an address quotes at least its beginning; that of all at one gateway is the same.
        self.text("an address", &text[100..130]);
        self.bytes("a mailbox", &address.mailbox.0);
        self.bytes("a recipient's key", address.key.as_bytes());
        Ok(address)
    }

    /// What a text gives away, if anything.
    pub(crate) fn search(&self, text: &str) -> Option<(&'static str, String)> {
        text.lines().find_map(|line| {
            let found = self.search_line(line)?;
            Some((found, line.chars().take(300).collect()))
        })
    }

    fn search_line(&self, line: &str) -> Option<&'static str> {
        let line = line.to_lowercase();
        let text = self.texts.iter().find(|(_, text)| line.contains(text));
        text.map(|(what, _)| *what)
            .or_else(|| self.numbers(&line))
            .or_else(|| self.words(&line))
            .or_else(|| self.peers(&line))
    }

    /// Lists of bytes, as `Debug` prints them.
    fn numbers(&self, line: &str) -> Option<&'static str> {
        let mut last = Vec::new();
        let pieces = line.split([',', ' ', '[', ']', '(', ')', '{', '}']);
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            match piece.parse::<u8>() {
                Ok(byte) => last.push(byte),
                Err(_) => last.clear(),
            }
            if let Some(found) = last.last_chunk().and_then(|head| self.heads.get(head)) {
                return Some(found);
            }
        }
        None
    }

    /// Hexadecimal, whole or cut to as much as is printed of a node's id; or one number.
    fn words(&self, line: &str) -> Option<&'static str> {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|word| word.len() >= 8).find_map(|word| {
            let number = word.parse::<u64>().ok();
            let by_number = number.and_then(|number| self.heads.get(&number.to_be_bytes()));
            let digits = word.strip_prefix("0x").unwrap_or(word);
            by_number.copied().or_else(|| self.digits(digits))
        })
    }

    fn digits(&self, digits: &str) -> Option<&'static str> {
        if digits.len() < 16 {
            let cut = unhex(digits)?;
            let same = |head: &[u8; 8]| head.starts_with(&cut);
            let found = self
                .heads
                .iter()
                .find(|(head, what)| same(head) && **what != TAG);
            return found.map(|(_, what)| *what);
        }
        let ends = 16..=digits.len();
        ends.step_by(2).find_map(|end| {
            let head = unhex(&digits[end - 16..end])?;
            self.heads.get(head.first_chunk()?).copied()
        })
    }

    /// Addresses of this machine that no document names: whoever is there dialled.
    fn peers(&self, line: &str) -> Option<&'static str> {
        let ports = line.split("127.0.0.1:").skip(1);
        let mut ports = ports.filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit());
            rest[..end.unwrap_or(rest.len())].parse().ok()
        });
        ports
            .any(|port: u16| !self.public.contains(&port))
            .then_some("a peer's address")
    }
}

/// Too many to look for cut to less than they are.
pub(crate) const TAG: &str = "a replay tag";

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let pair = |pair: &[u8]| pair[0] << 4 | pair.get(1).unwrap_or(&0);
    Some(digits?.chunks(2).map(pair).collect())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
