//! What a server knows of members of other servers.

use hearth_testkit::{Client, SimNetwork};
use serde_json::{Value, json};

use crate::accounts::confirmed;
use crate::federation::{public_room, servers, until};

/// Who is found, by their ids.
async fn found(client: &Client, term: &str) -> Vec<String> {
    let body = json!({ "search_term": term });
    let answer = client.post("/user_directory/search", body).await.ok();
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let id = |user: &Value| user["user_id"].as_str().map(str::to_owned);
    results.iter().filter_map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn the_directory_has_members_of_other_servers() {
    let network = SimNetwork::new(31);
    let servers = servers(&network, 3);
    let alice = servers[0].register("alice").await;
    let eve = servers[0].register("eve").await;
    let bob = servers[1].register("bob").await;
    let carol = servers[2].register("carol").await;
    let room = public_room(&alice, "11").await;
    let private = json!({ "join_rule": "invite" });
    carol.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    until("alice finds carol", async || {
        (found(&alice, "carol").await == ["@carol:hs3"]).then_some(())
    })
    .await;
    assert_eq!(found(&eve, "carol").await, ["@carol:hs3"], "the room is public");
    alice
        .put(&format!("/rooms/{room}/state/m.room.join_rules"), private)
        .await
        .ok();
    assert!(found(&eve, "carol").await.is_empty(), "they share no room");

    // Bob's server learns of most members after it has joined.
    alice
        .put(
            &format!("/rooms/{room}/state/m.room.join_rules"),
            json!({ "join_rule": "public" }),
        )
        .await
        .ok();
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    until("bob finds carol", async || {
        (found(&bob, "carol").await == ["@carol:hs3"]).then_some(())
    })
    .await;
    let before = bob.sync("timeout=0").await;
    carol
        .put(
            "/profile/@carol:hs3/displayname",
            json!({ "displayname": "Zara Zimt" }),
        )
        .await
        .ok();
    until("bob finds her new name", async || {
        (found(&bob, "zim").await == ["@carol:hs3"]).then_some(())
    })
    .await;
    // And is told of her devices.
    carol
        .put(
            &format!("/devices/{}", carol.device_id),
            json!({ "display_name": "new" }),
        )
        .await
        .ok();
    until("her devices show", async || {
        let news = bob.sync_since(&before).await;
        let changed = news["device_lists"]["changed"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        changed.contains(&json!("@carol:hs3")).then_some(())
    })
    .await;

    carol.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    until("bob finds her no more", async || {
        found(&bob, "zim").await.is_empty().then_some(())
    })
    .await;
    assert_eq!(found(&bob, "alice").await, ["@alice:hs1"]);
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    until("bob finds nobody", async || {
        found(&bob, "alice").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_for_good_declines_invitations_to_rooms_elsewhere() {
    let network = SimNetwork::new(32);
    let servers = servers(&network, 2);
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = public_room(&alice, "11").await;
    alice.invite(&room, &bob).await;
    until("bob is invited", async || {
        let news = bob.sync("timeout=0").await;
        news["rooms"]["invite"].get(&room).map(|_| ())
    })
    .await;
    confirmed(&bob, "/account/deactivate", json!({})).await;
    until("bob has declined", async || {
        let member = alice.state(&room, "m.room.member", &bob.user_id).await.ok();
        (member["membership"] == "leave").then_some(())
    })
    .await;
}
