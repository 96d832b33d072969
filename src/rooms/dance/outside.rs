//! Memberships in rooms that this server is not in: invitations from elsewhere, their withdrawal and refusal, knocks.

use std::sync::Arc;

use bytes::Bytes;
use hearth_events::{Pdu, Rules};
use hearth_storage::Record;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value, json, value::RawValue};

use super::{leaving::OwnLeave, to_its_end};
use crate::{Awaited, Dance, Error, Membership, Received, Room, Rooms};

/// So many events of an invitation are checked; servers send about ten.
const STATE_EVENTS_MAX: usize = 100;

impl Rooms {
    /// Takes an invitation of a user of this server, which the inviting server sends before the room sees it, and
    /// signs it. The user's room list has it when this returns.
    pub async fn receive_invite(
        self: &Arc<Self>,
        origin: &ServerName,
        version: &RoomVersionId,
        room_id: &RoomId,
        event_id: &EventId,
        text: &[u8],
        mut stripped: Vec<Box<RawValue>>,
    ) -> Result<Bytes, Error> {
        self.log.check_writable()?;
        let rules =
            hearth_events::rules(version).ok_or_else(|| Error::IncompatibleVersion(version.to_string()))?;
        let pdu = Pdu::parse(rules, text)?;
        let wrong = |what: &str| Error::BadEvent(what.to_owned());
        if pdu.room_id() != room_id || pdu.event_id != event_id {
            return Err(wrong("The event is not the one that the path names"));
        }
        let invites = pdu.kind() == "m.room.member"
            && Membership::of_content(pdu.content()) == Membership::Invite
            && pdu.sender().server_name() == origin;
        if !invites {
            return Err(wrong(
                "The event is not an invitation by a user of the sending server",
            ));
        }
        let target = pdu
            .state_key()
            .and_then(|user| <&UserId>::try_from(user).ok())
            .filter(|user| self.is_local(user))
            .ok_or_else(|| wrong("The event does not invite a user of this server"))?
            .to_owned();
        let verified = self.verify_one(rules, pdu).await?;
        self.check_invite_state(rules, &stripped).await?;
        let signed = verified
            .pdu
            .countersign(rules, &self.signing_key, &self.server_name)?;
        if let Some(room) = self.get(room_id)?
            && room.is_resident()
        {
            match room.membership(&target)? {
                Membership::Join => return Err(Error::Forbidden(format!("{target} is already in the room"))),
                Membership::Ban => return Err(Error::Forbidden(format!("{target} is banned"))),
                _ => {}
            }
            // The room's own copy of the invitation follows; the user hears of it now if it can be placed.
            match room.receive(origin, &signed.json).await {
                Ok(Received::Accepted | Received::Known) => return Ok(signed.json),
                Ok(Received::Rejected(why)) => return Err(Error::Forbidden(why)),
                Ok(Received::SoftFailed) => {
                    return Err(Error::Forbidden(
                        "The room does not allow this invitation".to_owned(),
                    ));
                }
                Err(error) => {
                    tracing::info!(%error, %room_id, "an invitation cannot be judged now");
                }
            }
        }
        let content: Value = serde_json::from_slice(signed.content()).unwrap_or_default();
        set_own_member(&mut stripped, &target, signed.sender(), &content);
        self.tell_user(
            room_id,
            &target,
            Outside {
                membership: hearth_users::Membership::Invite,
                event_id: signed.event_id.clone(),
                sender: signed.sender(),
                stripped,
                is_direct: content.get("is_direct").and_then(Value::as_bool).unwrap_or(false),
                via: None,
            },
        )
        .await?;
        Ok(signed.json)
    }

    /// Refuses an invitation with events that are not what their servers signed, in room versions in which all of them
    /// are whole events. An event whose server's key cannot be had is let be.
    async fn check_invite_state(
        &self,
        rules: &'static Rules,
        stripped: &[Box<RawValue>],
    ) -> Result<(), Error> {
        if !rules.room_id_is_create_hash() {
            return Ok(());
        }
        let events = stripped.iter().take(STATE_EVENTS_MAX);
        let events = events.map(|event| Pdu::parse(rules, event.get().as_bytes()));
        for outcome in self.verify(rules, events.collect::<Result<_, _>>()?).await? {
            match outcome {
                Ok(_) | Err(Error::MissingKey(_)) => {}
                Err(error) => {
                    return Err(Error::BadEvent(format!(
                        "An event of `invite_room_state`: {error}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The events that show a room at which a user knocks, without those that are of another room or are not what their
    /// servers signed. In older rooms some servers send them stripped, which cannot be checked.
    async fn checked_knock_state(
        &self,
        version: &RoomVersionId,
        room_id: &RoomId,
        events: Vec<Value>,
    ) -> Result<Vec<Value>, Error> {
        let Some(rules) = hearth_events::rules(version) else {
            return Ok(Vec::new());
        };
        let mut kept = Vec::with_capacity(events.len());
        let mut whole = Vec::new();
        for event in events {
            match Pdu::parse(rules, event.to_string().as_bytes()) {
                Ok(pdu) if pdu.room_id() == room_id => whole.push((event, pdu)),
                Ok(_) => {}
                Err(_) if rules.room_id_is_create_hash() || event.get("signatures").is_some() => {}
                Err(_) => kept.push(event),
            }
        }
        let (whole, pdus): (Vec<Value>, Vec<Pdu>) = whole.into_iter().unzip();
        let outcomes = self.verify(rules, pdus).await?;
        for (event, outcome) in whole.into_iter().zip(outcomes) {
            if matches!(outcome, Ok(_) | Err(Error::MissingKey(_))) {
                kept.push(event);
            }
        }
        Ok(kept)
    }

    /// Takes a member event of a room that this server is not in: the withdrawal of an invitation, or the refusal
    /// of a knock. `version` is what the invitation said of the room, `awaited` what the user waits for.
    pub async fn receive_outside(
        self: &Arc<Self>,
        origin: &ServerName,
        version: &RoomVersionId,
        awaited: &Awaited,
        text: &[u8],
    ) -> Result<(), Error> {
        let rules =
            hearth_events::rules(version).ok_or_else(|| Error::IncompatibleVersion(version.to_string()))?;
        let pdu = Pdu::parse(rules, text)?;
        let wrong = || Error::BadEvent("The event does not end an invitation or a knock".to_owned());
        let after = match Membership::of_content(pdu.content()) {
            Membership::Leave => hearth_users::Membership::Leave,
            Membership::Ban => hearth_users::Membership::Ban,
            _ => return Err(wrong()),
        };
        let user = pdu
            .state_key()
            .filter(|_| pdu.kind() == "m.room.member")
            .and_then(|user| <&UserId>::try_from(user).ok())
            .filter(|user| self.is_local(user))
            .ok_or_else(wrong)?
            .to_owned();
        if pdu.sender().server_name() != origin {
            return Err(Error::Forbidden(format!(
                "The event is not by a user of {origin}"
            )));
        }
        awaited.check_end(rules, &pdu, &user)?;
        let verified = self.verify_one(rules, pdu).await?;
        let room_id = verified.pdu.room_id().to_owned();
        self.tell_user(
            &room_id,
            &user,
            Outside {
                membership: after,
                event_id: verified.pdu.event_id.clone(),
                sender: verified.pdu.sender(),
                stripped: Vec::new(),
                is_direct: false,
                via: None,
            },
        )
        .await
    }

    /// Refuses an invitation to a room that this server is not in, or takes a knock back. If no server can be
    /// asked, the user is rid of it all the same. `event_id` is the event by which the user came to be invited.
    pub async fn leave_remote(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        event_id: &EventId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let (rooms, user, room_id) = (self.clone(), user.to_owned(), room_id.to_owned());
        let (via, event_id, reason) = (via.to_owned(), event_id.to_owned(), reason.map(str::to_owned));
        let leave = async move {
            rooms
                .leave_now(&user, &room_id, &via, &event_id, reason.as_deref())
                .await
        };
        to_its_end(leave).await
    }

    async fn leave_now(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        event_id: &EventId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let attempt = self
            .through(via, |server| self.leave_through(server, user, room_id, reason))
            .await;
        let event_id = match attempt {
            Ok(leave) => {
                let event_id = leave.pdu.event_id.clone();
                self.own_leaves.add(room_id, user, leave);
                event_id
            }
            Err(error) => {
                tracing::info!(%error, %room_id, "an invitation is refused here alone");
                event_id.to_owned()
            }
        };
        self.tell_user(
            room_id,
            user,
            Outside {
                membership: hearth_users::Membership::Leave,
                event_id,
                sender: user,
                stripped: Vec::new(),
                is_direct: false,
                via: None,
            },
        )
        .await?;
        // Somebody else may have brought the room here meanwhile; whoever does so later looks for it.
        if let Some(room) = self.get(room_id)?.filter(Room::is_resident) {
            room.take_own_leaves().await;
        }
        Ok(())
    }

    async fn leave_through(
        self: &Arc<Self>,
        server: OwnedServerName,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<OwnLeave, Error> {
        let remote = self.remote()?.clone();
        let made = remote.make(Dance::Leave, &server, room_id, user).await?;
        let mut content = Map::new();
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        let (_, pdu) = self.complete(&server, &made, room_id, user, "leave", content)?;
        remote
            .send_leave(&server, room_id, &pdu.event_id, &pdu.json)
            .await?;
        Ok(OwnLeave { server, pdu })
    }

    /// Knocks on a room through one of the servers in it. `content` is the member event's beside the membership.
    pub async fn knock_remote(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        self.log.check_writable()?;
        let (rooms, user, room_id, via) = (self.clone(), user.to_owned(), room_id.to_owned(), via.to_owned());
        let knock = async move { rooms.knock_now(&user, &room_id, &via, content).await };
        to_its_end(knock).await
    }

    async fn knock_now(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let (pdu, stripped, taken_by) = self
            .through(via, |server| {
                self.knock_through(server, user, room_id, content.clone())
            })
            .await?;
        let mut stripped: Vec<Box<RawValue>> = stripped
            .iter()
            .filter_map(|event| serde_json::value::to_raw_value(event).ok())
            .collect();
        let content: Value = serde_json::from_slice(pdu.content()).unwrap_or_default();
        set_own_member(&mut stripped, user, user, &content);
        let event_id = pdu.event_id;
        self.tell_user(
            room_id,
            user,
            Outside {
                membership: hearth_users::Membership::Knock,
                event_id,
                sender: user,
                stripped,
                is_direct: false,
                via: Some(taken_by),
            },
        )
        .await
    }

    async fn knock_through(
        self: &Arc<Self>,
        server: OwnedServerName,
        user: &UserId,
        room_id: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(Pdu, Vec<Value>, OwnedServerName), Error> {
        let remote = self.remote()?.clone();
        let made = remote.make(Dance::Knock, &server, room_id, user).await?;
        let (_, pdu) = self.complete(&server, &made, room_id, user, "knock", content)?;
        let stripped = remote
            .send_knock(&server, room_id, &pdu.event_id, &pdu.json)
            .await?;
        let stripped = self.checked_knock_state(&made.version, room_id, stripped).await?;
        Ok((pdu, stripped, server))
    }

    /// Takes a room out of a user's list though the room does not say so.
    pub(crate) async fn drop_from_list(&self, room_id: &RoomId, user: &UserId) -> Result<(), Error> {
        let event_id = EventId::parse(format!("$purged-{}", self.clock.now_ms()))
            .map_err(|_| Error::Damaged("event id"))?;
        self.tell_user(
            room_id,
            user,
            Outside {
                membership: hearth_users::Membership::Leave,
                event_id,
                sender: user,
                stripped: Vec::new(),
                is_direct: false,
                via: None,
            },
        )
        .await
    }

    /// Puts a membership into the user's room list, out of the room's own slot: what the room itself says later
    /// comes after it.
    async fn tell_user(&self, room_id: &RoomId, user: &UserId, outside: Outside<'_>) -> Result<(), Error> {
        let key = self.room_number(room_id).await?;
        let update = hearth_users::MembershipUpdate {
            room_id: room_id.to_owned(),
            membership: outside.membership,
            event_id: outside.event_id,
            sender: outside.sender.to_owned(),
            anchor: 0,
            ts: self.clock.now_ms(),
            is_direct: outside.is_direct,
            stripped_state: crate::stripped::prune(&outside.stripped),
            predecessor: None,
            via: outside.via,
        };
        self.cluster
            .commit(key.slot, |_| Record {
                outbox: vec![update.row(user)],
                ..Record::default()
            })
            .await?;
        Ok(())
    }
}

/// A membership in a room that is not here.
struct Outside<'a> {
    membership: hearth_users::Membership,
    event_id: OwnedEventId,
    sender: &'a UserId,
    stripped: Vec<Box<RawValue>>,
    is_direct: bool,
    /// The server that took a knock.
    via: Option<OwnedServerName>,
}

/// Puts the member event by which a user is invited or knocks into the stripped state of the room.
fn set_own_member(stripped: &mut Vec<Box<RawValue>>, user: &UserId, sender: &UserId, content: &Value) {
    let own = json!({
        "type": "m.room.member",
        "state_key": user,
        "sender": sender,
        "content": content,
    });
    stripped.retain(|event| !is_member_of(event, user.as_str()));
    stripped.extend(serde_json::value::to_raw_value(&own).ok());
}

fn is_member_of(event: &RawValue, user: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        kind: String,
        state_key: Option<String>,
    }
    serde_json::from_str::<Head>(event.get())
        .is_ok_and(|head| head.kind == "m.room.member" && head.state_key.as_deref() == Some(user))
}
