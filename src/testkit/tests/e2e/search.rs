//! Search in messages (Client-Server API, "Server Side Search").

use hearth_testkit::{Client, TestServer, encode};
use serde_json::{Value, json};

use crate::{bodies, ids};

scenarios!(
    messages_names_and_topics_are_found,
    what_was_said_around_a_result_comes_with_it,
    results_are_paged_and_grouped,
    filters_narrow_a_search,
    a_room_is_searched_with_those_that_it_replaced,
    redacted_and_edited_messages_are_found_as_they_are_now,
    words_are_found_however_they_are_written,
    encrypted_rooms_are_not_searched,
    only_what_the_searcher_may_see_is_found,
    malformed_searches_are_refused
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

async fn what_was_said_around_a_result_comes_with_it(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.put(
        &format!("/profile/{}/displayname", encode(&bob.user_id)),
        json!({ "displayname": "Bob" }),
    )
    .await
    .ok();
    let room = alice.room().with(&bob).build().await;
    for number in 1..=7 {
        let sender = if number % 2 == 0 { &bob } else { &alice };
        sender.say(&room, &format!("Message number {number}")).await;
    }
    let context = json!({ "before_limit": 2, "after_limit": 2, "include_profile": true });
    let answer = search(&alice, "message 4", json!({ "event_context": context })).await;
    assert_eq!(answer["count"], 1);
    let context = &answer["results"][0]["context"];
    assert_eq!(
        bodies(&context["events_before"]),
        ["Message number 3", "Message number 2"]
    );
    assert_eq!(
        bodies(&context["events_after"]),
        ["Message number 5", "Message number 6"]
    );
    assert_eq!(context["profile_info"][&bob.user_id]["displayname"], "Bob");
    assert!(context["profile_info"].get(&alice.user_id).is_some());
    let start = context["start"].as_str().expect("a token");
    let earlier = alice
        .messages(&room, &format!("dir=b&limit=1&from={start}"))
        .await;
    assert_eq!(bodies(&earlier["chunk"]), ["Message number 1"]);
    let end = context["end"].as_str().expect("a token");
    let later = alice.messages(&room, &format!("dir=f&limit=1&from={end}")).await;
    assert_eq!(bodies(&later["chunk"]), ["Message number 7"]);
    let none = json!({ "event_context": { "before_limit": 0, "after_limit": 0 } });
    let answer = search(&alice, "message 4", none).await;
    let context = &answer["results"][0]["context"];
    assert_eq!(
        (&context["events_before"], &context["events_after"]),
        (&json!([]), &json!([]))
    );
    assert!(context.get("profile_info").is_none());
}

async fn results_are_paged_and_grouped(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let one = alice.room().with(&bob).build().await;
    let other = alice.room().with(&bob).build().await;
    let mut sent = Vec::new();
    for number in 0..20 {
        let (client, room) = if number % 4 == 0 {
            (&bob, &other)
        } else {
            (&alice, &one)
        };
        sent.push(client.say(room, &format!("Paged {number}")).await);
    }
    let said_in_one: Vec<String> = sent
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 4 != 0)
        .map(|(_, id)| id.clone())
        .collect();
    for order in ["recent", "rank"] {
        let asked = json!({ "order_by": order, "filter": { "limit": 8 } });
        let (mut seen, mut from) = (Vec::new(), None);
        loop {
            let answer = page(&alice, "paged", asked.clone(), from.as_ref()).await;
            assert_eq!(answer["count"], 20, "{order}");
            seen.extend(ids(&results(&answer)));
            match answer.get("next_batch") {
                Some(next) => from = Some(next.clone()),
                None => break,
            }
        }
        if order == "recent" {
            // What was said in several rooms in one millisecond has no order.
            let in_one = |list: &[String]| -> Vec<String> {
                list.iter()
                    .filter(|id| said_in_one.contains(id))
                    .cloned()
                    .collect()
            };
            let mut newest_last = in_one(&seen);
            newest_last.reverse();
            assert_eq!(newest_last, in_one(&sent));
        }
        let (mut seen, mut all) = (seen, sent.clone());
        seen.sort_unstable();
        all.sort_unstable();
        assert_eq!(seen, all, "{order}");
    }
    let groups = json!({
        "order_by": "recent",
        "filter": { "limit": 6 },
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
    });
    let answer = search(&alice, "paged", groups.clone()).await;
    let groups_of = &answer["groups"];
    let in_groups: usize = [&one, &other]
        .iter()
        .filter_map(|room| groups_of["room_id"][room.as_str()]["results"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(in_groups, 6);
    assert!(groups_of["sender"][&alice.user_id]["order"].is_u64(), "{answer}");
    // A group is paged through by itself. Which room has the newest message is open where all came in one millisecond.
    let first = answer["results"][0]["result"]["room_id"].clone();
    let group = &groups_of["room_id"][first.as_str().expect("a room id")];
    assert_eq!(group["order"], 1);
    let mut seen: Vec<Value> = group["results"].as_array().cloned().unwrap_or_default();
    let from = group["next_batch"].clone();
    let mut next = Some(from.clone());
    while let Some(token) = next {
        let rest = page(&alice, "paged", groups.clone(), Some(&token)).await;
        seen.extend(ids(&results(&rest)).into_iter().map(Value::from));
        next = rest.get("next_batch").cloned();
    }
    let is_in_group = |id: &&String| said_in_one.contains(id) == (first == json!(one));
    let said: Vec<_> = sent.iter().rev().filter(is_in_group).collect();
    assert_eq!(json!(seen), json!(said));
    // By relevance, too.
    let mut ranked = groups.clone();
    ranked["order_by"] = json!("rank");
    let answer = search(&alice, "paged", ranked.clone()).await;
    for (kind, name, expected) in [
        ("room_id", &one, said_in_one.clone()),
        ("sender", &alice.user_id, said_in_one.clone()),
    ] {
        let group = &answer["groups"][kind][name.as_str()];
        let mut seen = group["results"].as_array().cloned().unwrap_or_default();
        let mut next = Some(group["next_batch"].clone());
        while let Some(token) = next {
            let rest = page(&alice, "paged", ranked.clone(), Some(&token)).await;
            seen.extend(ids(&results(&rest)).into_iter().map(Value::from));
            next = rest.get("next_batch").cloned();
        }
        let mut seen: Vec<_> = seen.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut expected = expected;
        seen.sort_unstable();
        expected.sort_unstable();
        assert_eq!(seen, expected, "{kind}");
    }
    alice
        .post(
            &format!("/search?next_batch={}", encode(from.as_str().expect("a token"))),
            json!({ "search_categories": { "room_events": { "search_term": "paged", "order_by": "rank" } } }),
        )
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn filters_narrow_a_search(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let one = alice
        .room()
        .set("topic", json!("filtered"))
        .with(&bob)
        .build()
        .await;
    let other = alice.room().with(&bob).build().await;
    alice.say(&one, "filtered by alice in one").await;
    bob.say(&other, "filtered by bob in other").await;
    let link = json!({ "msgtype": "m.image", "body": "filtered picture", "url": "mxc://hs1/x" });
    bob.send(&one, "m.room.message", link).await;
    for (filter, expected) in [
        (json!({ "rooms": [other] }), vec!["filtered by bob in other"]),
        (json!({ "not_rooms": [one] }), vec!["filtered by bob in other"]),
        (json!({ "rooms": [] }), vec![]),
        (json!({ "rooms": ["!elsewhere:hs1"] }), vec![]),
        (
            json!({ "senders": [alice.user_id], "types": ["m.room.message"] }),
            vec!["filtered by alice in one"],
        ),
        (
            json!({ "not_senders": [alice.user_id] }),
            vec!["filtered by bob in other", "filtered picture"],
        ),
        (json!({ "contains_url": true }), vec!["filtered picture"]),
        (json!({ "types": ["m.room.topic"] }), vec![]),
        (json!({ "types": ["org.example"] }), vec![]),
        (json!({ "not_types": ["m.room.message"] }), vec![]),
    ] {
        let asked = json!({ "order_by": "recent", "filter": filter });
        let answer = search(&alice, "filtered", asked).await;
        let mut found = bodies(&results(&answer));
        found.sort_unstable();
        assert_eq!(found, expected, "{filter}");
    }
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

async fn malformed_searches_are_refused(server: &TestServer) {
    let alice = server.register("alice").await;
    for (body, errcode) in [
        (json!({}), "M_BAD_JSON"),
        (json!({ "search_categories": 7 }), "M_BAD_JSON"),
        (
            json!({ "search_categories": { "room_events": {} } }),
            "M_BAD_JSON",
        ),
        (
            json!({ "search_categories": { "room_events": { "search_term": "x", "order_by": "other" } } }),
            "M_BAD_JSON",
        ),
    ] {
        alice.post("/search", body).await.refused(400, errcode);
    }
    let asked = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    alice
        .post("/search?next_batch=nonsense", asked)
        .await
        .refused(400, "M_INVALID_PARAM");
    let other = json!({ "search_categories": {} });
    assert_eq!(alice.post("/search", other.clone()).await.ok(), other);
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
