//! Questions to the directory over links of their own, and answers in whole buckets.
//!
//! Spec: docs/spec/directory.md, rule DIR-11; docs/spec/link.md, LNK-1, LNK-9.
//!
//! | quantity           | value                                                              |
//! |--------------------|--------------------------------------------------------------------|
//! | part               | up to [`BODY_LEN`] bytes in one `Blob` frame: total length, offset  |
//! | question           | as many frames as it needs; the listener caps its length            |
//! | answer             | a multiple of [`BUCKET_FRAMES`] frames, the rest of them dummies    |
//! | [`ANSWER_TIME`]    | longest that a question and its answer may take                     |
//! | [`QUESTIONS_MAX`]  | most questions on one link                                          |
//!
//! Memory grows with what has arrived, never with what a length promises.
//!
//! Not done here: what to answer, and believing answers.

use core::{future::Future, time::Duration};

use proto::{
    directory::ask::{ANSWER_LEN_MAX, Answer, BUCKET_FRAMES, Question, frames_of},
    wire::{BODY_LEN, FIELD_LEN, Frame, Hello, Kind, Purpose, WIRE_VERSION, field_of},
};
use tokio::time::timeout;

use crate::link::{Dialler, Link, LinkError, Reader, Target};

/// Longest that a question and its answer may take (LNK-9).
pub const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Longest that an asked link may stay silent between frames (LNK-9).
pub const SILENCE: Duration = Duration::from_secs(10);
/// Most questions on one link.
pub const QUESTIONS_MAX: usize = 16;

/// Asks `target` one question on a link of its own.
///
/// # Errors
///
/// A [`LinkError`]; an answer that can't be read is the peer's misbehaviour.
pub async fn ask(
    dialler: &Dialler,
    target: &Target,
    question: &Question,
) -> Result<Answer, LinkError> {
    let hello = Hello {
        version: WIRE_VERSION,
        purpose: Purpose::Directory,
        profile: 0,
    };
    let exchange = async {
        let mut link = dialler.dial(target, hello).await?;
        link.reader.set_idle(Some(SILENCE));
        link.writer.write(&frames(&question.to_bytes())).await?;
        let bytes = read(&mut link.reader, ANSWER_LEN_MAX).await?;
        // Whoever hung up early would show how long the answer was.
        let padding = frames_of(bytes.len()) - frames_in(bytes.len());
        for _ in 0..padding {
            link.reader.frame().await?;
        }
        link.writer.close().await;
        Answer::parse(&bytes).map_err(|_| LinkError::PeerMisbehaved("its answer is none"))
    };
    let answered = timeout(ANSWER_TIME, exchange).await;
    answered.unwrap_or(Err(LinkError::PeerSlow("no answer")))
}

/// Answers what comes over a directory link, in its order, until the asker hangs up or breaks a
/// rule. Questions of more than `question_max` bytes are such a breach.
pub async fn answer<F>(
    mut link: Link,
    question_max: usize,
    mut answers: impl FnMut(Question) -> F,
) -> Result<(), LinkError>
where
    F: Future<Output = Answer>,
{
    link.reader.set_idle(Some(SILENCE));
    for _ in 0..QUESTIONS_MAX {
        let asking = read(&mut link.reader, question_max);
        let bytes = timeout(ANSWER_TIME, asking).await;
        let bytes = bytes.unwrap_or(Err(LinkError::PeerSlow("no question")))?;
        let question = Question::parse(&bytes, question_max)
            .map_err(|_| LinkError::PeerMisbehaved("its question is none"))?;
        let answer = answers(question).await.to_bytes();
        let mut parts = frames(&answer);
        parts.resize(
            frames_of(answer.len()),
            Frame::new(Kind::Dummy, 0, [0; FIELD_LEN]),
        );
        for bucket in parts.chunks(BUCKET_FRAMES) {
            link.writer.write(bucket).await?;
        }
    }
    link.writer.close().await;
    Ok(())
}

fn frames_in(length: usize) -> usize {
    length.div_ceil(BODY_LEN).max(1)
}

/// `bytes` in parts.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let part = |index: usize| {
        let from = index * BODY_LEN;
        let to = bytes.len().min(from + BODY_LEN);
        let field = field_of(bytes.len() as u64, from as u64);
        Frame::with_body(Kind::Blob, field, &bytes[from..to])
    };
    (0..frames_in(bytes.len())).map(part).collect()
}

/// Puts parts together, which must come in order.
async fn read(reader: &mut Reader, length_max: usize) -> Result<Vec<u8>, LinkError> {
    let mut bytes = Vec::new();
    loop {
        let (_, frame) = reader.frame().await?;
        let (total, offset) = frame.numbers();
        let in_order = frame.kind() == Some(Kind::Blob) && offset == bytes.len() as u64;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if !in_order || total > length_max || total < bytes.len() {
            return Err(LinkError::PeerMisbehaved("its parts make no whole"));
        }
        let part = (total - bytes.len()).min(BODY_LEN);
        bytes.extend_from_slice(&frame.body()[..part]);
        if bytes.len() == total {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::directory::{SignedConsensus, ask::Refusal};

    use super::*;
    use crate::{
        accept::{Limits, tests::open},
        clock::Clock,
        link::tests::{dialler, target},
    };

    async fn asked(
        question: Question,
        reply: Answer,
        question_max: usize,
    ) -> (Result<Answer, LinkError>, Result<(), LinkError>) {
        let (address, mut links, _, _stop) = open(&[Purpose::Directory], Limits::default()).await;
        let serve = async {
            let taken = links.recv().await.unwrap();
            answer(taken.link, question_max, |heard| {
                assert_eq!(heard, question);
                core::future::ready(reply.clone())
            })
            .await
        };
        let dialler = dialler(Clock::start(), None);
        let target = target(2, address);
        tokio::join!(ask(&dialler, &target, &question), serve)
    }

    fn document(length: usize) -> Answer {
        Answer::Consensus(SignedConsensus {
            body: vec![7; length],
            votes: Vec::new(),
        })
    }

    /// DIR-11
    #[tokio::test]
    async fn questions_and_answers_of_any_length_cross() {
        let newest = Question::Consensus { period: None };
        for reply in [
            Answer::NotYet,
            Answer::Refused(Refusal::NotServed),
            document(1_000_000),
        ] {
            let (heard, _) = asked(newest.clone(), reply.clone(), 64).await;
            assert_eq!(heard.unwrap(), reply);
        }
    }

    /// DIR-11: a question is cut off where the listener's cap is.
    #[tokio::test]
    async fn a_question_above_the_cap_ends_the_link() {
        let question = Question::Consensus {
            period: Some(u64::MAX),
        };
        let length = question.to_bytes().len();
        assert!(
            asked(question.clone(), Answer::NotYet, length)
                .await
                .0
                .is_ok()
        );
        let (heard, served) = asked(question, Answer::NotYet, length - 1).await;
        assert!(heard.is_err());
        assert!(matches!(served, Err(LinkError::PeerMisbehaved(_))));
    }

    /// DIR-11
    #[test]
    fn answers_fill_buckets() {
        for (length, expected) in [
            (0, 32),
            (1, 32),
            (32 * BODY_LEN, 32),
            (32 * BODY_LEN + 1, 64),
        ] {
            assert_eq!(frames_of(length), expected);
            assert!(frames(&vec![0; length]).len() <= expected);
        }
    }

    /// LNK-9: what a length promises is not believed, and parts come in order.
    #[tokio::test]
    async fn parts_that_make_no_whole_are_refused() {
        for frames in [
            vec![Frame::new(Kind::Blob, 0, field_of(u64::MAX, 0))],
            vec![Frame::new(Kind::Blob, 0, field_of(10, 5))],
            vec![Frame::new(Kind::Dummy, 0, field_of(10, 0))],
            vec![
                Frame::new(Kind::Blob, 0, field_of(5000, 0)),
                Frame::new(Kind::Blob, 0, field_of(100, 2396)),
            ],
        ] {
            let (address, mut links, _, _stop) =
                open(&[Purpose::Directory], Limits::default()).await;
            let hello = crate::link::tests::hello(Purpose::Directory);
            let dialler = dialler(Clock::start(), None);
            let mut link = dialler.dial(&target(2, address), hello).await.unwrap();
            link.writer.write(&frames).await.unwrap();
            let mut taken = links.recv().await.unwrap();
            let read = read(&mut taken.link.reader, 10_000).await;
            assert!(matches!(read, Err(LinkError::PeerMisbehaved(_))));
        }
    }
}
