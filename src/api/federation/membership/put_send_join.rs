//! PUT /_matrix/federation/v2/send_join/{roomId}/{eventId} — Server-Server API, "Joining Rooms".

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_rooms::Dance;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::federation::large;
use crate::federation::origin::SignedRaw;
use crate::federation::rooms::own_room;
use crate::federation::wire::Object;

/// The query.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    omit_members: bool,
}

/// A user of the asking server joins; the server learns the state of the room.
pub async fn put_send_join(
    State(app): State<Arc<App>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(options): Query<Options>,
    SignedRaw(origin, body): SignedRaw,
) -> Result<Response> {
    // Before the join, which may bring a new server in.
    let servers = match options.omit_members {
        true => Some(own_room(&app, &origin, &room_id)?.servers()),
        false => None,
    };
    let (room, join) = super::accept(&app, &origin, Dance::Join, (&room_id, &event_id), &body).await?;
    // Without the members it is small, and somebody waits for it.
    let place = match servers {
        Some(_) => None,
        None => Some(app.large_answers.place(origin.as_str()).await),
    };
    let event = join.clone();
    let answer = room.apart(move |room| room.join_answer(&event, servers)).await?;
    let mut object = Object::new()
        .value("origin", json!(app.server_name))
        .value("members_omitted", answer.servers.is_some())
        .events("auth_chain", &answer.auth_chain)
        .events("state", &answer.state)
        .event("event", &join);
    if let Some(servers) = &answer.servers {
        object = object.value("servers_in_room", json!(servers));
    }
    Ok(match place {
        Some(place) => large::respond(object.into_bytes(), place),
        None => object.into_response(),
    })
}
