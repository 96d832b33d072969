//! GET /_matrix/client/v3/rooms/{roomId}/members — Client-Server API, "Getting events for a room".

use std::sync::Arc;

use axum::extract::State;
use hearth_rooms::{Event, Membership, Rendering};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

#[derive(Deserialize)]
pub struct Options {
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

impl Options {
    fn keeps(&self, membership: Membership) -> bool {
        let word = membership.word();
        self.membership.as_deref().is_none_or(|wanted| wanted == word)
            && self
                .not_membership
                .as_deref()
                .is_none_or(|unwanted| unwanted != word)
    }
}

/// The member events, now or at a token.
pub async fn get_members(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    // Of a room that was just joined elsewhere, the members may still be on their way.
    reading.room.clone().wait_full().await;
    let at = options.at.as_deref().filter(|_| reading.left.is_none());
    let events: Vec<Arc<Event>> = match (at, &reading.left) {
        (None, None) => {
            let mut shorts = Vec::new();
            reading.room.visit_members(&mut |_, membership, short| {
                if options.keeps(membership) {
                    shorts.push(short);
                }
                true
            })?;
            reading.room.events(&shorts)?
        }
        (None, Some(_)) => members(reading.full_state()?, &options),
        (Some(token), _) => {
            let place = super::tokens::place(&reading, token)?;
            let root = reading.room.state_root_after(place)?;
            members(reading.room.full_state_at(root)?, &options)
        }
    };
    let rendering = Rendering {
        bundle: false,
        ..Rendering::default()
    };
    let chunk = reading
        .room
        .render_all(&events, &mut reading.viewer, &rendering)?;
    Ok(Json(json!({ "chunk": chunk })))
}

fn members(state: Vec<Arc<Event>>, options: &Options) -> Vec<Arc<Event>> {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    let keeps = |event: &Arc<Event>| {
        let content = serde_json::from_slice::<Content>(event.pdu.content());
        content.is_ok_and(|content| options.keeps(Membership::from_word(&content.membership)))
    };
    state
        .into_iter()
        .filter(|event| event.pdu.kind() == "m.room.member")
        .filter(keeps)
        .collect()
}
