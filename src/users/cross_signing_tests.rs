use std::collections::BTreeMap;

use hearth_events::{KeyPair, sign_json};
use ruma::user_id;
use serde_json::json;

use super::*;
use crate::NewAccount;
use crate::e2ee::KeyUpload;
use crate::tests::World;

const PARTS: [&str; 3] = ["master_key", "self_signing_key", "user_signing_key"];

/// A key of a user whose id is its public key, or of a device.
fn pair(seed: u8, device: Option<&str>) -> (KeyPair, String) {
    let pair = KeyPair::from_seed([seed; 32], device.unwrap_or("x")).unwrap();
    let name = device.map_or_else(|| pair.public_key_base64(), str::to_owned);
    (pair, name)
}

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

fn key(user: &UserId, usage: &str, seed: u8) -> Object {
    let (_, name) = pair(seed, None);
    object(json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{name}"): name } }))
}

/// Signs as a user does: the id of a cross-signing key is longer than that of a server's key may be.
fn sign(object: &mut Object, user: &UserId, seed: u8, device: Option<&str>) {
    let (pair, name) = pair(seed, device);
    let mut copy = object.clone();
    copy.remove("signatures");
    sign_json(&mut copy, user.as_str(), &pair).unwrap();
    let signature = copy["signatures"][user.as_str()][pair.key_id()].clone();
    let all = object.entry("signatures").or_insert_with(|| json!({}));
    if all.get(user.as_str()).is_none() {
        all[user.as_str()] = json!({});
    }
    all[user.as_str()][format!("ed25519:{name}")] = signature;
}

/// Three keys with the seeds `first`, `first + 1` and `first + 2`.
fn bootstrap(user: &UserId, first: u8) -> Object {
    let mut keys = [
        key(user, "master", first),
        key(user, "self_signing", first + 1),
        key(user, "user_signing", first + 2),
    ];
    sign(&mut keys[1], user, first, None);
    sign(&mut keys[2], user, first, None);
    PARTS
        .iter()
        .map(|part| (*part).to_owned())
        .zip(keys.map(Value::Object))
        .collect()
}

async fn device(user: &User, id: &str, seed: u8) -> Object {
    let login = crate::Login {
        device_id: Some(id.into()),
        ..crate::Login::default()
    };
    user.login(login).await.unwrap();
    let (pair, _) = pair(seed, Some(id));
    let mut keys = object(json!({
        "user_id": user.id(), "device_id": id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{id}"): pair.public_key_base64() },
    }));
    sign(&mut keys, user.id(), seed, Some(id));
    let upload = KeyUpload {
        device_keys: Some(keys.clone()),
        ..KeyUpload::default()
    };
    user.upload_keys(id.into(), upload).await.unwrap();
    keys
}

fn unsigned(mut object: Object) -> Object {
    object.remove("signatures");
    object
}

#[tokio::test]
async fn the_first_keys_and_the_same_ones_need_no_confirmation() {
    let world = World::new();
    let alice = world.alice().await;
    let before = alice.device_list_stream().unwrap();
    let first = bootstrap(alice.id(), 1);
    let master_only: Object = [("master_key".to_owned(), first["master_key"].clone())]
        .into_iter()
        .collect();
    assert_eq!(
        alice
            .upload_cross_signing_keys(&master_only, false)
            .await
            .unwrap(),
        CrossSigningUpload::Done
    );
    assert_eq!(
        alice
            .upload_cross_signing_keys(&master_only, false)
            .await
            .unwrap(),
        CrossSigningUpload::Done
    );
    assert_eq!(
        alice.device_list_stream().unwrap(),
        before + 1,
        "the same keys again are no change"
    );
    let more = alice.upload_cross_signing_keys(&first, false).await.unwrap();
    assert_eq!(
        more,
        CrossSigningUpload::NeedsConfirmation,
        "further keys are new ones"
    );
    assert!(alice.cross_signing_keys().unwrap().self_signing.is_none());
    alice.upload_cross_signing_keys(&first, true).await.unwrap();
    assert_eq!(
        alice.upload_cross_signing_keys(&first, false).await.unwrap(),
        CrossSigningUpload::Done
    );
    let keys = alice.cross_signing_keys().unwrap();
    assert_eq!(
        keys.user_signing.map(Value::Object),
        Some(first["user_signing_key"].clone())
    );

    let second = bootstrap(alice.id(), 11);
    let answer = alice.upload_cross_signing_keys(&second, false).await.unwrap();
    assert_eq!(answer, CrossSigningUpload::NeedsConfirmation);
    let master_only: Object = [("master_key".to_owned(), second["master_key"].clone())]
        .into_iter()
        .collect();
    alice.upload_cross_signing_keys(&master_only, true).await.unwrap();
    let keys = alice.cross_signing_keys().unwrap();
    assert_eq!(keys.master.map(Value::Object), Some(second["master_key"].clone()));
    assert!(
        keys.self_signing.is_none(),
        "the old master key's signature is worth nothing now"
    );
}

#[tokio::test]
async fn others_hear_nothing_of_a_user_signing_key() {
    let world = World::new();
    let alice = world.alice().await;
    let keys = bootstrap(alice.id(), 1);
    let part = |name: &str| -> Object { [(name.to_owned(), keys[name].clone())].into_iter().collect() };
    let mut before = alice.device_list_stream().unwrap();
    for (name, told) in [
        ("master_key", 1),
        ("user_signing_key", 0),
        ("self_signing_key", 1),
    ] {
        let outcome = alice.upload_cross_signing_keys(&part(name), true).await;
        assert_eq!(outcome.unwrap(), CrossSigningUpload::Done);
        let now = alice.device_list_stream().unwrap();
        assert_eq!(now - before, told, "{name}");
        before = now;
    }
    assert!(alice.cross_signing_keys().unwrap().user_signing.is_some());
}

#[tokio::test]
async fn no_device_is_called_as_a_cross_signing_key() {
    let world = World::new();
    let alice = world.alice().await;
    let keys = bootstrap(alice.id(), 1);
    alice.upload_cross_signing_keys(&keys, false).await.unwrap();
    for seed in 1..=3 {
        let (_, name) = pair(seed, None);
        let login = crate::Login {
            device_id: Some(name.as_str().into()),
            ..crate::Login::default()
        };
        assert!(matches!(alice.login(login).await, Err(Error::Forbidden(_))));
        let made = alice
            .put_device(<&ruma::DeviceId>::from(name.as_str()), None)
            .await;
        assert!(matches!(made, Err(Error::Forbidden(_))));
    }
}

#[tokio::test]
async fn wrong_uploads_are_refused() {
    let world = World::new();
    let alice = world.alice().await;
    let good = bootstrap(alice.id(), 1);
    let (_, name) = pair(1, None);
    let login = crate::Login {
        device_id: Some(name.as_str().into()),
        ..crate::Login::default()
    };
    type Change = fn(&mut Object);
    let cases: [(&str, Change); 9] = [
        ("InvalidSignature", |body| {
            body["self_signing_key"]["more"] = 1.into()
        }),
        ("InvalidSignature", |body| {
            body["user_signing_key"]["signatures"] = json!({})
        }),
        ("InvalidParam", |body| {
            body["master_key"]["user_id"] = "@bob:example.org".into()
        }),
        ("InvalidParam", |body| {
            body["master_key"]["usage"] = json!(["self_signing"])
        }),
        ("InvalidParam", |body| body["master_key"]["keys"] = json!({})),
        ("InvalidParam", |body| {
            body["master_key"]["keys"] = json!({ "ed25519:x": "y" })
        }),
        ("InvalidParam", |body| body["master_key"] = 1.into()),
        ("MissingParam", |body| drop(body.remove("master_key"))),
        ("MissingParam", |body| body.clear()),
    ];
    for (expected, change) in cases {
        let mut body = good.clone();
        change(&mut body);
        let error = alice.upload_cross_signing_keys(&body, true).await.unwrap_err();
        assert!(
            format!("{error:?}").starts_with(expected),
            "{error:?}, expected {expected}"
        );
    }
    assert_eq!(alice.cross_signing_keys().unwrap(), CrossSigningKeys::default());
    alice.login(login).await.unwrap();
    let outcome = alice.upload_cross_signing_keys(&good, true).await;
    assert!(matches!(outcome, Err(Error::Forbidden(_))), "the id of a device");
}

#[tokio::test]
async fn signatures_are_checked_and_shown_to_whom_they_are_for() {
    let world = World::new();
    let alice = world.alice().await;
    let bob = user_id!("@bob:example.org");
    let bob = world.users.create(bob, NewAccount::default()).await.unwrap();
    let keys = device(&alice, "PHONE", 7).await;
    alice
        .upload_cross_signing_keys(&bootstrap(alice.id(), 1), false)
        .await
        .unwrap();
    bob.upload_cross_signing_keys(&bootstrap(bob.id(), 11), false)
        .await
        .unwrap();
    let (_, master) = pair(1, None);
    let (_, bobs_master) = pair(11, None);

    let mut signed_device = keys.clone();
    sign(&mut signed_device, alice.id(), 2, None);
    let mut signed_master = key(alice.id(), "master", 1);
    sign(&mut signed_master, alice.id(), 7, Some("PHONE"));
    let mut signed_bob = key(bob.id(), "master", 11);
    sign(&mut signed_bob, alice.id(), 3, None);
    let [signed_device, signed_master, signed_bob] =
        [signed_device, signed_master, signed_bob].map(Value::Object);
    let before = alice.device_list_stream().unwrap();
    let good = [
        (alice.id(), "PHONE", &signed_device),
        (alice.id(), master.as_str(), &signed_master),
        (bob.id(), bobs_master.as_str(), &signed_bob),
    ];
    assert!(
        alice
            .upload_signatures(&good, &BTreeMap::new())
            .await
            .unwrap()
            .is_empty()
    );
    // One change of the device, one of the keys.
    assert_eq!(alice.device_list_stream().unwrap(), before + 2);
    assert!(
        alice
            .upload_signatures(&good, &BTreeMap::new())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        alice.device_list_stream().unwrap(),
        before + 2,
        "the same again is no change"
    );

    let mut shown = keys.clone();
    alice.add_signatures_on(alice.id(), "PHONE", &mut shown).unwrap();
    assert_eq!(Value::Object(shown), signed_device);
    assert_eq!(
        alice.cross_signing_keys().unwrap().master.map(Value::Object),
        Some(signed_master.clone())
    );
    let seen = bob.cross_signing_keys_for(Some(&alice)).unwrap();
    assert_eq!(seen.master.map(Value::Object), Some(signed_bob.clone()));
    assert!(seen.user_signing.is_none() && seen.self_signing.is_some());
    assert_eq!(
        bob.cross_signing_keys_for(None).unwrap().master,
        Some(key(bob.id(), "master", 11))
    );
    assert_eq!(
        bob.cross_signing_keys().unwrap().master,
        Some(key(bob.id(), "master", 11))
    );
    assert!(
        bob.cross_signing_keys_for(Some(&bob))
            .unwrap()
            .user_signing
            .is_some()
    );

    let signed: Vec<_> = alice
        .signed_between(0, alice.position())
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(signed, [bob.id()]);
    assert!(
        alice
            .signed_between(alice.position(), u64::MAX)
            .unwrap()
            .is_empty()
    );

    // New keys of Alice end what the old ones have said.
    alice
        .upload_cross_signing_keys(&bootstrap(alice.id(), 21), true)
        .await
        .unwrap();
    let seen = bob.cross_signing_keys_for(Some(&alice)).unwrap();
    assert_eq!(seen.master, Some(key(bob.id(), "master", 11)));
    assert!(
        alice
            .signatures_on(alice.id(), "PHONE", &keys)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_deactivated_account_leaves_no_keys() {
    let world = World::new();
    let alice = world.alice().await;
    alice
        .upload_cross_signing_keys(&bootstrap(alice.id(), 1), false)
        .await
        .unwrap();
    let auth_data = serde_json::value::to_raw_value(&json!({})).unwrap();
    let version = alice.create_backup("m.v1", &auth_data).await.unwrap();
    alice.deactivate(false).await.unwrap();
    assert_eq!(alice.cross_signing_keys().unwrap(), CrossSigningKeys::default());
    assert!(matches!(alice.backup(Some(&version)), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn wrong_signatures_fail_each_for_itself() {
    let world = World::new();
    let alice = world.alice().await;
    let bob = user_id!("@bob:example.org");
    let bob = world.users.create(bob, NewAccount::default()).await.unwrap();
    let keys = device(&alice, "PHONE", 7).await;
    alice
        .upload_cross_signing_keys(&bootstrap(alice.id(), 1), false)
        .await
        .unwrap();
    bob.upload_cross_signing_keys(&bootstrap(bob.id(), 11), false)
        .await
        .unwrap();
    let (_, bobs_master) = pair(11, None);
    let (_, bobs_self_signing) = pair(12, None);
    let own_key = format!("ed25519:{}", pair(2, None).1);

    let mut forged = keys.clone();
    sign(&mut forged, alice.id(), 2, None);
    forged["signatures"][alice.id().as_str()][&own_key] =
        keys["signatures"][alice.id().as_str()]["ed25519:PHONE"].clone();
    let mut other_text = keys.clone();
    other_text["algorithms"] = json!([]);
    sign(&mut other_text, alice.id(), 2, None);
    let mut by_master = unsigned(keys.clone());
    sign(&mut by_master, alice.id(), 1, None);
    let mut by_self_signing = key(bob.id(), "master", 11);
    sign(&mut by_self_signing, alice.id(), 2, None);
    let mut not_master = key(bob.id(), "self_signing", 12);
    sign(&mut not_master, alice.id(), 3, None);
    let cases = [
        (alice.id(), "PHONE", Value::Object(forged), "InvalidSignature"),
        (alice.id(), "PHONE", Value::Object(other_text), "InvalidSignature"),
        (alice.id(), "PHONE", Value::Object(by_master), "InvalidSignature"),
        (
            alice.id(),
            "PHONE",
            Value::Object(unsigned(keys.clone())),
            "InvalidSignature",
        ),
        (alice.id(), "TABLET", Value::Object(keys.clone()), "NotFound"),
        (alice.id(), "PHONE", json!(1), "InvalidParam"),
        (
            bob.id(),
            &bobs_master,
            Value::Object(by_self_signing),
            "InvalidSignature",
        ),
        (
            bob.id(),
            &bobs_self_signing,
            Value::Object(not_master),
            "NotFound",
        ),
        (
            user_id!("@carol:elsewhere.org"),
            "x",
            Value::Object(keys.clone()),
            "NotFound",
        ),
    ];
    let uploaded: Vec<_> = cases
        .iter()
        .map(|(owner, id, value, _)| (*owner, *id, value))
        .collect();
    let failures = alice
        .upload_signatures(&uploaded, &BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(failures.len(), cases.len());
    for ((owner, id, error), (.., expected)) in failures.iter().zip(&cases) {
        assert!(
            format!("{error:?}").starts_with(expected),
            "{owner} {id}: {error:?}, expected {expected}"
        );
    }
    assert!(
        alice
            .signatures_on(alice.id(), "PHONE", &keys)
            .unwrap()
            .is_empty()
    );
}
