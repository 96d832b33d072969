//! Account data and tags: what clients keep for themselves with the account, globally or per room.

pub mod delete_account_data;
pub mod delete_room_account_data;
pub mod delete_tag;
pub mod get_account_data;
pub mod get_room_account_data;
pub mod get_tags;
pub mod put_account_data;
pub mod put_room_account_data;
pub mod put_tag;

use axum::routing::get;
use hearth_core::error::{MatrixError, errcode};
use hearth_users::is_server_controlled;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ApiError, Result};
use crate::extract::RawJson;
use crate::routes::Routes;

/// The name of the proposal to delete account data.
const MSC3391: &str = "org.matrix.msc3391";

/// The endpoints of this section.
pub fn routes() -> Routes {
    let global = get(get_account_data::get_account_data).put(put_account_data::put_account_data);
    let room =
        get(get_room_account_data::get_room_account_data).put(put_room_account_data::put_room_account_data);
    let tag = axum::routing::put(put_tag::put_tag).delete(delete_tag::delete_tag);
    let gone = axum::routing::delete(delete_account_data::delete_account_data)
        .put(put_account_data::put_account_data)
        .get(get_account_data::get_account_data);
    let room_gone = axum::routing::delete(delete_room_account_data::delete_room_account_data)
        .put(put_room_account_data::put_room_account_data)
        .get(get_room_account_data::get_room_account_data);
    Routes::new()
        .unstable(MSC3391, "/user/{userId}/account_data/{type}", gone)
        .unstable(
            MSC3391,
            "/user/{userId}/rooms/{roomId}/account_data/{type}",
            room_gone,
        )
        .v3("/user/{userId}/account_data/{type}", global)
        .v3("/user/{userId}/rooms/{roomId}/account_data/{type}", room)
        .v3("/user/{userId}/rooms/{roomId}/tags", get(get_tags::get_tags))
        .v3("/user/{userId}/rooms/{roomId}/tags/{tag}", tag)
}

/// Refuses the types that have endpoints of their own.
fn may_be_written(kind: &str) -> Result<(), MatrixError> {
    if !is_server_controlled(kind) {
        return Ok(());
    }
    let sentence = format!("{kind} has an endpoint of its own and cannot be written as account data");
    Err(MatrixError::new(405, errcode::BAD_JSON, sentence))
}

/// Whether an object is empty: to write that is to delete (MSC3391).
fn is_empty(content: &RawValue) -> bool {
    content
        .get()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim()
        .is_empty()
}

/// An object from a request, as account data keeps it.
fn raw(content: &RawJson) -> Result<&RawValue> {
    // The extractor has looked at the form of the bytes; whether values can hold them, such as a number without end,
    // shows when they are read.
    if let Err(error) = serde_json::from_slice::<Value>(&content.0) {
        return Err(MatrixError::bad_json(format!("The content cannot be read: {error}")).into());
    }
    serde_json::from_slice(&content.0).map_err(|error| ApiError::internal(&error))
}

/// The refusal where nothing is stored under a type.
fn nothing_stored(kind: &str) -> MatrixError {
    MatrixError::not_found(format!("There is no account data of type {kind:?}"))
}
