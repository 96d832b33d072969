use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::test_world::{DAY_MS, NOW_MS, Peer, World};

fn name(text: &str) -> OwnedServerName {
    text.try_into().unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn key(seed: u8, version: &str) -> KeyPair {
    KeyPair::from_seed([seed; 32], version).unwrap()
}

#[test]
fn documents_that_are_refused() {
    let peer = Peer {
        name: "a.example".to_owned(),
        key: key(1, "1"),
    };
    let good = peer.document(NOW_MS);
    assert!(Document::check(good.clone(), &name("a.example")).is_ok());
    assert!(Document::check(good.clone(), &name("b.example")).is_err());
    let check = |change: &dyn Fn(&mut Map<String, Value>), sign: bool, valid: bool| {
        let mut document = good.clone();
        change(&mut document);
        if sign {
            document.remove("signatures");
            document = peer.signed(document);
        }
        let checked = Document::check(document, &name("a.example"));
        assert_eq!(checked.is_ok(), valid, "{checked:?}");
    };
    check(
        &|document| drop(document.insert("more".to_owned(), json!(1))),
        false,
        false,
    );
    check(
        &|document| drop(document.insert("more".to_owned(), json!(1))),
        true,
        true,
    );
    for missing in ["server_name", "verify_keys", "valid_until_ts"] {
        check(&|document| drop(document.remove(missing)), true, false);
    }
    check(&|document| drop(document.remove("signatures")), false, false);
    check(&|document| drop(document.remove("old_verify_keys")), true, true);
    check(
        &|document| drop(document.insert("valid_until_ts".to_owned(), json!("1"))),
        true,
        false,
    );
    check(
        &|document| document["verify_keys"]["ed25519:1"]["key"] = json!("AAAA"),
        true,
        false,
    );
    check(
        &|document| document["old_verify_keys"]["ed25519:0"] = json!("AAAA"),
        true,
        true,
    );
    check(
        &|document| document["verify_keys"]["rsa:1"] = json!({"key": "AAAA"}),
        true,
        true,
    );
    let many = |document: &mut Map<String, Value>| {
        for number in 0..200 {
            document["verify_keys"][format!("ed25519:{number}")] = json!({"key": "AAAA"});
        }
    };
    check(&many, true, false);
}

#[test]
fn a_key_that_did_not_sign_is_not_taken() {
    let peer = Peer {
        name: "a.example".to_owned(),
        key: key(1, "1"),
    };
    let mut document = peer.document(NOW_MS);
    document["verify_keys"]["ed25519:stolen"] = json!({"key": key(2, "stolen").public_key_base64()});
    document.remove("signatures");
    let checked = Document::check(peer.signed(document), &name("a.example")).unwrap();
    assert!(checked.verify.contains_key("ed25519:1") && !checked.mentions("ed25519:stolen"));
}

#[test]
fn when_keys_were_valid() {
    let old = Peer {
        name: "a.example".to_owned(),
        key: key(1, "1"),
    };
    let new = Peer {
        name: "a.example".to_owned(),
        key: key(2, "2"),
    };
    let read = |document| Document::check(document, &name("a.example")).unwrap();
    let mut known = Known::default();
    // It says that it is valid for a hundred days; seven count.
    known.add(read(old.document(NOW_MS + 100 * DAY_MS)), NOW_MS, true);
    let valid = |known: &Known, id: &str, at_ms: u64| known.key(id, at_ms).is_some();
    assert!(valid(&known, "ed25519:1", NOW_MS + VALIDITY_MAX_MS));
    assert!(!valid(&known, "ed25519:1", NOW_MS + VALIDITY_MAX_MS + 1));
    assert!(valid(&known, "ed25519:1", 0), "when does not count");
    assert!(!valid(&known, "ed25519:2", 0));
    // The server changes its key, and says when the old one ended.
    let ended_ms = NOW_MS + DAY_MS;
    let olds = json!({"ed25519:1": {"key": old.key.public_key_base64(), "expired_ts": ended_ms}});
    let next = read(new.document_with(NOW_MS + 3 * DAY_MS, olds));
    known.add(next, NOW_MS + 2 * DAY_MS, true);
    assert!(valid(&known, "ed25519:1", ended_ms) && !valid(&known, "ed25519:1", ended_ms + 1));
    assert!(valid(&known, "ed25519:2", NOW_MS + 3 * DAY_MS));
    assert!(!valid(&known, "ed25519:2", NOW_MS + 3 * DAY_MS + 1));
    assert_eq!(known.documents(None).len(), 1, "the old document adds nothing");
    // A notary cannot bring back what is over.
    known.add(
        read(old.document(NOW_MS + 2 * DAY_MS)),
        NOW_MS + 2 * DAY_MS,
        false,
    );
    assert!(!valid(&known, "ed25519:1", ended_ms + 1));
}

#[test]
fn few_documents_are_kept() {
    let mut known = Known::default();
    for number in 0..50_u8 {
        let peer = Peer {
            name: "a.example".to_owned(),
            key: key(number, &number.to_string()),
        };
        let document =
            Document::check(peer.document(NOW_MS + u64::from(number)), &name("a.example")).unwrap();
        known.add(document, NOW_MS, number % 2 == 0);
    }
    assert_eq!(known.documents(None).len(), 5);
    let stored = record::encode(&known.to_stored());
    let back = Known::from_stored(record::decode(&stored).unwrap(), &name("a.example"));
    assert_eq!(back, known);
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let mut world = World::new();
    let peer = world.peer("a.example");
    let (server, id) = (name("a.example"), "ed25519:1");
    let keys = world.federation.keys.clone();
    let asked = futures::future::join_all((0..10).map(|_| keys.key_now(&server, id))).await;
    assert!(asked.iter().all(|key| *key == Some(peer.key.public_key())));
    assert_eq!(world.asked(), 1, "together they ask once");
    world.restart();
    assert!(world.federation.keys.key_now(&server, id).await.is_some());
    assert_eq!(world.asked(), 1, "storage has it");
    // Made-up key ids do not make us ask again and again.
    for number in 0..20 {
        let made_up = format!("ed25519:x{number}");
        assert_eq!(world.federation.keys.key_now(&server, &made_up).await, None);
    }
    assert_eq!(world.asked(), 1);
    // A document that is over is fetched again.
    world.clock.advance(DAY_MS + 1);
    world.publish(&peer, peer.document(NOW_MS + 2 * DAY_MS));
    assert!(world.federation.keys.key_now(&server, id).await.is_some());
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn a_server_without_keys_is_left_alone() {
    let world = World::new();
    let keys = &world.federation.keys;
    for _ in 0..5 {
        assert_eq!(keys.key_now(&name("a.example"), "ed25519:1").await, None);
    }
    assert_eq!(world.asked(), 1);
    world.peer("a.example");
    world.clock.advance(FAILURE_FIRST_MS);
    assert!(keys.key_now(&name("a.example"), "ed25519:1").await.is_some());
}

#[tokio::test]
async fn our_own_key_needs_nobody() {
    let world = World::new();
    let keys = &world.federation.keys;
    let us = name("us.example");
    assert!(keys.key_now(&us, "ed25519:own").await.is_some());
    assert_eq!(keys.key_now(&us, "ed25519:other").await, None);
    assert_eq!(world.asked(), 0);
    // What a former key signed stays valid, and nothing new is.
    let then = keys.key_at(&us, "ed25519:former", NOW_MS - 1).await;
    assert_eq!(then, Some([7; 32]));
    assert_eq!(keys.key_at(&us, "ed25519:former", NOW_MS).await, None);
    assert_eq!(keys.key_now(&us, "ed25519:former").await, None);
    let published = &keys.own_document()["old_verify_keys"]["ed25519:former"];
    let key = hearth_events::base64_encode(&[7; 32]);
    assert_eq!(*published, json!({ "key": key, "expired_ts": NOW_MS - 1 }));
    let document = Document::check(keys.own_document(), &us).unwrap();
    assert!(document.valid_until_ms >= NOW_MS + 60 * 60 * 1000);
    world.clock.advance(10 * DAY_MS);
    let later = Document::check(keys.own_document(), &us).unwrap();
    assert!(later.valid_until_ms >= NOW_MS + 10 * DAY_MS + 60 * 60 * 1000);
}

#[tokio::test]
async fn notaries_help_where_they_can_be_believed() {
    let world = World::with_notaries(&["n.example"]);
    let notary = world.peer("n.example");
    let dead = Peer {
        name: "dead.example".to_owned(),
        key: key(9, "1"),
    };
    let signed = notary.signed(dead.document(NOW_MS + DAY_MS));
    let mut forged = dead.document(NOW_MS + DAY_MS);
    forged["verify_keys"]["ed25519:1"]["key"] = json!(key(8, "1").public_key_base64());
    let keys = &world.federation.keys;
    let ask = |answer: Map<String, Value>| {
        let path = "/_matrix/key/v2/query";
        world.answer("n.example", path, json!({"server_keys": [answer]}));
        async { keys.key_now(&name("dead.example"), "ed25519:1").await }
    };
    assert_eq!(
        ask(dead.document(NOW_MS + DAY_MS)).await,
        None,
        "the notary did not sign"
    );
    world.clock.advance(MISSING_MS);
    assert_eq!(ask(notary.signed(forged)).await, None, "the server did not sign");
    world.clock.advance(MISSING_MS);
    assert_eq!(ask(signed).await, Some(dead.key.public_key()));
}

#[tokio::test]
async fn many_keys_at_once() {
    let world = World::new();
    let (a, b) = (world.peer("a.example"), world.peer("b.example"));
    let wanted = [
        (name("a.example"), "ed25519:1".to_owned(), NOW_MS),
        (name("b.example"), "ed25519:1".to_owned(), 0),
        (name("b.example"), "ed25519:no".to_owned(), 0),
        (name("c.example"), "ed25519:1".to_owned(), 0),
        (name("us.example"), "ed25519:own".to_owned(), NOW_MS),
        // One event with an impossible time costs the others nothing.
        (name("a.example"), "ed25519:1".to_owned(), u64::MAX),
        (name("a.example"), "ed25519:1".to_owned(), NOW_MS - 5),
    ];
    let found = world.federation.keys.keys(&wanted).await;
    assert_eq!(found.len(), 4);
    for (number, peer) in [(0, &a), (1, &b), (6, &a)] {
        assert_eq!(found[&wanted[number]], peer.key.public_key());
    }
}

#[tokio::test]
async fn we_are_a_notary() {
    let mut world = World::new();
    let peer = world.peer("a.example");
    let server = name("a.example");
    let all = BTreeMap::new();
    let us = name("us.example");
    let own = key(255, "own").public_key();
    let given = world.federation.keys.notarize(&server, &all, None).await;
    assert_eq!(given.len(), 1);
    hearth_events::verify_json(&given[0], &us, "ed25519:own", &own).unwrap();
    hearth_events::verify_json(&given[0], &server, "ed25519:1", &peer.key.public_key()).unwrap();
    // Long after, with the server gone, what was stored still helps with old events.
    world.restart();
    world.net.answers.lock().clear();
    world.clock.advance(100 * DAY_MS);
    let one = BTreeMap::from([("ed25519:1".to_owned(), Some(NOW_MS))]);
    let given = world.federation.keys.notarize(&server, &one, None).await;
    assert_eq!((given.len(), world.asked()), (1, 1), "nobody needs to be asked");
    assert_eq!(world.federation.keys.notarize(&server, &all, None).await.len(), 1);
    assert_eq!(world.asked(), 2, "now it was tried");
    assert!(
        world
            .federation
            .keys
            .notarize(&name("b.example"), &all, None)
            .await
            .is_empty()
    );
    let ours = world.federation.keys.notarize(&us, &all, None).await;
    assert_eq!(ours, vec![world.federation.keys.own_document()]);
}

proptest! {
    #[test]
    fn any_document_is_read_or_refused(
        text in "\\{(\"(server_name|verify_keys|valid_until_ts|signatures|x)\":(\"a.example\"|1|\\{\\}|\\[\\]|null|\\{\"ed25519:1\":\\{\"key\":\"[A-Za-z0-9+/=]{0,50}\"\\}\\}),?){0,5}\\}",
    ) {
        if let Ok(json) = serde_json::from_str::<Map<String, Value>>(&text) {
            drop(Document::check(json, &name("a.example")));
        }
    }

    #[test]
    fn a_changed_document_is_refused(at in 0_usize..300, byte in any::<u8>()) {
        let peer = Peer { name: "a.example".to_owned(), key: key(1, "1") };
        let original = peer.document(NOW_MS);
        let mut text = serde_json::to_vec(&original).unwrap();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(changed) = serde_json::from_slice::<Map<String, Value>>(&text)
            && let Ok(checked) = Document::check(changed, &name("a.example"))
        {
            // Base64 may end in bits that do not count.
            prop_assert_eq!(checked.valid_until_ms, NOW_MS);
            prop_assert_eq!(checked.verify.get("ed25519:1").copied(), Some(peer.key.public_key()));
        }
    }

    #[test]
    fn any_name_in_a_wanted_list_is_bounded(ids in prop::collection::vec(".{0,40}", 0..5)) {
        let known = Known::default();
        for id in ids {
            prop_assert_eq!(known.key(&id, 0), None);
        }
    }
}

#[test]
fn objects_are_objects() {
    assert!(Document::read(object(json!({})), &name("a.example")).is_err());
}
