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
use crate::extract::{Auth, Json, Path, Query};

/// The most events of one page.
const LIMIT_MAX: usize = 1000;

/// The most events that are looked at for one page.
const LOOKED_AT_MAX: usize = 5000;

/// How deep `recurse` follows relations.
const DEPTH_MAX: usize = 3;

#[derive(Deserialize)]
pub struct Options {
    from: Option<String>,
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
    let mut rows = Vec::new();
    collect(
        &room,
        parent.short,
        wanted,
        if options.recurse() { DEPTH_MAX } else { 1 },
        &mut rows,
    )?;
    rows.retain(|row| within(row.place, from, to, backward));
    rows.sort_by_key(|row| row.place);
    if backward {
        rows.reverse();
    }
    let (events, next) = page(&room, &mut reading.viewer, &rows, limit, backward)?;
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

/// Whether an event lies in the direction of reading from one gap and up to another.
fn within(place: Place, from: Option<Place>, to: Option<Place>, backward: bool) -> bool {
    match backward {
        true => from.is_none_or(|from| place <= from) && to.is_none_or(|to| place > to),
        false => from.is_none_or(|from| place > from) && to.is_none_or(|to| place <= to),
    }
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
    for row in found {
        if depth > 1 && out.len() < LOOKED_AT_MAX {
            collect(room, row.child, wanted, depth - 1, out)?;
        }
        if wanted
            .rel_type
            .as_ref()
            .is_none_or(|wanted| *wanted == row.rel_type)
            && wanted.kind.as_ref().is_none_or(|wanted| *wanted == row.kind)
        {
            out.push(row);
        }
    }
    Ok(())
}

fn page(
    room: &Room,
    viewer: &mut Viewer,
    rows: &[RelationRow],
    limit: usize,
    backward: bool,
) -> Result<(Vec<Arc<Event>>, Option<Place>)> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    for row in rows {
        let Some(event) = room.event(row.child)? else {
            continue;
        };
        if event.is_redacted() || viewer.ignores(&event) || !viewer.may_see(&event)? {
            continue;
        }
        if events.len() == limit {
            let last = events[limit - 1].header.place;
            return Ok((events, Some(if backward { last.before() } else { last })));
        }
        events.push(event);
    }
    Ok((events, None))
}
