//! Answers that are as large as the state of a room. In a room of 100,000 members that is some 80 MB, which a server may ask
//! for as often as it likes and read as slowly as it likes; so there are only so many of them at a time.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many such answers are made or sent at once, so that those of the largest rooms take about a gigabyte,
const AT_ONCE_MAX: usize = 12;
/// and so many of them to one server: it takes more than two that read slowly to hold up the others.
const OF_SERVER_MAX: usize = 4;
/// Servers that get none now are forgotten above this number.
const SERVERS_MAX: usize = 1_000;
/// A body is handed over in parts of this size. What it holds is given back with the last of them.
const PART_BYTES: usize = 64 << 10;

/// The places for large answers.
pub struct LargeAnswers {
    all: Arc<Semaphore>,
    by_server: Mutex<HashMap<OwnedServerName, Arc<Semaphore>>>,
}

/// A place, until the answer is sent or given up.
pub struct Place {
    _of_server: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for LargeAnswers {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            by_server: Mutex::default(),
        }
    }
}

impl LargeAnswers {
    /// A place for an answer to a server; waits until there is one.
    pub async fn place(&self, server: &ServerName) -> Place {
        let own = self.of_server(server);
        let never_closed = "the semaphore is never closed";
        // The server's own first: while it waits for that it holds up nobody else.
        let of_server = own.acquire_owned().await.expect(never_closed);
        let of_all = self.all.clone().acquire_owned().await.expect(never_closed);
        Place {
            _of_server: of_server,
            _of_all: of_all,
        }
    }

    fn of_server(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut by_server = self.by_server.lock();
        if by_server.len() >= SERVERS_MAX {
            by_server.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let new = || Arc::new(Semaphore::new(OF_SERVER_MAX));
        by_server.entry(server.to_owned()).or_insert_with(new).clone()
    }
}

/// The answer with a body of JSON, which keeps its place until it is sent.
pub fn respond(json: Vec<u8>, place: Place) -> Response {
    let whole = Bytes::from(json);
    let parts = stream::unfold((whole, place), |(mut rest, place)| async move {
        if rest.is_empty() {
            return None;
        }
        let part = rest.split_to(PART_BYTES.min(rest.len()));
        Some((Ok::<_, std::convert::Infallible>(part), (rest, place)))
    });
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], Body::from_stream(parts)).into_response()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn server(name: &str) -> OwnedServerName {
        ServerName::parse(name).expect("a name")
    }

    #[tokio::test]
    async fn a_server_that_reads_slowly_holds_up_itself() {
        let answers = LargeAnswers::default();
        let mut unread = Vec::new();
        for _ in 0..OF_SERVER_MAX {
            let place = answers.place(&server("slow")).await;
            let body = format!("{{\"state\":\"{}\"}}", "x".repeat(200_000));
            unread.push(respond(body.into_bytes(), place));
        }
        assert!(answers.place(&server("slow")).now_or_never().is_none());
        drop(answers.place(&server("other")).await);
        let read = unread.pop().expect("an answer").into_body().collect().await;
        let read = read.expect("a body").to_bytes();
        assert_eq!(read.len(), 200_000 + r#"{"state":""}"#.len());
        drop(answers.place(&server("slow")).await);
    }

    #[tokio::test]
    async fn all_servers_together_have_so_many() {
        let answers = LargeAnswers::default();
        let mut held = Vec::new();
        for number in 0..AT_ONCE_MAX {
            held.push(answers.place(&server(&format!("s{number}"))).await);
        }
        assert!(answers.place(&server("late")).now_or_never().is_none());
        held.pop();
        drop(answers.place(&server("late")).await);
    }
}
