//! PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription — MSC4306, "Subscribing
//! to a thread".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{Event, Relation, Room};
use hearth_users::Subscribing;
use ruma::{EventId, OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::root;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// The body.
#[derive(Default, Deserialize)]
pub struct Body {
    /// The newest event because of which the client subscribes by itself; none where the user wants it.
    automatic: Option<OwnedEventId>,
}

/// Subscribes the user to a thread, unless that is automatic and the user has unsubscribed since.
pub async fn put_subscription(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Value>> {
    let (room, _) = root(&app, &auth, &room_id, &event_id)?;
    let cause = match &body.automatic {
        Some(cause) => Some(cause_in_thread(&room, &event_id, cause)?.header.place.anchor),
        None => None,
    };
    let subscribing = auth.handle.subscribe_thread(room.id(), &event_id, cause).await?;
    match subscribing {
        Subscribing::Subscribed => Ok(Json(json!({}))),
        Subscribing::Unsubscribed => {
            let sentence = "You have unsubscribed from the thread after this event";
            Err(MatrixError::new(409, errcode::CONFLICTING_UNSUBSCRIPTION, sentence).into())
        }
    }
}

/// The event that gives rise to a subscription, which must be a reply in the thread.
fn cause_in_thread(room: &Room, root: &EventId, cause: &EventId) -> Result<Arc<Event>> {
    let in_thread = |event: &Arc<Event>| {
        Relation::of_content(event.pdu.content())
            .is_some_and(|relation| relation.rel_type == "m.thread" && relation.event_id == root)
    };
    let event = room.shown_event(cause)?.filter(in_thread);
    let sentence = "The event because of which you subscribe is not in the thread";
    Ok(event.ok_or_else(|| MatrixError::new(400, errcode::NOT_IN_THREAD, sentence))?)
}
