//! Answers that are as large as an account.

use std::time::Duration;

use futures::FutureExt as _;
use hearth_sync::{Filter, StateSide, SyncRequest};
use hearth_users::PresenceState;

use super::*;
use crate::client::large;

#[tokio::test]
async fn a_large_sync_waits_for_its_place() {
    let server = Server::new();
    let app = &server.app;
    let token = server.user("alice", "A").await;
    server
        .post(&format!("{V3}/createRoom"), &token, json!({}))
        .await
        .ok();
    let request = |events_max: usize| SyncRequest {
        user: app
            .user(&UserId::parse("@alice:hs1").expect("a user id"))
            .expect("a user"),
        device: None,
        filter: Arc::new(Filter::default()),
        since: None,
        full_state: false,
        state: StateSide::Before,
        timeout: Duration::ZERO,
        set_presence: PresenceState::Offline,
        to_device: false,
        events_max,
    };
    let (view, place) = large::sync(app, &mut request(3)).await.expect("a sync");
    assert!(view.joined.len() == 1 && place.is_some());
    let (mut held, mut users) = (Vec::new(), 0);
    while let Some(place) = app
        .large_client_answers
        .place(&format!("@u{users}:hs1"))
        .now_or_never()
    {
        held.push(place);
        users += 1;
    }
    assert!(large::sync(app, &mut request(3)).now_or_never().is_none());
    // What is small waits for nobody.
    let (view, small) = large::sync(app, &mut request(100)).await.expect("a sync");
    assert!(view.joined.len() == 1 && small.is_none());
    drop(place);
    let (view, place) = large::sync(app, &mut request(3)).await.expect("a sync");
    assert!(view.joined.len() == 1 && place.is_some());
}
