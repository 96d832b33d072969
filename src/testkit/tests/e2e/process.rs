//! The real binary on RocksDB: killed at once, it comes back with everything it acknowledged.

use hearth_testkit::{Follower, TestProcess};
use serde_json::json;

#[tokio::test]
async fn a_killed_server_comes_back_whole() {
    let Some(binary) = TestProcess::binary() else {
        eprintln!("skipped: build the hearth binary first, or name it in HEARTH_BINARY");
        return;
    };
    let mut process = TestProcess::start(binary).await;
    let (alice, bob) = (process.register("alice").await, process.register("bob").await);
    let room = alice.room().with(&bob).messages(3).build().await;
    let mut follower = Follower::new(bob.on(process.endpoint()), "");
    follower.pull().await;
    let mut sent = Vec::new();
    for round in 0..3 {
        for number in 0..5 {
            sent.push(alice.say(&room, &format!("{round}.{number}")).await);
        }
        alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": round.to_string() }))
            .await;
        process.restart().await;
        let topic = alice.state(&room, "m.room.topic", "").await.ok();
        assert_eq!(topic["topic"], round.to_string());
        follower.check("after a kill").await;
    }
    let page = bob.messages(&room, "dir=b&limit=100").await;
    let mut seen = crate::ids(&page["chunk"]);
    seen.reverse();
    seen.retain(|id| sent.contains(id));
    assert_eq!(seen, sent);
    process.kill();
}
