//! Answers that are as large as all rooms of an account, or all state of a large room, and are made in one piece: first syncs,
//! and what surrounds an event. One may take a gigabyte, so there are only so many of them at a time; who comes later waits.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use hearth_core::places::{Place, Places};
use hearth_rooms::Room;
use hearth_sync::{SyncRequest, SyncView, sliding};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;
use crate::federation::large::respond_within;

/// So many such answers are made or sent at once,
const AT_ONCE_MAX: usize = 8;
/// and so many of them to one user.
const OF_USER_MAX: usize = 2;
/// An answer with more events needs a place: it takes more than some 8 MB.
pub const EVENTS_MAX: usize = 10_000;
/// So long an answer may take to be read,
const READ_MIN: Duration = Duration::from_secs(5 * 60);
/// or as long as it takes at this speed, for somebody may be on a train.
const READ_BYTES_PER_SECOND: u64 = 32 << 10;

/// The places for large answers to clients.
pub fn places() -> Places {
    Places::new(AT_ONCE_MAX, OF_USER_MAX)
}

/// A place for an answer with the whole states of these rooms, where it needs one; waits until there is one.
pub async fn place_for_rooms<'a>(
    app: &App,
    auth: &Auth,
    rooms: impl Iterator<Item = &'a Room>,
) -> Option<Place> {
    match rooms.map(members).sum::<u64>() > EVENTS_MAX as u64 {
        false => None,
        true => Some(app.large_client_answers.place(auth.user.as_str()).await),
    }
}

/// What a user may see since a token, with a place where that is much; waits until there is one.
pub async fn sync(app: &App, request: &mut SyncRequest) -> Result<(SyncView, Option<Place>)> {
    match app.sync.sync(request).await {
        Err(hearth_sync::Error::Large) => {}
        view => return Ok((view?, None)),
    }
    let place = app.large_client_answers.place(request.user.id().as_str()).await;
    request.events_max = usize::MAX;
    Ok((app.sync.sync(request).await?, Some(place)))
}

/// As [`sync`], for sliding sync.
pub async fn sliding_sync(
    app: &App,
    request: &mut sliding::Request,
) -> Result<(sliding::Answer, Option<Place>)> {
    match app.sync.sliding_sync(request).await {
        Err(hearth_sync::Error::Large) => {}
        answer => return Ok((answer?, None)),
    }
    let place = app.large_client_answers.place(request.user.id().as_str()).await;
    request.events_max = usize::MAX;
    Ok((app.sync.sliding_sync(request).await?, Some(place)))
}

fn members(room: &Room) -> u64 {
    let view = room.view();
    u64::from(view.joined) + u64::from(view.invited)
}

/// The answer with a body of JSON, which keeps its place until it is sent.
pub fn respond(json: Vec<u8>, place: Option<Place>) -> Response {
    let Some(place) = place else {
        let kind = HeaderValue::from_static("application/json");
        return ([(CONTENT_TYPE, kind)], json).into_response();
    };
    let bytes = u64::try_from(json.len()).unwrap_or(u64::MAX);
    let read_max = READ_MIN.max(Duration::from_secs(bytes / READ_BYTES_PER_SECOND));
    respond_within(json, place, read_max)
}
