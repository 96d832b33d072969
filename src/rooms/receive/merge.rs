//! Keeping the number of forward extremities small without anybody's help.

use crate::{Error, NewEvent, Room};

/// More forward extremities than this are merged by an event that says nothing.
const EXTREMITIES_MAX: usize = 10;

/// The type of that event. Clients do not know it and show nothing.
const DUMMY_TYPE: &str = "org.matrix.dummy_event";

impl Room {
    /// How many forward extremities the room has.
    pub fn extremities(&self) -> usize {
        self.0.head.lock().record.tips.len()
    }

    /// Sends an event on top of all forward extremities where there are many of them, in the name of a member of
    /// this server who may.
    pub(super) async fn merge_extremities(&self) {
        let count = self.extremities();
        if count <= EXTREMITIES_MAX {
            return;
        }
        match self.send_dummy().await {
            Ok(true) => tracing::debug!(room = %self.id(), count, "forward extremities merged"),
            Ok(false) => {}
            Err(error) => tracing::info!(%error, room = %self.id(), count, "forward extremities stay"),
        }
    }

    async fn send_dummy(&self) -> Result<bool, Error> {
        let sender = self.find_local_member(|view| view.needed_for(DUMMY_TYPE, false))?;
        let Some(sender) = sender else {
            return Ok(false);
        };
        self.send(
            NewEvent {
                sender,
                kind: DUMMY_TYPE.to_owned(),
                state_key: None,
                content: b"{}".to_vec(),
                redacts: None,
                timestamp_ms: None,
            },
            None,
        )
        .await?;
        Ok(true)
    }
}
