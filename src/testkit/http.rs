//! Requests to a server under test, by its router or over TCP, and their answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ::http::{HeaderMap, Request, Response};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hearth_api::edge::PeerAddress;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tower::ServiceExt;

use crate::openapi;

/// Where a server under test answers.
#[derive(Clone)]
pub enum Endpoint {
    /// A router of this process, called without a socket.
    Router(Router),
    /// A server that listens.
    Address(SocketAddr),
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The request, for messages of failed checks.
    pub asked: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.asked, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The errcode, empty where there is none.
    pub fn errcode(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errcode"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.asked, self.text());
        self.json()
    }

    /// The body of a refusal with this status and errcode.
    #[track_caller]
    pub fn refused(self, status: u16, errcode: &str) -> Value {
        let found = (self.status, self.errcode());
        assert_eq!(
            found,
            (status, errcode.to_owned()),
            "{}: {}",
            self.asked,
            self.text()
        );
        self.json()
    }
}

/// Why a server gave no answer.
pub type NoAnswer = Box<dyn std::error::Error + Send + Sync>;

impl Endpoint {
    /// Sends JSON, or no body where `body` is null.
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        self.call_bytes(method, path, token, bytes).await
    }

    /// Sends a body of any bytes. The server must answer.
    pub async fn call_bytes(&self, method: &str, path: &str, token: Option<&str>, body: Bytes) -> Answer {
        match self.try_call(method, path, token, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: no answer: {error}"),
        }
    }

    /// Sends a body to a server that may be gone. An answer must be as the specification has it.
    pub async fn try_call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let asked = format!("{method} {path}");
        let answer = match self {
            Self::Router(router) => {
                let mut request = request.body(Body::from(body))?;
                request
                    .extensions_mut()
                    .insert(PeerAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
                let response = router.clone().oneshot(request).await?;
                read(asked, response).await?
            }
            Self::Address(address) => {
                let request = request
                    .header("host", address.to_string())
                    .body(Full::new(body))?;
                let stream = tokio::net::TcpStream::connect(address).await?;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                let running = hearth_core::tasks::spawn("test connection", async move {
                    drop(connection.await);
                });
                let response = sender.send_request(request).await?;
                let answer = read(asked, response).await;
                running.abort();
                answer?
            }
        };
        openapi::note(openapi::wrong_answer(
            method,
            path,
            answer.status,
            &answer.headers,
            &answer.body,
        ));
        openapi::assert_nothing_noted();
        Ok(answer)
    }
}

async fn read<B>(asked: String, response: Response<B>) -> Result<Answer, NoAnswer>
where
    B: hyper::body::Body,
    B::Error: Into<NoAnswer>,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Answer {
        asked,
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// A text as one segment of a path, or a value of a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
