//! The gateway under arbitrary calls, beside its model.
//!
//! The input says what clients, clock, network and store do, within reason or out of it: openings
//! right and forged, any cursor, any bytes in a frame, answers that nothing asked for, any date.
//! The machine must do what the model predicts, call by call.
//!
//! | input         | meaning                                                                   |
//! |---------------|---------------------------------------------------------------------------|
//! | bytes 0 to 4  | limits (mailboxes, links, read ahead, quota), and whether all is ready     |
//! | then, each    | gap before the act: below 224 as ns, else the next four bytes as µs        |
//! |               | act, by its place in [`act`], and what it needs                            |

use proto::{gateway::Limits, wire::Purpose};

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../proto/tests/gateway/fixture.rs"]
mod fixture;
#[path = "../../proto/tests/gateway/model.rs"]
mod model;
#[path = "../../proto/tests/gateway/play.rs"]
mod play;

use play::{Act, Forgery, Play};

const ACTS_MAX: usize = 100;
const WAKES_MAX: usize = 20;

/// Plays what the input describes to the gateway and to its model.
pub fn gateway(input: &[u8]) {
    let mut input = Input(input);
    let Some([mailboxes, links, ahead, quota, ready]) = input.take() else {
        return;
    };
    let limits = Limits {
        mailboxes_max: 1 + usize::from(mailboxes % 6),
        links_max: 1 + usize::from(links % 6),
        read_ahead: 1 + usize::from(ahead % 6),
        quota: u64::from(quota % 16),
    };
    let mut play = Play::new(limits, ready % 8 != 0);
    for _ in 0..ACTS_MAX {
        let Some((gap_ns, act)) = input.gap().zip(act(&mut input)) else {
            break;
        };
        play.act(gap_ns, act);
    }
    play::agree(limits, play.into_calls(), WAKES_MAX);
}

/// The input, read from its start.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn gap(&mut self) -> Option<u64> {
        match self.byte()? {
            short @ 0..224 => Some(short.into()),
            _ => Some(u64::from(u32::from_be_bytes(self.take()?)) * 1_000),
        }
    }
}

fn act(input: &mut Input<'_>) -> Option<Act> {
    let kind = input.byte()?;
    let side = |byte: u8| [Purpose::Mailbox, Purpose::Entry, Purpose::Node][usize::from(byte % 3)];
    Some(match kind % 16 {
        0 => Act::Wake,
        1 => Act::Document(input.byte()? % 4),
        2 => Act::Utc(fixture::START_S + u64::from(input.byte()?) * fixture::DAY_S / 4),
        3 => Act::Utc(input.number()?),
        4 => Act::Link(side(input.byte()?), input.byte()?),
        5 => Act::Unlink(input.byte()?.into()),
        6 => Act::Packets(input.byte()?.into(), input.byte()? % 5, input.byte()? % 80),
        7 => {
            let [link, purpose, length] = input.take()?;
            let length = usize::from(length).min(input.0.len());
            let (bytes, rest) = input.0.split_at(length);
            input.0 = rest;
            Act::Bytes(link.into(), side(purpose), bytes.to_vec())
        }
        8 => {
            let [link, cursors, open] = input.take()?;
            let cursor = |_| Some((u16::from(input.byte()? % 4), u64::from(input.byte()?)));
            let cursors = (0..cursors % 4).map(cursor).collect::<Option<Vec<_>>>()?;
            let forgery = match open / 32 {
                0 => Forgery::Exporter,
                1 => Forgery::Mailbox,
                2 => Forgery::Key,
                _ => Forgery::None,
            };
            let open = (open % 8 != 0).then_some((open % 8, u16::from(open / 8 % 4), forgery));
            Act::Confirm(link.into(), cursors, open.into_iter().collect())
        }
        9 => Act::Peeled(input.byte()? % 8, kind >= 224, input.byte()? % 40),
        10 => Act::Answer(input.byte()? % 40),
        11 if kind >= 128 => Act::Elsewhere(input.byte()? % 8, input.byte()? % 3),
        11 => Act::Refuse,
        12 => Act::Unasked(input.byte()? % 8, input.number()?, input.number()?),
        13 => Act::Return(input.byte()? % 8, input.byte()?),
        15 => Act::Notice(input.byte()?),
        _ if kind >= 224 => Act::StoreFails,
        _ => Act::Confirm(input.byte()?.into(), vec![(0, input.number()?)], Vec::new()),
    })
}
