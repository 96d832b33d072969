//! GET /_matrix/client/v1/rooms/{roomId}/hierarchy — Client-Server API, "Spaces".

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Membership, Room};
use ruma::{OwnedRoomId, OwnedServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::far_spaces::{FarSpaces, via_of};
use super::spaces;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, token_unless_empty};

/// The most rooms of one page.
const PAGE_MAX: usize = 50;

/// The most rooms that one walk looks at, all its pages together.
const WALK_MAX: usize = 5000;

#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    suggested_only: bool,
    limit: Option<u64>,
    max_depth: Option<u64>,
    #[serde(default, deserialize_with = "token_unless_empty")]
    from: Option<String>,
}

impl Options {
    /// The token of the page that follows so many rooms: it also says what may not change from page to page.
    fn token(&self, given: usize) -> String {
        let depth = self.max_depth.map_or("-".to_owned(), |depth| depth.to_string());
        format!("{given}_{}_{depth}", u8::from(self.suggested_only))
    }

    /// How many rooms the pages before this one gave.
    fn given_before(&self) -> Result<usize, MatrixError> {
        let Some(from) = &self.from else { return Ok(0) };
        let given = from.split('_').next().and_then(|given| given.parse().ok());
        let given =
            given.ok_or_else(|| MatrixError::invalid_param("from is not a token of this endpoint"))?;
        match *from == self.token(given) {
            true => Ok(given),
            false => {
                let sentence = "suggested_only and max_depth cannot change from page to page";
                Err(MatrixError::invalid_param(sentence))
            }
        }
    }
}

/// The rooms below a space, depth first, as far as the user may know of them.
///
/// A page's token is how many rooms were given before it, and of which walk: it is made anew for each page.
pub async fn get_hierarchy(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let root = app.rooms.get(&room_id)?.filter(Room::is_decided_here);
    let may_look = match &root {
        Some(room) => may_know(room, &auth.user)? && room.membership(&auth.user)? != Membership::Ban,
        None => false,
    };
    if !may_look {
        return Err(MatrixError::forbidden("You are not in this space, and may not look into it").into());
    }
    let from = options.given_before()?;
    let limit = options
        .limit
        .map_or(PAGE_MAX, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX));
    let limit = limit.clamp(1, PAGE_MAX);
    let mut seen = HashSet::new();
    let mut found = 0;
    let mut page = Vec::new();
    let mut far = FarSpaces::new();
    // Depth, room and the servers that know it; the next one is at the end.
    let mut left: Vec<(u64, OwnedRoomId, Vec<OwnedServerName>)> = vec![(0, room_id, Vec::new())];
    while let Some((depth, id, via)) = left.pop() {
        if !seen.insert(id.clone()) || seen.len() > WALK_MAX {
            continue;
        }
        let goes_on = options.max_depth.is_none_or(|max| depth < max);
        // The rooms of the pages before are walked through, but not described once more.
        let is_shown = found >= from && page.len() < limit;
        let here = app.rooms.get(&id)?.filter(Room::is_decided_here);
        let (summary, below) = if let Some(room) = here {
            if !may_know(&room, &auth.user)? {
                continue;
            }
            let children = spaces::children(&room, options.suggested_only)?;
            let below: Vec<_> = children
                .iter()
                .map(|child| (child.id.clone(), via_of(&child.event)))
                .collect();
            let summary = is_shown.then(|| spaces::with_children(&room, children));
            (summary.transpose()?, below)
        } else {
            let room = far.room(&app, &id, &via, options.suggested_only).await;
            let Some(room) = room else { continue };
            if !room.is_shown_to(&auth)? {
                continue;
            }
            let summary = is_shown.then(|| room.with_children());
            (summary, room.children().collect())
        };
        if page.len() == limit {
            return Ok(Json(json!({ "rooms": page, "next_batch": options.token(found) })));
        }
        if goes_on {
            let below = below.into_iter().rev();
            left.extend(below.map(|(id, via)| (depth + 1, id, via)));
        }
        page.extend(summary);
        found += 1;
    }
    Ok(Json(json!({ "rooms": page })))
}

/// Whether a user may know of a room without being told by somebody in it.
fn may_know(room: &Room, user: &UserId) -> Result<bool> {
    Ok(room.is_open_to_all()?
        || matches!(room.membership(user)?, Membership::Join | Membership::Invite)
        || room.may_join_as_member(user)?)
}
