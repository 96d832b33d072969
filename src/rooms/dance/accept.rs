//! Member events that another server sends through this one: `send_join`, `send_leave`, `send_knock`.

use std::sync::Arc;

use hearth_events::Pdu;
use ruma::{OwnedUserId, ServerName};
use serde_json::Value;

use super::is_own_membership;
use crate::{
    Dance, Error, Event, Membership, Room,
    receive::{Manner, Received},
};

impl Room {
    /// Takes in a member event that `origin` completed after this server proposed it, and tells the other servers.
    /// A join that a user of this server vouches for gets this server's signature. The same event again gives the
    /// same answer.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where the room does not allow it, [`Error::BadEvent`] where it is not such an event.
    pub async fn accept_member(
        &self,
        origin: &ServerName,
        dance: Dance,
        text: &[u8],
    ) -> Result<Arc<Event>, Error> {
        let pdu = Pdu::parse(self.rules(), text)?;
        self.check_room(&pdu)?;
        self.0.rooms.log.check_writable()?;
        let word = match dance {
            Dance::Join => "join",
            Dance::Leave => "leave",
            Dance::Knock => "knock",
        };
        if !is_own_membership(&pdu, origin, word) {
            return Err(Error::BadEvent(format!(
                "The event is not the {word} of a user of {origin}"
            )));
        }
        let _turn = self.0.receiving.lock().await;
        self.settle().await?;
        if let Some(event) = self.placed(&pdu.event_id)? {
            return match event.is_visible_kind() {
                true => Ok(event),
                false => Err(Error::Forbidden("The room does not allow this".to_owned())),
            };
        }
        let pdu = match dance {
            Dance::Join => self.vouch(pdu)?,
            _ => pdu,
        };
        let verified = self.verify_one(pdu).await?;
        if !self.unknown(verified.pdu.auth_events())?.is_empty()
            || !self.missing_before(&verified.pdu)?.is_empty()
        {
            return Err(Error::BadEvent(
                "The event builds on others than those this server proposed".to_owned(),
            ));
        }
        let id = verified.pdu.event_id.clone();
        let manner = Manner {
            forward: true,
            ..Manner::default()
        };
        match self.take_in(origin, verified, manner).await? {
            Received::Accepted | Received::Known => {}
            Received::SoftFailed => {
                return Err(Error::Forbidden("The room does not allow this now".to_owned()));
            }
            Received::Rejected(why) => return Err(Error::Forbidden(why)),
        }
        self.settle().await?;
        self.event_by_id(&id)?.ok_or(Error::Damaged("event"))
    }

    /// Signs a join into a restricted room that names a user of this server, if the user may vouch for it.
    fn vouch(&self, pdu: Pdu) -> Result<Pdu, Error> {
        let rules = self.rules();
        if !rules.signatures.check_join_authorised_via_users_server {
            return Ok(pdu);
        }
        let content: Value = serde_json::from_slice(pdu.content()).unwrap_or_default();
        let authorizer = content
            .get("join_authorised_via_users_server")
            .and_then(Value::as_str)
            .and_then(|user| OwnedUserId::try_from(user).ok());
        let Some(authorizer) = authorizer.filter(|user| self.0.rooms.is_local(user)) else {
            return Ok(pdu);
        };
        if self.membership(&authorizer)? != Membership::Join {
            return Err(Error::Forbidden(format!("{authorizer} is not in the room")));
        }
        let invited = self.membership(pdu.sender())? == Membership::Invite;
        if !invited && !self.may_join_by_rule(&self.join_rule()?, pdu.sender())? {
            return Err(Error::Forbidden(
                "You are not in a room that lets you join this one".to_owned(),
            ));
        }
        let rooms = &self.0.rooms;
        Ok(pdu.countersign(rules, &rooms.signing_key, &rooms.server_name)?)
    }
}
