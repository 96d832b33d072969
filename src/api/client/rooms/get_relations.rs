//! GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]] — Client-Server
//! API, "Forming relationships between events".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Place, RelationRow, Rendering, Room, Viewer};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::tokens;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, token_unless_empty};

/// The most events of one page.
const LIMIT_MAX: usize = 1000;

/// The most events that are looked at for one page.
const LOOKED_AT_MAX: usize = 5000;

/// A page that has so much has enough events, however many are asked for.
const PAGE_FULL_BYTES: usize = 8 << 20;

/// How many rows are read at once.
const CHUNK_ROWS: usize = 64;

/// How deep `recurse` follows relations.
const DEPTH_MAX: usize = 3;

#[derive(Deserialize)]
pub struct Options {
    #[serde(default, deserialize_with = "token_unless_empty")]
    from: Option<String>,
    #[serde(default, deserialize_with = "token_unless_empty")]
    to: Option<String>,
    dir: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    recurse: bool,
    /// The name that it has in MSC3981.
    #[serde(default, rename = "org.matrix.msc3981.recurse")]
    recurse_unstable: bool,
}

impl Options {
    fn recurse(&self) -> bool {
        self.recurse || self.recurse_unstable
    }
}

#[derive(Default)]
struct Wanted {
    rel_type: Option<String>,
    kind: Option<String>,
}

/// All events that relate to an event.
pub async fn get_relations(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    find(&app, &auth, &room_id, &event_id, &Wanted::default(), &options)
}

/// Those of one relation type.
pub async fn get_relations_of_type(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id, rel_type)): Path<(OwnedRoomId, OwnedEventId, String)>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    find(
        &app,
        &auth,
        &room_id,
        &event_id,
        &Wanted {
            rel_type: Some(rel_type),
            kind: None,
        },
        &options,
    )
}

/// Those of one relation type and one event type.
pub async fn get_relations_of_types(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path((room_id, event_id, rel_type, kind)): Path<(OwnedRoomId, OwnedEventId, String, String)>,
    Query(options): Query<Options>,
) -> Result<Json<Value>> {
    let wanted = Wanted {
        rel_type: Some(rel_type),
        kind: Some(kind),
    };
    find(&app, &auth, &room_id, &event_id, &wanted, &options)
}

fn find(
    app: &App,
    auth: &Auth,
    room_id: &OwnedRoomId,
    event_id: &OwnedEventId,
    wanted: &Wanted,
    options: &Options,
) -> Result<Json<Value>> {
    let mut reading = super::Reading::begin(app, room_id, &auth.user)?;
    let room = reading.room.clone();
    let parent = match room.shown_event(event_id)? {
        Some(event) if reading.viewer.may_see(&event)? => event,
        _ => return Err(MatrixError::not_found("There is no such event, or you may not see it").into()),
    };
    let backward = tokens::is_backward(options.dir.as_deref(), true)?;
    let limit = tokens::limit(options.limit, 5, LIMIT_MAX);
    let from = options
        .from
        .as_deref()
        .map(|token| tokens::place(&reading, token))
        .transpose()?;
    let to = options
        .to
        .as_deref()
        .map(|token| tokens::place(&reading, token))
        .transpose()?;
    let span = Span { from, to, backward };
    let viewer = &mut reading.viewer;
    let (events, next) = match options.recurse() {
        true => recursive_page(&room, viewer, parent.short, wanted, &span, limit)?,
        false => page(&room, viewer, parent.short, wanted, &span, limit)?,
    };
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let chunk = room.render_all(&events, &mut reading.viewer, &rendering)?;
    let mut answer = json!({ "chunk": chunk });
    if let Some(next) = next {
        answer["next_batch"] = json!(tokens::token(next));
    }
    if let Some(from) = &options.from {
        answer["prev_batch"] = json!(from);
    }
    if options.recurse() {
        answer["recursion_depth"] = json!(DEPTH_MAX);
    }
    Ok(Json(answer))
}

/// What a page is of: from one gap towards another.
struct Span {
    from: Option<Place>,
    to: Option<Place>,
    backward: bool,
}

impl Span {
    /// Whether an event lies in the direction of reading from the one gap and up to the other.
    fn has(&self, place: Place) -> bool {
        let (from, to) = (self.from, self.to);
        match self.backward {
            true => from.is_none_or(|from| place <= from) && to.is_none_or(|to| place > to),
            false => from.is_none_or(|from| place > from) && to.is_none_or(|to| place <= to),
        }
    }

    /// The gap behind an event, in the direction of reading.
    fn behind(&self, place: Place) -> Place {
        if self.backward { place.before() } else { place }
    }

    /// The gap behind a page that is full, where an event at `next` would follow.
    fn after(&self, page: &[Arc<Event>], next: Place) -> Place {
        match page.last() {
            Some(last) => self.behind(last.header.place),
            None if self.backward => next,
            None => next.before(),
        }
    }
}

impl Wanted {
    fn has(&self, row: &RelationRow) -> bool {
        self.rel_type
            .as_ref()
            .is_none_or(|wanted| *wanted == row.rel_type)
            && self.kind.as_ref().is_none_or(|wanted| *wanted == row.kind)
    }
}

/// A page of an event's children: reads as many rows as it needs.
fn page(
    room: &Room,
    viewer: &mut Viewer,
    parent: u32,
    wanted: &Wanted,
    span: &Span,
    limit: usize,
) -> Result<(Vec<Arc<Event>>, Option<Place>)> {
    // A token is the gap after a place; rows are visited from the place on.
    let mut at = span.from.map(|place| match span.backward {
        true => Place {
            offset: place.offset.saturating_add(1),
            ..place
        },
        false => place,
    });
    let mut events: Vec<Arc<Event>> = Vec::new();
    let (mut looked_at, mut bytes) = (0, 0);
    loop {
        let mut rows = Vec::with_capacity(CHUNK_ROWS);
        room.visit_relations(parent, at, span.backward, &mut |row| {
            rows.push(row);
            rows.len() < CHUNK_ROWS
        })?;
        for row in &rows {
            if !span.has(row.place) {
                return Ok((events, None));
            }
            looked_at += 1;
            let event = match wanted.has(row) {
                true => shown(room, viewer, row)?,
                false => None,
            };
            let Some(event) = event else {
                if looked_at >= LOOKED_AT_MAX {
                    return Ok((events, Some(span.behind(row.place))));
                }
                continue;
            };
            if events.len() == limit || bytes >= PAGE_FULL_BYTES {
                let next = span.after(&events, row.place);
                return Ok((events, Some(next)));
            }
            bytes += event.pdu.json.len();
            events.push(event);
        }
        match rows.last() {
            Some(last) if rows.len() == CHUNK_ROWS => at = Some(last.place),
            _ => return Ok((events, None)),
        }
    }
}

/// A page of an event's children and of theirs: they are gathered before they can be put in order.
fn recursive_page(
    room: &Room,
    viewer: &mut Viewer,
    parent: u32,
    wanted: &Wanted,
    span: &Span,
    limit: usize,
) -> Result<(Vec<Arc<Event>>, Option<Place>)> {
    let mut rows = Vec::new();
    collect(room, parent, wanted, DEPTH_MAX, &mut rows)?;
    rows.retain(|row| span.has(row.place));
    rows.sort_by_key(|row| row.place);
    if span.backward {
        rows.reverse();
    }
    let mut events: Vec<Arc<Event>> = Vec::new();
    let mut bytes = 0;
    for row in &rows {
        let Some(event) = shown(room, viewer, row)? else {
            continue;
        };
        if events.len() == limit || bytes >= PAGE_FULL_BYTES {
            let next = span.after(&events, row.place);
            return Ok((events, Some(next)));
        }
        bytes += event.pdu.json.len();
        events.push(event);
    }
    Ok((events, None))
}

/// The event of a row, if it still relates and the user may see it.
fn shown(room: &Room, viewer: &mut Viewer, row: &RelationRow) -> Result<Option<Arc<Event>>> {
    let Some(event) = room.event(row.child)? else {
        return Ok(None);
    };
    Ok(
        match event.is_redacted() || viewer.ignores(&event) || !viewer.may_see(&event)? {
            true => None,
            false => Some(event),
        },
    )
}

fn collect(
    room: &Room,
    parent: u32,
    wanted: &Wanted,
    depth: usize,
    out: &mut Vec<RelationRow>,
) -> Result<()> {
    let mut found = Vec::new();
    room.visit_relations(parent, None, true, &mut |row| {
        found.push(row);
        found.len() < LOOKED_AT_MAX
    })?;
    // What is left out leads to nothing else either: it would be related through an event that does not fit.
    for row in found.into_iter().filter(|row| wanted.has(row)) {
        if depth > 1 && out.len() < LOOKED_AT_MAX {
            collect(room, row.child, wanted, depth - 1, out)?;
        }
        out.push(row);
    }
    Ok(())
}
