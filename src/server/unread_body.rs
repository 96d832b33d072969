//! Request bodies that nobody has read when the answer is there, as that of a request without a good token. On HTTP/1.1 the
//! next request stands behind them on the connection: they are read to the end, or the client is told that it ends (RFC
//! 9112, section 9.3).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::to_bytes;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONNECTION, EXPECT};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;

/// So much of a body is read that nobody wants, and waited for so long.
const READ_MAX_BYTES: usize = 64 << 10;
const READ_MAX: Duration = Duration::from_millis(500);

/// A body that is given back when it is dropped before its end.
pub(crate) struct Watched {
    body: Option<Incoming>,
    rest: Rest,
}

/// What is left of a request's body.
#[derive(Clone, Default)]
pub(crate) struct Rest(Arc<Mutex<Option<Incoming>>>);

impl Rest {
    /// A request whose body is watched.
    pub(crate) fn watch(&self, request: Request<Incoming>) -> Request<Watched> {
        request.map(|body| Watched {
            body: Some(body),
            rest: self.clone(),
        })
    }

    /// Sees to what is left once there is an answer.
    pub(crate) async fn settle(&self, may_be_sent: bool, response: &mut Response) {
        let Some(rest) = self.0.lock().take() else {
            return;
        };
        let read = to_bytes(axum::body::Body::new(rest), READ_MAX_BYTES);
        let is_read = may_be_sent && matches!(tokio::time::timeout(READ_MAX, read).await, Ok(Ok(_)));
        if !is_read {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
}

/// Whether the client sends its body without being told to: reading the body would tell it.
pub(crate) fn is_sent_unasked(request: &Request<Incoming>) -> bool {
    !request.headers().contains_key(EXPECT)
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.rest.0.lock() = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use hearth_core::random::SeededRandom;
    use hyper_util::server::graceful::GracefulShutdown;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use crate::listener::serve_http1;
    use crate::request::{Ids, Site};

    /// The client's end of a connection to a server that refuses without a look at the body, but for one path.
    fn connection() -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 20);
        let router = Router::new()
            .route("/refused", post(async || http::StatusCode::UNAUTHORIZED))
            .route("/echo", post(async |body: String| body));
        let graceful = GracefulShutdown::new();
        let peer = "127.0.0.1:1".parse().expect("an address");
        let site = Site::new(Ids::new(&SeededRandom::new(1), Vec::new()), router);
        hearth_core::tasks::spawn("connection", async move {
            serve_http1(server, peer, site, graceful.watcher()).await;
        });
        client
    }

    fn head(path: &str, length: usize, more: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n")
    }

    /// What comes until nothing more does; time is simulated.
    async fn answers(client: &mut DuplexStream) -> String {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        let wait = std::time::Duration::from_secs(1);
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(wait, client.read(&mut part)).await {
            all.extend_from_slice(&part[..count]);
        }
        String::from_utf8(all).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_goes_on_behind_a_body_that_nobody_wants() {
        let mut client = connection();
        client
            .write_all(head("/refused", 5, "").as_bytes())
            .await
            .expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.write_all(b"hello").await.expect("sent");
        let first = answers(&mut client).await;
        assert!(
            first.starts_with("HTTP/1.1 401 ") && !first.contains("connection: close"),
            "{first}"
        );
        let next = head("/echo", 2, "") + "hi";
        client
            .write_all(next.as_bytes())
            .await
            .expect("the connection is open");
        let second = answers(&mut client).await;
        assert!(
            second.starts_with("HTTP/1.1 200 ") && second.ends_with("hi"),
            "{second}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_where_its_connection_ends() {
        for (length, more, sent) in [
            (5, "", ""),
            (5, "Expect: 100-continue\r\n", ""),
            (super::READ_MAX_BYTES + 1, "", "x"),
        ] {
            let mut client = connection();
            let request = head("/refused", length, more) + &sent.repeat(length);
            client.write_all(request.as_bytes()).await.expect("sent");
            let answer = answers(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{length} {more}: {answer}");
            assert!(answer.contains("connection: close"), "{length} {more}: {answer}");
        }
    }
}
