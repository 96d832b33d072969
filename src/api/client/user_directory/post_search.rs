//! POST /_matrix/client/v3/user_directory/search — Client-Server API, "User directory".

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use hearth_core::limits::USER_SEARCH_MAX_RESULTS;
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json};
use crate::ratelimit::Class;

/// The most results where the client does not say, as the specification has it.
const DEFAULT_RESULTS: usize = 10;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    search_term: String,
    limit: Option<usize>,
}

/// Finds people by name, as far as the searcher may know of them.
pub async fn post_search(
    State(app): State<Arc<App>>,
    auth: Auth,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    auth.count(&app, Class::Search)?;
    let limit = body.limit.unwrap_or(DEFAULT_RESULTS).min(USER_SEARCH_MAX_RESULTS);
    let all = app.config.user_directory_all_users;
    let own = match all {
        true => BTreeSet::new(),
        false => app.room_links.joined_rooms(&auth.user)?,
    };
    // Whoever shares a room with the searcher, or is in a room that is open to all, as the searcher may be too.
    let may_be_found = |user: &UserId| {
        let Ok(rooms) = app.room_links.joined_rooms(user) else {
            return false;
        };
        (*user != auth.user && !rooms.is_disjoint(&own))
            || rooms.iter().any(|room| app.room_links.is_open(room))
    };
    let found = app
        .users
        .directory()
        .search(&body.search_term, limit, &|user| all || may_be_found(user))?;
    Ok(Json(json!({ "results": found.users, "limited": found.limited })))
}
