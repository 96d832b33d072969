//! Signed requests to other servers (server-server API, "Request authentication").

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_core::SharedClock;
use hearth_core::http::{Destination, OutboundRequest, OutboundResponse, SharedOutbound, TransportError};
use hearth_core::metrics::FEDERATION_REQUESTS;
use hearth_events::{KeyPair, canonical};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use ruma::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ClientError;
use crate::reachability::Reachability;
use crate::xmatrix::{self, XMatrix};

/// Who wants something of another server: that decides whether it is asked where it did not answer a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// Work in the background, or one of many questions of a client: the server is left alone.
    #[default]
    Nobody,
    /// A person looks something up: it is asked again soon.
    Reader,
    /// A person does something that cannot be done without it: it is asked.
    Actor,
}

/// A request to another server.
#[derive(Clone, Debug)]
pub struct FedRequest {
    /// Whom to ask.
    pub destination: OwnedServerName,
    /// The method.
    pub method: Method,
    /// The path, percent-encoded, and the query.
    pub path_and_query: String,
    /// The JSON body of a PUT or POST.
    pub body: Option<Value>,
    /// The time for the whole exchange.
    pub timeout: Duration,
    /// A longer answer is refused.
    pub max_response_bytes: usize,
    /// For whom it is.
    pub asker: Asker,
}

/// A GET that somebody waits for gives up after this long: clients wait for about a minute, and more servers may have to
/// be tried.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest ordinary answer: a page of events has at most a hundred of 64 KiB.
const RESPONSE_MAX_BYTES: usize = 10 << 20;
/// Of the body of an error this much is looked at; it is passed on to clients and logs.
const ERROR_BODY_MAX_BYTES: usize = 64 << 10;

impl FedRequest {
    /// A GET with the usual limits.
    pub fn get(destination: &ServerName, path_and_query: impl Into<String>) -> Self {
        Self {
            destination: destination.to_owned(),
            method: Method::GET,
            path_and_query: path_and_query.into(),
            body: None,
            timeout: TIMEOUT,
            max_response_bytes: RESPONSE_MAX_BYTES,
            asker: Asker::Nobody,
        }
    }

    /// A POST with the usual limits.
    pub fn post(destination: &ServerName, path_and_query: impl Into<String>, body: Value) -> Self {
        Self {
            method: Method::POST,
            body: Some(body),
            ..Self::get(destination, path_and_query)
        }
    }

    /// A PUT with the usual limits.
    pub fn put(destination: &ServerName, path_and_query: impl Into<String>, body: Value) -> Self {
        Self {
            method: Method::PUT,
            ..Self::post(destination, path_and_query, body)
        }
    }

    /// The request with another time limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The request of somebody else than nobody.
    pub fn asker(mut self, asker: Asker) -> Self {
        self.asker = asker;
        self
    }

    /// The request with another limit on the answer.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }
}

/// Signs and sends requests to other servers.
pub struct Client {
    server_name: OwnedServerName,
    signing_key: Arc<KeyPair>,
    outbound: SharedOutbound,
    reachability: Reachability,
}

impl Client {
    /// A client that speaks for this server.
    pub fn new(
        server_name: OwnedServerName,
        signing_key: Arc<KeyPair>,
        outbound: SharedOutbound,
        clock: SharedClock,
    ) -> Self {
        Self {
            server_name,
            signing_key,
            outbound,
            reachability: Reachability::new(clock),
        }
    }

    /// Sends a signed request, and gives the answer if its status is 2xx. Where the server did not answer a moment ago, it
    /// depends on who asks whether it is tried, and for less time: else who waits hears at once that it is away.
    pub async fn request(&self, mut request: FedRequest) -> Result<OutboundResponse, ClientError> {
        let server = &request.destination;
        if let Some(retry_after_ms) = self.reachability.resting_for(server, request.asker) {
            metrics::counter!(FEDERATION_REQUESTS, "outcome" => "resting").increment(1);
            return Err(ClientError::Resting {
                server: request.destination,
                retry_after_ms,
            });
        }
        if self.reachability.resting(server).is_some() {
            request.timeout = request.timeout.min(TIMEOUT);
        }
        self.request_anyway(request).await
    }

    /// As [`Client::request`], also where the server did not answer a moment ago: for work with a back-off of its own.
    pub async fn request_anyway(&self, request: FedRequest) -> Result<OutboundResponse, ClientError> {
        let (headers, body) = self.sign(&request)?;
        self.send(request, headers, body).await
    }

    /// As [`Client::request_anyway`], without a signature: for the endpoints that give keys, without which signatures
    /// cannot be checked.
    pub async fn request_unsigned(&self, request: FedRequest) -> Result<OutboundResponse, ClientError> {
        let body = body_bytes(&request)?;
        let headers = content_headers(&request);
        self.send(request, headers, body).await
    }

    /// Sends a signed request and reads the answer as JSON.
    pub async fn json<T: DeserializeOwned>(&self, request: FedRequest) -> Result<T, ClientError> {
        let server = request.destination.clone();
        let response = self.request(request).await?;
        parse(&server, &response)
    }

    /// Another server was heard of: it is asked again.
    pub fn seen(&self, server: &ServerName) {
        self.reachability.answered(server);
    }

    /// How long another server is left alone because it did not answer; `None` if it may be asked.
    pub fn resting_ms(&self, server: &ServerName) -> Option<u64> {
        self.reachability.resting(server)
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    async fn send(
        &self,
        request: FedRequest,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<OutboundResponse, ClientError> {
        let server = request.destination;
        if server == self.server_name {
            return Err(ClientError::Request {
                server,
                why: "it is this server".to_owned(),
            });
        }
        let outbound = OutboundRequest {
            destination: Destination::Server(server.as_str().to_owned()),
            method: request.method,
            path_and_query: request.path_and_query,
            headers,
            body,
            timeout: request.timeout,
            max_response_bytes: request.max_response_bytes,
        };
        let sent = self.outbound.send(outbound).await;
        let outcome = match &sent {
            Ok(response) if response.status.is_success() => "success",
            Ok(_) => "status",
            Err(_) => "transport",
        };
        metrics::counter!(FEDERATION_REQUESTS, "outcome" => outcome).increment(1);
        match sent {
            Ok(response) => {
                self.reachability.answered(&server);
                check_status(server, response)
            }
            Err(error) => {
                if matches!(error, TransportError::Unreachable(_) | TransportError::Timeout) {
                    self.reachability.failed(&server);
                }
                Err(ClientError::Transport { server, error })
            }
        }
    }

    /// The headers, with the signature, and the body.
    fn sign(&self, request: &FedRequest) -> Result<(HeaderMap, Bytes), ClientError> {
        let failed = |why: String| ClientError::Request {
            server: request.destination.clone(),
            why,
        };
        let body = body_bytes(request)?;
        let signed = xmatrix::signed_object(
            request.method.as_str(),
            &request.path_and_query,
            &self.server_name,
            &request.destination,
            request.body.as_ref(),
        );
        let message = hearth_events::signing_bytes(&signed).map_err(|error| failed(error.to_string()))?;
        let header = XMatrix {
            origin: self.server_name.clone(),
            destination: Some(request.destination.clone()),
            key: self.signing_key.key_id().to_owned(),
            signature: hearth_events::base64_encode(&self.signing_key.sign(&message)),
        };
        let value = HeaderValue::from_str(&header.to_string()).map_err(|error| failed(error.to_string()))?;
        let mut headers = content_headers(request);
        headers.insert(AUTHORIZATION, value);
        Ok((headers, body))
    }
}

/// The body of a 2xx answer as JSON.
pub fn parse<T: DeserializeOwned>(
    server: &ServerName,
    response: &OutboundResponse,
) -> Result<T, ClientError> {
    serde_json::from_slice(&response.body).map_err(|error| ClientError::Malformed {
        server: server.to_owned(),
        why: error.to_string(),
    })
}

fn body_bytes(request: &FedRequest) -> Result<Bytes, ClientError> {
    let Some(body) = &request.body else {
        return Ok(Bytes::new());
    };
    let bytes = canonical::to_bytes(body, false).map_err(|error| ClientError::Request {
        server: request.destination.clone(),
        why: error.to_string(),
    })?;
    Ok(Bytes::from(bytes))
}

fn content_headers(request: &FedRequest) -> HeaderMap {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if request.body.is_some() {
        headers.insert(CONTENT_TYPE, json);
    }
    headers
}

fn check_status(
    server: OwnedServerName,
    response: OutboundResponse,
) -> Result<OutboundResponse, ClientError> {
    if response.status.is_success() {
        return Ok(response);
    }
    let body: Map<String, Value> = match response.body.len() <= ERROR_BODY_MAX_BYTES {
        true => serde_json::from_slice(&response.body).unwrap_or_default(),
        false => Map::new(),
    };
    let text = |key: &str| {
        body.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Err(ClientError::Status {
        server,
        status: response.status.as_u16(),
        errcode: text("errcode"),
        error: text("error"),
        body,
    })
}

/// Text as one segment of a path, or as a value of a query: everything but unreserved characters (RFC 3986, 2.3) is
/// percent-encoded.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    // These two would be taken for steps in the path.
    match out.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => out,
    }
}

/// A path of segments, each percent-encoded: `path(&["_matrix", "federation", "v1", "event", "$id"])`.
pub fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        path.push_str(&encode(segment));
        path
    })
}

/// A query of names and values, each percent-encoded, with its question mark; nothing for an empty one.
pub fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(&encode(name));
        query.push('=');
        query.push_str(&encode(value));
    }
    query
}
