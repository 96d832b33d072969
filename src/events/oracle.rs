//! Property tests against Ruma's implementation: canonical JSON, hashes, ids, signatures, redaction, authorization.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue, redact as ruma_redact};
use ruma::events::{StateEventType, TimelineEventType};
use ruma::signatures::{Verified, verify_event};
use ruma::state_res::{Event, auth_types_for_event, check_pdu_format, check_state_dependent_auth_rules, check_state_independent_auth_rules};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId, uint};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::*;

/// Decisions drawn from bytes, so that proptest can shrink them; all zeros once the bytes are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn pick(&mut self, of: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % of
    }

    fn from<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())].clone()
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: usize) -> bool {
        self.pick(of) == of - 1
    }
}

const USERS: [&str; 5] = ["@a:one", "@b:one", "@c:two", "@d:two", "@e:three"];
const KINDS: [&str; 13] = [
    "m.room.message", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.create", "m.room.redaction", "m.room.aliases",
    "m.room.third_party_invite", "m.room.history_visibility", "m.room.name", "m.room.server_acl", "m.reaction", "org.example.\"odd\"",
];

fn user(c: &mut Choices<'_>) -> OwnedUserId {
    UserId::parse(c.from(&USERS)).unwrap()
}

fn level(c: &mut Choices<'_>) -> Value {
    match c.pick(16) {
        14 => json!("50"),
        15 => c.from(&[json!(" +100 "), json!("x"), json!(null), json!([])]),
        n => json!([0, 50, 100, 1, 49, 51, 99, 101, -1, 10, 25, 75, 0, 50][n]),
    }
}

fn power_levels(c: &mut Choices<'_>) -> Value {
    let mut content = json!({});
    for field in PowerField::ALL {
        if c.once_in(2) {
            content[field.name()] = level(c);
        }
    }
    for (name, keys) in [("users", &USERS[..]), ("events", &KINDS[..]), ("notifications", &["room", "other"][..])] {
        if c.once_in(4) {
            continue;
        }
        content[name] = json!({});
        for key in keys {
            if c.once_in(3) {
                content[name][*key] = level(c);
            }
        }
        if c.once_in(40) {
            content[name] = c.from(&[json!([]), json!({"nobody": 1}), json!(null)]);
        }
    }
    content
}

fn identity_key() -> KeyPair {
    KeyPair::from_seed([7; 32], "0").unwrap()
}

fn signed_invite(c: &mut Choices<'_>, target: &str) -> Value {
    let mut signed = json!({"mxid": target, "token": "token"});
    if c.once_in(6) {
        signed["token"] = json!("other");
    }
    if c.once_in(6) {
        signed["mxid"] = json!("@b:one");
    }
    sign_json(signed.as_object_mut().unwrap(), "identity", &identity_key()).unwrap();
    if c.once_in(6) {
        signed["more"] = json!(1);
    }
    if c.once_in(10) {
        signed.as_object_mut().unwrap().remove("mxid");
    }
    json!({"display_name": "x", "signed": signed})
}

fn member(c: &mut Choices<'_>, target: &str) -> Value {
    let mut content = json!({"membership": c.from(&["join", "invite", "leave", "ban", "knock", "join", "leave", "other"]), "displayname": "ü\n"});
    if c.once_in(4) {
        content["join_authorised_via_users_server"] = json!(c.from(&USERS));
    }
    if c.once_in(30) {
        content["join_authorised_via_users_server"] = c.from(&[json!(null), json!("nobody")]);
    }
    if c.once_in(5) {
        content["third_party_invite"] = signed_invite(c, target);
    }
    if c.once_in(40) {
        content["membership"] = json!(5);
    }
    content
}

fn content(c: &mut Choices<'_>, kind: &str, rules: &Rules, state_key: &str) -> Value {
    match kind {
        "m.room.member" => member(c, state_key),
        "m.room.power_levels" => power_levels(c),
        "m.room.join_rules" => json!({"join_rule": c.from(&["public", "invite"]), "allow": [], "x": 1}),
        "m.room.create" => {
            let mut content = json!({"creator": USERS[0], "room_version": rules.version.as_str(), "m.federate": !c.once_in(4)});
            if c.once_in(4) {
                content["additional_creators"] = c.from(&[json!([USERS[1]]), json!(["x"]), json!([]), json!(5)]);
            }
            if c.once_in(8) {
                content.as_object_mut().unwrap().remove("creator");
            }
            content
        }
        "m.room.redaction" => json!({"reason": "r", "redacts": "$inner:one"}),
        "m.room.aliases" => json!({"aliases": ["#a:one"]}),
        "m.room.history_visibility" => json!({"history_visibility": "shared", "x": {"y": []}}),
        "m.room.third_party_invite" => {
            json!({"public_key": identity_key().public_key_base64(), "public_keys": [{"public_key": identity_key().public_key_base64()}]})
        }
        _ => json!({"body": "te\"xt\u{1}日", "b": [1, {"z": null, "a": true}], "n": 9_007_199_254_740_991_i64, "a": -5}),
    }
}

/// An event with random parts, made by our builder.
fn made(c: &mut Choices<'_>, rules: &Rules) -> Pdu {
    let kind = c.from(&KINDS);
    let state_key = match c.pick(4) {
        0 => None,
        1 => Some(""),
        2 => Some(c.from(&USERS)),
        _ => Some("k\"\u{1f}"),
    };
    let content = canonical::to_bytes(&content(c, kind, rules, state_key.unwrap_or("")), rules.strict_json()).unwrap();
    let ids: Vec<OwnedEventId> = (0..c.pick(4)).map(|i| EventId::parse(format!("$e{i}:one")).unwrap()).collect();
    let room_id = RoomId::parse("!r:one").unwrap();
    let redacts = EventId::parse("$redacted:two").unwrap();
    let nameless = kind == "m.room.create" && rules.room_id_is_create_hash();
    let draft = Draft {
        room_id: (!nameless).then_some(&*room_id),
        sender: &user(c),
        kind,
        state_key,
        content: &content,
        origin_server_ts: 1_700_000_000_000,
        depth: c.pick(100) as u64,
        prev_events: &ids,
        auth_events: &ids[..ids.len() / 2],
        redacts: c.once_in(3).then_some(&*redacts),
    };
    let unsigned = build_with_references(rules, &draft, rules.explicit_event_ids().then_some("random"), &|_| Some([9; 32])).unwrap();
    unsigned.sign(&KeyPair::from_seed([1; 32], "a_1").unwrap(), draft.sender.server_name())
}

fn object(json: &[u8]) -> CanonicalJsonObject {
    serde_json::from_slice(json).unwrap()
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-(1_i64 << 53) - 1..=(1_i64 << 53) + 1).prop_map(|n| json!(n)),
        any::<i32>().prop_map(|n| json!(n)),
        any::<String>().prop_map(Value::String),
        "[a-c\"\\\\\u{1}]{0,3}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map("[a-c\"\\\\\u{1}ü𐀀]{0,3}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Failing cases are kept beside the test: the default place is the folder above, where Cargo looks for crates.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let seeds = proptest::test_runner::FileFailurePersistence::WithSource("seeds");
    ProptestConfig { cases, failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn canonical_json_agrees(value in json_value()) {
        let expected = CanonicalJsonValue::try_from(value.clone()).map(|value| value.to_string()).ok();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        prop_assert_eq!(canonical::to_bytes(&value, true).ok().map(text), expected.clone());
        for written in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            prop_assert_eq!(canonical::canonicalize(&written, true).ok().map(|bytes| text(bytes.into_owned())), expected.clone());
        }
        if let Ok(lax) = canonical::to_bytes(&value, false) {
            prop_assert_eq!(serde_json::from_slice::<Value>(&lax).unwrap(), value);
            prop_assert!(canonical::is_canonical(&lax, false));
        }
    }

    #[test]
    fn reading_json_agrees_with_serde(text in proptest::collection::vec(proptest::sample::select(&b"{}[]\",:\\u0019 -.eEtrufalsn\n"[..]), 0..24)) {
        let theirs = serde_json::from_slice::<Value>(&text);
        let ours = canonical::canonicalize(&text, false);
        // A number beyond every float is JSON, but not for either of us.
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?}, {:?}", String::from_utf8_lossy(&text), ours, theirs);
    }

    #[test]
    fn events_agree(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for rules in Rules::all() {
            let pdu = made(&mut Choices(&bytes), rules);
            let theirs = object(&pdu.json);
            prop_assert_eq!(serde_json::to_vec(&theirs).unwrap(), &pdu.json[..], "the builder writes canonical JSON");
            let content_hash = ruma::signatures::content_hash(&theirs).unwrap();
            prop_assert_eq!(pdu::content_hash(&pdu.json), content_hash.into_inner());
            let reference = ruma::signatures::reference_hash(&theirs, rules).unwrap();
            prop_assert_eq!(rules.encode_reference_hash(&pdu.reference_hash(rules)), reference.clone());
            if !rules.explicit_event_ids() {
                prop_assert_eq!(pdu.event_id.as_str(), format!("${reference}"));
            }
            check_pdu_format(&theirs, &rules.event_format).unwrap();
            check_reading(rules, &pdu)?;
            check_signatures(rules, &pdu, &theirs)?;
            let redacted = redact(rules, &pdu).unwrap();
            let expected = ruma_redact(theirs, &rules.redaction, None).unwrap();
            prop_assert_eq!(&redacted.json[..], &serde_json::to_vec(&expected).unwrap()[..]);
            prop_assert_eq!(redacted.reference_hash(rules), pdu.reference_hash(rules));
        }
    }

    #[test]
    fn authorization_agrees(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for rules in Rules::all() {
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

fn check_reading(rules: &Rules, pdu: &Pdu) -> Result<(), TestCaseError> {
    let mut received: Value = serde_json::from_slice(&pdu.json).unwrap();
    received["unsigned"] = json!({"age": 5});
    let read = Pdu::parse(rules, &serde_json::to_vec_pretty(&received).unwrap()).unwrap();
    prop_assert_eq!(&read.json, &pdu.json);
    prop_assert_eq!(&read.event_id, &pdu.event_id);
    prop_assert_eq!(read.layout, pdu.layout);
    prop_assert_eq!(format!("{:?}", read.fields), format!("{:?}", pdu.fields));
    prop_assert!(verify_content_hash(pdu));
    let mut changed = received.clone();
    changed["org.example.more"] = json!(1);
    prop_assert!(!verify_content_hash(&Pdu::parse(rules, changed.to_string().as_bytes()).unwrap()));
    Ok(())
}

fn check_signatures(rules: &Rules, pdu: &Pdu, theirs: &CanonicalJsonObject) -> Result<(), TestCaseError> {
    let key = KeyPair::from_seed([1; 32], "a_1").unwrap();
    let public = key.public_key();
    // Whoever must sign and has not yet does so now.
    let mut signed = pdu.clone();
    let servers = match required_servers(rules, pdu) {
        Ok(servers) => servers,
        Err(_) => {
            prop_assert!(ruma::signatures::required_server_signatures_to_verify_event(theirs, &rules.signatures).is_err());
            return Ok(());
        }
    };
    for server in &servers {
        signed = signed.countersign(rules, &key, server).unwrap();
    }
    let keys: BTreeMap<String, BTreeMap<String, _>> =
        ["one", "two", "three"].map(|server| (server.to_owned(), [("ed25519:a_1".to_owned(), ruma::serde::Base64::new(public.to_vec()))].into())).into();
    match verify_event(&keys, &object(&signed.json), rules) {
        Ok(verified) => prop_assert_eq!(verified, Verified::All),
        // Ruma wants a membership in every member event here; authorization refuses such an event anyway.
        Err(error) => prop_assert!(pdu.kind() == "m.room.member", "{error}"),
    }
    verify_event_signatures(rules, &signed, &|_, id| (id == "ed25519:a_1").then_some(public)).unwrap();
    prop_assert_eq!(&signed.event_id, &pdu.event_id);
    if !servers.is_empty() {
        verify_event_signatures(rules, &signed, &|_, _| None).unwrap_err();
        verify_event_signatures(rules, &signed, &|_, _| Some(KeyPair::from_seed([2; 32], "x").unwrap().public_key())).unwrap_err();
    }
    let sender_server: &ServerName = pdu.sender().server_name();
    prop_assert_eq!(signature_keys(pdu, sender_server), ["ed25519:a_1"]);
    verify_signature(rules, pdu, sender_server, "ed25519:a_1", &public).unwrap();
    Ok(())
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
            kind: match &self.kind {
                // Ruma reads this type without giving it back as one `&str`.
                kind => KINDS.iter().find(|known| **known == kind.to_string()).unwrap(),
            },
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
        let mut room = TestRoom { room_id, state: BTreeMap::new() };
        let mut create = json!({"creator": USERS[0], "m.federate": !c.once_in(5)});
        if c.once_in(2) {
            create["additional_creators"] = json!([USERS[2]]);
        }
        room.put("m.room.create", "", USERS[0], create);
        if named_by_hash {
            let create = room.state.get_mut(&("m.room.create".to_owned(), String::new())).unwrap();
            create.id = EventId::parse("$create").unwrap();
            create.room_id = None;
        }
        let rule = c.from(&["public", "invite", "knock", "restricted", "knock_restricted", "private", "odd"]);
        room.put("m.room.join_rules", "", USERS[0], json!({"join_rule": rule}));
        for user in USERS {
            let membership = c.from(&[Some("join"), Some("join"), None, Some("invite"), Some("leave"), Some("ban"), Some("knock")]);
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
            id: EventId::parse(format!("${}-{}:one", kind.replace('.', "_"), key.replace([':', '@'], "_"))).unwrap(),
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
        let sender = user(c);
        let mut state_key = (!c.once_in(8)).then(|| c.from(&["", USERS[0], USERS[1], USERS[2], USERS[3], USERS[4], "one", "two", "x"]));
        if kind == "m.room.member" && c.once_in(2) {
            state_key = Some(sender.as_str());
        }
        let mut content = content(c, kind, rules, state_key.unwrap_or(""));
        if kind == "m.room.power_levels" && c.once_in(2) {
            content = self.changed_power_levels(c);
        }
        let create_id = self.state[&("m.room.create".to_owned(), String::new())].id.clone();
        let other = EventId::parse("$other:one").unwrap();
        let prev_events = c.from(&[vec![other.clone()], vec![create_id.clone()], vec![create_id, other], vec![]]);
        let with_room_id = if kind == "m.room.create" && rules.room_id_is_create_hash() { c.once_in(4) } else { !(kind == "m.room.create" && c.once_in(8)) };
        TestEvent {
            id: EventId::parse(c.from(&["$event:one", "$event:two"])).unwrap(),
            room_id: with_room_id.then(|| self.room_id.clone()),
            kind: kind.into(),
            state_key: state_key.map(ToOwned::to_owned),
            content: RawValue::from_string(String::from_utf8(canonical::to_bytes(&content, false).unwrap()).unwrap()).unwrap(),
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
        let mut content: Value = current.map_or(json!({}), |event| serde_json::from_str(event.content.get()).unwrap());
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
            create: get("m.room.create").map(|event| Arc::new(CreateInfo::parse(rules, &event.id, &event.sender, &content(event)).unwrap())),
            levels: get("m.room.power_levels").map(|event| Arc::new(PowerLevels::parse(rules, &content(event)).unwrap())),
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
        let event = self.room.state.get(&("m.room.join_rules".to_owned(), String::new()));
        event.map(|event| JoinRuleInfo::parse(event.content.get().as_bytes())).unwrap_or_default()
    }
    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        let event = self.room.state.get(&("m.room.member".to_owned(), user.to_string()))?;
        Some(MemberInfo::parse(event.content.get().as_bytes()).unwrap())
    }
    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        let event = self.room.state.get(&("m.room.third_party_invite".to_owned(), token.to_owned()))?;
        Some(Arc::new(ThirdPartyInviteInfo::parse(&event.sender, event.content.get().as_bytes())))
    }
}

fn check_auth_event_list(c: &mut Choices<'_>, rules: &Rules, room: &TestRoom, mut event: TestEvent) -> Result<(), TestCaseError> {
    let input = event.input();
    let ours = auth_types(rules, input.sender, input.kind, input.state_key, input.content);
    match auth_types_for_event(&event.kind, &event.sender, event.state_key.as_deref(), &event.content, &rules.authorization) {
        Ok(types) => {
            let mut types: Vec<_> = types.into_iter().map(|(kind, key): (StateEventType, String)| (kind.to_string(), key)).collect();
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
    let mut listed: Vec<TestEvent> = room.state.iter().filter(|(key, _)| ours.contains(key) || c.once_in(30)).map(|(_, event)| event.clone()).collect();
    if c.once_in(6) && !listed.is_empty() {
        let index = c.pick(listed.len());
        match c.pick(5) {
            0 => listed[index].rejected = true,
            1 => listed[index].room_id = Some(RoomId::parse("!other:one").unwrap()),
            2 => listed[index].state_key = None,
            3 => { listed.remove(index); }
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
        listed.iter().find(|event| event.id == id).or((create.id == id).then_some(create))
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
    prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "version {}: {:?}, {:?} for {:?} with {:#?}", rules.version, ours, theirs, event, listed);
    Ok(())
}
