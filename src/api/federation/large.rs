//! Answers that are as large as the state of a room. In a room of 100,000 members that is some 80 MB, which a server may ask
//! for as often as it likes and read as slowly as it likes; so there are only so many of them at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use hearth_core::places::{Place, Places};
use hearth_core::tasks;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;

/// So many such answers are made or sent at once, so that those of the largest rooms take about a gigabyte,
const AT_ONCE_MAX: usize = 12;
/// and so many of them to one server: it takes more than two that read slowly to hold up the others.
const OF_SERVER_MAX: usize = 4;
/// A body is handed over in parts of this size, each a copy: who holds a part does not hold the whole.
const PART_BYTES: usize = 64 << 10;
/// So long an answer may take to be read; 80 MB take that at 2 Mbit/s. Then it is cut off, or servers that read nothing
/// would hold up all others for good.
const READ_MAX: Duration = Duration::from_secs(5 * 60);

/// The places for large answers.
pub fn places() -> Places {
    Places::new(AT_ONCE_MAX, OF_SERVER_MAX)
}

/// What of an answer is to be sent, and its place.
struct Unsent {
    rest: Bytes,
    _place: Place,
}

/// The answer with a body of JSON, which keeps its place until it is sent.
pub fn respond(json: Vec<u8>, place: Place) -> Response {
    respond_within(json, place, READ_MAX)
}

/// As [`respond`], with so long to be read.
pub(crate) fn respond_within(json: Vec<u8>, place: Place, read_max: Duration) -> Response {
    let unsent = Arc::new(Mutex::new(Some(Unsent {
        rest: Bytes::from(json),
        _place: place,
    })));
    let late = Arc::downgrade(&unsent);
    tasks::spawn("large answer", async move {
        tokio::time::sleep(read_max).await;
        if let Some(unsent) = late.upgrade() {
            *unsent.lock() = None;
        }
    });
    let parts = stream::unfold(unsent, |unsent| async move {
        let part = match &mut *unsent.lock() {
            Some(Unsent { rest, .. }) if rest.is_empty() => return None,
            Some(Unsent { rest, .. }) => {
                let part = rest.split_to(PART_BYTES.min(rest.len()));
                Ok(Bytes::copy_from_slice(&part))
            }
            None => Err("the answer was not read in time"),
        };
        Some((part, unsent))
    });
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], Body::from_stream(parts)).into_response()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_server_that_reads_slowly_holds_up_itself() {
        let answers = places();
        let mut unread = Vec::new();
        for _ in 0..OF_SERVER_MAX {
            let place = answers.place("slow").await;
            let body = format!("{{\"state\":\"{}\"}}", "x".repeat(200_000));
            unread.push(respond(body.into_bytes(), place));
        }
        assert!(answers.place("slow").now_or_never().is_none());
        drop(answers.place("other").await);
        let read = unread.pop().expect("an answer").into_body().collect().await;
        let read = read.expect("a body").to_bytes();
        assert_eq!(read.len(), 200_000 + r#"{"state":""}"#.len());
        drop(answers.place("slow").await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_cut_off() {
        let answers = places();
        let mut unread = Vec::new();
        for number in 0..AT_ONCE_MAX {
            let place = answers.place(&format!("s{number}")).await;
            unread.push(respond(vec![b'x'; 200_000], place));
        }
        let began = tokio::time::Instant::now();
        let mut body = unread.pop().expect("an answer").into_body();
        let first = body.frame().await.expect("a part").expect("it is read");
        assert_eq!(first.into_data().expect("data").len(), PART_BYTES);
        drop(answers.place("late").await);
        assert_eq!(began.elapsed(), READ_MAX, "the places came back");
        assert!(body.frame().await.expect("an end").is_err());
    }
}
