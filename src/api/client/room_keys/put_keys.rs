//! PUT /_matrix/client/v3/room_keys/keys, …/keys/{roomId} and …/keys/{roomId}/{sessionId} — Client-Server API,
//! "Server-side key backups".

use std::collections::BTreeMap;

use hearth_users::BackupKey;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{OfVersion, state_json};
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// The keys of several rooms.
#[derive(Deserialize)]
pub struct Rooms {
    rooms: BTreeMap<OwnedRoomId, Sessions>,
}

/// The keys of a room.
#[derive(Deserialize)]
pub struct Sessions {
    sessions: BTreeMap<String, Key>,
}

/// A key.
#[derive(Deserialize)]
pub struct Key {
    first_message_index: u64,
    forwarded_count: u64,
    is_verified: bool,
    session_data: Box<RawValue>,
}

impl Key {
    fn of(self, room: OwnedRoomId, session: String) -> BackupKey {
        BackupKey {
            room,
            session,
            first_message_index: self.first_message_index,
            forwarded_count: self.forwarded_count,
            is_verified: self.is_verified,
            session_data: self.session_data,
        }
    }
}

/// Stores keys of several rooms.
pub async fn put_keys(
    auth: Auth,
    Query(of): Query<OfVersion>,
    Json(body): Json<Rooms>,
) -> Result<Json<Value>> {
    let mut keys = Vec::new();
    for (room, of_room) in body.rooms {
        let of_room = of_room.sessions.into_iter();
        keys.extend(of_room.map(|(session, key)| key.of(room.clone(), session)));
    }
    put(&auth, &of, &keys).await
}

/// Stores keys of a room.
pub async fn put_room_keys(
    auth: Auth,
    Path(room): Path<OwnedRoomId>,
    Query(of): Query<OfVersion>,
    Json(body): Json<Sessions>,
) -> Result<Json<Value>> {
    let sessions = body.sessions.into_iter();
    let keys: Vec<_> = sessions
        .map(|(session, key)| key.of(room.clone(), session))
        .collect();
    put(&auth, &of, &keys).await
}

/// Stores one session's key.
pub async fn put_session_key(
    auth: Auth,
    Path((room, session)): Path<(OwnedRoomId, String)>,
    Query(of): Query<OfVersion>,
    Json(body): Json<Key>,
) -> Result<Json<Value>> {
    put(&auth, &of, &[body.of(room, session)]).await
}

async fn put(auth: &Auth, of: &OfVersion, keys: &[BackupKey]) -> Result<Json<Value>> {
    let state = auth.handle.put_backup_keys(&of.version, keys).await?;
    Ok(Json(state_json(&state)))
}
