//! The form of a search and of its answer: context, pages, groups, filters, refusals.

use hearth_testkit::{TestServer, encode};
use serde_json::{Value, json};

use super::{page, results, search};
use crate::{bodies, ids};

scenarios!(
    what_was_said_around_a_result_comes_with_it,
    results_are_paged_and_grouped,
    filters_narrow_a_search,
    malformed_searches_are_refused,
);

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
