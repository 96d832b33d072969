//! Aliases and the public directory.

mod delete_alias;
mod get_alias;
mod get_listing;
mod get_public_rooms;
mod post_public_rooms;
mod put_alias;
mod put_listing;
mod search;

use axum::routing::get;
use hearth_core::error::MatrixError;
use hearth_rooms::{DirectoryEntry, DirectoryToken};
use ruma::ServerName;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::routes::Routes;
pub use search::Search;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new()
        .v3(
            "/directory/room/{roomAlias}",
            get(get_alias::get_alias)
                .put(put_alias::put_alias)
                .delete(delete_alias::delete_alias),
        )
        .v3(
            "/directory/list/room/{roomId}",
            get(get_listing::get_listing).put(put_listing::put_listing),
        )
        .v3(
            "/publicRooms",
            get(get_public_rooms::get_public_rooms).post(post_public_rooms::post_public_rooms),
        )
}

/// A page of the directory as clients read it.
pub(crate) async fn page(app: &App, query: DirectoryEntry) -> Result<Value> {
    let page = app.rooms.public_rooms(query).await?;
    let mut answer = json!({ "chunk": page.chunk, "total_room_count_estimate": page.total });
    if let Some(next) = page.next {
        answer["next_batch"] = json!(next.to_string());
    }
    if let Some(previous) = page.previous {
        answer["prev_batch"] = json!(previous.to_string());
    }
    Ok(answer)
}

/// Reads where a page begins or ends. An empty token is none: the first page.
pub(crate) fn since(token: Option<&str>) -> Result<Option<DirectoryToken>, MatrixError> {
    let wrong = || MatrixError::invalid_param("since is not a token of this endpoint");
    token
        .filter(|token| !token.is_empty())
        .map(|token| DirectoryToken::parse(token).ok_or_else(wrong))
        .transpose()
}

/// The directory of another server, where a request names one.
async fn elsewhere(app: &App, server: Option<&str>, mut query: Value) -> Result<Option<Value>> {
    let is_other = |server: &&str| !server.is_empty() && *server != app.server_name.as_str();
    let Some(server) = server.filter(is_other) else {
        return Ok(None);
    };
    let server = <&ServerName>::try_from(server)
        .map_err(|_| MatrixError::invalid_param("server is not a server name"))?;
    if query["limit"] != json!(0) {
        return Ok(Some(app.federation.public_rooms(server, query).await?));
    }
    // Between servers a limit of 0 is none: one room says whether there are any.
    query["limit"] = json!(1);
    let since = query["since"].as_str().filter(|since| !since.is_empty());
    let since = since.map(str::to_owned);
    let found = app.federation.public_rooms(server, query).await?;
    let mut none = json!({ "chunk": [] });
    if let Some(total) = found.get("total_room_count_estimate") {
        none["total_room_count_estimate"] = total.clone();
    }
    let is_more = found["chunk"].as_array().is_some_and(|chunk| !chunk.is_empty());
    if let Some(since) = since.filter(|_| is_more) {
        none["next_batch"] = json!(since);
    }
    Ok(Some(none))
}
