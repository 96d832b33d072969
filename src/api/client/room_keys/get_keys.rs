//! GET /_matrix/client/v3/room_keys/keys, …/keys/{roomId} and …/keys/{roomId}/{sessionId} — Client-Server API,
//! "Server-side key backups".

use std::io;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use hearth_users::BackupKeys;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use super::OfVersion;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// All keys of a backup.
pub async fn get_keys(auth: Auth, Query(of): Query<OfVersion>) -> Result<Response> {
    answer(auth.handle.backup_keys(&of.version, None)?).await
}

/// A room's keys.
pub async fn get_room_keys(
    auth: Auth,
    Path(room): Path<OwnedRoomId>,
    Query(of): Query<OfVersion>,
) -> Result<Response> {
    answer(auth.handle.backup_keys(&of.version, Some(&room))?).await
}

/// One session's key.
pub async fn get_session_key(
    auth: Auth,
    Path((room, session)): Path<(OwnedRoomId, String)>,
    Query(of): Query<OfVersion>,
) -> Result<Json<Box<RawValue>>> {
    Ok(Json(auth.handle.backup_key(&of.version, &room, &session)?))
}

/// Sends keys as they are read: a backup may have gigabytes. What fails after the beginning cuts the answer off.
async fn answer(keys: BackupKeys) -> Result<Response> {
    let (first, rest) = keys.part().await?;
    let body = match rest.is_done() {
        true => Body::from(first),
        false => {
            let rest = stream::try_unfold(rest, |rest| async move {
                match rest.is_done() {
                    true => Ok(None),
                    false => rest.part().await.map(Some),
                }
            });
            let rest = rest.map(|part| part.map_err(io::Error::other));
            Body::from_stream(stream::iter([Ok(first)]).chain(rest))
        }
    };
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], body).into_response())
}
