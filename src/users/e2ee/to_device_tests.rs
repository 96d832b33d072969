//! Messages to devices: bounds, and what a user's devices get.

use ruma::device_id;

use super::*;
use crate::session::Login;
use crate::tests::World;

/// Also where users of many servers stand between those of one.
#[test]
fn what_one_server_gets_at_once_is_bounded() {
    let content = serde_json::value::to_raw_value(&"x".repeat(10 << 10)).expect("JSON");
    let mut messages = ToDeviceMessages::new();
    for at in 0..40 {
        let server = if at % 2 == 0 {
            "a".to_owned()
        } else {
            format!("b{at}")
        };
        let user = UserId::parse(format!("@u{at:02}:{server}")).expect("a user id");
        messages.insert(user, BTreeMap::from([("D".to_owned(), content.clone())]));
    }
    let servers = by_server(messages);
    let (mut count, mut largest) = (0, 0);
    for part in servers.values().flatten() {
        let contents = part.values().flat_map(BTreeMap::values);
        let bytes: usize = contents.map(|content| content.get().len()).sum();
        count += part.len();
        largest = largest.max(bytes);
    }
    assert_eq!(count, 40);
    assert!(largest <= REMOTE_MAX_BYTES, "{largest} bytes");
}

#[tokio::test]
async fn of_too_many_messages_the_oldest_go() {
    let world = World::new();
    let alice = world.alice().await;
    let device = device_id!("D");
    let login = Login {
        device_id: Some(device.to_owned()),
        ..Login::default()
    };
    alice.login(login).await.unwrap();
    for (stored, left) in [(1_500, 501), (3, 1)] {
        let filled = alice.write(|tx| {
            for row in tx.first_keys(Family::ToDevice, &rows::of_device(alice.key, "D"), usize::MAX)? {
                tx.delete(Family::ToDevice, row);
            }
            for index in 0..stored {
                let row = rows::to_device(alice.key, "D", 1, index);
                tx.put(Family::ToDevice, row, [&[TAG], b"{}".as_slice()].concat());
            }
            let stored = record::encode(&WAITING_MAX);
            tx.put(
                Family::DeviceKey,
                rows::device_key(alice.key, kind::WAITING, "D"),
                stored,
            );
            Ok(())
        });
        filled.await.unwrap();
        let content = serde_json::value::to_raw_value(&serde_json::json!({})).unwrap();
        let messages = BTreeMap::from([("D".to_owned(), content)]);
        let messages = BTreeMap::from([(alice.id.clone(), messages)]);
        alice
            .send_to_device(device, "m.test", &stored.to_string(), messages)
            .await
            .unwrap();
        let found = alice
            .to_device_between(device, 0, alice.position(), 10_000)
            .unwrap();
        assert_eq!(found.len(), left);
    }
}

#[tokio::test]
async fn of_too_large_messages_the_oldest_go() {
    let world = World::new();
    let alice = world.alice().await;
    for device in ["D", "E"] {
        let login = Login {
            device_id: Some(device.into()),
            ..Login::default()
        };
        alice.login(login).await.unwrap();
    }
    let content = serde_json::json!({ "fill": "x".repeat(64_000) });
    let content = serde_json::value::to_raw_value(&content).unwrap();
    let stored = async |at: usize| {
        let messages = BTreeMap::from([("D".to_owned(), content.clone())]);
        let messages = BTreeMap::from([(alice.id.clone(), messages)]);
        let kind = format!("m.test.{at}");
        let device = device_id!("E");
        alice.send_to_device(device, &kind, "t", messages).await.unwrap();
    };
    let device = device_id!("D");
    let found = || {
        let found = alice.to_device_between(device, 0, alice.position(), 10_000);
        found
            .unwrap()
            .into_iter()
            .map(|(_, event)| event)
            .collect::<Vec<_>>()
    };
    // More than fits, twice.
    let max = usize::try_from(WAITING_MAX_BYTES).unwrap();
    let times = max / 64_000 * 2;
    for at in 0..times {
        stored(at).await;
        if at % 200 == 0 || at + 1 == times {
            let bytes: usize = found().iter().map(|event| event.get().len()).sum();
            assert!(bytes <= max, "{bytes} bytes after {at}");
        }
    }
    let left = found();
    assert!(left.len() * 64_000 > max / 2, "no more go than must");
    let newest = format!("m.test.{}", times - 1);
    assert!(left.last().unwrap().get().contains(&newest));
    // Who has fetched all has room again.
    alice
        .acknowledge_to_device(device, alice.position())
        .await
        .unwrap();
    let row = rows::device_key(alice.key, kind::WAITING, "D");
    let waits = alice.users.log.engine().get(Family::DeviceKey, &row).unwrap();
    assert_eq!(waits, None);
}
