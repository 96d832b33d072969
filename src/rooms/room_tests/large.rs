//! Work that is larger than one batch should be.

use hearth_storage::Reader as _;

use super::*;
use crate::{keys, staging::StateOf};

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
    let found = world.engine.get(hearth_storage::Family::RoomState, &flat);
    assert_eq!(found, Ok(None), "nothing that is read has changed");
    // What has its numbers and its nodes already needs no batch for the former.
    let before = world.log.published(room.shard());
    assert_eq!(room.make_state(&entries).await.expect("a state"), root);
    let nodes_again = world.log.published(room.shard()) - before;
    assert!(nodes_again < batches, "{nodes_again}");
}
