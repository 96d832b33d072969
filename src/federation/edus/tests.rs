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

/// A server that lost its data, or went back to older ones, counts anew: its numbers say nothing of what is kept.
#[tokio::test(start_paused = true)]
async fn the_list_of_a_server_that_counts_anew_is_fetched_again() {
    let world = World::new().await;
    let list = |stream: u64, device: &str| {
        let path = "/_matrix/federation/v1/user/devices/%40bob%3Ab".to_owned();
        let devices = json!([{ "device_id": device, "keys": keys(device) }]);
        let list = json!({ "user_id": "@bob:b", "stream_id": stream, "devices": devices });
        world.others.answers.lock().insert(path, list);
    };
    list(500, "A");
    world.room(&[("bob", "b")]).await;
    pass(1).await;
    let before = asked(&world);
    assert_eq!(query(&world).await, ["A"]);
    // One that was on its way says what is known.
    world
        .receive("b", "1", vec![], vec![update("A", 499, &[498])])
        .await;
    assert_eq!(query(&world).await, ["A"]);
    assert_eq!(asked(&world), before + 1);
    list(2, "B");
    world.receive("b", "2", vec![], vec![update("B", 2, &[1])]).await;
    assert_eq!(query(&world).await, ["B"]);
    world.receive("b", "3", vec![], vec![update("C", 3, &[2])]).await;
    assert_eq!(query(&world).await, ["B", "C"]);
    assert_eq!(asked(&world), before + 2);
}

/// A server that cannot be reached is not asked for one user after another.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_costs_one_wait() {
    let world = World::new().await;
    let names: Vec<String> = (0..40).map(|number| format!("u{number}")).collect();
    let members: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "b")).collect();
    world.room(&members).await;
    pass(1).await;
    world.others.down.lock().insert("b".to_owned());
    let before = asked(&world);
    let wanted: WantedDevices = names.iter().map(|name| (user(name, "b"), vec![])).collect();
    let found = world.edus.query_keys(wanted, WAIT).await.expect("an answer");
    assert!(found.failures.contains_key("b") && found.device_keys.is_empty());
    assert!(
        asked(&world) - before <= 8,
        "{} were asked",
        asked(&world) - before
    );
}

/// A slow server with many users is asked for the lists that there is time for, and for the rest at once.
#[tokio::test(start_paused = true)]
async fn many_lists_of_a_slow_server_come_in_time() {
    let world = World::new().await;
    let names: Vec<String> = (0..80).map(|number| format!("u{number}")).collect();
    let members: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "b")).collect();
    world.room(&members).await;
    pass(1).await;
    let all: Vec<String> = names.iter().map(|name| format!("@{name}:b")).collect();
    let devices: serde_json::Map<String, Value> = all.iter().map(|id| (id.clone(), json!({}))).collect();
    let path = "/_matrix/federation/v1/user/keys/query".to_owned();
    world
        .others
        .answers
        .lock()
        .insert(path, json!({ "device_keys": devices }));
    let path = "/_matrix/federation/v1/user/devices/".to_owned();
    world
        .others
        .answers
        .lock()
        .insert(path, json!({ "stream_id": 1, "devices": [] }));
    let before = asked(&world);
    let wanted: WantedDevices = names.iter().map(|name| (user(name, "b"), vec![])).collect();
    // Each round of fetches takes 10 ms.
    let wait = Duration::from_millis(60);
    let found = world.edus.query_keys(wanted, wait).await.expect("an answer");
    assert_eq!((found.device_keys.len(), found.failures.len()), (80, 0));
    assert!(
        asked(&world) - before < 60,
        "{} were asked",
        asked(&world) - before
    );
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
    let bad = json!({ "edu_type": "m.direct_to_device", "content": { "sender": "@bob:b", "type": "m.x", "message_id": "bad",
        "messages": { "@alice:hs1": { "A": "text", "*": { "large": "x".repeat(70_000) } } } } });
    // The type is stored with each message.
    let mut odd = message("odd");
    odd["content"]["type"] = "x".repeat(256).into();
    world
        .receive("b", "1", vec![], vec![message("1"), bad, odd, message("2")])
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
