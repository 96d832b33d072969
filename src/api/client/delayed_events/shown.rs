//! A delayed event as clients are shown it.

use hearth_users::DelayedEvent;
use serde_json::{Value, json};

/// The event with when it is due, and what became of it. The fields that were renamed in the course of the MSC have
/// both names: clients of either form are in use.
pub(super) fn event(event: &DelayedEvent) -> Value {
    let mut out = json!({
        "delay_id": event.delay_id,
        "room_id": event.room_id,
        "type": event.kind,
        "delay_ms": event.delay_ms,
        "delay": event.delay_ms,
        "scheduled_at": event.scheduled_at,
        "running_since": event.scheduled_at,
        "content": event.content,
    });
    if let Some(state_key) = &event.state_key {
        out["state_key"] = json!(state_key);
    }
    if let Some(done) = &event.done {
        out["finalised_ts"] = json!(done.ts);
        out["origin_server_ts"] = json!(done.ts);
        if let Some(event_id) = &done.event_id {
            out["event_id"] = json!(event_id);
        }
        if let Some(error) = &done.error {
            out["error"] = json!(error);
        }
    }
    out
}
