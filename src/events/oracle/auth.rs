use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ruma::events::{StateEventType, TimelineEventType};
use ruma::state_res::{
    Event, auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, uint,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Choices, KINDS, USERS, config, content, identity_key, level, power_levels, user};
use crate::*;

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn authorization_agrees(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Ruma does not know the versions of proposals.
        for rules in Rules::all().iter().filter(|rules| rules.stable) {
            let mut c = Choices(&bytes);
            let room = TestRoom::random(&mut c, rules);
            let event = room.random_event(&mut c, rules);
            let theirs = if event.kind == TimelineEventType::RoomCreate {
                check_state_independent_auth_rules(&rules.authorization, &event, |_: &EventId| None::<&TestEvent>)
            } else {
                check_state_dependent_auth_rules(&rules.authorization, &event, |kind, key| room.state.get(&(kind.to_string(), key.to_owned())))
            };
            let ours = authorize(rules, &event.input(), &room.view(rules));
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "version {}: {:?}, {:?} for {:?} in {:#?}", rules.version, ours, theirs, event, room.state);
            if let Err(denied) = ours {
                prop_assert!(denied.0.ends_with('.'), "{}", denied.0);
            }
        }
    }

    #[test]
    fn authorization_events_agree(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for rules in Rules::all() {
            let mut c = Choices(&bytes);
            let room = TestRoom::random(&mut c, rules);
            let event = room.random_event(&mut c, rules);
            if event.kind == TimelineEventType::RoomCreate {
                continue;
            }
            check_auth_event_list(&mut c, rules, &room, event)?;
        }
    }
}

/// An event in the form that Ruma's functions ask.
#[derive(Clone, Debug)]
struct TestEvent {
    id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    kind: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
    rejected: bool,
}

impl TestEvent {
    fn input(&self) -> AuthInput<'_> {
        AuthInput {
            event_id: Some(&self.id),
            room_id: self.room_id.as_deref(),
            sender: &self.sender,
            // Ruma reads this type without giving it back as one `&str`.
            kind: KINDS
                .iter()
                .find(|known| **known == self.kind.to_string())
                .unwrap(),
            state_key: self.state_key.as_deref(),
            content: self.content.get().as_bytes(),
            prev_events: &self.prev_events,
            redacts: self.redacts.as_deref(),
        }
    }
}

impl Event for TestEvent {
    type Id = OwnedEventId;
    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }
    fn sender(&self) -> &UserId {
        &self.sender
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(uint!(0))
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}

struct TestRoom {
    room_id: OwnedRoomId,
    state: BTreeMap<(String, String), TestEvent>,
}

impl TestRoom {
    fn random(c: &mut Choices<'_>, rules: &Rules) -> TestRoom {
        let named_by_hash = rules.room_id_is_create_hash();
        let room_id = RoomId::parse(if named_by_hash { "!create" } else { "!r:one" }).unwrap();
        let mut room = TestRoom {
            room_id,
            state: BTreeMap::new(),
        };
        let mut create = json!({"creator": USERS[0], "m.federate": !c.once_in(8)});
        if c.once_in(2) {
            create["additional_creators"] = json!([USERS[2]]);
        }
        room.put("m.room.create", "", USERS[0], create);
        if named_by_hash {
            let create = room
                .state
                .get_mut(&("m.room.create".to_owned(), String::new()))
                .unwrap();
            create.id = EventId::parse("$create").unwrap();
            create.room_id = None;
        }
        let rule = c.from(&[
            "public",
            "invite",
            "knock",
            "restricted",
            "knock_restricted",
            "private",
            "odd",
        ]);
        room.put("m.room.join_rules", "", USERS[0], json!({"join_rule": rule}));
        for user in USERS {
            let membership = match c.pick(14) {
                0..8 => Some("join"),
                rest => [
                    None,
                    Some("invite"),
                    Some("invite"),
                    Some("leave"),
                    Some("ban"),
                    Some("knock"),
                ][rest - 8],
            };
            if let Some(membership) = membership {
                room.put("m.room.member", user, user, json!({"membership": membership}));
            }
        }
        if !c.once_in(4) {
            let levels = power_levels(c);
            // Only events that can be read become part of the state.
            if PowerLevels::parse(rules, levels.to_string().as_bytes()).is_ok() {
                room.put("m.room.power_levels", "", USERS[0], levels);
            }
        }
        if c.once_in(2) {
            let content = json!({"public_key": identity_key().public_key_base64()});
            room.put("m.room.third_party_invite", "token", c.from(&USERS), content);
        }
        room
    }

    fn put(&mut self, kind: &str, key: &str, sender: &str, content: Value) {
        let event = TestEvent {
            id: EventId::parse(format!(
                "${}-{}:one",
                kind.replace('.', "_"),
                key.replace([':', '@'], "_")
            ))
            .unwrap(),
            room_id: Some(self.room_id.clone()),
            sender: UserId::parse(sender).unwrap(),
            kind: kind.into(),
            state_key: Some(key.to_owned()),
            content: RawValue::from_string(content.to_string()).unwrap(),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            redacts: None,
            rejected: false,
        };
        self.state.insert((kind.to_owned(), key.to_owned()), event);
    }

    fn random_event(&self, c: &mut Choices<'_>, rules: &Rules) -> TestEvent {
        let kind = c.from(&["m.room.member", "m.room.power_levels", "m.room.member", KINDS[0]]);
        let kind = if c.once_in(2) { c.from(&KINDS) } else { kind };
        let sender = if c.once_in(2) {
            user(c)
        } else {
            UserId::parse(USERS[0]).unwrap()
        };
        let state_key = match c.pick(16) {
            0 => None,
            1 => Some(c.from(&["", "one", "two", "x", USERS[0], USERS[3]])),
            _ if kind == "m.room.member" => Some(if c.once_in(3) {
                sender.as_str()
            } else {
                c.from(&USERS)
            }),
            _ if kind == "m.room.aliases" => Some(c.from(&["one", "two"])),
            _ => c.from(&[Some(""), None]),
        };
        let mut content = content(c, kind, rules, state_key.unwrap_or(""));
        if kind == "m.room.power_levels" && c.once_in(2) {
            content = self.changed_power_levels(c);
        }
        let create_id = self.state[&("m.room.create".to_owned(), String::new())]
            .id
            .clone();
        let other = EventId::parse("$other:one").unwrap();
        let prev_events = c.from(&[
            vec![other.clone()],
            vec![create_id.clone()],
            vec![create_id, other],
            vec![],
        ]);
        let with_room_id = if kind == "m.room.create" && rules.room_id_is_create_hash() {
            c.once_in(4)
        } else {
            !(kind == "m.room.create" && c.once_in(8))
        };
        TestEvent {
            id: EventId::parse(c.from(&["$event:one", "$event:two"])).unwrap(),
            room_id: with_room_id.then(|| self.room_id.clone()),
            kind: kind.into(),
            state_key: state_key.map(ToOwned::to_owned),
            content: RawValue::from_string(
                String::from_utf8(canonical::to_bytes(&content, false).unwrap()).unwrap(),
            )
            .unwrap(),
            prev_events,
            auth_events: Vec::new(),
            redacts: (c.once_in(2)).then(|| EventId::parse(c.from(&["$r:one", "$r:two", "$r"])).unwrap()),
            rejected: false,
            sender,
        }
    }

    /// The present power levels with one thing altered, which is what most such events are.
    fn changed_power_levels(&self, c: &mut Choices<'_>) -> Value {
        let current = self.state.get(&("m.room.power_levels".to_owned(), String::new()));
        let mut content: Value = current.map_or(json!({}), |event| {
            serde_json::from_str(event.content.get()).unwrap()
        });
        let new = level(c);
        match c.pick(4) {
            0 => content["users"][c.from(&USERS)] = new,
            1 => content[c.from(&PowerField::ALL).name()] = new,
            2 => content["notifications"]["room"] = new,
            _ => content["events"][c.from(&KINDS)] = new,
        }
        content
    }

    fn view(&self, rules: &Rules) -> TestView<'_> {
        let get = |kind: &str| self.state.get(&(kind.to_owned(), String::new()));
        let content = |event: &TestEvent| event.content.get().as_bytes().to_vec();
        TestView {
            create: get("m.room.create").map(|event| {
                Arc::new(CreateInfo::parse(rules, &event.id, &event.sender, &content(event)).unwrap())
            }),
            levels: get("m.room.power_levels")
                .map(|event| Arc::new(PowerLevels::parse(rules, &content(event)).unwrap())),
            room: self,
        }
    }
}

struct TestView<'a> {
    create: Option<Arc<CreateInfo>>,
    levels: Option<Arc<PowerLevels>>,
    room: &'a TestRoom,
}

impl StateView for TestView<'_> {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        self.create.clone()
    }
    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        self.levels.clone()
    }
    fn join_rule(&self) -> JoinRuleInfo {
        let event = self
            .room
            .state
            .get(&("m.room.join_rules".to_owned(), String::new()));
        event
            .map(|event| JoinRuleInfo::parse(event.content.get().as_bytes()))
            .unwrap_or_default()
    }
    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        let event = self
            .room
            .state
            .get(&("m.room.member".to_owned(), user.to_string()))?;
        Some(MemberInfo::parse(event.content.get().as_bytes()).unwrap())
    }
    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        let event = self
            .room
            .state
            .get(&("m.room.third_party_invite".to_owned(), token.to_owned()))?;
        Some(Arc::new(ThirdPartyInviteInfo::parse(
            &event.sender,
            event.content.get().as_bytes(),
        )))
    }
}

fn check_auth_event_list(
    c: &mut Choices<'_>,
    rules: &Rules,
    room: &TestRoom,
    mut event: TestEvent,
) -> Result<(), TestCaseError> {
    let input = event.input();
    let ours = auth_types(rules, input.sender, input.kind, input.state_key, input.content);
    match auth_types_for_event(
        &event.kind,
        &event.sender,
        event.state_key.as_deref(),
        &event.content,
        &rules.authorization,
    ) {
        Ok(types) => {
            let mut types: Vec<_> = types
                .into_iter()
                .map(|(kind, key): (StateEventType, String)| (kind.to_string(), key))
                .collect();
            let mut sorted = ours.clone();
            types.sort();
            sorted.sort();
            prop_assert_eq!(sorted, types);
        }
        // Such a member event is refused by the rules for its content.
        Err(_) => {
            let refused = authorize(rules, &event.input(), &room.view(rules)).is_err();
            prop_assert!(refused || event.kind == TimelineEventType::RoomMember);
            return Ok(());
        }
    }
    let mut listed: Vec<TestEvent> = room
        .state
        .iter()
        .filter(|(key, _)| ours.contains(key) || c.once_in(30))
        .map(|(_, event)| event.clone())
        .collect();
    if c.once_in(6) && !listed.is_empty() {
        let index = c.pick(listed.len());
        match c.pick(5) {
            0 => listed[index].rejected = true,
            1 => listed[index].room_id = Some(RoomId::parse("!other:one").unwrap()),
            2 => listed[index].state_key = None,
            3 => {
                listed.remove(index);
            }
            _ => {
                let mut twin = listed[index].clone();
                twin.id = EventId::parse("$twin:one").unwrap();
                listed.push(twin);
            }
        }
    }
    event.auth_events = listed.iter().map(|event| event.id.clone()).collect();
    let create = &room.state[&("m.room.create".to_owned(), String::new())];
    let theirs = check_state_independent_auth_rules(&rules.authorization, &event, |id: &EventId| {
        listed
            .iter()
            .find(|event| event.id == id)
            .or((create.id == id).then_some(create))
    });
    let kinds: Vec<String> = listed.iter().map(|event| event.kind.to_string()).collect();
    let none = RoomId::parse("!none").unwrap();
    let auth_events: Vec<AuthEvent<'_>> = listed
        .iter()
        .zip(&kinds)
        .map(|(event, kind)| AuthEvent {
            event_id: &event.id,
            room_id: event.room_id.as_deref().unwrap_or(&none),
            kind,
            state_key: event.state_key.as_deref(),
            rejected: event.rejected,
        })
        .collect();
    let ours = check_auth_events(rules, &event.input(), &room.room_id, &auth_events);
    prop_assert_eq!(
        ours.is_ok(),
        theirs.is_ok(),
        "version {}: {:?}, {:?} for {:?} with {:#?}",
        rules.version,
        ours,
        theirs,
        event,
        listed
    );
    Ok(())
}
