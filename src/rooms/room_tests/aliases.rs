//! Aliases that move from one room to another.

use super::*;

#[tokio::test]
async fn an_alias_moves_with_its_maker() {
    for shards in [1, 16] {
        let world = World::new(shards).await;
        let (old, new) = (world.create("12").await, world.create("12").await);
        let alias = ruma::room_alias_id!("#den:hs1");
        let bob = user("bob");
        let set = world.rooms.set_alias(alias, old.id(), &bob);
        set.await.expect("it is free");
        let of = |room: &Room| room.aliases().expect("they are read");
        // Of a room that it does not point to it is not taken.
        for (from, to) in [(&new, &old), (&old, &new), (&old, &new)] {
            let moved = world.rooms.move_alias(alias, from.id(), to.id());
            moved.await.expect("it is stored");
        }
        let found = world
            .rooms
            .alias(alias)
            .expect("it is read")
            .expect("it is there");
        assert_eq!((&*found.room_id, found.creator), (new.id(), bob));
        assert!(of(&old).is_empty());
        assert_eq!(of(&new), [alias]);
    }
}
