//! What is checked of an event's content before a room sees it.

use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{Relation, Room};
use ruma::OwnedEventId;
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
