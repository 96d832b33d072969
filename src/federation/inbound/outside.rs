//! Events of rooms that this server is not in: they end invitations and knocks.

use hearth_rooms::{Awaited, Error};
use hearth_users::Membership;
use ruma::{OwnedUserId, RoomId, RoomVersionId, ServerName, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{Checked, Inbound};
use hearth_events::Pdu;

/// What an invitation or a knock said of its room.
struct Known {
    version: RoomVersionId,
    awaited: Awaited,
}

impl Inbound {
    /// Takes an event of a room that this server is not in; gives its id.
    pub(super) async fn take_outside(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        text: &[u8],
    ) -> Result<(String, Checked), Error> {
        let known = self.known_of(room_id, text)?;
        let rules = known
            .as_ref()
            .and_then(|known| hearth_events::rules(&known.version))
            .unwrap_or_else(super::unknown_rules);
        let id = match Pdu::parse(rules, text) {
            Ok(pdu) => pdu.event_id.to_string(),
            Err(error) => return Ok((super::id_of_malformed(text), Checked::Refused(error.to_string()))),
        };
        let Some(known) = known else {
            return Ok((id, Checked::Refused("This server is not in the room".to_owned())));
        };
        let taken = self
            .rooms
            .receive_outside(origin, &known.version, &known.awaited, text)
            .await;
        match taken {
            Ok(()) => Ok((id, Checked::Done)),
            Err(error @ Error::Storage(_)) => Err(error),
            Err(error) => Ok((id, Checked::Refused(error.to_string()))),
        }
    }

    /// What is known of the room, if the event is about a local user who is invited to it or knocks at it.
    fn known_of(&self, room_id: &RoomId, text: &[u8]) -> Result<Option<Known>, Error> {
        #[derive(Deserialize)]
        struct Member {
            #[serde(rename = "type")]
            kind: String,
            state_key: OwnedUserId,
        }
        let member = serde_json::from_slice::<Member>(text).ok();
        let member =
            member.filter(|event| event.kind == "m.room.member" && self.users.is_local(&event.state_key));
        let Some(member) = member else { return Ok(None) };
        let entry = self.entry_of(&member.state_key, room_id)?;
        let entry = entry.filter(|entry| matches!(entry.membership, Membership::Invite | Membership::Knock));
        let Some(entry) = entry else { return Ok(None) };
        let stripped: Vec<Value> = entry
            .stripped_state
            .iter()
            .filter_map(|event| serde_json::from_str(event.get()).ok())
            .collect();
        let create = stripped.iter().find(|event| event["type"] == "m.room.create");
        let version = create.and_then(|create| create["content"]["room_version"].as_str());
        let version = RoomVersionId::try_from(version.unwrap_or("1")).unwrap_or(RoomVersionId::V1);
        let awaited = match entry.membership {
            Membership::Invite => Awaited::Invitation {
                inviter: entry.sender,
            },
            _ => Awaited::Knock {
                event_id: entry.event_id,
                via: entry.via,
                shown: entry.stripped_state,
            },
        };
        Ok(Some(Known { version, awaited }))
    }

    fn entry_of(&self, user: &UserId, room_id: &RoomId) -> Result<Option<hearth_users::RoomEntry>, Error> {
        let failed = |error: hearth_users::Error| match error {
            hearth_users::Error::Storage(error) => Error::Storage(error),
            other => Error::Invalid(other.to_string()),
        };
        let Some(user) = self.users.get(user).map_err(failed)? else {
            return Ok(None);
        };
        user.room(room_id).map_err(failed)
    }
}
