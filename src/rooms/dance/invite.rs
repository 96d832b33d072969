//! Inviting a user of another server: that server must sign the invitation before the room sees it.

use std::sync::Arc;

use hearth_core::error::errcode;
use hearth_events::Pdu;
use ruma::UserId;
use serde_json::{Map, Value, json};

use super::to_its_end;
use crate::{
    Error, NewEvent, RemoteFailure, Room, Sent,
    receive::{Manner, Received},
    staging::{Body, Staging, Stop},
};

/// What the other server finds wrong with an invitation or a join that this server made is nothing that the client could
/// do better (server-server API, "Inviting to a room" and "Joining rooms").
pub(super) fn as_ours(failure: RemoteFailure) -> RemoteFailure {
    let why = failure.to_string();
    match failure {
        RemoteFailure::Refused { server, errcode, .. }
            if matches!(&*errcode, errcode::INVALID_PARAM | errcode::MISSING_PARAM) =>
        {
            RemoteFailure::Failed { server, why }
        }
        other => other,
    }
}

impl Room {
    /// Why another server did not take an invitation, in the words of the client-server API.
    fn not_invited(&self, failure: RemoteFailure) -> Error {
        let is_version = |code: &str| code == errcode::INCOMPATIBLE_ROOM_VERSION;
        match &failure {
            RemoteFailure::Refused { errcode, .. } if is_version(errcode) => {
                Error::UnsupportedVersion(self.rules().version.to_string())
            }
            _ => as_ours(failure).into(),
        }
    }

    /// Invites a user of another server. `content` is that of the member event beside the membership.
    pub async fn invite_remote(
        &self,
        sender: &UserId,
        target: &UserId,
        mut content: Map<String, Value>,
    ) -> Result<Sent, Error> {
        content.insert("membership".to_owned(), json!("invite"));
        let event = NewEvent::state(sender, "m.room.member", target.as_str(), &Value::Object(content));
        self.invite_remote_by(target, event).await
    }

    /// Invites a user of another server by a member event that was made for it.
    pub async fn invite_remote_by(&self, target: &UserId, event: NewEvent) -> Result<Sent, Error> {
        self.0.rooms.log.check_writable()?;
        let (room, target) = (self.clone(), target.to_owned());
        to_its_end(async move { room.invite_now(&target, event).await }).await
    }

    async fn invite_now(&self, target: &UserId, event: NewEvent) -> Result<Sent, Error> {
        let pdu = self.recommended(self.draft(event).await?).await?;
        let stripped = self.state_for_invite(&pdu)?;
        let remote = self.0.rooms.remote()?.clone();
        let signed = remote
            .invite(
                target.server_name(),
                &self.rules().version,
                self.id(),
                &pdu.event_id,
                &pdu.json,
                &stripped,
            )
            .await
            .map_err(|failure| self.not_invited(failure))?;
        let signed = Pdu::parse(self.rules(), signed.get().as_bytes())?;
        if signed.event_id != pdu.event_id {
            return Err(Error::BadEvent(
                "the other server changed the invitation".to_owned(),
            ));
        }
        let _turn = self.0.receiving.lock().await;
        let verified = self.verify_one(signed).await?;
        let event_id = pdu.event_id.clone();
        let own = self.0.rooms.server_name.clone();
        match self.take_in(&own, verified, Manner::default()).await? {
            Received::Accepted | Received::Known => {}
            Received::SoftFailed => {
                return Err(Error::Forbidden("The room does not allow this now".to_owned()));
            }
            Received::Rejected(why) => return Err(Error::Forbidden(why)),
        }
        let position = self.0.head.lock().record.position;
        Ok(Sent { event_id, position })
    }

    /// An event of ours on top of the current extremities, allowed by the current state and signed, that the room
    /// does not have yet.
    pub(crate) async fn draft(&self, event: NewEvent) -> Result<Pdu, Error> {
        let prepared = self.prepare(event, None)?;
        loop {
            match self.try_draft(&prepared) {
                Ok(pdu) => return Ok(pdu),
                Err(Stop::Wait(position)) => self.wait_durable(position).await?,
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Resolve(_) | Stop::LayOut(_)) => return Err(Error::Damaged("forward extremities")),
            }
        }
    }

    fn try_draft(&self, prepared: &crate::input::Prepared) -> Result<Pdu, Stop> {
        let rooms = &self.0.rooms;
        let mut head = self.0.head.lock();
        head.prune(rooms.log.published(self.0.shard));
        let mut staging = Staging::new(self, head);
        if let Some(barrier) = staging.barrier() {
            return Err(Stop::Wait(barrier));
        }
        staging.add(prepared)?;
        match staging.into_last() {
            Some(Body::Unsigned(unsigned)) => Ok(unsigned.sign(&rooms.signing_key, &rooms.server_name)),
            Some(Body::Signed(pdu)) => Ok(pdu),
            None => Err(Error::Damaged("draft").into()),
        }
    }

    /// What shows the invited user's server what room it is: whole events, with the member event of who invites, so
    /// that the other side can check them (server-server API, `invite_room_state`).
    fn state_for_invite(&self, invitation: &Pdu) -> Result<Vec<Value>, Error> {
        let mut events = self.preview_state()?;
        events.extend(self.state("m.room.member", invitation.sender().as_str())?);
        let read = |event: &Arc<crate::Event>| {
            serde_json::from_slice(&event.pdu.json).map_err(|_| Error::Damaged("event"))
        };
        events.iter().map(read).collect()
    }
}
