//! Waiting for the members of a room that was just joined elsewhere: they may still be on their way.

use std::time::Duration;

use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::Room;

use crate::error::Result;

/// The state of the largest rooms takes a few minutes. Beyond that the client may ask again: the server that has it may be
/// away for days.
const WAIT: Duration = Duration::from_secs(5 * 60);

/// Waits until all members of a room are known.
pub(super) async fn wait(room: &Room) -> Result<()> {
    if tokio::time::timeout(WAIT, room.wait_full()).await.is_ok() {
        return Ok(());
    }
    let sentence = "The members of the room have not come from its other servers yet";
    Err(MatrixError::new(504, errcode::CONNECTION_TIMEOUT, sentence).into())
}
