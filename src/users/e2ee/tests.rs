//! Keys of devices and messages to them, on the memory engine.

use std::collections::BTreeMap;

use hearth_events::KeyPair;
use hearth_storage::Position;
use ruma::{DeviceId, device_id};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::tests::World;
use crate::*;

const PHONE: &str = "PHONE";

fn phone() -> &'static DeviceId {
    device_id!("PHONE")
}

async fn log_in(user: &User, device: &str) {
    let login = Login {
        device_id: Some(device.into()),
        ..Login::default()
    };
    user.login(login).await.unwrap();
}

/// Identity keys as a client would upload them, with a signature.
fn identity(user: &User, device: &str) -> Map<String, Value> {
    let pair = KeyPair::from_seed([9; 32], device).unwrap();
    let public = hearth_events::base64_encode(&pair.public_key());
    let keys = json!({
        "user_id": user.id(),
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{device}"): public, format!("curve25519:{device}"): "abc" },
        "signatures": {},
    });
    let Value::Object(mut keys) = keys else {
        unreachable!("it is written as an object")
    };
    let text = hearth_events::signing_bytes(&keys).unwrap();
    let signature = hearth_events::base64_encode(&pair.sign(&text));
    keys["signatures"] = json!({ user.id().as_str(): { format!("ed25519:{device}"): signature } });
    keys
}

fn one_time(names: &[&str]) -> KeyUpload {
    let key = |name: &&str| {
        (
            format!("signed_curve25519:{name}"),
            json!({ "key": format!("key {name}") }),
        )
    };
    KeyUpload {
        one_time_keys: names.iter().map(key).collect(),
        ..KeyUpload::default()
    }
}

fn wanted() -> BTreeMap<String, String> {
    BTreeMap::from([(PHONE.to_owned(), "signed_curve25519".to_owned())])
}

async fn claim(user: &User) -> Option<String> {
    user.claim_keys(&wanted())
        .await
        .unwrap()
        .remove(PHONE)
        .map(|key| key.id)
}

#[tokio::test]
async fn identity_keys_must_be_the_devices_own() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let good = identity(&alice, PHONE);
    let change = |name: &str, value: Value| {
        let mut keys = good.clone();
        keys.insert(name.to_owned(), value);
        keys
    };
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    let mut incomplete = good.clone();
    incomplete.remove("algorithms");
    for (keys, is_taken) in [
        (change("user_id", json!("@bob:example.org")), false),
        (change("device_id", json!("OTHER")), false),
        (change("algorithms", json!(["other"])), false),
        (incomplete, false),
        (unsigned, true),
        (good.clone(), true),
    ] {
        let upload = KeyUpload {
            device_keys: Some(keys.clone()),
            ..KeyUpload::default()
        };
        assert_eq!(
            alice.upload_keys(phone(), upload).await.is_ok(),
            is_taken,
            "{keys:?}"
        );
    }
    let upload = KeyUpload {
        device_keys: Some(good.clone()),
        ..KeyUpload::default()
    };
    let stream = alice.device_list_stream().unwrap();
    alice.upload_keys(phone(), upload).await.unwrap();
    assert_eq!(
        alice.device_list_stream().unwrap(),
        stream,
        "the same keys are no change"
    );
    alice.rename_device(phone(), Some("My phone")).await.unwrap();
    assert_eq!(alice.device_list_stream().unwrap(), stream + 1);
    let shown = alice.device_keys(&[]).unwrap();
    assert_eq!(
        shown[0].keys["unsigned"],
        json!({ "device_display_name": "My phone" })
    );
    assert_eq!(shown[0].keys["signatures"], good["signatures"]);
    assert!(
        alice
            .device_keys(&[device_id!("OTHER").to_owned()])
            .unwrap()
            .is_empty()
    );
}

/// A key that the device signed, in the given way wrong.
fn signed_key(user: &User, device: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let pair = KeyPair::from_seed([9; 32], device).unwrap();
    let mut key = Map::new();
    key.insert("key".to_owned(), json!("abc"));
    let text = hearth_events::signing_bytes(&key).unwrap();
    let signature = hearth_events::base64_encode(&pair.sign(&text));
    key.insert(
        "signatures".to_owned(),
        json!({ user.id().as_str(): { format!("ed25519:{device}"): signature } }),
    );
    change(&mut key);
    Value::Object(key)
}

#[tokio::test]
async fn keys_that_the_device_signed_wrongly_are_refused() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let own = format!("ed25519:{PHONE}");
    let signed = |change: &dyn Fn(&mut Map<String, Value>)| signed_key(&alice, PHONE, |key| change(key));
    let signatures = |value: Value| signed(&|key| _ = key.insert("signatures".to_owned(), value.clone()));
    let me = alice.id().as_str();
    let good = signed(&|_| {});
    let wrong = signed(&|key| _ = key.insert("key".to_owned(), json!("other")));
    let upload = |key: &Value, as_fallback: bool, with_identity: bool| {
        let keys = BTreeMap::from([("signed_curve25519:1".to_owned(), key.clone())]);
        let mut upload = KeyUpload {
            device_keys: with_identity.then(|| identity(&alice, PHONE)),
            ..KeyUpload::default()
        };
        match as_fallback {
            true => upload.fallback_keys = keys,
            false => upload.one_time_keys = keys,
        }
        alice.upload_keys(phone(), upload)
    };
    // While the device's identity keys are not known, nothing can be checked.
    upload(&wrong, true, false).await.unwrap();
    for with_identity in [true, false] {
        for (key, is_taken) in [
            (&wrong, false),
            (
                &signed(&|key| _ = key.insert("fallback".to_owned(), json!(true))),
                false,
            ),
            (&signatures(json!({ me: { &own: "short" } })), false),
            (&signatures(json!({ me: { &own: 7 } })), false),
            // Without a signature of its own it is others' to judge.
            (&signatures(json!({ me: {} })), true),
            (&signatures(json!({ me: { "ed25519:OTHER": "fake" } })), true),
            (
                &signatures(json!({ "@other:example.org": { &own: "fake" } })),
                true,
            ),
            (&signatures(json!([])), true),
            (&json!("unsigned"), true),
            (
                &signed(&|key| _ = key.insert("unsigned".to_owned(), json!({ "any": 1 }))),
                true,
            ),
            (&good, true),
        ] {
            let outcome = upload(key, true, with_identity).await;
            assert_eq!(outcome.is_ok(), is_taken, "{with_identity} {key}: {outcome:?}");
        }
    }
    let refused = upload(&wrong, false, false).await.unwrap_err();
    assert!(
        matches!(&refused, Error::InvalidSignature(why) if why.contains("signed_curve25519:1")),
        "{refused:?}"
    );
    let counts = upload(&good, false, false).await.unwrap();
    assert_eq!(counts.one_time["signed_curve25519"], 1);
}

/// A client that lost its store but not its session uploads other identity keys: nobody may be handed a key that only the
/// lost store could use, and the ids begin again.
#[tokio::test]
async fn a_device_that_is_set_up_anew_has_none_of_its_old_keys() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let with_identity = |keys: Map<String, Value>, upload: KeyUpload| KeyUpload {
        device_keys: Some(keys),
        ..upload
    };
    let first = identity(&alice, PHONE);
    let mut keys = one_time(&["1", "2"]);
    keys.fallback_keys = one_time(&["F"]).one_time_keys;
    let upload = with_identity(first.clone(), keys);
    alice.upload_keys(phone(), upload).await.unwrap();
    let mut named = first.clone();
    named["algorithms"] = json!(["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]);
    named["signatures"] = json!({});
    let upload = with_identity(named, KeyUpload::default());
    let counts = alice.upload_keys(phone(), upload).await.unwrap();
    assert_eq!(counts.one_time["signed_curve25519"], 2, "the keys are the same");

    let mut anew = first;
    anew["keys"][format!("curve25519:{PHONE}")] = json!("another");
    anew["signatures"] = json!({});
    let mut other = one_time(&["1"]);
    for key in other.one_time_keys.values_mut() {
        *key = json!({ "key": "another" });
    }
    let counts = alice
        .upload_keys(phone(), with_identity(anew, other))
        .await
        .unwrap();
    assert_eq!(counts.one_time["signed_curve25519"], 1);
    assert!(counts.unused_fallback.is_empty());
    let claimed = alice.claim_keys(&wanted()).await.unwrap();
    assert_eq!(claimed[PHONE].key, json!({ "key": "another" }));
    assert_eq!(claim(&alice).await, None);
}

#[tokio::test]
async fn one_time_keys_go_out_once_in_upload_order_and_then_the_fallback() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let counts = alice.upload_keys(phone(), KeyUpload::default()).await.unwrap();
    assert_eq!(counts.one_time["signed_curve25519"], 0);
    alice.upload_keys(phone(), one_time(&["9"])).await.unwrap();
    let counts = alice.upload_keys(phone(), one_time(&["1", "9"])).await.unwrap();
    assert_eq!(
        counts.one_time["signed_curve25519"], 2,
        "the same key again counts once"
    );
    let mut other = one_time(&["9"]);
    other
        .one_time_keys
        .values_mut()
        .for_each(|key| *key = json!({ "key": "another" }));
    assert!(matches!(
        alice.upload_keys(phone(), other).await,
        Err(Error::InvalidParam(_))
    ));
    let fallback = KeyUpload {
        fallback_keys: one_time(&["F"]).one_time_keys,
        ..KeyUpload::default()
    };
    let counts = alice.upload_keys(phone(), fallback).await.unwrap();
    assert_eq!(counts.unused_fallback, ["signed_curve25519"]);

    let (one, two) = tokio::join!(claim(&alice), claim(&alice));
    assert_eq!(
        [one.unwrap(), two.unwrap()],
        ["signed_curve25519:9", "signed_curve25519:1"]
    );
    let world = world.restarted(2);
    let alice = world.users.get(crate::tests::alice_id()).unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(claim(&alice).await.unwrap(), "signed_curve25519:F");
    }
    let counts = alice.key_counts(phone()).unwrap();
    assert_eq!(
        (counts.one_time["signed_curve25519"], counts.unused_fallback.len()),
        (0, 0)
    );
    alice.delete_devices(&[phone().to_owned()]).await.unwrap();
    assert_eq!(claim(&alice).await, None);
}

#[tokio::test]
async fn a_key_that_was_handed_out_is_not_handed_out_again() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let names: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for part in names.chunks(100) {
        // The client does not see the answer, and asks again when half of the keys are gone.
        alice.upload_keys(phone(), one_time(part)).await.unwrap();
        for name in &part[..50] {
            assert_eq!(claim(&alice).await, Some(format!("signed_curve25519:{name}")));
        }
        let counts = alice.upload_keys(phone(), one_time(part)).await.unwrap();
        assert_eq!(counts.one_time["signed_curve25519"], 50);
        for name in &part[50..] {
            assert_eq!(claim(&alice).await, Some(format!("signed_curve25519:{name}")));
        }
        let counts = alice.upload_keys(phone(), one_time(part)).await.unwrap();
        assert_eq!(counts.one_time["signed_curve25519"], 0);
    }
    // A device that was set up anew has other keys with the same ids.
    let mut anew = one_time(&names[250..251]);
    for key in anew.one_time_keys.values_mut() {
        *key = json!({ "key": "another" });
    }
    alice.upload_keys(phone(), anew).await.unwrap();
    assert_eq!(claim(&alice).await.as_deref(), Some("signed_curve25519:250"));
    let nothing = BTreeMap::from([(PHONE.to_owned(), String::new())]);
    assert!(alice.claim_keys(&nothing).await.unwrap().is_empty());
    // What is remembered does not grow without end.
    let counts = alice.upload_keys(phone(), one_time(&names[..50])).await.unwrap();
    assert_eq!(counts.one_time["signed_curve25519"], 50);
}

fn content(number: u64) -> Box<RawValue> {
    to_raw_value(&json!({ "n": number })).unwrap()
}

fn numbers(user: &User, device: &str, since: Position) -> Vec<(Position, u64)> {
    let found = user
        .to_device_between(device.into(), since, Position::MAX - 1, 1_000)
        .unwrap();
    let number = |event: &RawValue| {
        let event: Value = serde_json::from_str(event.get()).unwrap();
        event["content"]["n"].as_u64().unwrap()
    };
    found
        .iter()
        .map(|(position, event)| (*position, number(event)))
        .collect()
}

#[tokio::test]
async fn messages_reach_a_device_once_and_stay_until_they_are_acknowledged() {
    let world = World::new();
    let alice = world.alice().await;
    for device in [PHONE, "DESK"] {
        log_in(&alice, device).await;
    }
    let to = |device: &str, number| {
        BTreeMap::from([(
            alice.id().to_owned(),
            BTreeMap::from([(device.to_owned(), content(number))]),
        )])
    };
    for txn in ["a", "a", "b"] {
        alice
            .send_to_device(phone(), "m.test", txn, to("DESK", 1))
            .await
            .unwrap();
    }
    alice
        .send_to_device(phone(), "m.test", "c", to("*", 2))
        .await
        .unwrap();
    alice
        .send_to_device(phone(), "m.test", "d", to("NONE", 3))
        .await
        .unwrap();
    let desk = numbers(&alice, "DESK", 0);
    assert_eq!(
        desk.iter().map(|(_, number)| *number).collect::<Vec<_>>(),
        [1, 1, 2]
    );
    assert_eq!(numbers(&alice, PHONE, 0).len(), 1);

    alice
        .acknowledge_to_device(device_id!("DESK"), desk[0].0)
        .await
        .unwrap();
    let world = world.restarted(2);
    let alice = world.users.get(crate::tests::alice_id()).unwrap().unwrap();
    assert_eq!(numbers(&alice, "DESK", 0), desk[1..]);
    let limited = alice
        .to_device_between(device_id!("DESK"), 0, Position::MAX - 1, 1)
        .unwrap();
    assert_eq!(limited.len(), 1);
    alice
        .delete_devices(&[device_id!("DESK").to_owned()])
        .await
        .unwrap();
    log_in(&alice, "DESK").await;
    assert!(numbers(&alice, "DESK", 0).is_empty());
}

#[tokio::test]
async fn transactions_are_forgotten_after_a_time() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let send = |txn: &'static str| {
        let to = BTreeMap::from([(PHONE.to_owned(), content(1))]);
        let messages = BTreeMap::from([(alice.id().to_owned(), to)]);
        let alice = alice.clone();
        async move {
            alice
                .send_to_device(phone(), "m.test", txn, messages)
                .await
                .unwrap()
        }
    };
    let got = || numbers(&alice, PHONE, 0).len();
    send("old").await;
    world.clock.advance(20 * 24 * 60 * 60 * 1000);
    send("young").await;
    assert_eq!(world.users.forget_old_transactions().await.unwrap(), 0);
    world.clock.advance(11 * 24 * 60 * 60 * 1000);
    assert_eq!(world.users.forget_old_transactions().await.unwrap(), 1);
    send("young").await;
    assert_eq!(got(), 2, "it is still known");
    send("old").await;
    assert_eq!(got(), 3);
}

#[tokio::test]
async fn messages_do_not_wait_for_ever() {
    let world = World::new();
    let alice = world.alice().await;
    for device in [PHONE, "DESK"] {
        log_in(&alice, device).await;
    }
    let send = async |txn: &str, number| {
        let to = BTreeMap::from([("DESK".to_owned(), content(number))]);
        let messages = BTreeMap::from([(alice.id().to_owned(), to)]);
        alice
            .send_to_device(phone(), "m.test", txn, messages)
            .await
            .unwrap();
    };
    let day = 24 * 60 * 60 * 1_000;
    send("a", 1).await;
    world.clock.advance(60 * day);
    send("b", 2).await;
    let found = |user: &User| {
        let found = numbers(user, "DESK", 0);
        found.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
    };
    assert_eq!(found(&alice), [1, 2]);
    world.clock.advance(31 * day);
    send("c", 3).await;
    assert_eq!(found(&alice), [2, 3], "what waits for more than 90 days goes");
}

/// The form of a stored message, and the form that it had before its time was stored.
#[test]
fn stored_messages_are_read_in_both_forms() {
    use crate::e2ee::to_device::{came_at, event_of};
    let json = br#"{"type":"m.test"}"#;
    let old = [&[2], json.as_slice()].concat();
    let new = [&[3], 1_700_000_000_000_u64.to_be_bytes().as_slice(), json].concat();
    for (value, at) in [(&old, 0), (&new, 1_700_000_000_000)] {
        assert_eq!((event_of(value), came_at(value)), (Some(json.as_slice()), at));
    }
    for damaged in [&[][..], &[3, 0, 0], &[9, 1, 2]] {
        assert_eq!((event_of(damaged), came_at(damaged)), (None, 0));
    }
}

/// Content that no value can hold, which requests refuse, stops nothing where it is in the outbox already.
#[tokio::test]
async fn content_that_cannot_be_read_stops_nothing() {
    let world = World::new();
    let alice = world.alice().await;
    log_in(&alice, PHONE).await;
    let bad = RawValue::from_string(r#"{"n":1e999}"#.to_owned()).unwrap();
    for (txn, content) in [("bad", bad), ("good", content(7))] {
        let to = BTreeMap::from([("*".to_owned(), content)]);
        let messages = BTreeMap::from([(alice.id().to_owned(), to)]);
        alice
            .send_to_device(phone(), "m.test", txn, messages)
            .await
            .unwrap();
    }
    let found = alice
        .to_device_between(phone(), 0, Position::MAX - 1, 10)
        .unwrap();
    let readable = found.iter().filter_map(|(_, event)| {
        let event: Value = serde_json::from_str(event.get()).ok()?;
        event["content"]["n"].as_u64()
    });
    assert_eq!(readable.collect::<Vec<_>>(), [7]);
}
