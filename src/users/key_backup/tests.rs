use ruma::room_id;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::*;
use crate::tests::World;

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}

fn key(session: &str, is_verified: bool, first: u64, forwarded: u64) -> BackupKey {
    BackupKey {
        room: room_id!("!a:example.org").to_owned(),
        session: session.to_owned(),
        first_message_index: first,
        forwarded_count: forwarded,
        is_verified,
        session_data: raw(&json!({ "mac": session })),
    }
}

async fn get(user: &User, version: &str, scope: BackupScope) -> Result<Value> {
    let room = match &scope {
        BackupScope::All => None,
        BackupScope::Room(room) => Some(&**room),
        BackupScope::Session(room, session) => {
            let key = user.backup_key(version, room, session)?;
            return Ok(serde_json::from_str(key.get()).unwrap());
        }
    };
    let parts = parts(user.backup_keys(version, room)?).await?;
    Ok(serde_json::from_str(&parts.concat()).unwrap())
}

async fn parts(mut keys: BackupKeys) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    while !keys.is_done() {
        let (part, rest) = keys.part().await?;
        parts.push(part);
        keys = rest;
    }
    Ok(parts)
}

#[tokio::test]
async fn versions_come_and_go() {
    let world = World::new();
    let alice = world.alice().await;
    let data = raw(&json!({ "public_key": "abc" }));
    assert!(matches!(alice.backup(None), Err(Error::NotFound(_))));
    assert!(matches!(
        alice.put_backup_keys("1", &[]).await,
        Err(Error::NotFound(_))
    ));
    let one = alice.create_backup("m.v1", &data).await.unwrap();
    let two = alice.create_backup("m.v1", &data).await.unwrap();
    assert_eq!(alice.backup(None).unwrap().version, two);
    assert_eq!(alice.backup(Some(&one)).unwrap().algorithm, "m.v1");
    for wrong in ["0", "3", "01", "x", ""] {
        assert!(
            matches!(alice.backup(Some(wrong)), Err(Error::NotFound(_))),
            "{wrong}"
        );
        assert!(
            matches!(alice.delete_backup(wrong).await, Err(Error::NotFound(_))),
            "{wrong}"
        );
    }
    let new_data = raw(&json!({ "public_key": "def" }));
    assert!(matches!(
        alice.update_backup(&one, "m.v2", &data).await,
        Err(Error::InvalidParam(_))
    ));
    alice.update_backup(&one, "m.v1", &new_data).await.unwrap();
    assert_eq!(alice.backup(Some(&one)).unwrap().auth_data.get(), new_data.get());
    let outcome = alice.put_backup_keys(&one, &[key("s", true, 0, 0)]).await;
    assert!(matches!(outcome, Err(Error::WrongBackupVersion(current)) if current == two));
    alice.delete_backup(&two).await.unwrap();
    alice.delete_backup(&two).await.unwrap();
    assert_eq!(alice.backup(None).unwrap().version, one);
    assert!(matches!(
        alice.put_backup_keys(&two, &[]).await,
        Err(Error::NotFound(_))
    ));
    let three = alice.create_backup("m.v1", &data).await.unwrap();
    assert_eq!(three, "3", "a version's name is not given again");
    let world = world.restarted(2);
    let alice = world.users.get(alice.id()).unwrap().unwrap();
    assert_eq!(alice.backup(None).unwrap().version, "3");
}

#[tokio::test]
async fn a_key_is_replaced_only_by_a_better_one() {
    let world = World::new();
    let alice = world.alice().await;
    let version = alice.create_backup("m.v1", &raw(&json!({}))).await.unwrap();
    let scope = || BackupScope::Session(room_id!("!a:example.org").to_owned(), "s".to_owned());
    let mut best = (false, 10, 5);
    let first = alice
        .put_backup_keys(&version, &[key("s", best.0, best.1, best.2)])
        .await
        .unwrap();
    assert_eq!(first.count, 1);
    let mut etag = first.etag;
    for (new, replaces) in [
        ((false, 11, 5), false),
        ((false, 10, 6), false),
        ((false, 11, 4), false),
        ((false, 10, 5), false),
        ((false, 10, 4), true),
        ((false, 9, 9), true),
        ((true, 20, 20), true),
        ((false, 0, 0), false),
        ((true, 20, 21), false),
        ((true, 19, 30), true),
    ] {
        let state = alice
            .put_backup_keys(&version, &[key("s", new.0, new.1, new.2)])
            .await
            .unwrap();
        assert_eq!(state.count, 1);
        assert_eq!(state.etag != etag, replaces, "{new:?}");
        etag = state.etag;
        if replaces {
            best = new;
        }
        let stored = get(&alice, &version, scope()).await.unwrap();
        let expected = json!({
            "is_verified": best.0, "first_message_index": best.1, "forwarded_count": best.2,
            "session_data": { "mac": "s" },
        });
        assert_eq!(stored, expected, "{new:?}");
    }
}

#[tokio::test]
async fn keys_are_read_and_deleted_by_scope() {
    let world = World::new();
    let alice = world.alice().await;
    let version = alice.create_backup("m.v1", &raw(&json!({}))).await.unwrap();
    let (a, b) = (
        room_id!("!a:example.org").to_owned(),
        room_id!("!b:example.org").to_owned(),
    );
    assert_eq!(
        get(&alice, &version, BackupScope::All).await.unwrap(),
        json!({ "rooms": {} })
    );
    let of_b = BackupKey {
        room: b.clone(),
        ..key("t\"", true, 1, 0)
    };
    let state = alice
        .put_backup_keys(&version, &[key("s", true, 0, 0), key("u", true, 0, 0), of_b])
        .await;
    assert_eq!(state.unwrap().count, 3);
    let all = get(&alice, &version, BackupScope::All).await.unwrap();
    assert_eq!(all["rooms"][a.as_str()]["sessions"].as_object().unwrap().len(), 2);
    assert_eq!(
        all["rooms"][b.as_str()]["sessions"]["t\""]["first_message_index"],
        1
    );
    let of_room = get(&alice, &version, BackupScope::Room(a.clone())).await.unwrap();
    assert_eq!(of_room, all["rooms"][a.as_str()]);
    let session = |id: &str| BackupScope::Session(a.clone(), id.to_owned());
    assert!(matches!(
        get(&alice, &version, session("none")).await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        get(&alice, "9", BackupScope::All).await,
        Err(Error::NotFound(_))
    ));

    let before = alice.backup(None).unwrap().state;
    assert_eq!(
        alice
            .delete_backup_keys(&version, &session("none"))
            .await
            .unwrap(),
        before
    );
    let state = alice.delete_backup_keys(&version, &session("s")).await.unwrap();
    assert_eq!(state.count, 2);
    assert_ne!(state.etag, before.etag);
    assert_eq!(
        alice
            .delete_backup_keys(&version, &BackupScope::Room(a.clone()))
            .await
            .unwrap()
            .count,
        1
    );
    let empty = get(&alice, &version, BackupScope::Room(a.clone())).await.unwrap();
    assert_eq!(empty, json!({ "sessions": {} }));
    assert_eq!(
        alice
            .delete_backup_keys(&version, &BackupScope::All)
            .await
            .unwrap()
            .count,
        0
    );
    assert_eq!(
        get(&alice, &version, BackupScope::All).await.unwrap(),
        json!({ "rooms": {} })
    );
    assert_eq!(
        alice
            .put_backup_keys(&version, &[key("s", false, 9, 9)])
            .await
            .unwrap()
            .count,
        1
    );
}

#[tokio::test]
async fn ten_thousand_keys_come_back_in_one_pass() {
    let world = World::new();
    let alice = world.alice().await;
    let version = alice.create_backup("m.v1", &raw(&json!({}))).await.unwrap();
    for batch in 0..10 {
        let keys: Vec<BackupKey> = (0..1_000)
            .map(|n| key(&format!("s{batch}-{n}"), true, n, 0))
            .collect();
        alice.put_backup_keys(&version, &keys).await.unwrap();
    }
    assert_eq!(alice.backup(None).unwrap().state.count, 10_000);
    let all = get(&alice, &version, BackupScope::All).await.unwrap();
    let room = room_id!("!a:example.org");
    assert_eq!(
        all["rooms"][room.as_str()]["sessions"].as_object().unwrap().len(),
        10_000
    );
    let state = alice
        .delete_backup_keys(&version, &BackupScope::Room(room.to_owned()))
        .await
        .unwrap();
    assert_eq!(state.count, 0);
    assert_eq!(
        get(&alice, &version, BackupScope::All).await.unwrap(),
        json!({ "rooms": {} })
    );
}

#[tokio::test]
async fn a_large_backup_is_given_in_parts() {
    let world = World::new();
    let alice = world.alice().await;
    let version = alice.create_backup("m.v1", &raw(&json!({}))).await.unwrap();
    let data = raw(&json!({ "ciphertext": "x".repeat(50_000) }));
    let rooms = [room_id!("!a:example.org"), room_id!("!b:example.org")];
    for at in 0..60 {
        let one = BackupKey {
            room: rooms[at / 30].to_owned(),
            session_data: data.clone(),
            ..key(&format!("s{at}"), true, 0, 0)
        };
        alice.put_backup_keys(&version, &[one]).await.unwrap();
    }
    for (room, objects) in [(None, 2), (Some(rooms[1]), 1)] {
        let parts = parts(alice.backup_keys(&version, room).unwrap()).await.unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() < 1_200_000));
        let whole: Value = serde_json::from_str(&parts.concat()).unwrap();
        let sessions: Vec<_> = match room {
            None => whole["rooms"].as_object().unwrap().values().collect(),
            Some(_) => vec![&whole],
        };
        assert_eq!(sessions.len(), objects);
        for one in sessions {
            assert_eq!(one["sessions"].as_object().unwrap().len(), 30);
        }
    }
}
