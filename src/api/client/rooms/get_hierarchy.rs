//! GET /_matrix/client/v1/rooms/{roomId}/hierarchy — Client-Server API, "Spaces".

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Membership, Room};
use ruma::{OwnedRoomId, OwnedServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::far_spaces::FarSpaces;
use super::spaces;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, token_unless_empty};

/// The most rooms of one page.
const PAGE_MAX: usize = 50;

/// A page that is so large gets no further room: mostly a room takes a few kilobytes.
const PAGE_FULL_BYTES: usize = 8 << 20;

/// The most rooms that one walk looks at, all its pages together.
const WALK_MAX: usize = 5000;

/// A page.
#[derive(Default, Serialize)]
pub struct Page {
    rooms: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip)]
    bytes: usize,
}

impl Page {
    fn is_full(&self, limit: usize) -> bool {
        self.rooms.len() == limit || self.bytes >= PAGE_FULL_BYTES
    }
}

/// A room to be visited.
struct Step {
    depth: u64,
    id: OwnedRoomId,
    /// Servers that know it.
    via: Vec<OwnedServerName>,
}

/// The rooms that a walk has visited, and those that it has still to visit.
struct Walk {
    /// The most rooms that it visits.
    most: usize,
    seen: HashSet<OwnedRoomId>,
    /// The next one is at the end.
    left: Vec<Step>,
}

impl Walk {
    fn new(root: OwnedRoomId, most: usize) -> Self {
        let root = Step {
            depth: 0,
            id: root,
            via: Vec::new(),
        };
        Self {
            most,
            seen: HashSet::new(),
            left: vec![root],
        }
    }

    /// The next room, each once.
    fn next(&mut self) -> Option<Step> {
        while self.seen.len() < self.most {
            let step = self.left.pop()?;
            if self.seen.insert(step.id.clone()) {
                return Some(step);
            }
        }
        None
    }

    /// The children of the room that was visited last come next. Those that are never visited, because so many others come
    /// before them, are not kept.
    fn add(&mut self, depth: u64, children: Vec<(OwnedRoomId, Vec<OwnedServerName>)>) {
        let mut added = HashSet::new();
        let mut fresh: Vec<Step> = children
            .into_iter()
            .filter(|(id, _)| !self.seen.contains(id) && added.insert(id.clone()))
            .take(self.most.saturating_sub(self.seen.len()))
            .map(|(id, via)| Step { depth, id, via })
            .collect();
        fresh.reverse();
        self.left.extend(fresh);
        if self.left.len() > 2 * self.most {
            self.forget_the_unreachable();
        }
    }

    fn forget_the_unreachable(&mut self) {
        let most = self.most.saturating_sub(self.seen.len());
        let mut wanted = HashSet::new();
        let mut kept = Vec::new();
        while let Some(step) = self.left.pop() {
            if wanted.len() == most {
                break;
            }
            if !self.seen.contains(&step.id) && wanted.insert(step.id.clone()) {
                kept.push(step);
            }
        }
        kept.reverse();
        self.left = kept;
    }
}

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
) -> Result<Json<Page>> {
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
    let mut found = 0;
    let mut page = Page::default();
    let mut far = FarSpaces::new();
    let mut budget = spaces::Budget::new();
    let mut walk = Walk::new(room_id, WALK_MAX);
    while let Some(Step { depth, id, via }) = walk.next() {
        let goes_on = options.max_depth.is_none_or(|max| depth < max);
        // The rooms of the pages before are walked through, but not described once more.
        let is_shown = found >= from && !page.is_full(limit);
        let here = app.rooms.get(&id)?.filter(Room::is_decided_here);
        let (summary, below) = if let Some(room) = here {
            if !may_know(&room, &auth.user)? {
                continue;
            }
            let children = spaces::children(&room, &app.server_name, options.suggested_only, &mut budget)?;
            let summary = is_shown.then(|| spaces::with_children(&room, &children));
            let below = children.into_iter().map(|child| (child.id, child.via)).collect();
            (summary.transpose()?, below)
        } else {
            let room = far.room(&app, &id, &via, options.suggested_only).await;
            let Some(room) = room else { continue };
            if !room.is_shown_to(&auth)? {
                continue;
            }
            let summary = is_shown.then(|| room.with_children());
            (summary.transpose()?, room.children(&app.server_name))
        };
        if page.is_full(limit) {
            page.next_batch = Some(options.token(found));
            return Ok(Json(page));
        }
        if goes_on {
            walk.add(depth + 1, below);
        }
        page.bytes += summary.as_ref().map_or(0, |room| room.get().len());
        page.rooms.extend(summary);
        found += 1;
    }
    Ok(Json(page))
}

/// Whether a user may know of a room without being told by somebody in it.
fn may_know(room: &Room, user: &UserId) -> Result<bool> {
    Ok(room.is_open_to_all()?
        || matches!(room.membership(user)?, Membership::Join | Membership::Invite)
        || room.may_join_as_member(user)?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn room(number: usize) -> OwnedRoomId {
        OwnedRoomId::try_from(format!("!r{number}:a")).expect("an id")
    }

    /// The rooms in the order of a visit, and the most that were left at a time.
    fn visited(children: &HashMap<usize, Vec<usize>>, most: usize) -> (Vec<String>, usize) {
        let by_id: HashMap<OwnedRoomId, &Vec<usize>> =
            children.iter().map(|(of, list)| (room(*of), list)).collect();
        let mut walk = Walk::new(room(0), most);
        let (mut order, mut longest) = (Vec::new(), 0);
        while let Some(step) = walk.next() {
            let below = by_id.get(&step.id).into_iter().flat_map(|list| list.iter());
            walk.add(
                step.depth + 1,
                below.map(|child| (room(*child), Vec::new())).collect(),
            );
            longest = longest.max(walk.left.len());
            order.push(step.id.to_string());
        }
        (order, longest)
    }

    /// The same without any bound but that of the walk itself.
    fn visited_plainly(children: &HashMap<usize, Vec<usize>>, most: usize) -> Vec<String> {
        let (mut seen, mut order, mut left) = (HashSet::new(), Vec::new(), vec![0]);
        while let Some(next) = left.pop() {
            if seen.insert(next) && seen.len() <= most {
                order.push(room(next).to_string());
                left.extend(children.get(&next).into_iter().flatten().rev().copied());
            }
        }
        order
    }

    #[test]
    fn what_is_left_to_visit_is_bounded_and_what_is_visited_the_same() {
        let wide = HashMap::from([(0, (1..2_000).collect::<Vec<_>>())]);
        let mut crossed: HashMap<usize, Vec<usize>> = HashMap::new();
        for of in 0..300_usize {
            crossed.insert(of, (0..97).map(|at| (of * 31 + at * at * 17) % 1_000).collect());
        }
        // Each space has all spaces as children, one of them twice.
        let full: HashMap<usize, Vec<usize>> = (0..100)
            .map(|of| (of, (0..100).chain([of / 2]).collect()))
            .collect();
        for children in [wide, crossed, full] {
            for most in [1, 2, 7, 50, 200, 5_000] {
                let (order, longest) = visited(&children, most);
                assert_eq!(order, visited_plainly(&children, most), "{most}");
                assert!(longest <= 2 * most, "{longest} left of at most {most}");
            }
        }
    }
}
