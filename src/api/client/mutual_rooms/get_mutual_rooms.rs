//! GET /_matrix/client/v1/mutual_rooms — Client-Server API, "Mutual rooms"; and its unstable form, MSC2666.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// Rooms in one answer: as many as a client shows at once.
const PAGE_ROOMS: usize = 100;

/// The query. A page begins after the room whose token it names.
#[derive(Deserialize)]
pub struct Asked {
    user_id: OwnedUserId,
    from: Option<String>,
}

/// The query of the unstable form.
#[derive(Deserialize)]
pub struct AskedUnstable {
    user_id: OwnedUserId,
    batch_token: Option<String>,
}

/// The rooms that both users are joined to, in the order of their tokens.
pub async fn get_mutual_rooms(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>> {
    let Page { rooms, count, next } = page(&app, &auth, &asked.user_id, asked.from.as_deref())?;
    let mut answer = json!({ "joined": rooms, "count": count });
    if let Some(next) = next {
        answer["next_batch"] = next.into();
    }
    Ok(Json(answer))
}

/// The same with the names of members that clients use at the unstable path.
pub async fn get_mutual_rooms_unstable(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(asked): Query<AskedUnstable>,
) -> Result<Json<Value>> {
    let Page { rooms, count, next } = page(&app, &auth, &asked.user_id, asked.batch_token.as_deref())?;
    let mut answer = json!({ "joined": rooms, "count": count });
    if let Some(next) = next {
        answer["next_batch_token"] = next.into();
    }
    Ok(Json(answer))
}

struct Page {
    rooms: Vec<OwnedRoomId>,
    count: usize,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

fn page(app: &App, auth: &Auth, other: &OwnedUserId, from: Option<&str>) -> Result<Page> {
    if *other == auth.user {
        return Err(MatrixError::invalid_param("You share all of your rooms with yourself").into());
    }
    if from.is_some_and(|from| !is_token(from)) {
        return Err(MatrixError::invalid_param("This is no token of an earlier page").into());
    }
    let own = app.room_links.joined_rooms(&auth.user)?;
    let others = app.room_links.joined_rooms(other)?;
    let shared = own.intersection(&others);
    let mut shared: Vec<_> = shared.map(|room| (token(room), room.clone())).collect();
    shared.sort();
    let count = shared.len();
    let first = shared.partition_point(|(token, _)| from.is_some_and(|from| token.as_str() <= from));
    let mut rest = shared.split_off(first);
    let more = rest.len() > PAGE_ROOMS;
    rest.truncate(PAGE_ROOMS);
    let next = rest.last().filter(|_| more).map(|(token, _)| token.clone());
    Ok(Page {
        rooms: rest.into_iter().map(|(_, room)| room).collect(),
        count,
        next,
    })
}

/// How the token of a room begins, so that any other text is known for none.
const TOKEN_START: &str = "after_";

/// A room's id in the characters that opaque identifiers may have. It is only compared, never read back.
fn token(room: &RoomId) -> String {
    let mut out = TOKEN_START.to_owned();
    for byte in room.as_str().trim_start_matches('!').bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b'-' => out.push(char::from(byte)),
            // Writing to a text does not fail.
            _ => drop(write!(out, "~{byte:02x}")),
        }
    }
    out
}

/// Whether a text may be the token of a room.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    text.len() > TOKEN_START.len() && text.starts_with(TOKEN_START) && text.bytes().all(allowed)
}
