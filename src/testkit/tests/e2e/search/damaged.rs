//! An event that cannot be read is not found, and all others are.

use hearth_storage::schema::room_event::RoomEventKey;
use hearth_storage::{Batch, EntityKind, Family, entity};

use super::*;

/// Says three things, the first of which nobody can read any more after the next start.
async fn say_with_damage(server: &TestServer, client: &Client, room: &str, word: &str) {
    let bad = client.say(room, &format!("bad {word}")).await;
    client.say(room, &format!("one {word}")).await;
    client.say(room, &format!("two {word}")).await;
    let parts = server.inner().parts();
    let engine = parts.log.engine();
    let key = entity(engine.as_ref(), EntityKind::Room, room);
    let room_key = key.expect("a look").expect("the room");
    let id = ruma::RoomId::parse(room).expect("an id");
    let known = parts.rooms.get(&id).expect("a look").expect("the room");
    let bad = ruma::EventId::parse(bad).expect("an id");
    let short = known.short_of(&bad).expect("a look").expect("the event");
    let row = RoomEventKey {
        room: room_key,
        short,
    };
    let mut batch = Batch::new();
    batch.put(Family::RoomEvent, row.encode(), [1]);
    engine.write(&batch, true).expect("written");
}

/// Both by the feed, and where the index is built anew from the rooms.
#[tokio::test]
async fn an_event_that_cannot_be_read_costs_no_other() {
    for builds_anew in [false, true] {
        let mut server = TestServer::with_index_on_disk(4).await;
        let mut alice = server.register("alice").await;
        let room = alice.room().build().await;
        alice.say(&room, "first tea").await;
        if !builds_anew {
            assert_eq!(found(&alice, "tea").await, ["first tea"]);
        }
        say_with_damage(&server, &alice, &room, "tea").await;
        server = server.crash().await;
        alice = alice.on(server.endpoint());
        assert_eq!(
            found(&alice, "tea").await,
            ["two tea", "one tea", "first tea"],
            "built anew: {builds_anew}"
        );
    }
}
