//! How far a look at a user's news goes. Positions are taken in an order in which nothing is missed between them.

use std::time::Duration;

use hearth_storage::{Position, ShardId};
use hearth_users::User;

use crate::{Error, SyncEngine, SyncToken, notifier::IndexGuard, room::is_joined_at};

/// How long a sync waits for the user's room list to follow a room that the user has left. It takes milliseconds.
const LIST_WAIT: Duration = Duration::from_secs(2);

/// Which rooms a look needs up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoomsRead {
    /// The joined ones.
    Joined,
    /// All of them, in the order of their activity.
    Ordered,
}

impl SyncEngine {
    /// The positions up to which is read, in the order in which they must be taken: those of all shards for the rooms,
    /// then the user's own, with his rooms in the index up to date.
    pub(crate) async fn positions(
        &self,
        user: &User,
        index: &IndexGuard,
        since: Option<&SyncToken>,
        read: RoomsRead,
    ) -> Result<(Vec<(ShardId, Position)>, Position), Error> {
        let log = self.rooms.log();
        let mut waited = false;
        loop {
            let positions = log.published_all();
            let user_position = loop {
                let position = user.position();
                let read = match read {
                    RoomsRead::Joined => self.notifier.refresh(index)?,
                    RoomsRead::Ordered => self.notifier.refresh_order(index)?,
                };
                if read <= position {
                    break position;
                }
                // A room entry was read that is on disk and not yet published: the token must include it.
                log.wait_durable(user.shard(), read).await?;
            };
            let ahead = match waited {
                false => self.left_ahead(user, index, since, &positions)?,
                true => None,
            };
            let Some((shard, position)) = ahead else {
                return Ok((positions, user_position));
            };
            waited = true;
            // Where the list cannot be written the room is told of as it is; reading goes on.
            let _ = tokio::time::timeout(LIST_WAIT, self.rooms.delivered(shard, position)).await;
        }
    }

    /// A room among the changed ones that the user has left by the positions taken, while his room list has him in it
    /// still: the effect on the list is on its way. Told now, the room would be a joined one in which he is not.
    fn left_ahead(
        &self,
        user: &User,
        index: &IndexGuard,
        since: Option<&SyncToken>,
        positions: &[(ShardId, Position)],
    ) -> Result<Option<(ShardId, Position)>, Error> {
        let changed = {
            let state = index.state.lock();
            state.changed_rooms(|shard| since.map_or(0, |since| since.shard(shard)))
        };
        for entry in changed {
            let Some(room) = self.rooms.get(&entry.room_id)? else {
                continue;
            };
            if room.membership(user.id())? == hearth_rooms::Membership::Join {
                continue;
            }
            let until = positions.iter().find(|(shard, _)| *shard == entry.shard);
            let until = until.map_or(0, |(_, position)| *position);
            let is_told_later = entry.room_began > until;
            if !is_told_later && !is_joined_at(&room, user.id(), until)? {
                return Ok(Some((entry.shard, until)));
            }
        }
        Ok(None)
    }
}
