//! Rows that cannot be read: what they are about is lost, and nothing else.

use hearth_storage::schema::room::RoomKey;
use hearth_storage::schema::user::UserKey;
use hearth_storage::{Batch, EntityKey, EntityKind, Family};

use super::*;

/// Puts what nobody can read in the place of a row.
fn damage(server: &TestServer, family: Family, key: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(family, key, [1, b'?']);
    let written = server.inner().parts().log.engine().write(&batch, true);
    written.expect("written");
}

fn key_of(server: &TestServer, kind: EntityKind, name: &str) -> EntityKey {
    let engine = server.inner().parts().log.engine();
    let found = hearth_storage::entity(engine.as_ref(), kind, name);
    found.expect("a look").expect("it is there")
}

#[tokio::test(start_paused = true)]
async fn a_member_who_cannot_be_read_costs_no_other_member() {
    let network = SimNetwork::new(21);
    let server = TestServer::simulated("hs1", 4, 21, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    // Asked before bob.
    let aaron = server.register("aaron").await;
    let room = alice.room().with(&aaron).with(&bob).build().await;
    aaron.post("/pushers/set", pusher("two")).await.ok();
    bob.post("/pushers/set", pusher("one")).await.ok();
    gateway.told().await;
    let account = UserKey {
        user: key_of(&server, EntityKind::User, &aaron.user_id),
        field: 1,
        key: "".into(),
    };
    damage(&server, Family::User, account.encode());
    let server = server.restart_simulated(22, &network).await;
    let alice = alice.on(server.endpoint());
    let one = alice.say(&room, "one").await;
    assert_eq!(about(&gateway.told().await), [(Some(one.as_str()), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_cannot_be_read_costs_no_other_room() {
    let network = SimNetwork::new(23);
    let server = TestServer::simulated("hs1", 4, 23, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (bad, fine) = (
        alice.room().with(&bob).build().await,
        alice.room().with(&bob).build().await,
    );
    bob.post("/pushers/set", pusher("one")).await.ok();
    gateway.told().await;
    let record = RoomKey {
        room: key_of(&server, EntityKind::Room, &bad),
        field: 0,
    };
    damage(&server, Family::Room, record.encode());
    let server = server.restart_simulated(24, &network).await;
    let alice = alice.on(server.endpoint());
    let one = alice.say(&fine, "one").await;
    assert_eq!(about(&gateway.told().await), [(Some(one.as_str()), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_row_of_a_queue_that_cannot_be_read_costs_no_other() {
    let network = SimNetwork::new(25);
    let server = TestServer::simulated("hs1", 4, 25, &network);
    let gateway = Gateway::on(&network);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    bob.post("/pushers/set", pusher("one")).await.ok();
    gateway.told().await;
    gateway.status.store(500, Ordering::SeqCst);
    alice.say(&room, "lost").await;
    assert!(gateway.told().await.is_empty());
    let mut rows = Vec::new();
    let engine = server.inner().parts().log.engine();
    let scanned = engine.scan(Family::PushQueue, &[], &[0xFF], false, &mut |row, _| {
        rows.push(row.to_vec());
        true
    });
    scanned.expect("read");
    assert_eq!(rows.len(), 1);
    damage(&server, Family::PushQueue, rows.remove(0));
    gateway.status.store(200, Ordering::SeqCst);
    let kept = alice.say(&room, "kept").await;
    assert_eq!(about(&gateway.told().await), [(Some(kept.as_str()), 2)]);
}
