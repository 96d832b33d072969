use std::collections::BTreeMap;

use proptest::prelude::*;
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue, redact as ruma_redact};
use ruma::signatures::{Verified, verify_event};
use ruma::state_res::check_pdu_format;
use ruma::{EventId, OwnedEventId, RoomId, ServerName};
use serde_json::{Value, json};

use super::{Choices, KINDS, USERS, config, content, user};
use crate::*;

proptest! {
    #![proptest_config(config(2))]

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
    let content = canonical::to_bytes(
        &content(c, kind, rules, state_key.unwrap_or("")),
        rules.strict_json(),
    )
    .unwrap();
    let ids: Vec<OwnedEventId> = (0..c.pick(4))
        .map(|i| EventId::parse(format!("$e{i}:one")).unwrap())
        .collect();
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
    let unsigned = build_with_references(
        rules,
        &draft,
        rules.explicit_event_ids().then_some("random"),
        &|_| Some([9; 32]),
    )
    .unwrap();
    unsigned.sign(
        &KeyPair::from_seed([1; 32], "a_1").unwrap(),
        draft.sender.server_name(),
    )
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
            proptest::collection::btree_map("[a-c\"\\\\\u{1}ü𐀀]{0,3}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
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
    prop_assert!(!verify_content_hash(
        &Pdu::parse(rules, changed.to_string().as_bytes()).unwrap()
    ));
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
            prop_assert!(
                ruma::signatures::required_server_signatures_to_verify_event(theirs, &rules.signatures)
                    .is_err()
            );
            return Ok(());
        }
    };
    for server in &servers {
        signed = signed.countersign(rules, &key, server).unwrap();
    }
    let keys: BTreeMap<String, BTreeMap<String, _>> = ["one", "two", "three"]
        .map(|server| {
            (
                server.to_owned(),
                [(
                    "ed25519:a_1".to_owned(),
                    ruma::serde::Base64::new(public.to_vec()),
                )]
                .into(),
            )
        })
        .into();
    match verify_event(&keys, &object(&signed.json), rules) {
        Ok(verified) => prop_assert_eq!(verified, Verified::All),
        // Ruma wants a membership in every member event here; authorization refuses such an event anyway.
        Err(error) => prop_assert!(pdu.kind() == "m.room.member", "{error}"),
    }
    verify_event_signatures(rules, &signed, &|_, id| (id == "ed25519:a_1").then_some(public)).unwrap();
    prop_assert_eq!(&signed.event_id, &pdu.event_id);
    if !servers.is_empty() {
        verify_event_signatures(rules, &signed, &|_, _| None).unwrap_err();
        verify_event_signatures(rules, &signed, &|_, _| {
            Some(KeyPair::from_seed([2; 32], "x").unwrap().public_key())
        })
        .unwrap_err();
    }
    let sender_server: &ServerName = pdu.sender().server_name();
    prop_assert_eq!(signature_keys(pdu, sender_server), ["ed25519:a_1"]);
    verify_signature(rules, pdu, sender_server, "ed25519:a_1", &public).unwrap();
    Ok(())
}
