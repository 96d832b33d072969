//! Keeping the number of forward extremities small without anybody's help.

use hearth_events::PowerView;

use crate::{Error, NewEvent, Room};

/// More forward extremities than this are merged by an event that says nothing.
const EXTREMITIES_MAX: usize = 10;

/// How many local members are looked at to find one who may send it.
const SENDERS_MAX: usize = 100;

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
        let create = self.create_info();
        let power = self.power_levels()?;
        let view = PowerView::new(&create, power.as_ref());
        let needed = view.needed_for(DUMMY_TYPE, false);
        let mut sender = None;
        let mut looked_at = 0;
        self.visit_local_members(&mut |member| {
            looked_at += 1;
            if view.user(member).reaches(needed) {
                sender = Some(member.to_owned());
            }
            sender.is_none() && looked_at < SENDERS_MAX
        })?;
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
