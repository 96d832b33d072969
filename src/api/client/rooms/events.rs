//! What is checked of an event's content before a room sees it.

use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{Relation, Room};
use ruma::{EventId, OwnedEventId};
use serde::Deserialize;

use crate::error::Result;

/// Refuses what a room would take and no client could use: a reaction made twice is left to the
/// rooms; here relations are checked for their form.
pub(crate) fn check_content(room: &Room, content: &[u8]) -> Result<()> {
    let Some(relation) = Relation::of_content(content) else {
        return Ok(());
    };
    let Some(parent) = room.shown_event(&relation.event_id)? else {
        return Ok(());
    };
    if relation.rel_type == "m.thread" && Relation::of_content(parent.pdu.content()).is_some() {
        let sentence = "A thread cannot begin at an event that relates to another one itself";
        return Err(MatrixError::new(400, errcode::UNKNOWN, sentence).into());
    }
    Ok(())
}

/// How many relations are followed from an event to the root of its thread.
const THREAD_HOPS_MAX: usize = 4;

/// Whether a receipt of a thread may name an event: every event may stand in the main timeline's, the root of a thread
/// and what relates to it, through others too, in that thread's.
pub(crate) fn belongs_to_thread(room: &Room, event_id: &EventId, thread: &str) -> Result<bool> {
    if thread == "main" || event_id == thread {
        return Ok(true);
    }
    let Some(mut event) = room.shown_event(event_id)? else {
        // That the event is missing is for others to say.
        return Ok(true);
    };
    for _ in 0..THREAD_HOPS_MAX {
        let Some(relation) = Relation::of_content(event.pdu.content()) else {
            return Ok(false);
        };
        if relation.event_id == thread {
            return Ok(true);
        }
        let Some(parent) = room.shown_event(&relation.event_id)? else {
            return Ok(false);
        };
        event = parent;
    }
    Ok(false)
}

/// The room that a tombstone names in its content.
pub(crate) fn replacement(content: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        replacement_room: Option<String>,
    }
    serde_json::from_slice::<Content>(content).ok()?.replacement_room
}

/// The event that a redaction sent as an ordinary event names in its content.
pub(crate) fn redacts(kind: &str, content: &[u8]) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        redacts: Option<OwnedEventId>,
    }
    if kind != "m.room.redaction" {
        return None;
    }
    serde_json::from_slice::<Content>(content).ok()?.redacts
}
