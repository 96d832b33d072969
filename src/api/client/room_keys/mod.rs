//! Server-side key backups.

pub mod delete_keys;
pub mod delete_version;
pub mod get_keys;
pub mod get_version;
pub mod post_version;
pub mod put_keys;
pub mod put_version;

use axum::routing::{get, post};
use hearth_users::BackupState;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let versions = post(post_version::post_version).get(get_version::get_current_version);
    let version = get(get_version::get_version)
        .put(put_version::put_version)
        .delete(delete_version::delete_version);
    let all = get(get_keys::get_keys)
        .put(put_keys::put_keys)
        .delete(delete_keys::delete_keys);
    let of_room = get(get_keys::get_room_keys)
        .put(put_keys::put_room_keys)
        .delete(delete_keys::delete_room_keys);
    let of_session = get(get_keys::get_session_key)
        .put(put_keys::put_session_key)
        .delete(delete_keys::delete_session_key);
    let endpoints = [
        ("/room_keys/version", versions),
        ("/room_keys/version/{version}", version),
        ("/room_keys/keys", all),
        ("/room_keys/keys/{roomId}", of_room),
        ("/room_keys/keys/{roomId}/{sessionId}", of_session),
    ];
    endpoints
        .into_iter()
        .fold(Routes::new(), |routes, (path, methods)| {
            routes.v3(path, methods.clone()).once_unstable(path, methods)
        })
}

/// The query of the endpoints of keys.
#[derive(Debug, Deserialize)]
pub struct OfVersion {
    /// The backup.
    version: String,
}

/// The answer to a change of keys.
fn state_json(state: &BackupState) -> Value {
    json!({ "count": state.count, "etag": state.etag })
}
