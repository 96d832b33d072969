//! Work that is larger than one batch should be.

use hearth_events::{Draft, build};
use hearth_storage::{Family, Reader as _};
use ruma::server_name;

use super::*;
use crate::{
    Membership, keys,
    lay::CHANGED_AT_ONCE_MAX,
    staging::{Outlier, Staging, StateOf, Stop},
    state_tree::NodeId,
};

#[tokio::test]
async fn a_large_state_is_stored_in_parts() {
    const MEMBERS: u32 = 20_000;
    let world = World::new(1).await;
    let room = world.room().await;
    let before = world.log.published(room.shard());
    let entries: Vec<StateOf> = (0..MEMBERS)
        .map(|n| ("m.room.member".to_owned(), format!("@u{n}:hs2"), 1_000_000 + n))
        .collect();
    let (root_before, view) = (room.view().root, room.view());
    let root = room.make_state(&entries).await.expect("a state");
    let batches = world.log.published(room.shard()) - before;
    assert!(batches > 4, "{batches} batches");
    for (_, user, short) in entries.iter().step_by(777) {
        let key = room.state_key_short("m.room.member", user).expect("a look-up");
        let found = room.state_short_at(root, key.expect("a number"));
        assert_eq!(found.expect("a look-up"), Some(*short), "{user}");
    }
    assert_eq!((room.view().root, room.view().joined), (root_before, view.joined));
    let flat = keys::state(room.key(), "m.room.member", "@u1:hs2");
    let found = world.engine.get(Family::RoomState, &flat);
    assert_eq!(found, Ok(None), "nothing that is read has changed");
    // What has its numbers and its nodes already needs no batch for the former.
    let before = world.log.published(room.shard());
    assert_eq!(room.make_state(&entries).await.expect("a state"), root);
    let nodes_again = world.log.published(room.shard()) - before;
    assert!(nodes_again < batches, "{nodes_again}");
}

/// The state of a room with so many members of another server. The events are stored, and nothing names them.
async fn with_members(room: &Room, members: usize) -> NodeId {
    let key = KeyPair::from_seed([8; 32], "test").expect("a key");
    let rules = room.rules();
    let mut outliers = Vec::with_capacity(members);
    for number in 0..members {
        let member = UserId::parse(format!("@u{number}:hs2")).expect("a user id");
        let draft = Draft {
            room_id: Some(room.id()),
            sender: &member,
            kind: "m.room.member",
            state_key: Some(member.as_str()),
            content: br#"{"membership":"join"}"#,
            origin_server_ts: 1_700_000_000_000,
            depth: 9,
            prev_events: &[],
            auth_events: &[],
            redacts: None,
        };
        let event = build(rules, &draft, None).expect("an event");
        outliers.push(Outlier {
            pdu: event.sign(&key, server_name!("hs2")),
            rejected: false,
            redacted: false,
        });
    }
    let ids: Vec<_> = outliers.iter().map(|event| event.pdu.event_id.clone()).collect();
    room.store_outliers(outliers).await.expect("it is stored");
    let now = room.full_state().expect("a state");
    let ids: Vec<_> = now.iter().map(|event| event.id().to_owned()).chain(ids).collect();
    room.state_of(&ids).await.expect("a state")
}

/// Makes a state the current one under the lock.
fn exchange(room: &Room, root: NodeId) -> Result<Box<Staged>, Stop> {
    let mut head = room.0.head.lock();
    head.prune(room.0.rooms.log.published(room.shard()));
    let tips = head.record.tips.to_vec();
    let mut staging = Staging::new(room, head);
    staging.complete(&[], &tips, root, None)?;
    Ok(Box::new(staging.seal(None)?))
}

fn rows(world: &World, family: Family, room: &Room) -> usize {
    let (start, end) = keys::entity_range(room.key());
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        true
    };
    let counted = world.engine.scan(family, &start, &end, false, &mut count);
    counted.expect("a scan");
    rows
}

#[tokio::test]
async fn a_large_state_becomes_the_current_one_with_a_small_batch() {
    const MEMBERS: usize = CHANGED_AT_ONCE_MAX + 1_000;
    let world = World::new(1).await;
    let room = world.room().await;
    let before = (room.view().root, rows(&world, Family::RoomState, &room));
    let root = with_members(&room, MEMBERS).await;
    let Err(Stop::LayOut(layout)) = exchange(&room, root) else {
        panic!("it is not to be exchanged at once");
    };
    // One that does not come to its end changes nothing, and the next begins anew.
    drop(room.lay_out(*layout).await.expect("it is laid out"));
    assert_eq!(rows(&world, Family::RoomState, &room), before.1);
    assert_eq!(room.membership(&remote(7)).expect("a look-up"), Membership::None);
    let Err(Stop::LayOut(layout)) = exchange(&room, root) else {
        panic!("what was laid out and given up does not count");
    };
    let laid = room.lay_out(*layout).await.expect("it is laid out");
    // Meanwhile somebody says something.
    room.send(text("bob", "hello"), None).await.expect("sent");
    let Ok(staged) = exchange(&room, root) else {
        panic!("it is laid out");
    };
    let (ticket, record) = staged.sign(&room);
    let bytes = record.batch.bytes();
    assert!(bytes < 10_000, "{bytes} bytes");
    ticket.submit(record).await.expect("it is stored");
    laid.settle().await.expect("the old rows go");
    assert_eq!(rows(&world, Family::RoomState, &room), 0);
    assert_eq!(rows(&world, Family::RoomStateOther, &room), before.1 + MEMBERS);

    let carol = user("carol");
    room.join(&carol, Map::new()).await.expect("carol joins");
    let id = room.id().to_owned();
    drop(room);
    let world = world.crash();
    let room = world.rooms.get(&id).expect("a room").expect("it is there");
    assert_eq!(room.membership(&remote(7)).expect("a look-up"), Membership::Join);
    assert_eq!(room.membership(&carol).expect("a look-up"), Membership::Join);
    assert_eq!(room.view().joined as usize, 3 + MEMBERS);
    assert_eq!(room.full_state().expect("a state").len(), before.1 + MEMBERS + 1);

    // And back to a state that lacks them all, and carol.
    let Err(Stop::LayOut(layout)) = exchange(&room, before.0) else {
        panic!("it is not to be exchanged at once");
    };
    let laid = room.lay_out(*layout).await.expect("it is laid out");
    let Ok(staged) = exchange(&room, before.0) else {
        panic!("it is laid out");
    };
    room.store(staged).await.expect("it is stored");
    laid.settle().await.expect("the old rows go");
    assert_eq!(room.membership(&remote(7)).expect("a look-up"), Membership::None);
    assert_eq!(room.membership(&carol).expect("a look-up"), Membership::None);
    assert_eq!(
        room.membership(&user("bob")).expect("a look-up"),
        Membership::Join
    );
    assert_eq!(room.view().joined, 2);
}

fn remote(number: usize) -> OwnedUserId {
    UserId::parse(format!("@u{number}:hs2")).expect("a user id")
}
