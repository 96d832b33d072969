//! Coming, going, and being asked: the membership actions of the client-server API. What the
//! authorization rules say is left to them; here stands what the API asks beyond.

use hearth_events::{AllowRule, JoinRule, JoinRuleInfo, PowerField, PowerLevels, PowerView};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use crate::{Error, Membership, NewEvent, Room, Sent};

impl Room {
    /// Joins a user of this server. `content` is the member event's content beside the membership
    /// (profile, reason, third-party signature). Who is joined already stays so, with no event.
    pub async fn join(&self, user: &UserId, mut content: Map<String, Value>) -> Result<Option<Sent>, Error> {
        let membership = self.membership(user)?;
        if membership == Membership::Join {
            return Ok(None);
        }
        content.insert("membership".to_owned(), json!("join"));
        if let Some(authorizer) = self.restricted_authorizer(user, membership)? {
            content.insert("join_authorised_via_users_server".to_owned(), json!(authorizer));
        }
        self.send_member(user, user, content).await.map(Some)
    }

    /// The local user who vouches for a join by a room's `restricted` rule, where one is needed.
    fn restricted_authorizer(
        &self,
        user: &UserId,
        membership: Membership,
    ) -> Result<Option<OwnedUserId>, Error> {
        let Some(rule) = self.restricted_rule()? else {
            return Ok(None);
        };
        if membership == Membership::Invite {
            return Ok(None);
        }
        if !self.may_join_by_rule(&rule, user)? {
            return Err(Error::Forbidden(
                "You are not invited to this room, and not in a room that lets you join it".to_owned(),
            ));
        }
        match self.find_authorizer()? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::UnableToAuthorizeJoin(
                "No user of this server in the room has the power to let you in".to_owned(),
            )),
        }
    }

    /// The room's join rule, where it lets members of other rooms in.
    pub fn restricted_rule(&self) -> Result<Option<JoinRuleInfo>, Error> {
        let rule = self.join_rule()?;
        let restricted = match rule.rule {
            JoinRule::Restricted => self.rules().authorization.restricted_join_rule,
            JoinRule::KnockRestricted => self.rules().authorization.knock_restricted_join_rule,
            _ => false,
        };
        Ok(restricted.then_some(rule))
    }

    /// A joined user of this server with the power to invite.
    pub(crate) fn find_authorizer(&self) -> Result<Option<OwnedUserId>, Error> {
        self.find_local_member(|view| view.field(PowerField::Invite))
    }

    /// A joined user of this server whose power reaches what is needed. The room may have thousands of members here of whom
    /// one has it, so those who are named with theirs are asked for first.
    pub(crate) fn find_local_member(
        &self,
        needed: impl Fn(&PowerView<'_>) -> i64,
    ) -> Result<Option<OwnedUserId>, Error> {
        let create = self.create_info();
        let power = self.power_levels()?;
        let view = PowerView::new(&create, power.as_ref());
        let needed = needed(&view);
        for user in view.named().filter(|user| self.0.rooms.is_local(user)) {
            if view.user(user).reaches(needed) && self.membership(user)? == Membership::Join {
                return Ok(Some(user.to_owned()));
            }
        }
        let mut found = None;
        if view.of_others().reaches(needed) {
            self.visit_local_members(&mut |member| {
                if view.user(member).reaches(needed) {
                    found = Some(member.to_owned());
                }
                found.is_none()
            })?;
        }
        Ok(found)
    }

    /// Whether a user is in one of the rooms that a restricted rule names. Rooms that this server has left do not count:
    /// what it remembers of them may be long untrue.
    pub(crate) fn may_join_by_rule(&self, rule: &JoinRuleInfo, user: &UserId) -> Result<bool, Error> {
        for allow in &rule.allow {
            let AllowRule::RoomMembership(room_id) = allow else {
                continue;
            };
            if let Some(room) = self.0.rooms.get(room_id)?
                && room.is_resident()
                && room.membership(user)? == Membership::Join
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a user may join because of another room that the user is in.
    pub fn may_join_as_member(&self, user: &UserId) -> Result<bool, Error> {
        match self.restricted_rule()? {
            Some(rule) => self.may_join_by_rule(&rule, user),
            None => Ok(false),
        }
    }

    /// The room's current join rule.
    pub fn join_rule(&self) -> Result<JoinRuleInfo, Error> {
        let event = self.state("m.room.join_rules", "")?;
        Ok(event
            .map(|event| JoinRuleInfo::parse(event.pdu.content()))
            .unwrap_or_default())
    }

    /// The room's current power levels, where it has the event.
    pub fn power_levels(&self) -> Result<Option<PowerLevels>, Error> {
        match self.state("m.room.power_levels", "")? {
            Some(event) => Ok(Some(PowerLevels::parse(self.rules(), event.pdu.content())?)),
            None => Ok(None),
        }
    }

    /// Visits the joined members of this server; stop by returning false.
    pub fn visit_local_members(&self, visit: &mut dyn FnMut(&UserId) -> bool) -> Result<(), Error> {
        let (start, end) = crate::keys::range(crate::keys::index(
            self.0.key,
            crate::keys::INDEX_LOCAL_MEMBER,
            &[],
        ));
        self.reader().scan(
            hearth_storage::Family::RoomIndex,
            &start,
            &end,
            false,
            &mut |key, _| {
                let user = std::str::from_utf8(&key[start.len()..]).ok();
                user.and_then(|user| <&UserId>::try_from(user).ok())
                    .is_none_or(&mut *visit)
            },
        )?;
        Ok(())
    }

    /// Leaves the room, declines an invitation or takes a knock back.
    pub async fn leave(&self, user: &UserId, reason: Option<&str>) -> Result<Option<Sent>, Error> {
        match self.membership(user)? {
            Membership::None => Err(Error::NotFound("You are not in this room".to_owned())),
            Membership::Leave => Ok(None),
            Membership::Ban => Err(Error::Forbidden("You are banned from this room".to_owned())),
            _ => self
                .send_member(user, user, content("leave", reason))
                .await
                .map(Some),
        }
    }

    /// Invites a user. `profile` is what the member event says of the invited user.
    pub async fn invite(
        &self,
        sender: &UserId,
        target: &UserId,
        mut profile: Map<String, Value>,
        reason: Option<&str>,
    ) -> Result<Sent, Error> {
        if self.membership(target)? == Membership::Join {
            return Err(Error::Forbidden(format!("{target} is already in the room")));
        }
        profile.extend(content("invite", reason));
        if !self.0.rooms.is_local(target) {
            return self.invite_remote(sender, target, profile).await;
        }
        self.send_member(sender, target, profile).await
    }

    /// Removes a user from the room, or takes back an invitation.
    pub async fn kick(&self, sender: &UserId, target: &UserId, reason: Option<&str>) -> Result<Sent, Error> {
        if matches!(
            self.membership(target)?,
            Membership::None | Membership::Leave | Membership::Ban
        ) {
            return Err(Error::Forbidden(format!("{target} is not in the room")));
        }
        self.send_member(sender, target, content("leave", reason)).await
    }

    /// Bans a user.
    pub async fn ban(&self, sender: &UserId, target: &UserId, reason: Option<&str>) -> Result<Sent, Error> {
        self.send_member(sender, target, content("ban", reason)).await
    }

    /// Lifts a ban.
    pub async fn unban(&self, sender: &UserId, target: &UserId, reason: Option<&str>) -> Result<Sent, Error> {
        if self.membership(target)? != Membership::Ban {
            return Err(Error::BadState(format!("{target} is not banned from the room")));
        }
        self.send_member(sender, target, content("leave", reason)).await
    }

    /// Asks to be let in. `profile` is what the member event says of the user.
    pub async fn knock(
        &self,
        user: &UserId,
        mut profile: Map<String, Value>,
        reason: Option<&str>,
    ) -> Result<Option<Sent>, Error> {
        match self.membership(user)? {
            Membership::Knock => return Ok(None),
            Membership::Join => return Err(Error::Forbidden("You are already in this room".to_owned())),
            Membership::Invite => return Err(Error::Forbidden("You are invited to this room".to_owned())),
            Membership::Ban => return Err(Error::Forbidden("You are banned from this room".to_owned())),
            Membership::None | Membership::Leave => {}
        }
        profile.extend(content("knock", reason));
        self.send_member(user, user, profile).await.map(Some)
    }

    /// Puts a changed profile into the user's member event.
    pub async fn update_profile(&self, user: &UserId, profile: &Map<String, Value>) -> Result<(), Error> {
        let Some(event) = self.state("m.room.member", user.as_str())? else {
            return Ok(());
        };
        let mut now: Map<String, Value> =
            serde_json::from_slice(event.pdu.content()).map_err(|_| Error::Damaged("member event"))?;
        if now.get("membership").and_then(Value::as_str) != Some("join") {
            return Ok(());
        }
        let before = now.clone();
        for field in ["displayname", "avatar_url"] {
            match profile.get(field) {
                Some(value) => now.insert(field.to_owned(), value.clone()),
                None => now.remove(field),
            };
        }
        now.remove("join_authorised_via_users_server");
        now.remove("reason");
        if now == before {
            return Ok(());
        }
        self.send_member(user, user, now).await?;
        Ok(())
    }

    async fn send_member(
        &self,
        sender: &UserId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<Sent, Error> {
        let event = NewEvent::state(sender, "m.room.member", target.as_str(), &Value::Object(content));
        self.send(event, None).await
    }
}

fn content(membership: &str, reason: Option<&str>) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!(membership));
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    content
}
