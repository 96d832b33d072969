//! Tokens as text.

use proptest::prelude::*;

use super::*;

#[test]
fn known_texts() {
    let token = SyncToken {
        shards: vec![(ShardId(0), 5), (ShardId(3), 300)],
        user: 7,
        ephemeral: (1, 2),
        presence: (3, 4),
        messages: None,
    };
    assert_eq!(token.to_string(), "s1_BwECAwQABQKsAg");
    let messages = Some(6);
    let with_messages = SyncToken {
        messages,
        ..token.clone()
    };
    assert_eq!(with_messages.to_string(), "m1_Bg.s1_BwECAwQABQKsAg");
    let place = BatchToken::Place(Place {
        anchor: 9,
        offset: -1,
    });
    assert_eq!(place.to_string(), "t1_CQE");
    assert_eq!(token.shard(ShardId(3)), 300);
    assert_eq!(token.shard(ShardId(1)), 0);
}

#[test]
fn a_user_may_have_rooms_in_all_shards() {
    // As many shards as a data directory can have, and positions as after years.
    let shards = (1..=1_024).map(|shard| (ShardId(shard), 1 << 33));
    let token = SyncToken {
        shards: shards.collect(),
        user: 1 << 33,
        ephemeral: (u64::MAX, 1 << 20),
        presence: (u64::MAX, 1 << 20),
        messages: None,
    };
    assert_eq!(SyncToken::parse(&token.to_string()).unwrap(), token);
    let pos = SlidingPos {
        connection: u64::MAX,
        answer: 1 << 20,
        token,
    };
    assert_eq!(SlidingPos::parse(&pos.to_string()), Some(pos));
}

#[test]
fn malformed_texts_are_refused() {
    for text in [
        "",
        "s",
        "s1",
        "s1_",
        "s1_!",
        "s1_BwECAwQAB",
        "s1_BwECAwQABQI",
        "s1_////",
        "t1_",
        "t1_CQ",
        "t1_CQEB",
        "n1_abc",
        "s72594_4483_1934",
        "s2_BwECAwQ",
        "\u{1f600}",
        "t1_gICAgICAgICAgICAAQ",
        "m1_Bg",
        "m1_Bg.",
        "m1_.s1_BwECAwQABQKsAg",
        "m1_BgY.s1_BwECAwQABQKsAg",
        "m1_Bg.t1_CQE",
        "m1_Bg.m1_Bg.s1_BwECAwQABQKsAg",
    ] {
        assert!(BatchToken::parse(text).is_err(), "{text}");
    }
    assert!(BatchToken::parse(&format!("s1_{}", "A".repeat(TEXT_MAX_BYTES))).is_err());
    assert!(SyncToken::parse("t1_CQE").is_err());
}

proptest! {
    #[test]
    fn sync_tokens_round_trip(
        shards in proptest::collection::btree_map(any::<u16>(), any::<u64>(), 0..40),
        user in any::<u64>(),
        ephemeral in any::<(u64, u64)>(),
        presence in any::<(u64, u64)>(),
        messages in any::<Option<u64>>(),
    ) {
        let shards = shards.into_iter().map(|(shard, at)| (ShardId(shard), at)).collect();
        let token = SyncToken { shards, user, ephemeral, presence, messages };
        prop_assert_eq!(SyncToken::parse(&token.to_string()).unwrap(), token);
    }

    #[test]
    fn places_round_trip(anchor in any::<u64>(), offset in any::<i32>()) {
        let token = BatchToken::Place(Place { anchor, offset });
        prop_assert_eq!(BatchToken::parse(&token.to_string()).unwrap(), token);
    }

    #[test]
    fn sliding_positions_round_trip(
        connection in any::<u64>(),
        answer in any::<u64>(),
        user in any::<u64>(),
    ) {
        let token = SyncToken { user, shards: vec![(ShardId(2), 9)], ..SyncToken::default() };
        let pos = SlidingPos { connection, answer, token: token.clone() };
        prop_assert_eq!(SlidingPos::parse(&pos.to_string()), Some(pos.clone()));
        prop_assert_eq!(BatchToken::parse(&pos.to_string()).unwrap(), BatchToken::Sync(token));
        prop_assert_eq!(ToDeviceToken::parse(&ToDeviceToken(user).to_string()).unwrap(), ToDeviceToken(user));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(s1_|t1_|n1_)?.{0,60}") {
        if let Ok(token) = BatchToken::parse(&text) {
            prop_assert_eq!(BatchToken::parse(&token.to_string()).unwrap(), token);
        }
    }
}
