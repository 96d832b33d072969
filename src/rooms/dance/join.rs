//! Joining a room through another server.

use std::{collections::BTreeMap, sync::Arc};

use hearth_events::{CreateInfo, Pdu};
use hearth_storage::{Batch, EntityKind, Family, Record, record};
use ruma::{OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value};

use crate::{
    Dance, Error, Flags, Membership, Room, Rooms, SendJoin,
    dance::{invite::as_ours, to_its_end},
    head::HeadRecord,
    keys,
    lacking::Lacking,
    load::RoomRecord,
    partial::PartialState,
    receive::{Manner, Received, Verified, in_time},
};

impl Rooms {
    /// Joins a user of this server to a room through one of the servers in it. `content` is the member event's
    /// content beside the membership. Returns when the room is readable here.
    pub async fn join_remote(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        self.log.check_writable()?;
        let (rooms, user, room_id, via) = (self.clone(), user.to_owned(), room_id.to_owned(), via.to_owned());
        let join = async move { rooms.join_by_turns(&user, &room_id, &via, content).await };
        to_its_end(join).await
    }

    /// Joins a room; one user at a time.
    async fn join_by_turns(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let _turn = self.join_locks.lock(room_id.as_str()).lock().await;
        if let Some(room) = self.get(room_id)?.filter(Room::is_resident) {
            // A client that gave up waiting for it asks once more.
            if room.membership(user)? == Membership::Join {
                return Ok(());
            }
            if via.is_empty() {
                return room.join(user, content).await.map(drop);
            }
        }
        let _under_way = self.joining.begin(room_id);
        self.through(via, |server| {
            self.join_through(server, user, room_id, content.clone())
        })
        .await
    }

    async fn join_through(
        self: &Arc<Self>,
        server: OwnedServerName,
        user: &UserId,
        room_id: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let remote = self.remote()?.clone();
        let made = remote.make(Dance::Join, &server, room_id, user).await?;
        let (_, pdu) = self.complete(&server, &made, room_id, user, "join", content)?;
        let answer = remote
            .send_join(&server, room_id, &pdu.event_id, &pdu.json)
            .await
            .map_err(as_ours)?;
        let room = self.room_for_import(room_id, &made.version).await?;
        room.import(&server, pdu, answer).await?;
        room.take_own_leaves().await;
        if room.is_partial() {
            room.start_resync();
        }
        Ok(())
    }

    /// The handle of a room that is to be filled: the one that is here, or one that nobody sees yet.
    async fn room_for_import(
        self: &Arc<Self>,
        room_id: &RoomId,
        version: &RoomVersionId,
    ) -> Result<Room, Error> {
        if let Some(room) = self.get(room_id)? {
            return match room.rules().version == *version {
                true => Ok(room),
                false => Err(Error::BadEvent(
                    "the other server names another room version".to_owned(),
                )),
            };
        }
        let key = self.room_number(room_id).await?;
        let head = self
            .reader()
            .get(Family::Room, &keys::room(key, keys::ROOM_HEAD))?;
        let head = head.map_or(Ok(HeadRecord::default()), |bytes| HeadRecord::decode(&bytes))?;
        self.assemble(room_id, key, version, head, BTreeMap::new())
    }

    /// The number of a room, which gets one if it has none.
    pub async fn room_number(&self, room_id: &RoomId) -> Result<hearth_storage::EntityKey, Error> {
        if let Some(key) = hearth_storage::entity(self.reader(), EntityKind::Room, room_id.as_str())? {
            return Ok(key);
        }
        let mut batch = Batch::new();
        let key = match self.log.allocate(EntityKind::Room, room_id.as_str(), &mut batch) {
            Ok(key) => key,
            // Another task was quicker.
            Err(hearth_storage::Error::Exists) => {
                let found = hearth_storage::entity(self.reader(), EntityKind::Room, room_id.as_str())?;
                return found.ok_or(Error::Damaged("room number"));
            }
            Err(error) => return Err(error.into()),
        };
        self.cluster
            .commit(key.slot, |_| Record {
                batch,
                ..Record::default()
            })
            .await?;
        Ok(key)
    }
}

impl Room {
    /// Takes in what a server answered to the join: the state and its auth chain, then the join itself.
    async fn import(&self, server: &ServerName, pdu: Pdu, answer: SendJoin) -> Result<(), Error> {
        let _turn = self.0.receiving.lock().await;
        let rooms = &self.0.rooms;
        let new = rooms.get(self.id())?.is_none();
        let verified = match answer.event {
            // With the other server's signature, as restricted rooms ask for it.
            Some(text) => {
                let signed = Pdu::parse(self.rules(), text.get().as_bytes())?;
                if signed.event_id != pdu.event_id {
                    return Err(Error::BadEvent("the other server changed the join".to_owned()));
                }
                self.verify_one(signed).await?
            }
            None => Verified { pdu, redacted: false },
        };
        let mut ids = Vec::with_capacity(answer.state.len());
        for text in &answer.state {
            if let Ok(event) = Pdu::parse(self.rules(), text.get().as_bytes()) {
                ids.push(event.event_id);
            }
        }
        self.take_lacks();
        self.keep_chain(answer.state.into_iter().chain(answer.auth_chain).collect())
            .await?;
        in_time(server, self.fetch_auth(server, &verified.pdu)).await?;
        self.settle().await?;
        let root = self.state_of(&ids).await?;
        self.settle().await?;
        let create = self
            .state_at(root, "m.room.create", "")?
            .filter(|event| !event.header.flags.has(Flags::REJECTED))
            .ok_or_else(|| Error::BadEvent("the state has no create event".to_owned()))?;
        self.check_create(&create.pdu)?;
        let info = CreateInfo::parse(
            self.rules(),
            create.id(),
            create.pdu.sender(),
            create.pdu.content(),
        )?;
        drop(self.0.create.set(Arc::new(info)));
        let left_out = self.take_lacks();
        if self.is_resident() {
            match in_time(server, self.fetch_before(server, &verified.pdu)).await {
                Ok(()) => {}
                Err(error @ Error::Storage(_)) => return Err(error),
                Err(error) => {
                    tracing::info!(%error, room = %self.id(), "what came right before a join cannot be had");
                }
            }
        }
        let missing = self.missing_before(&verified.pdu)?;
        let replaces_tips = !self.is_resident();
        // The state before the join follows from what is here.
        let follows = !replaces_tips && missing.is_empty();
        // Where some of the events before it are not here, the state that was given is that after all of them:
        // resolving it once more with what is known of the others could give another one.
        let state_before = match missing.is_empty() {
            true => None,
            false if answer.members_omitted && !replaces_tips => Some(self.with_known_members(root).await?),
            false => Some(root),
        };
        let mut manner = Manner {
            replaces_tips,
            handed_over: true,
            state_before,
            ..Manner::default()
        };
        let before = self.0.partial.borrow().clone();
        // What came before this server left is to be judged with a whole state too.
        let comes_back = before.is_some() && replaces_tips;
        let is_partial = comes_back || answer.members_omitted && !(before.is_none() && follows);
        let join = verified.pdu.event_id.clone();
        if is_partial {
            let (resident, servers) = (server.to_owned(), answer.servers_in_room);
            let partial = match before.as_deref() {
                Some(before) if comes_back => before.with_return(join.clone(), resident, servers),
                Some(before) => before.with_join((!follows).then(|| (join.clone(), resident)), servers),
                None => PartialState::new(join.clone(), resident, servers),
            };
            let row = keys::room(self.0.key, keys::ROOM_PARTIAL);
            manner.rows.put(Family::Room, row, record::encode(&partial));
            self.set_partial(Some(partial));
        }
        // Of a room that this server is in already, the state before the join alone may lack them.
        let lacks = !answer.members_omitted && !follows && !left_out.is_empty();
        let lacking =
            (lacks && replaces_tips).then(|| Lacking::new(join.clone(), server.to_owned(), left_out.clone()));
        if replaces_tips {
            let row = keys::room(self.0.key, keys::ROOM_LACKING);
            match &lacking {
                Some(lacking) => manner.rows.put(Family::Room, row, record::encode(lacking)),
                None => manner.rows.delete(Family::Room, row),
            }
        }
        if new {
            let stored = RoomRecord {
                room_id: self.id().to_string(),
                version: self.rules().version.to_string(),
            };
            let row = keys::room(self.0.key, keys::ROOM_RECORD);
            manner.rows.put(Family::Room, row, record::encode(&stored));
            rooms.loaded.insert(self.id().to_owned(), self.clone());
        }
        let outcome = self.take_in_with(verified, missing, Vec::new(), manner).await;
        let refused = match outcome {
            Ok(Received::Accepted | Received::Known) => {
                if replaces_tips {
                    *self.0.lacking.lock() = lacking;
                    if lacks {
                        self.start_filling();
                    }
                } else if lacks {
                    self.lacks_before(join, server, left_out).await?;
                }
                return Ok(());
            }
            Ok(Received::SoftFailed) => Error::Forbidden("The room does not allow this join".to_owned()),
            Ok(Received::Rejected(why)) => Error::Forbidden(why),
            Err(error) => error,
        };
        if is_partial {
            self.set_partial(before.as_deref().cloned());
        }
        if new {
            rooms.loaded.remove(self.id());
        }
        Err(refused)
    }

    fn check_create(&self, create: &Pdu) -> Result<(), Error> {
        let content: Value = serde_json::from_slice(create.content()).unwrap_or_default();
        let version = content.get("room_version").and_then(Value::as_str).unwrap_or("1");
        if version != self.rules().version.as_str() {
            return Err(Error::BadEvent(format!("the room has version {version}")));
        }
        match self.rules().create_event_of_room(self.id()) {
            Some(id) if id != create.event_id => {
                Err(Error::BadEvent("the create event is of another room".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
