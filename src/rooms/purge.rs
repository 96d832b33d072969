//! Removing a room from this server, with everything that is stored of it.

use std::sync::Arc;
use std::time::Duration;

use hearth_storage::{
    Batch, EntityKey, EntityKind, Family, Feed, FeedItem, FeedKind, Position, Record, ShardId,
};
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomId};
use serde_json::json;

use crate::{Error, NewEvent, Rooms, keys};

/// The duty that tells other servers of events.
pub const FEDERATION_DUTY: &str = "federation";
/// How long a purge waits at most until other servers know who left, and how often it looks.
const FAREWELL_MAX: Duration = Duration::from_secs(10);
const FAREWELL_STEP: Duration = Duration::from_millis(20);

/// Every family whose keys begin with a room.
const FAMILIES: [Family; 13] = [
    Family::Room,
    Family::RoomEvent,
    Family::RoomEventId,
    Family::RoomTimeline,
    Family::RoomState,
    Family::RoomStateOther,
    Family::RoomStateAt,
    Family::RoomStateKey,
    Family::RoomStateNode,
    Family::RoomTxn,
    Family::RoomIndex,
    Family::RoomReceipt,
    Family::RoomInbound,
];

/// What a purge did to users of this server.
#[derive(Clone, Debug, Default)]
pub struct Purged {
    /// Who was in the room, or invited, and is not any more.
    pub kicked: Vec<OwnedUserId>,
    /// The aliases that pointed to the room.
    pub aliases: Vec<OwnedRoomAliasId>,
}

impl Rooms {
    /// Takes all users of this server out of a room and removes the room from this server. Other servers keep it.
    /// Who joins it later gets it anew.
    pub async fn purge(self: &Arc<Self>, room_id: &RoomId) -> Result<Purged, Error> {
        let _join = self.join_locks.lock(room_id.as_str()).lock().await;
        // Not before: whoever had the lock may have purged the room, and it may have been joined anew.
        let room = self.require(room_id)?;
        let mut members = Vec::new();
        room.visit_members(&mut |user, membership, _| {
            let inside = matches!(
                membership,
                crate::Membership::Join | crate::Membership::Invite | crate::Membership::Knock
            );
            if inside && self.is_local(user) {
                members.push(user.to_owned());
            }
            true
        })?;
        let mut purged = Purged::default();
        let has_others = room.servers().iter().any(|server| *server != self.server_name);
        let mut last_left = None;
        for user in members {
            // Who cannot leave by the room's rules is out all the same. A disk that is nearly full is what a purge is for.
            let leave = NewEvent::state(
                &user,
                "m.room.member",
                user.as_str(),
                &json!({ "membership": "leave" }),
            );
            match room.send_anyway(leave, None).await {
                Ok(left) => last_left = Some(left.position),
                Err(_) => self.drop_from_list(room_id, &user).await?,
            }
            purged.kicked.push(user);
        }
        if let Some(position) = last_left.filter(|_| has_others) {
            self.until_told(room.0.shard, position).await;
        }
        self.set_listed(&room, false).await?;
        for alias in room.aliases()? {
            self.delete_alias(&alias).await?;
            purged.aliases.push(alias);
        }
        let _turn = room.0.receiving.lock().await;
        // Whoever holds the room's handle still adds nothing from here on.
        room.close();
        // Who waits for the rest of the state, or asks other servers for it, waits for nothing any more.
        room.set_partial(None);
        *room.0.lacking.lock() = None;
        room.settle().await?;
        let key = room.0.key;
        let mut batch = Batch::new();
        let (start, end) = keys::entity_range(key);
        for family in FAMILIES {
            batch.delete_range(family, start.clone(), end.clone());
        }
        hearth_storage::remove_entity(EntityKind::Room, room_id.as_str(), key, &mut batch);
        self.loaded.remove(room_id);
        self.cluster
            .commit(key.slot, |_| Record {
                batch,
                feed: vec![FeedItem {
                    entity: key,
                    kind: FeedKind::RoomLife,
                    reference: 0,
                }],
                ..Record::default()
            })
            .await?;
        self.loaded.remove(room_id);
        self.compact(key);
        self.directory.gone(room_id);
        Ok(purged)
    }

    /// Waits until other servers were told of everything up to a position: the events are read from the room when they are
    /// sent. One that cannot be reached is not waited for any longer.
    async fn until_told(&self, shard: ShardId, position: Position) {
        let feed = Feed::new(&self.log);
        let told = async {
            while feed.cursor(FEDERATION_DUTY, shard) < position {
                tokio::time::sleep(FAREWELL_STEP).await;
            }
        };
        if tokio::time::timeout(FAREWELL_MAX, told).await.is_err() {
            tracing::info!("a room is removed before all other servers know who left it");
        }
    }

    /// Has what was removed leave the disk; nobody waits for it.
    fn compact(&self, key: EntityKey) {
        let (engine, chores) = (self.log.engine().clone(), self.chores.clone());
        hearth_core::tasks::spawn("compaction of a purged room", async move {
            let (start, end) = keys::entity_range(key);
            for family in FAMILIES {
                let (engine, start, end) = (engine.clone(), start.clone(), end.clone());
                let compacted = chores.run(move || engine.compact(family, &start, &end)).await;
                if let Err(error) = compacted {
                    tracing::warn!(%error, "what was purged stays on the disk for a while");
                }
            }
        });
    }
}
