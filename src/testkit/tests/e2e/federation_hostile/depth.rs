//! The depth of events, which a server may say as it likes.

use super::*;

/// An event that is as deep as can be does not keep others from coming in, and none is deeper.
#[tokio::test(start_paused = true)]
async fn a_room_as_deep_as_can_be_goes_on() {
    for (version, max) in [
        ("5", (1_u64 << 63) - 1),
        ("10", (1 << 53) - 1),
        ("12", (1 << 53) - 1),
    ] {
        let stage = Stage::new(version).await;
        let (known, peer) = (&stage.known, &stage.peer);
        let prev = [known.join.event_id.clone()];
        let deep = known.message(peer, "deep", &prev, max);
        peer.send("hs1", "deep", &[json_of(&deep)]).await;
        stage.settle().await;
        assert!(stage.accepts(&deep.event_id), "{version}");
        // Who follows by the template of a server, and what that server sends itself.
        let other = Peer::new("other", &stage.network);
        let joined = other.join("hs1", &stage.room_id, version).await;
        assert_eq!(joined.join.depth(), max, "{version}");
        stage.ann.say(&stage.room_id, "I am here").await;
        let tips = stage.room().tips().expect("they are read");
        let depths: Vec<u64> = tips.iter().map(|tip| tip.pdu.depth()).collect();
        assert_eq!(depths, [max], "{version}");
    }
}
