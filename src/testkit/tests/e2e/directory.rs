//! Aliases, the public directory, the user directory.

use hearth_testkit::{SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation::{public_room, servers};

scenarios!(aliases, public_rooms, user_search, canonical_aliases_must_exist);

async fn aliases(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().build().await;
    let path = format!("/directory/room/{}", encode("#a:hs1"));
    alice.put(&path, json!({ "room_id": room })).await.ok();
    let found = bob.get(&path).await.ok();
    assert_eq!(
        (&found["room_id"], &found["servers"]),
        (&json!(room), &json!(["hs1"]))
    );
    bob.put(&path, json!({ "room_id": room }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.post(&format!("/join/{}", encode("#a:hs1")), json!({}))
        .await
        .ok();
    bob.put(&path, json!({ "room_id": room }))
        .await
        .refused(409, "M_UNKNOWN");
    let list = bob.get(&format!("/rooms/{}/aliases", encode(&room))).await.ok();
    assert_eq!(list["aliases"], json!(["#a:hs1"]));
    bob.delete(&path).await.refused(403, "M_FORBIDDEN");
    alice.delete(&path).await.ok();
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    alice.delete(&path).await.refused(404, "M_NOT_FOUND");
    alice
        .put(&path, json!({ "room_id": "!none:hs1" }))
        .await
        .refused(403, "M_FORBIDDEN");
    let invalid = alice
        .put(
            &format!("/directory/room/{}", encode("a:hs1")),
            json!({ "room_id": room }),
        )
        .await;
    assert_eq!(invalid.status, 400, "{}", invalid.text());
}

async fn public_rooms(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for number in 0..3 {
        let mut builder = alice
            .room()
            .set("visibility", json!("public"))
            .set("name", json!(format!("Room {number}")));
        if number == 1 {
            builder = builder.with(&bob);
        }
        rooms.push(builder.build().await);
    }
    let hidden = alice.room().set("name", json!("Room hidden")).build().await;
    let names = |list: &Value| {
        let chunk = list["chunk"].as_array().cloned().unwrap_or_default();
        chunk
            .iter()
            .map(|room| room["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let all = bob.get("/publicRooms").await.ok();
    assert_eq!(names(&all).len(), 3, "{all}");
    assert_eq!(names(&all)[0], "Room 1", "the largest stands first");
    assert_eq!(all["chunk"][0]["num_joined_members"], 2);
    let some = bob
        .post(
            "/publicRooms",
            json!({ "filter": { "generic_search_term": "ROOM 2" } }),
        )
        .await
        .ok();
    assert_eq!(names(&some), ["Room 2"]);
    let first = bob.get("/publicRooms?limit=2").await.ok();
    let next = first["next_batch"].as_str().unwrap_or_default();
    let rest = bob
        .get(&format!("/publicRooms?limit=2&since={}", encode(next)))
        .await
        .ok();
    assert_eq!(names(&first).len() + names(&rest).len(), 3);
    assert!(rest.get("next_batch").is_none());
    let previous = rest["prev_batch"].as_str().unwrap_or_default();
    let back = bob
        .get(&format!("/publicRooms?limit=2&since={}", encode(previous)))
        .await
        .ok();
    assert_eq!(names(&back), names(&first));
    let empty = bob.get("/publicRooms?since=").await.ok();
    assert_eq!(names(&empty), names(&all), "an empty token is none");
    let empty = bob.post("/publicRooms", json!({ "since": "" })).await.ok();
    assert_eq!(names(&empty), names(&all));
    // None is none, with where the page would have begun.
    for none in [
        bob.get("/publicRooms?limit=0").await.ok(),
        bob.post("/publicRooms", json!({ "limit": 0 })).await.ok(),
    ] {
        assert_eq!(
            (&none["chunk"], &none["total_room_count_estimate"]),
            (&json!([]), &json!(3))
        );
        let begin = none["next_batch"].as_str().expect("a token");
        let page = bob
            .get(&format!("/publicRooms?since={}", encode(begin)))
            .await
            .ok();
        assert_eq!(names(&page), names(&all));
    }
    bob.get("/publicRooms?since=p2")
        .await
        .refused(400, "M_INVALID_PARAM");

    // What was read once follows the rooms.
    let path = format!("/rooms/{}/state/m.room.name", encode(&rooms[2]));
    alice.put(&path, json!({ "name": "Kitchen" })).await.ok();
    bob.post(&format!("/join/{}", encode(&rooms[2])), json!({}))
        .await
        .ok();
    bob.post(&format!("/rooms/{}/leave", encode(&rooms[1])), json!({}))
        .await
        .ok();
    let kitchen = bob.get("/publicRooms?limit=1").await.ok();
    assert_eq!(
        (names(&kitchen), &kitchen["chunk"][0]["num_joined_members"]),
        (vec!["Kitchen".to_owned()], &json!(2))
    );
    assert_eq!(kitchen["total_room_count_estimate"], 3);
    let none = bob
        .post(
            "/publicRooms",
            json!({ "filter": { "generic_search_term": "room 2" } }),
        )
        .await
        .ok();
    assert!(names(&none).is_empty(), "{none}");

    let listing = format!("/directory/list/room/{}", encode(&hidden));
    assert_eq!(bob.get(&listing).await.ok()["visibility"], "private");
    bob.put(&listing, json!({ "visibility": "public" }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.put(&listing, json!({ "visibility": "public" })).await.ok();
    assert_eq!(names(&bob.get("/publicRooms").await.ok()).len(), 4);
    alice.put(&listing, json!({ "visibility": "private" })).await.ok();
    assert_eq!(names(&bob.get("/publicRooms").await.ok()).len(), 3);
}

async fn user_search(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    alice.room().with(&bob).build().await;
    eve.room().preset("private_chat").build().await;
    let find = async |term: &str| {
        let answer = alice
            .post("/user_directory/search", json!({ "search_term": term }))
            .await
            .ok();
        answer["results"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!(find("bob").await[0]["user_id"], bob.user_id.as_str());
    let path = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&path, json!({ "displayname": "Robert Fripp" }))
        .await
        .ok();
    assert_eq!(find("fripp").await[0]["display_name"], "Robert Fripp");
    assert!(find("zzz").await.is_empty());
}

async fn canonical_aliases_must_exist(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().set("room_alias_name", json!("a")).build().await;
    let set = async |content: Value| {
        alice
            .try_set_state(&room, "m.room.canonical_alias", "", content)
            .await
    };
    set(json!({ "alias": "#none:hs1" }))
        .await
        .refused(400, "M_BAD_ALIAS");
    set(json!({ "alias": "#a:hs1", "alt_aliases": ["#none:hs1"] }))
        .await
        .refused(400, "M_BAD_ALIAS");
    set(json!({ "alias": "no alias" }))
        .await
        .refused(400, "M_INVALID_PARAM");
    set(json!({ "alias": "#a:hs1", "alt_aliases": ["#a:hs1"] }))
        .await
        .ok();
    set(json!({})).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_canonical_alias_may_be_of_another_server() {
    let network = SimNetwork::new(23);
    let servers = servers(&network, 2);
    let (alice, bob) = (
        servers[0].register("alice").await,
        servers[1].register("bob").await,
    );
    let room = public_room(&alice, "11").await;
    let other = public_room(&bob, "11").await;
    bob.post(&format!("/join/{room}?via=hs1"), json!({})).await.ok();
    for (alias, room) in [("#here:hs2", &room), ("#there:hs2", &other)] {
        let path = format!("/directory/room/{}", encode(alias));
        bob.put(&path, json!({ "room_id": room })).await.ok();
    }
    let set = async |content: Value| {
        alice
            .try_set_state(&room, "m.room.canonical_alias", "", content)
            .await
    };
    for wrong in ["#there:hs2", "#none:hs2", "#none:hs3"] {
        set(json!({ "alt_aliases": [wrong] }))
            .await
            .refused(400, "M_BAD_ALIAS");
    }
    set(json!({ "alias": "#here:hs2" })).await.ok();
}
