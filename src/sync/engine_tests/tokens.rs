//! Tokens of accounts whose rooms lie in many shards.

use hearth_core::limits::SYNC_TOKEN_MAX_BYTES;
use hearth_storage::ShardId;

use super::*;
use crate::{BatchToken, SlidingPos};

/// A token of so many shards, as it is after years.
fn long(shards: u16, moved: u64) -> SyncToken {
    SyncToken {
        shards: (1..=shards)
            .map(|shard| (ShardId(shard), 4_000_000_000 + u64::from(shard)))
            .map(|(shard, at)| {
                (
                    shard,
                    if u64::from(shard.0) % 97 < moved {
                        at + moved
                    } else {
                        at
                    },
                )
            })
            .collect(),
        user: 5_000_000_000,
        ephemeral: (1 << 47, 9_000),
        presence: (1 << 52, 1_000_000),
        messages: None,
    }
}

#[tokio::test]
async fn a_token_fits_a_url_however_many_shards_there_are() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    let index = world.sync.notifier.index(&alice);
    for shards in [1, 16, 100, 256, 1024] {
        for moved in 0..5 {
            let token = long(shards, moved);
            let text = world.sync.token_text(&index, None, &token).await;
            assert!(
                text.len() <= SYNC_TOKEN_MAX_BYTES,
                "{shards}: {} bytes",
                text.len()
            );
            assert_eq!(SyncToken::read(&alice, &text).unwrap(), token, "{shards}");
            assert_eq!(
                BatchToken::read(&alice, &text).unwrap(),
                BatchToken::Sync(token.clone())
            );
            assert_eq!(text.starts_with("s1_"), shards <= 100, "{text}");
            let pos = SlidingPos {
                connection: 7,
                answer: 9,
                token: token.clone(),
            };
            let text = world.sync.pos_text(&index, None, &pos).await;
            assert!(
                text.len() <= SYNC_TOKEN_MAX_BYTES,
                "{shards}: {} bytes",
                text.len()
            );
            assert_eq!(SlidingPos::read(&alice, &text).unwrap(), Some(pos), "{shards}");
            assert_eq!(BatchToken::read(&alice, &text).unwrap(), BatchToken::Sync(token));
        }
    }
}

#[tokio::test]
async fn bases_are_stored_seldom_and_kept_for_a_while() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let index = world.sync.notifier.index(&alice);
    let base = world.sync.token_text(&index, None, &long(1024, 0)).await;
    let position = alice.position();
    let next = world.sync.token_text(&index, None, &long(1024, 1)).await;
    assert_eq!(alice.position(), position, "what differs fits beside the base");
    // They are good after a restart, for their user alone.
    assert!(SyncToken::read(&bob, &base).is_err());
    let (world, id) = (world.restarted(), alice.id().to_owned());
    let alice = world.users.get(&id).unwrap().unwrap();
    assert_eq!(SyncToken::read(&alice, &base).unwrap(), long(1024, 0));
    assert_eq!(SyncToken::read(&alice, &next).unwrap(), long(1024, 1));
    // A device keeps some; another device's do not push them out.
    let index = world.sync.notifier.index(&alice);
    let mut all = vec![(next, long(1024, 1))];
    for step in 1..20 {
        let mut token = long(1024, 0);
        token.shards.iter_mut().for_each(|(_, at)| *at += step);
        all.push((world.sync.token_text(&index, None, &token).await, token));
    }
    let good = all
        .iter()
        .filter(|(text, token)| SyncToken::read(&alice, text).is_ok_and(|read| read == *token));
    assert_eq!(good.count(), 8);
    assert!(SyncToken::read(&alice, &all[19].0).is_ok() && SyncToken::read(&alice, &all[0].0).is_err());
}

/// Damaged names, and those of others, are no tokens.
#[tokio::test]
async fn names_are_read_with_care() {
    let world = World::new(1);
    let alice = world.user("alice").await;
    for text in [
        "n1_",
        "n1_!",
        "n1_AAAA",
        "n1_AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "q1_",
        "q1_AAAA",
        "q1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert!(BatchToken::read(&alice, text).is_err(), "{text}");
        assert!(BatchToken::parse(text).is_err(), "{text}");
        assert_eq!(SlidingPos::read(&alice, text).unwrap(), None, "{text}");
    }
}

/// A whole account in a thousand shards follows by its tokens.
#[tokio::test]
async fn an_account_in_many_shards_follows() {
    let world = World::new(1024);
    let alice = world.user("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..500 {
        rooms.push(world.room(&alice, Preset::PublicChat).await);
    }
    let request = || SyncRequest {
        device: None,
        ..request(&alice)
    };
    let mut answer = world.sync(&request()).await;
    let mut named = 0;
    for step in 0..5 {
        let token = answer["next_batch"].as_str().unwrap();
        named += usize::from(token.starts_with("n1_"));
        assert!(token.len() <= SYNC_TOKEN_MAX_BYTES);
        say(&rooms[step * 7], &alice, &format!("m{step}")).await;
        let mut since = request();
        since.since = Some(SyncToken::read(&alice, token).unwrap());
        answer = world.sync(&since).await;
        assert_eq!(bodies(&answer, "join", &rooms[step * 7]), [format!("m{step}")]);
        assert_eq!(answer["rooms"]["join"].as_object().unwrap().len(), 1);
    }
    assert!(named > 0, "the account is not spread enough");
}
