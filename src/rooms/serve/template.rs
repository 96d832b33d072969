//! Templates of member events for users of other servers (server-server API, `make_join`, `make_leave`,
//! `make_knock`).

use std::sync::Arc;

use hearth_events::{
    AllowRule, AuthInput, CreateInfo, JoinRuleInfo, MemberInfo, PowerLevels, StateView, ThirdPartyInviteInfo,
    limits::PREV_EVENTS_MAX,
};
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};

use crate::{Dance, Error, Event, Made, Membership, Room, event::Short};

/// How many rooms of a restricted join rule are looked into.
const ALLOWED_ROOMS_MAX: usize = 100;

impl Room {
    /// The member event that the user's server may complete, sign and send back. `versions` are the room versions that
    /// it knows; leaving asks for none. The event was authorized by the current state; what is decided when it comes
    /// back is decided anew.
    pub async fn make_member(
        &self,
        dance: Dance,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Made, Error> {
        if !self.is_resident() {
            return Err(Error::NotFound(format!("room {} is not known here", self.id())));
        }
        let version = self.rules().version.clone();
        if dance != Dance::Leave && !versions.contains(&version) {
            return Err(Error::IncompatibleVersion(version.to_string()));
        }
        let mut content = Map::new();
        content.insert("membership".to_owned(), json!(word(dance)));
        if dance == Dance::Join
            && let Some(authorizer) = self.remote_authorizer(user)?
        {
            content.insert("join_authorised_via_users_server".to_owned(), json!(authorizer));
        }
        // What was decided and is not durable yet must not leave this process: not as a previous event either.
        let (tips, depth, position) = self.newest();
        self.wait_durable(position).await?;
        let content_text =
            hearth_events::canonical::to_bytes(&Value::Object(content.clone()), self.rules().strict_json())?;
        let prev: Vec<OwnedEventId> = tips.iter().map(|(_, id)| id.clone()).collect();
        let input = AuthInput {
            event_id: None,
            room_id: Some(self.id()),
            sender: user,
            kind: "m.room.member",
            state_key: Some(user.as_str()),
            content: &content_text,
            prev_events: &prev,
            redacts: None,
        };
        hearth_events::authorize(self.rules(), &input, &Current::of(self)?)
            .map_err(|denied| Error::Forbidden(denied.to_string()))?;
        let mut auth = Vec::new();
        for (kind, key) in hearth_events::auth_types(
            self.rules(),
            user,
            "m.room.member",
            Some(user.as_str()),
            &content_text,
        ) {
            auth.extend(self.state(&kind, &key)?);
        }
        let mut previous = Vec::with_capacity(tips.len());
        for (short, id) in &tips {
            previous.push((id.clone(), self.event(*short)?));
        }
        let auth = auth.iter().map(|event| self.reference(event.id(), Some(event)));
        let prev = previous.iter();
        let prev = prev.map(|(id, event)| self.reference(id, event.as_ref()));
        let event = json!({
            "auth_events": auth.collect::<Vec<_>>(),
            "content": content,
            "depth": depth,
            "origin": self.0.rooms.server_name,
            "origin_server_ts": self.0.rooms.clock.now_ms(),
            "prev_events": prev.collect::<Vec<_>>(),
            "room_id": self.id(),
            "sender": user,
            "state_key": user,
            "type": "m.room.member",
        });
        let Value::Object(event) = event else {
            return Err(Error::Damaged("template"));
        };
        Ok(Made { version, event })
    }

    /// Who of this server vouches for the join of a user of another server by the room's `restricted` rule; none where
    /// nobody needs to. What is asked when a template is made is to be asked again when the join comes.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] where the user is in none of the rooms; [`Error::UnableToAuthorizeJoin`] where this server
    /// cannot know; [`Error::UnableToGrantJoin`] where nobody here has the power.
    pub fn remote_authorizer(&self, user: &UserId) -> Result<Option<OwnedUserId>, Error> {
        let membership = self.membership(user)?;
        if matches!(
            membership,
            Membership::Join | Membership::Invite | Membership::Ban
        ) {
            return Ok(None);
        }
        let Some(rule) = self.restricted_rule()? else {
            return Ok(None);
        };
        if !self.fulfils(&rule, user)? {
            return Err(Error::Forbidden(
                "You are not invited to this room, and not in a room that lets you join it".to_owned(),
            ));
        }
        match self.find_authorizer()? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::UnableToGrantJoin(
                "No user of this server in the room has the power to let you in; ask another server of the room"
                    .to_owned(),
            )),
        }
    }

    /// Whether a user is in one of the rooms that a restricted rule names, as far as this server can know.
    fn fulfils(&self, rule: &JoinRuleInfo, user: &UserId) -> Result<bool, Error> {
        let mut knows_all = true;
        for allow in rule.allow.iter().take(ALLOWED_ROOMS_MAX) {
            let AllowRule::RoomMembership(room_id) = allow else {
                continue;
            };
            match self.0.rooms.get(room_id)?.filter(Room::is_resident) {
                Some(room) if room.membership(user)? == Membership::Join => return Ok(true),
                Some(_) => {}
                None => knows_all = false,
            }
        }
        if knows_all {
            return Ok(false);
        }
        Err(Error::UnableToAuthorizeJoin(
            "This server is not in all of the rooms whose members may join".to_owned(),
        ))
    }

    /// The forward extremities that a new event cites, the depth of that event, and the position at which all of them
    /// are durable.
    fn newest(&self) -> (Vec<(Short, OwnedEventId)>, u64, u64) {
        let head = self.0.head.lock();
        let mut tips: Vec<_> = head.record.tips.iter().collect();
        tips.sort_by_key(|tip| std::cmp::Reverse(tip.depth));
        tips.truncate(PREV_EVENTS_MAX);
        let deepest = tips.first().map_or(0, |tip| tip.depth);
        let tips = tips
            .into_iter()
            .map(|tip| (tip.event.short, tip.event.id.clone()))
            .collect();
        (tips, self.rules().depth_after(deepest), head.record.position)
    }

    /// A reference to an event as the room version writes it.
    fn reference(&self, id: &ruma::EventId, event: Option<&Arc<Event>>) -> Value {
        if !self.rules().paired_references() {
            return json!(id);
        }
        let mut hashes = Map::new();
        if let Some(event) = event {
            let hash = event.pdu.reference_hash(self.rules());
            hashes.insert("sha256".to_owned(), json!(hearth_events::base64_encode(&hash)));
        }
        json!([id, hashes])
    }
}

fn word(dance: Dance) -> &'static str {
    match dance {
        Dance::Join => "join",
        Dance::Leave => "leave",
        Dance::Knock => "knock",
    }
}

/// The published state, as authorization reads it. What cannot be read counts as missing, which only refuses more.
struct Current<'a> {
    room: &'a Room,
    create: Arc<CreateInfo>,
    power: Option<Arc<PowerLevels>>,
    rule: JoinRuleInfo,
}

impl<'a> Current<'a> {
    fn of(room: &'a Room) -> Result<Self, Error> {
        Ok(Self {
            room,
            create: room.create_info(),
            power: room.power_levels()?.map(Arc::new),
            rule: room.join_rule()?,
        })
    }

    fn event(&self, kind: &str, key: &str) -> Option<Arc<Event>> {
        self.room.state(kind, key).unwrap_or_else(|error| {
            tracing::error!(%error, room = %self.room.id(), "a state event cannot be read");
            None
        })
    }
}

impl StateView for Current<'_> {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        Some(self.create.clone())
    }

    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        self.power.clone()
    }

    fn join_rule(&self) -> JoinRuleInfo {
        self.rule.clone()
    }

    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        let event = self.event("m.room.member", user.as_str())?;
        MemberInfo::parse(event.pdu.content()).ok()
    }

    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        let event = self.event("m.room.third_party_invite", token)?;
        let info = ThirdPartyInviteInfo::parse(event.pdu.sender(), event.pdu.content());
        Some(Arc::new(info))
    }
}
