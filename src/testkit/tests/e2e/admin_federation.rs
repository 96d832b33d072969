//! What an administrator sees of the queues to and from other servers, and what the metrics say of them.

use std::time::Duration;

use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

const DESTINATIONS: &str = "/_synapse/admin/v1/federation/destinations";
const ON_HOLD: &str = "/_hearth/admin/v1/federation/rooms_on_hold";

/// Asks until the answer fits; time is simulated.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(found) = ask().await {
            return found;
        }
        // A server that does not answer fails after a minute.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{what}: not in time");
}

/// Two servers with one room; the administrator of the first, and somebody of the second.
async fn one_room(network: &SimNetwork) -> (TestServer, TestServer, Client, Client, String) {
    let one = TestServer::simulated("hs1", 4, 1, network);
    let two = TestServer::simulated("hs2", 4, 2, network);
    let (admin, bob) = (one.register("admin").await, two.register("bob").await);
    let room = admin.create_room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{}?via=hs1", encode(&room)), json!({}))
        .await
        .ok();
    until("the join reaches hs1", async || {
        let members = admin
            .get(&format!("/rooms/{}/joined_members", encode(&room)))
            .await
            .ok();
        members["joined"].get("@bob:hs2").cloned()
    })
    .await;
    (one, two, admin, bob, room)
}

#[tokio::test(start_paused = true)]
async fn destinations_are_shown_and_tried_again() {
    let network = SimNetwork::new(3);
    let (one, two, admin, _, room) = one_room(&network).await;
    let user = one.register("user").await;
    for path in [DESTINATIONS, ON_HOLD] {
        user.get(path).await.refused(403, "M_FORBIDDEN");
    }
    let unknown = format!("{DESTINATIONS}/nobody.example");
    for path in [unknown.clone(), format!("{unknown}/rooms")] {
        admin.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    network.partition("hs1", "hs2");
    let said = admin.say(&room, "there?").await;
    let failing = until("hs2 fails", async || {
        let listed = admin.get(DESTINATIONS).await.ok();
        let first = listed["destinations"][0].clone();
        (listed["total"] == 1 && first["failures"].as_u64() > Some(1)).then_some(first)
    })
    .await;
    assert_eq!(failing["destination"], "hs2");
    assert_eq!(failing["rooms_behind"], 1);
    for name in ["retry_last_ts", "retry_interval", "failure_ts"] {
        assert!(failing[name].as_u64() > Some(0), "{name} in {failing}");
    }
    assert!(
        failing["last_error"].is_string()
            && failing.get("last_successful_stream_ordering") == Some(&Value::Null)
    );
    assert!(failing["failure_ts"].as_u64() <= failing["retry_last_ts"].as_u64());
    let rooms = admin.get(&format!("{DESTINATIONS}/hs2/rooms")).await.ok();
    assert_eq!(
        (&rooms["total"], &rooms["rooms"][0]["room_id"]),
        (&json!(1), &json!(room))
    );
    let metrics = one.inner().parts().facts().samples();
    assert!(
        metrics.contains("federation_destinations{state=\"failing\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("federation_destination_failures{destination=\"hs2\",error=\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("room_forward_extremities_bucket{le=\"1\"} 1"),
        "{metrics}"
    );
    // The other server is there again, and would be tried much later.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    network.heal("hs1", "hs2");
    let reset = format!("{DESTINATIONS}/hs2/reset_connection");
    admin.post(&reset, json!({})).await.ok();
    let bob = two.login("bob", "D2").await;
    until("hs2 has the message", async || {
        let path = format!("/rooms/{}/event/{}", encode(&room), encode(&said));
        (bob.get(&path).await.status == 200).then_some(())
    })
    .await;
    let well = until("hs2 is well", async || {
        let well = admin.get(&format!("{DESTINATIONS}/hs2")).await.ok();
        (well["failures"] == 0).then_some(well)
    })
    .await;
    assert_eq!(
        (&well["last_error"], &well["failure_ts"]),
        (&Value::Null, &Value::Null)
    );
    admin.post(&reset, json!({})).await.refused(400, "M_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn destinations_come_in_pages_and_orders() {
    let network = SimNetwork::new(4);
    let (_one, _two, admin, _, room) = one_room(&network).await;
    let three = TestServer::simulated("hs3", 4, 3, &network);
    let carol = three.register("carol").await;
    carol
        .post(&format!("/join/{}?via=hs1", encode(&room)), json!({}))
        .await
        .ok();
    // Nothing is kept of a server until it is sent something.
    admin.say(&room, "welcome").await;
    until("two destinations", async || {
        let listed = admin.get(DESTINATIONS).await.ok();
        (listed["total"] == 2).then_some(())
    })
    .await;
    let names = async |query: &str| {
        let listed = admin.get(&format!("{DESTINATIONS}?{query}")).await.ok();
        let names = listed["destinations"].as_array().expect("an array").iter();
        let names: Vec<_> = names
            .map(|one| one["destination"].as_str().expect("a name").to_owned())
            .collect();
        (names.join(" "), listed["next_token"].as_str().map(str::to_owned))
    };
    assert_eq!(names("").await, ("hs2 hs3".to_owned(), None));
    assert_eq!(names("dir=b").await.0, "hs3 hs2");
    assert_eq!(names("limit=1").await, ("hs2".to_owned(), Some("1".to_owned())));
    assert_eq!(names("limit=1&from=1").await, ("hs3".to_owned(), None));
    assert_eq!(names("destination=S3").await.0, "hs3");
    for wrong in ["dir=x", "order_by=colour"] {
        admin
            .get(&format!("{DESTINATIONS}?{wrong}"))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
