//! Coming and going through this server: joining, leaving and knocking in two steps.

pub mod get_make_join;
pub mod get_make_knock;
pub mod get_make_leave;
pub mod put_send_join;
pub mod put_send_join_v1;
pub mod put_send_knock;
pub mod put_send_leave;
pub mod put_send_leave_v1;

use std::sync::Arc;

use axum::routing::{get, put};
use hearth_core::error::MatrixError;
use hearth_events::Pdu;
use hearth_rooms::{Dance, Error, Event, Made, Room};
use ruma::{EventId, RoomId, RoomVersionId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::origin::must_own;
use super::rooms::own_room;
use super::{V1, V2};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let made = |path: &str| format!("{V1}/{path}/{{roomId}}/{{userId}}");
    let sent = |version: &str, path: &str| format!("{version}/{path}/{{roomId}}/{{eventId}}");
    Routes::new()
        .at(&made("make_join"), get(get_make_join::get_make_join))
        .at(&made("make_leave"), get(get_make_leave::get_make_leave))
        .at(&made("make_knock"), get(get_make_knock::get_make_knock))
        .at(&sent(V1, "send_join"), put(put_send_join_v1::put_send_join_v1))
        .at(&sent(V2, "send_join"), put(put_send_join::put_send_join))
        .at(&sent(V1, "send_leave"), put(put_send_leave_v1::put_send_leave_v1))
        .at(&sent(V2, "send_leave"), put(put_send_leave::put_send_leave))
        .at(&sent(V1, "send_knock"), put(put_send_knock::put_send_knock))
}

/// The room versions that the asking server knows.
#[derive(Deserialize)]
pub struct Versions {
    #[serde(default)]
    ver: Vec<RoomVersionId>,
}

impl Versions {
    /// The versions; version 1 where the server names none.
    fn known(self) -> Vec<RoomVersionId> {
        match self.ver.is_empty() {
            true => vec![RoomVersionId::V1],
            false => self.ver,
        }
    }
}

/// The template of a member event of a user of the asking server.
async fn make(
    app: &Arc<App>,
    origin: &ServerName,
    dance: Dance,
    (room_id, user): (&RoomId, &UserId),
    versions: &[RoomVersionId],
) -> Result<Value> {
    must_own(origin, user)?;
    let room = room_for(app, origin, dance, room_id)?;
    let Made { version, event } = room.make_member(dance, user, versions).await?;
    Ok(json!({ "room_version": version, "event": event }))
}

/// The room, if this server can help with coming and going: nobody joins through a server that does not know yet who
/// is in the room.
fn room_for(app: &Arc<App>, origin: &ServerName, dance: Dance, room_id: &RoomId) -> Result<Room> {
    let room = own_room(app, origin, room_id)?;
    if dance != Dance::Leave && room.is_partial() {
        let sentence = "This server is still joining the room itself; ask another one";
        return Err(MatrixError::not_found(sentence).into());
    }
    Ok(room)
}

/// Takes in the event that the asking server made of a template.
async fn accept(
    app: &Arc<App>,
    origin: &ServerName,
    dance: Dance,
    (room_id, event_id): (&RoomId, &EventId),
    body: &[u8],
) -> Result<(Room, Arc<Event>)> {
    let room = room_for(app, origin, dance, room_id)?;
    let pdu = Pdu::parse(room.rules(), body).map_err(|error| refusal(error.into()))?;
    if pdu.event_id != event_id {
        return Err(MatrixError::invalid_param("The event is not the one that the path names").into());
    }
    let event = room.accept_member(origin, dance, body).await.map_err(refusal)?;
    Ok((room, event))
}

/// As the specification wants it of these endpoints: what is wrong with the event itself is M_INVALID_PARAM.
pub(super) fn refusal(error: Error) -> ApiError {
    match error {
        Error::BadEvent(sentence) => MatrixError::invalid_param(sentence).into(),
        // It is signed with no key that its server has.
        error @ Error::MissingKey(_) => MatrixError::invalid_param(error.to_string()).into(),
        Error::Event(error @ (hearth_events::Error::Signature(_) | hearth_events::Error::Format(_))) => {
            MatrixError::invalid_param(error.to_string()).into()
        }
        error => error.into(),
    }
}
