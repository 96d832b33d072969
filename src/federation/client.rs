//! Signed requests to other servers (server-server API, "Request authentication").

use std::time::Duration;

use http::Method;
use ruma::OwnedServerName;
use serde_json::Value;

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
}
