//! What every endpoint of a room asks first.

use std::sync::Arc;
use std::time::Duration;

use hearth_core::error::MatrixError;
use hearth_rooms::Room;
use ruma::{RoomId, ServerName};

use crate::app::App;
use crate::error::Result;

/// How long a request waits for the state of a room to be whole; servers wait about a minute for an answer.
const WHOLE_WAIT: Duration = Duration::from_secs(20);

/// A room that is known here and whose access control list lets the asking server in.
pub fn known_room(app: &Arc<App>, origin: &ServerName, room_id: &RoomId) -> Result<Room> {
    let room = app.rooms.require(room_id)?;
    if !room.acl_allows(origin)? {
        let sentence = format!("The room's access control list keeps {origin} out");
        return Err(MatrixError::forbidden(sentence).into());
    }
    Ok(room)
}

/// As [`known_room`]; this server is in the room, so that it can decide who comes and goes.
pub fn own_room(app: &Arc<App>, origin: &ServerName, room_id: &RoomId) -> Result<Room> {
    let room = known_room(app, origin, room_id)?;
    if !room.is_resident() {
        return Err(MatrixError::not_found(format!("This server is not in the room {room_id}")).into());
    }
    Ok(room)
}

/// Waits a while where the room's state is still filling in after a join, and refuses where it takes longer: part of a
/// state is worse than none.
pub async fn whole(room: &Room) -> Result<()> {
    if tokio::time::timeout(WHOLE_WAIT, room.wait_full()).await.is_ok() {
        return Ok(());
    }
    Err(MatrixError::not_found("This server does not know the whole state of the room yet").into())
}

/// As [`known_room`]; the asking server has a joined member in the room, or is said to have one while members are not known yet.
pub fn shared_room(app: &Arc<App>, origin: &ServerName, room_id: &RoomId) -> Result<Room> {
    let room = known_room(app, origin, room_id)?;
    if !room.may_have_server(origin) {
        return Err(MatrixError::forbidden(format!("{origin} is not in the room")).into());
    }
    Ok(room)
}
