//! Search in messages (Client-Server API, "Server Side Search").

mod answers;
mod damaged;

use std::time::Duration;

use hearth_core::Config;
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use serde_json::{Value, json};

use crate::federation_hostile::peer::{Peer, json_of};
use crate::{bodies, ids};

scenarios!(
    messages_names_and_topics_are_found,
    a_room_is_searched_with_those_that_it_replaced,
    redacted_and_edited_messages_are_found_as_they_are_now,
    words_are_found_however_they_are_written,
    encrypted_rooms_are_not_searched,
    only_what_the_searcher_may_see_is_found
);

/// A search; `more` are members of its category beside the term.
async fn search(client: &Client, term: &str, more: Value) -> Value {
    page(client, term, more, None).await
}

async fn page(client: &Client, term: &str, more: Value, from: Option<&Value>) -> Value {
    let mut category = json!({ "search_term": term });
    let more = more.as_object().cloned().unwrap_or_default();
    category.as_object_mut().expect("an object").extend(more);
    let path = match from.and_then(Value::as_str) {
        Some(token) => format!("/search?next_batch={}", encode(token)),
        None => "/search".to_owned(),
    };
    let body = json!({ "search_categories": { "room_events": category } });
    client.post(&path, body).await.ok()["search_categories"]["room_events"].clone()
}

/// The events of an answer, in its order.
fn results(answer: &Value) -> Value {
    let list = answer["results"].as_array().expect("results");
    list.iter().map(|result| result["result"].clone()).collect()
}

/// The bodies of what a search finds, newest first.
async fn found(client: &Client, term: &str) -> Vec<String> {
    bodies(&results(
        &search(client, term, json!({ "order_by": "recent" })).await,
    ))
}

async fn messages_names_and_topics_are_found(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice
        .room()
        .set("name", json!("Gardeners"))
        .set("topic", json!("All about roses"))
        .build()
        .await;
    let event = alice.say(&room, "Hello, my ROSES are blooming").await;
    alice.say(&room, "something else").await;
    let answer = search(&alice, "roses hello", json!({})).await;
    assert_eq!(answer["count"], 1, "{answer}");
    assert_eq!(answer["highlights"], json!(["roses", "hello"]));
    let result = &answer["results"][0];
    assert!(result["rank"].as_f64().is_some_and(|rank| rank > 0.0), "{answer}");
    assert_eq!(
        (&result["result"]["event_id"], &result["result"]["room_id"]),
        (&json!(event), &json!(room))
    );
    assert!(answer.get("next_batch").is_none() && answer.get("state").is_none());

    let types = |answer: &Value| -> Vec<String> {
        let list = results(answer).as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|event| event["type"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let all = search(&alice, "roses", json!({ "order_by": "recent" })).await;
    assert_eq!(types(&all), ["m.room.message", "m.room.topic"]);
    let topics = search(&alice, "roses", json!({ "keys": ["content.topic"] })).await;
    assert_eq!(types(&topics), ["m.room.topic"]);
    let names = search(
        &alice,
        "GARDENERS",
        json!({ "keys": ["content.name", "content.body"] }),
    )
    .await;
    assert_eq!(types(&names), ["m.room.name"]);
    for nothing in ["roses tulips", "rose", "", "...", "m.room.message"] {
        let answer = search(&alice, nothing, json!({})).await;
        assert_eq!(
            (&answer["count"], &answer["results"]),
            (&json!(0), &json!([])),
            "{nothing}"
        );
    }
    let state = search(&alice, "hello", json!({ "include_state": true })).await;
    let kinds: Vec<_> = state["state"][&room]
        .as_array()
        .expect("state")
        .iter()
        .map(|event| &event["type"])
        .collect();
    assert!(kinds.contains(&&json!("m.room.create")), "{state}");
}

async fn a_room_is_searched_with_those_that_it_replaced(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut room = alice.room().with(&bob).build().await;
    let first = room.clone();
    for said in ["the first chapter", "the second chapter"] {
        alice.say(&room, said).await;
        let upgraded = alice
            .act(&room, "upgrade", json!({ "new_version": "12" }))
            .await
            .ok();
        room = upgraded["replacement_room"].as_str().expect("a room").to_owned();
    }
    alice.say(&room, "the third chapter").await;
    // What was said in several rooms in one millisecond has no order.
    let asked = async |client: &Client, filter: Value| {
        let asked = json!({ "order_by": "recent", "filter": filter });
        let mut found = bodies(&results(&search(client, "chapter", asked).await));
        found.sort_by_key(|body| {
            ["third", "second", "first"]
                .iter()
                .position(|word| body.contains(word))
        });
        found
    };
    let all = ["the third chapter", "the second chapter", "the first chapter"];
    assert_eq!(asked(&alice, json!({ "rooms": [room] })).await, all);
    assert_eq!(asked(&alice, json!({ "rooms": [first] })).await, all[2..]);
    assert_eq!(
        asked(&alice, json!({ "rooms": [room], "not_rooms": [first] })).await,
        all[..2]
    );
    assert!(
        asked(&bob, json!({ "rooms": [room] })).await.is_empty(),
        "bob has not followed"
    );
}

async fn redacted_and_edited_messages_are_found_as_they_are_now(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    let secret = alice.say(&room, "a plain secret").await;
    alice.say(&room, "no secret").await;
    assert_eq!(found(&alice, "secret").await, ["no secret", "a plain secret"]);
    alice.redact(&room, &secret).await;
    assert_eq!(found(&alice, "secret").await, ["no secret"]);

    let first = alice.say(&room, "original").await;
    let edit = |text: &str| {
        json!({
            "msgtype": "m.text",
            "body": format!("* {text}"),
            "m.new_content": { "msgtype": "m.text", "body": text },
            "m.relates_to": { "rel_type": "m.replace", "event_id": first },
        })
    };
    let one = alice.send(&room, "m.room.message", edit("improved")).await;
    assert_eq!(found(&alice, "original").await, Vec::<String>::new());
    let answer = search(&alice, "improved", json!({})).await;
    assert_eq!(ids(&results(&answer)), [first.as_str()]);
    let bundled = &answer["results"][0]["result"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(bundled["event_id"], one.as_str());
    let two = alice.send(&room, "m.room.message", edit("polished")).await;
    assert_eq!(found(&alice, "improved").await, Vec::<String>::new());
    assert_eq!(found(&alice, "polished").await, ["original"]);
    alice.redact(&room, &two).await;
    assert_eq!(found(&alice, "polished").await, Vec::<String>::new());
    assert_eq!(found(&alice, "improved").await, ["original"]);
    alice.redact(&room, &one).await;
    assert_eq!(found(&alice, "original").await, ["original"]);
    alice.redact(&room, &first).await;
    assert_eq!(found(&alice, "original").await, Vec::<String>::new());
}

async fn words_are_found_however_they_are_written(server: &TestServer) {
    let alice = server.register("alice").await;
    let room = alice.room().build().await;
    for text in [
        "Crème fraîche",
        "résumé of the year",
        // As file names of some systems have it: each accent is a character of its own.
        "re\u{301}sume\u{301}.pdf",
        "東京に行く",
        "京の東",
        "ＨＥＬＬＯ from afar",
        "quick brown fox",
        "brown quick fox",
        "हिन्दी में",
        "مُحَمَّد",
        "done 🎉",
    ] {
        alice.say(&room, text).await;
    }
    for (term, expected) in [
        ("creme", &["Crème fraîche"][..]),
        ("resume", &["re\u{301}sume\u{301}.pdf", "résumé of the year"]),
        ("RÉSUMÉ", &["re\u{301}sume\u{301}.pdf", "résumé of the year"]),
        ("東京", &["東京に行く"]),
        ("東 京", &["京の東", "東京に行く"]),
        ("hello", &["ＨＥＬＬＯ from afar"]),
        ("brown quick", &["brown quick fox", "quick brown fox"]),
        ("\"brown quick\"", &["brown quick fox"]),
        ("fox \"quick brown\"", &["quick brown fox"]),
        ("हिन्दी", &["हिन्दी में"]),
        ("محمد", &["مُحَمَّد"]),
        ("🎉", &["done 🎉"]),
    ] {
        assert_eq!(found(&alice, term).await, expected, "{term}");
    }
    for (term, expected) in [
        ("creme", json!(["creme", "crème"])),
        ("東京", json!(["東京"])),
        ("\"brown quick\" fox", json!(["brown", "quick", "fox"])),
    ] {
        assert_eq!(search(&alice, term, json!({})).await["highlights"], expected);
    }
}

async fn encrypted_rooms_are_not_searched(server: &TestServer) {
    let alice = server.register("alice").await;
    let (plain, room) = (alice.room().build().await, alice.room().build().await);
    alice.say(&plain, "in clear here").await;
    alice.say(&room, "in clear there").await;
    assert_eq!(search(&alice, "clear", json!({})).await["count"], 2);
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.set_state(&room, "m.room.encryption", "", algorithm).await;
    alice.say(&room, "in clear by mistake").await;
    let answer = search(&alice, "clear", json!({ "order_by": "recent" })).await;
    assert_eq!(bodies(&results(&answer)), ["in clear here"]);
    assert_eq!(answer["count"], 1);
}

/// A page that is full before it comes to what the room said shows by its count whether the index still has that.
#[tokio::test]
async fn what_an_encrypted_room_said_leaves_the_index() {
    let server = TestServer::memory(4).await;
    let alice = server.register("alice").await;
    let (plain, room) = (alice.room().build().await, alice.room().build().await);
    let said = alice.say(&room, "in clear there").await;
    alice.say(&plain, "in clear here").await;
    alice.say(&plain, "in clear here, too").await;
    let count = async |client: &Client| {
        let page = json!({ "order_by": "recent", "filter": { "limit": 1 } });
        search(client, "clear", page).await["count"].clone()
    };
    assert_eq!(count(&alice).await, 3);
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.set_state(&room, "m.room.encryption", "", algorithm).await;
    assert_eq!(count(&alice).await, 2);
    // Neither what is said in clear afterwards, nor an edit of what was said before.
    let edit = json!({ "msgtype": "m.text", "body": "* in clear again",
        "m.new_content": { "msgtype": "m.text", "body": "in clear again" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": said } });
    alice.send(&room, "m.room.message", edit).await;
    alice.say(&room, "in clear by mistake").await;
    alice.say(&plain, "nothing").await;
    assert_eq!(count(&alice).await, 2);
    // This server's index is in memory, and built from the rooms at each start.
    let server = server.restart().await;
    assert_eq!(count(&alice.on(server.endpoint())).await, 2);
}

async fn only_what_the_searcher_may_see_is_found(server: &TestServer) {
    let (alice, bob, eve) = (
        server.register("alice").await,
        server.register("bob").await,
        server.register("eve").await,
    );
    let room = alice
        .room()
        .preset("private_chat")
        .visibility("joined")
        .build()
        .await;
    alice.say(&room, "seen by alice").await;
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    let shared = alice.say(&room, "seen by both").await;
    bob.leave(&room).await;
    alice.say(&room, "seen by alice again").await;
    let edit = json!({
        "msgtype": "m.text",
        "body": "* unseen",
        "m.new_content": { "msgtype": "m.text", "body": "unseen" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": shared },
    });
    assert_eq!(
        found(&alice, "seen").await,
        ["seen by alice again", "seen by both", "seen by alice"]
    );
    assert_eq!(found(&bob, "seen").await, ["seen by both"]);
    assert_eq!(found(&eve, "seen").await, Vec::<String>::new());
    // An edit that bob may not see tells him nothing.
    alice.send(&room, "m.room.message", edit).await;
    assert_eq!(found(&bob, "unseen").await, Vec::<String>::new());
    let answer = search(&bob, "seen", json!({})).await;
    assert_eq!(answer["count"], 0);
    bob.act(&room, "forget", json!({})).await.ok();
    assert_eq!(found(&bob, "both").await, Vec::<String>::new());

    let open = alice.room().with(&eve).build().await;
    eve.say(&open, "ignore me").await;
    assert_eq!(found(&alice, "ignore").await, ["ignore me"]);
    let ignored = json!({ "ignored_users": { eve.user_id.clone(): {} } });
    alice
        .put(
            &format!(
                "/user/{}/account_data/m.ignored_user_list",
                encode(&alice.user_id)
            ),
            ignored,
        )
        .await
        .ok();
    assert_eq!(found(&alice, "ignore").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_index_outlives_restarts_and_crashes_and_is_built_anew_where_it_is_absent() {
    for on_disk in [false, true] {
        let mut server = match on_disk {
            true => TestServer::with_index_on_disk(4).await,
            false => TestServer::memory(4).await,
        };
        let mut alice = server.register("alice").await;
        let room = alice.room().build().await;
        alice.say(&room, "kept before").await;
        assert_eq!(found(&alice, "kept").await, ["kept before"], "{on_disk}");
        alice.say(&room, "kept between").await;
        server = server.restart().await;
        alice = alice.on(server.endpoint());
        assert_eq!(
            found(&alice, "kept").await,
            ["kept between", "kept before"],
            "{on_disk}"
        );
        let gone = alice.say(&room, "kept no more").await;
        alice.redact(&room, &gone).await;
        alice.say(&room, "kept after").await;
        server = server.crash().await;
        alice = alice.on(server.endpoint());
        assert_eq!(
            found(&alice, "kept").await,
            ["kept after", "kept between", "kept before"],
            "{on_disk}"
        );
    }
}

#[tokio::test]
async fn a_purged_room_leaves_the_index() {
    let server = TestServer::memory_with(4, |config| config.admins = vec!["@admin:hs1".to_owned()]).await;
    let admin = server.register("admin").await;
    let (one, other) = (admin.room().build().await, admin.room().build().await);
    admin.say(&one, "purged words").await;
    admin.say(&other, "other words").await;
    assert_eq!(found(&admin, "words").await.len(), 2);
    admin
        .delete(&format!("/_synapse/admin/v1/rooms/{}", encode(&one)))
        .await
        .ok();
    let answer = search(&admin, "words", json!({ "order_by": "recent" })).await;
    assert_eq!(bodies(&results(&answer)), ["other words"]);
    assert_eq!(answer["count"], 1);
}

#[tokio::test]
async fn search_can_be_switched_off() {
    let server = TestServer::memory_with(1, |config| config.message_search.enabled = false).await;
    let alice = server.register("alice").await;
    let body = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    alice.post("/search", body).await.refused(404, "M_UNRECOGNIZED");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_after_its_edit_is_found_as_it_was_edited() {
    let network = SimNetwork::new(7);
    let enabled = |config: &mut Config| config.message_search.enabled = true;
    let server = TestServer::simulated_with("hs1", 4, 1, &network, enabled);
    let ann = server.register("ann").await;
    let room = ann.room().version("11").preset("public_chat").build().await;
    let far = Peer::new("far", &network);
    let known = far.join("hs1", &room, "11").await;
    // From here on the index knows that all it has not taken in is new.
    assert!(found(&ann, "cat").await.is_empty());
    let prev = [known.join.event_id.clone()];
    let said = known.message(&far, "cat", &prev, 20);
    let edit = json!({
        "msgtype": "m.text", "body": "* dog", "m.new_content": { "msgtype": "m.text", "body": "dog" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": said.event_id },
    });
    let edit = known.message_of(&far, &edit, &prev, 21);
    for (txn, pdu) in [("1", &edit), ("2", &said)] {
        far.send("hs1", txn, &[json_of(pdu)]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(found(&ann, "dog").await.len(), 1);
    assert!(found(&ann, "cat").await.is_empty());
}
