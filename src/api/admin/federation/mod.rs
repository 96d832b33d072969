//! What an administrator sees of the queues to and from other servers.

pub mod get_destination;
pub mod get_destination_rooms;
pub mod get_destinations;
pub mod get_rooms_on_hold;
pub mod post_reset_connection;

use hearth_core::error::MatrixError;
use hearth_federation::outbound::DestinationStatus;
use ruma::ServerName;
use serde_json::{Value, json};

/// The most entries of one page.
const PAGE_MAX: usize = 1_000;
/// So many are given where the request does not say.
const PAGE_DEFAULT: usize = 100;

fn no_such_destination(server: &ServerName) -> MatrixError {
    MatrixError::not_found(format!("This server has never sent anything to {server}"))
}

/// A destination as administration tools know it, and what this server knows besides.
fn render(status: &DestinationStatus) -> Value {
    json!({
        "destination": status.server,
        "retry_last_ts": status.tried_ms.unwrap_or(0),
        "retry_interval": status.pause_ms,
        "failure_ts": status.failing_since_ms,
        // There is no one order of everything that is sent here.
        "last_successful_stream_ordering": null,
        "queued_pdus": status.queued_pdus,
        "queued_edus": status.queued_edus,
        "rooms_behind": status.rooms_behind,
        "failures": status.failures,
        "last_error": status.last_error,
    })
}

/// One page of a list: the entries, and where the next page begins.
fn page<T>(all: Vec<T>, from: Option<usize>, limit: Option<usize>) -> (Vec<T>, Option<String>) {
    let from = from.unwrap_or(0);
    let limit = limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let more = all.len() > from.saturating_add(limit);
    let next = more.then(|| (from + limit).to_string());
    (all.into_iter().skip(from).take(limit).collect(), next)
}
