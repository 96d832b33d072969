//! The state that authorization reads while an operation is staged: what the operation changed
//! itself, then the head's cache, then storage. Nothing here costs by the room's size.

use std::{collections::HashMap, sync::Arc};

use hearth_events::{
    CreateInfo, JoinRuleInfo, MemberInfo, PowerField, PowerLevels, PowerView, Rules, StateView,
    ThirdPartyInviteInfo,
    notification::{self, Class},
};
use ruma::{OwnedUserId, UserId};

use super::{Staging, Stop};
use crate::{Error, Event, NewEvent, head::EventRef};

/// The parts of the auth state that the operation itself changed.
#[derive(Default)]
pub(super) struct Patch {
    pub(super) create: Option<(EventRef, Arc<CreateInfo>)>,
    pub(super) power: Option<(EventRef, Arc<PowerLevels>)>,
    pub(super) join_rules: Option<(EventRef, JoinRuleInfo)>,
    pub(super) members: HashMap<OwnedUserId, (EventRef, MemberInfo)>,
    pub(super) invites_3pid: HashMap<String, (EventRef, Arc<ThirdPartyInviteInfo>)>,
    /// Types and keys whose event was redacted: to be read again.
    pub(super) forgotten: Vec<(String, String)>,
}

impl Patch {
    /// Parses a state event that the operation adds, where authorization reads its type.
    pub(super) fn learn(&mut self, rules: &Rules, event: &NewEvent, at: EventRef) -> Result<(), Error> {
        let Some(state_key) = event.state_key.as_deref() else {
            return Ok(());
        };
        match (event.kind.as_str(), state_key) {
            ("m.room.create", "") => {
                let info = CreateInfo::parse(rules, &at.id, &event.sender, &event.content)?;
                self.create = Some((at, Arc::new(info)));
            }
            ("m.room.power_levels", "") => {
                self.power = Some((at, Arc::new(PowerLevels::parse(rules, &event.content)?)));
            }
            ("m.room.join_rules", "") => {
                self.join_rules = Some((at, JoinRuleInfo::parse(&event.content)));
            }
            ("m.room.member", user) => {
                if let Ok(user) = OwnedUserId::try_from(user) {
                    self.members
                        .insert(user, (at, MemberInfo::parse(&event.content)?));
                }
            }
            ("m.room.third_party_invite", token) => {
                let info = ThirdPartyInviteInfo::parse(&event.sender, &event.content);
                self.invites_3pid.insert(token.to_owned(), (at, Arc::new(info)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that a state event lost its content.
    pub(super) fn forget(&mut self, kind: &str, state_key: &str) {
        self.forgotten.push((kind.to_owned(), state_key.to_owned()));
    }
}

impl Staging<'_> {
    /// Brings what the authorization of `event` reads into the cache.
    pub(super) fn gather(&mut self, event: &NewEvent) -> Result<(), Stop> {
        self.gather_for(
            &event.sender,
            &event.kind,
            event.state_key.as_deref(),
            &event.content,
        )
    }

    /// Brings what the authorization of such an event reads into the cache.
    pub(super) fn gather_for(
        &mut self,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        content: &[u8],
    ) -> Result<(), Stop> {
        // Only here: what one event needs must not push out what it needs as well.
        self.head.auth.bound();
        self.load_fixed()?;
        self.load_member(&sender.to_owned())?;
        if kind != "m.room.member" {
            return Ok(());
        }
        if let Some(target) = state_key.and_then(|key| OwnedUserId::try_from(key).ok()) {
            self.load_member(&target)?;
        }
        let cited = Cited::of_content(content);
        if let Some(authorizer) = &cited.authorizer {
            self.load_member(authorizer)?;
        }
        if let Some(token) = &cited.token {
            self.load_invite_3pid(token)?;
        }
        Ok(())
    }

    fn load_fixed(&mut self) -> Result<(), Stop> {
        if self.create_entry().is_none()
            && let Some(event) = self.stored_state("m.room.create", "")?
        {
            let info = CreateInfo::parse(
                self.room.0.rules,
                event.id(),
                event.pdu.sender(),
                event.pdu.content(),
            )?;
            self.head.auth.create = Some((reference(&event), Arc::new(info)));
        }
        if self.power_entry().is_none()
            && let Some(event) = self.stored_state("m.room.power_levels", "")?
        {
            let levels = PowerLevels::parse(self.room.0.rules, event.pdu.content())?;
            self.head.auth.power = Some((reference(&event), Arc::new(levels)));
        }
        if self.join_rules_entry().is_none()
            && let Some(event) = self.stored_state("m.room.join_rules", "")?
        {
            let rule = JoinRuleInfo::parse(event.pdu.content());
            self.head.auth.join_rules = Some((reference(&event), rule));
        }
        Ok(())
    }

    fn load_member(&mut self, user: &OwnedUserId) -> Result<(), Stop> {
        if self.patch.members.contains_key(user) || self.head.auth.members.contains_key(user) {
            return Ok(());
        }
        let found = match self.stored_state("m.room.member", user.as_str())? {
            Some(event) => Some((reference(&event), MemberInfo::parse(event.pdu.content())?)),
            None => None,
        };
        self.head.auth.members.insert(user.clone(), found);
        Ok(())
    }

    fn load_invite_3pid(&mut self, token: &str) -> Result<(), Stop> {
        if self.patch.invites_3pid.contains_key(token) || self.head.auth.invites_3pid.contains_key(token) {
            return Ok(());
        }
        let found = self
            .stored_state("m.room.third_party_invite", token)?
            .map(|event| {
                let info = ThirdPartyInviteInfo::parse(event.pdu.sender(), event.pdu.content());
                (reference(&event), Arc::new(info))
            });
        self.head.auth.invites_3pid.insert(token.to_owned(), found);
        Ok(())
    }

    /// A state event from storage; asks to wait where the newest one is not durable yet.
    fn stored_state(&self, kind: &str, state_key: &str) -> Result<Option<Arc<Event>>, Stop> {
        if !self.head.pending.state.is_empty() {
            let key = (kind.to_owned(), state_key.to_owned());
            if let Some((position, _)) = self.head.pending.state.get(&key) {
                return Err(Stop::Wait(*position));
            }
        }
        Ok(self.room.state(kind, state_key)?)
    }

    /// The events that `event` must cite, by the auth-event selection of the specification
    /// (server-server API, "Auth events selection").
    pub(super) fn select_auth_events(&self, event: &NewEvent) -> Result<Vec<EventRef>, Stop> {
        let state_key = event.state_key.as_deref();
        let types = hearth_events::auth_types(
            self.room.0.rules,
            &event.sender,
            &event.kind,
            state_key,
            &event.content,
        );
        let mut out = Vec::with_capacity(types.len());
        for (kind, key) in types {
            out.extend(self.auth_ref(&kind, &key));
        }
        Ok(out)
    }

    fn auth_ref(&self, kind: &str, key: &str) -> Option<EventRef> {
        match kind {
            "m.room.create" => self.create_entry().map(|(event, _)| event.clone()),
            "m.room.power_levels" => self.power_entry().map(|(event, _)| event.clone()),
            "m.room.join_rules" => self.join_rules_entry().map(|(event, _)| event.clone()),
            "m.room.member" => {
                let user = <&UserId>::try_from(key).ok()?;
                self.member_entry(user).map(|(event, _)| event.clone())
            }
            "m.room.third_party_invite" => self.invite_entry(key).map(|(event, _)| event.clone()),
            _ => None,
        }
    }

    fn create_entry(&self) -> Option<&(EventRef, Arc<CreateInfo>)> {
        self.patch.create.as_ref().or(self.head.auth.create.as_ref())
    }

    fn power_entry(&self) -> Option<&(EventRef, Arc<PowerLevels>)> {
        self.patch.power.as_ref().or(self.head.auth.power.as_ref())
    }

    fn join_rules_entry(&self) -> Option<&(EventRef, JoinRuleInfo)> {
        self.patch
            .join_rules
            .as_ref()
            .or(self.head.auth.join_rules.as_ref())
    }

    fn member_entry(&self, user: &UserId) -> Option<&(EventRef, MemberInfo)> {
        self.patch
            .members
            .get(user)
            .or_else(|| self.head.auth.members.get(user)?.as_ref())
    }

    fn invite_entry(&self, token: &str) -> Option<&(EventRef, Arc<ThirdPartyInviteInfo>)> {
        self.patch
            .invites_3pid
            .get(token)
            .or_else(|| self.head.auth.invites_3pid.get(token)?.as_ref())
    }

    /// Whether a user's power suffices to redact the events of others.
    pub(super) fn may_redact(&mut self, user: &UserId) -> Result<bool, Stop> {
        // Nothing has been authorized where history is filled in.
        self.load_fixed()?;
        let Some((_, create)) = self.create_entry() else {
            return Ok(false);
        };
        let view = PowerView::new(create, self.power_entry().map(|(_, levels)| &**levels));
        Ok(view.user(user).reaches(view.field(PowerField::Redact)))
    }

    /// What an event counts for under the default push rules.
    pub(super) fn class(
        &self,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        content: &[u8],
    ) -> Class {
        let may_notify_room = self.create_entry().is_some_and(|(_, create)| {
            let view = PowerView::new(create, self.power_entry().map(|(_, levels)| &**levels));
            view.user(sender).reaches(view.notification("room"))
        });
        notification::class(kind, state_key, content, may_notify_room)
    }

    /// Moves what the operation learned into the head's cache.
    pub(super) fn keep_auth(&mut self) {
        let patch = std::mem::take(&mut self.patch);
        let auth = &mut self.head.auth;
        auth.bound();
        auth.create = patch.create.or(auth.create.take());
        auth.power = patch.power.or(auth.power.take());
        auth.join_rules = patch.join_rules.or(auth.join_rules.take());
        for (user, entry) in patch.members {
            auth.members.insert(user, Some(entry));
        }
        for (token, entry) in patch.invites_3pid {
            auth.invites_3pid.insert(token, Some(entry));
        }
        for (kind, key) in patch.forgotten {
            match kind.as_str() {
                "m.room.power_levels" => auth.power = None,
                "m.room.join_rules" => auth.join_rules = None,
                "m.room.third_party_invite" => drop(auth.invites_3pid.remove(&key)),
                "m.room.member" => {
                    if let Ok(user) = <&UserId>::try_from(key.as_str()) {
                        auth.members.remove(user);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whom and what else a member event cites.
struct Cited {
    authorizer: Option<OwnedUserId>,
    token: Option<String>,
}

impl Cited {
    fn of_content(content: &[u8]) -> Self {
        let content: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
        let text = |pointer: &str| content.pointer(pointer).and_then(serde_json::Value::as_str);
        Self {
            authorizer: text("/join_authorised_via_users_server")
                .and_then(|id| OwnedUserId::try_from(id).ok()),
            token: text("/third_party_invite/signed/token").map(str::to_owned),
        }
    }
}

fn reference(event: &Event) -> EventRef {
    EventRef {
        short: event.short,
        id: event.id().to_owned(),
    }
}

impl StateView for Staging<'_> {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        self.create_entry().map(|(_, info)| info.clone())
    }

    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        self.power_entry().map(|(_, levels)| levels.clone())
    }

    fn join_rule(&self) -> JoinRuleInfo {
        self.join_rules_entry()
            .map(|(_, rule)| rule.clone())
            .unwrap_or_default()
    }

    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        self.member_entry(user).map(|(_, info)| *info)
    }

    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        self.invite_entry(token).map(|(_, content)| content.clone())
    }
}
