//! POST /_matrix/client/v3/search — Client-Server API, "Server Side Search". Where search is switched off the endpoint
//! does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Rendering};
use hearth_search::{Criteria, Fields, Found, Group, Hit, Order, Search, Term, Token};
use hearth_sync::EventFilter;
use hearth_users::Membership;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::context::{self, EventContext};
use crate::app::App;
use crate::client::large;
use crate::client::rooms::Reading;
use crate::error::Result;
use crate::extract::{Auth, Json, Query, or_default, token_unless_empty};
use crate::ratelimit::Class;

/// Results of a page where the client does not say.
const LIMIT_DEFAULT: u64 = 10;
/// The most results of a page.
const LIMIT_MAX: u64 = 100;

/// Where the page begins.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default, deserialize_with = "token_unless_empty")]
    next_batch: Option<String>,
}

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<RoomEvents>,
}

#[derive(Deserialize)]
struct RoomEvents {
    search_term: String,
    keys: Option<Vec<String>>,
    filter: Option<EventFilter>,
    order_by: Option<Order>,
    event_context: Option<EventContext>,
    #[serde(default, deserialize_with = "or_default")]
    include_state: bool,
    #[serde(default, deserialize_with = "or_default")]
    groupings: Groupings,
}

#[derive(Default, Deserialize)]
struct Groupings {
    #[serde(default, deserialize_with = "or_default")]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: GroupKey,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupKey {
    RoomId,
    Sender,
}

impl GroupKey {
    fn name(self) -> &'static str {
        match self {
            GroupKey::RoomId => "room_id",
            GroupKey::Sender => "sender",
        }
    }

    /// The group of a result.
    fn of(self, hit: &Hit) -> Group {
        match self {
            GroupKey::RoomId => Group::RoomId(hit.room.id().to_owned()),
            GroupKey::Sender => Group::Sender(hit.event.pdu.sender().to_owned()),
        }
    }
}

/// Searches in the messages, names and topics of all rooms that the user is or was in.
pub async fn post_search(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(options): Query<Options>,
    Json(body): Json<Body>,
) -> Result<Response> {
    let Some(search) = &app.search else {
        return Err(MatrixError::unrecognized().into());
    };
    auth.count(&app, Class::Search)?;
    let Some(asked) = body.search_categories.room_events else {
        return Ok(Json(json!({ "search_categories": {} })).into_response());
    };
    let from = options.next_batch.as_deref().map(Token::parse).transpose()?;
    let term = Term::parse(&asked.search_term);
    let found = search_rooms(&app, search, &auth, &asked, term.clone(), from).await?;
    let place = match asked.include_state {
        true => {
            let rooms: BTreeMap<_, _> = found.hits.iter().map(|hit| (hit.room.id(), &hit.room)).collect();
            large::place_for_rooms(&app, &auth, rooms.into_values()).await
        }
        false => None,
    };
    let answer = render(&app, &auth, &asked, &term, &found)?;
    let answer = json!({ "search_categories": { "room_events": answer } });
    Ok(large::respond(answer.to_string().into_bytes(), place))
}

async fn search_rooms(
    app: &App,
    search: &Arc<Search>,
    auth: &Auth,
    asked: &RoomEvents,
    term: Term,
    from: Option<Token>,
) -> Result<Found> {
    let filter = asked.filter.clone().unwrap_or_default();
    let ignored = auth.handle.ignored_users()?;
    let not_senders = filter.not_senders.iter().chain(&*ignored).cloned().collect();
    let limit = filter.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let criteria = Criteria {
        user: auth.user.clone(),
        term,
        fields: fields(asked.keys.as_deref(), &filter),
        rooms: rooms(app, auth, &filter)?,
        senders: filter
            .senders
            .as_ref()
            .map(|senders| senders.iter().cloned().collect()),
        not_senders,
        order: asked.order_by.unwrap_or_default(),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        from,
        keep: Box::new(move |event| filter.has_event(event)),
    };
    Ok(search.find(criteria).await?)
}

/// The rooms that the user is or was in, as far as they are asked for: who asks for a room means also those that it
/// replaced, whose conversation goes on in it.
fn rooms(app: &App, auth: &Auth, filter: &EventFilter) -> Result<Vec<OwnedRoomId>> {
    let entries = auth.handle.rooms(&[])?.into_iter();
    let seen = entries.filter(|entry| entry.membership == Membership::Join || entry.was_joined);
    let seen: BTreeSet<OwnedRoomId> = seen.map(|entry| entry.room_id).collect();
    let asked = seen.iter().filter(|room| filter.has_room(room)).cloned();
    let mut found: BTreeSet<OwnedRoomId> = asked.collect();
    let mut replaced = match &filter.rooms {
        Some(_) => found.iter().cloned().collect(),
        None => Vec::new(),
    };
    while let Some(id) = replaced.pop()
        && found.len() < seen.len()
    {
        let room = app.rooms.get(&id)?;
        let before = room.and_then(|room| room.create_info().predecessor.clone());
        let wanted = before.filter(|id| seen.contains(id) && !filter.not_rooms.contains(id));
        if let Some(id) = wanted
            && found.insert(id.clone())
        {
            replaced.push(id);
        }
    }
    Ok(found.into_iter().collect())
}

/// Where is searched: the keys that are asked for, of event types that pass the filter.
fn fields(keys: Option<&[String]>, filter: &EventFilter) -> Fields {
    let is_in = |key: &str, kind: &str| {
        keys.is_none_or(|keys| keys.iter().any(|one| one == key)) && filter.has_type(kind)
    };
    Fields {
        body: is_in("content.body", "m.room.message"),
        name: is_in("content.name", "m.room.name"),
        topic: is_in("content.topic", "m.room.topic"),
    }
}

fn render(app: &App, auth: &Auth, asked: &RoomEvents, term: &Term, found: &Found) -> Result<Value> {
    let ignored = auth.handle.ignored_users()?;
    let keep = |event: &Event| event.pdu.state_key().is_some() || !ignored.contains(event.pdu.sender());
    let rendering = Rendering {
        device: auth.device.as_ref().map(|device| device.as_str()),
        ..Rendering::default()
    };
    let mut readings: BTreeMap<OwnedRoomId, Reading> = BTreeMap::new();
    let mut results = Vec::with_capacity(found.hits.len());
    let mut left_bytes = context::ALL_SIDES_MAX_BYTES;
    for hit in &found.hits {
        let id = hit.room.id();
        if !readings.contains_key(id) {
            readings.insert(id.to_owned(), Reading::begin(app, id, &auth.user)?);
        }
        let Some(reading) = readings.get_mut(id) else {
            continue;
        };
        let mut result = json!({
            "rank": hit.rank,
            "result": hit.room.render(&hit.event, &mut reading.viewer, &rendering)?,
        });
        if let Some(wanted) = &asked.event_context {
            result["context"] = wanted.of(reading, &hit.event, &rendering, &keep, &mut left_bytes)?;
        }
        results.push(result);
    }
    let mut answer = json!({
        "count": found.count,
        "highlights": term.highlights(found.hits.iter().map(|hit| &*hit.text)),
        "results": results,
    });
    if asked.include_state {
        let mut states = Map::new();
        for (id, reading) in &mut readings {
            let state = reading.full_state()?;
            let state = reading.room.render_all(&state, &mut reading.viewer, &rendering)?;
            states.insert(id.to_string(), json!(state));
        }
        answer["state"] = Value::Object(states);
    }
    if !asked.groupings.group_by.is_empty() {
        answer["groups"] = groups(&asked.groupings, found);
    }
    if let Some(next) = &found.next {
        answer["next_batch"] = json!(next.to_string());
    }
    Ok(answer)
}

/// The results by room or sender; the groups in the order of their first results.
fn groups(groupings: &Groupings, found: &Found) -> Value {
    let mut out = Map::new();
    for Grouping { key } in &groupings.group_by {
        let mut groups: Map<String, Value> = Map::new();
        for hit in &found.hits {
            let group = key.of(hit);
            let name = match &group {
                Group::RoomId(room) => room.to_string(),
                Group::Sender(sender) => sender.to_string(),
            };
            let order = groups.len() + 1;
            let entry = groups.entry(name).or_insert_with(|| {
                let mut entry = json!({ "order": order, "results": [] });
                if let Some(next) = &found.next {
                    entry["next_batch"] = json!(next.in_group(group).to_string());
                }
                entry
            });
            if let Some(results) = entry["results"].as_array_mut() {
                results.push(json!(hit.event.id()));
            }
        }
        out.insert(key.name().to_owned(), Value::Object(groups));
    }
    Value::Object(out)
}
