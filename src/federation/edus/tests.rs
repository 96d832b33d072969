//! Messages to devices, device lists, keys and presence of other servers' users.

use std::time::Duration;

use ruma::{device_id, owned_device_id};
use serde_json::json;

use super::*;
use crate::world::{OWN, World, pass, user};

const WAIT: Duration = Duration::from_secs(5);

fn keys(device: &str) -> Value {
    json!({ "user_id": "@bob:b", "device_id": device, "algorithms": [], "keys": {}, "signatures": {} })
}

fn update(device: &str, stream: u64, prev: &[u64]) -> Value {
    json!({ "edu_type": "m.device_list_update", "content": {
        "user_id": "@bob:b", "device_id": device, "stream_id": stream, "prev_id": prev, "keys": keys(device) } })
}

async fn query(world: &World) -> Vec<String> {
    let wanted = WantedDevices::from([(user("bob", "b"), vec![])]);
    let found = world.edus.query_keys(wanted, WAIT).await.expect("an answer");
    let devices = found.device_keys.get(&user("bob", "b"));
    devices
        .into_iter()
        .flat_map(|devices| devices.keys().cloned())
        .collect()
}

fn asked(world: &World) -> usize {
    let sent = world.others.sent.lock();
    sent.iter().filter(|(_, path, _)| path.contains("/user/")).count()
}

#[tokio::test(start_paused = true)]
async fn device_lists_are_kept_while_a_room_is_shared() {
    let world = World::new().await;
    let list =
        json!({ "user_id": "@bob:b", "stream_id": 5, "devices": [{ "device_id": "A", "keys": keys("A") }] });
    let path = "/_matrix/federation/v1/user/devices/%40bob%3Ab".to_owned();
    world.others.answers.lock().insert(path, list);
    let asked_for = json!({ "device_keys": { "@bob:b": { "Z": keys("Z") } } });
    let path = "/_matrix/federation/v1/user/keys/query".to_owned();
    world.others.answers.lock().insert(path, asked_for);
    assert_eq!(query(&world).await, ["Z"], "nobody shares a room");
    let room = world.room(&[("bob", "b")]).await;
    pass(1).await;
    let before = asked(&world);
    assert_eq!(query(&world).await, ["A"]);
    assert_eq!(query(&world).await, ["A"]);
    assert_eq!(asked(&world), before + 1, "the list was kept");
    let position = room.changed_position();
    world.receive("b", "1", vec![], vec![update("B", 6, &[5])]).await;
    assert_eq!(query(&world).await, ["A", "B"]);
    let changed = room.device_list_changes(position, room.changed_position());
    assert_eq!(changed.expect("changes"), [user("bob", "b")]);
    assert_eq!(asked(&world), before + 1);
    // A gap: the list is fetched anew.
    world.receive("b", "2", vec![], vec![update("C", 9, &[8])]).await;
    assert_eq!(query(&world).await, ["A"]);
    assert_eq!(asked(&world), before + 2);
    // Another server may not say anything of bob.
    world.receive("c", "1", vec![], vec![update("D", 10, &[])]).await;
    assert_eq!(query(&world).await, ["A"]);
    world.member(&room, "bob", "b", "leave").await;
    pass(1).await;
    assert_eq!(query(&world).await, ["Z"]);
    world.others.down.lock().insert("b".to_owned());
    let wanted = WantedDevices::from([(user("bob", "b"), vec![owned_device_id!("Z")])]);
    let found = world.edus.query_keys(wanted, WAIT).await.expect("an answer");
    assert!(found.failures.contains_key("b"));
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_come_once() {
    let world = World::new().await;
    let login = hearth_users::Login {
        device_id: Some(owned_device_id!("A")),
        ..hearth_users::Login::default()
    };
    world.alice().login(login).await.expect("a device");
    let message = |id: &str| {
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": "@bob:b", "type": "m.x", "message_id": id,
            "messages": { "@alice:hs1": { "*": { "id": id } } } } })
    };
    world
        .receive("b", "1", vec![], vec![message("1"), message("2")])
        .await;
    let world = world.crash().await;
    world
        .receive("b", "2", vec![], vec![message("1"), message("3")])
        .await;
    world.receive("c", "1", vec![], vec![message("4")]).await;
    let waiting = world
        .alice()
        .to_device_between(device_id!("A"), 0, u64::MAX - 1, 100)
        .expect("messages");
    let ids: Vec<String> = waiting
        .iter()
        .map(|(_, event)| {
            let event: Value = serde_json::from_str(event.get()).expect("JSON");
            event["content"]["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn presence_of_those_in_sight_shows() {
    let world = World::new().await;
    let said = |user: &str| {
        json!({ "edu_type": "m.presence", "content": { "push": [
        { "user_id": user, "presence": "online", "last_active_ago": 5, "status_msg": "here" } ] } })
    };
    let bob = user("bob", "b");
    world.receive("b", "1", vec![], vec![said("@bob:b")]).await;
    let state = || world.users.presence().get(&bob).state;
    assert_eq!(
        state(),
        hearth_users::PresenceState::Offline,
        "nobody shares a room"
    );
    world.room(&[("bob", "b")]).await;
    pass(1).await;
    world
        .receive("b", "2", vec![], vec![said("@bob:b"), said("@alice:hs1")])
        .await;
    assert_eq!(state(), hearth_users::PresenceState::Online);
    let alice = world.users.presence().get(&user("alice", OWN));
    assert_eq!(alice.state, hearth_users::PresenceState::Offline);
}
