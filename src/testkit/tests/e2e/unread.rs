//! Unread counts: what sync tells equals a recount by definition, whatever happened before.

use hearth_testkit::{Client, TestServer, encode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

scenarios!(
    threads_and_receipts,
    read_again_after_a_return,
    a_filter_hides_no_reading,
    anything_at_random,
);

const THREADS: &str =
    "filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22unread_thread_notifications%22%3Atrue%7D%7D%7D";

/// Notifications and highlights.
type Pair = (u64, u64);

fn pair(counts: &Value) -> Pair {
    let of = |name: &str| counts[name].as_u64().unwrap_or_default();
    (of("notification_count"), of("highlight_count"))
}

/// The counts of a room, whole and by thread.
async fn counts(client: &Client, room: &str) -> (Pair, Pair, Vec<(String, Pair)>) {
    let whole = client.sync("timeout=0").await;
    let whole = &whole["rooms"]["join"][room];
    assert!(whole.get("unread_thread_notifications").is_none(), "{whole}");
    let parts = client.sync(&format!("timeout=0&{THREADS}")).await;
    let parts = &parts["rooms"]["join"][room];
    let threads = parts["unread_thread_notifications"].as_object();
    let threads = threads
        .into_iter()
        .flatten()
        .map(|(root, counts)| (root.clone(), pair(counts)));
    (
        pair(&whole["unread_notifications"]),
        pair(&parts["unread_notifications"]),
        threads.collect(),
    )
}

async fn read(client: &Client, room: &str, kind: &str, event: &str, thread: Option<&str>) {
    let path = format!("/rooms/{}/receipt/{kind}/{}", encode(room), encode(event));
    let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
    client.post(&path, body).await.ok();
}

fn related(body: &str, kind: &str, event: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": kind, "event_id": event } })
}

async fn threads_and_receipts(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let say = async |content: Value| alice.send(&room, "m.room.message", content).await;
    let a = alice.say(&room, "Hello world!").await;
    let b = say(related("Start thread!", "m.thread", &a)).await;
    say(related(
        &format!("Thread response {}!", bob.user_id),
        "m.thread",
        &a,
    ))
    .await;
    let d = alice.say(&room, &format!("Hello {}!", bob.user_id)).await;
    say(related("End thread", "m.thread", &a)).await;
    let f = say(related("Reference!", "m.reference", &a)).await;
    let g = alice
        .send(&room, "m.room.reaction", related("", "m.annotation", &f))
        .await;
    let check = async |whole: Pair, main: Pair, thread: Option<Pair>| {
        let threads = thread.map(|counts| (a.clone(), counts)).into_iter().collect();
        assert_eq!(counts(&bob, &room).await, (whole, main, threads));
    };
    check((6, 2), (3, 1), Some((3, 1))).await;
    read(&bob, &room, "m.read", &a, Some("main")).await;
    check((5, 2), (2, 1), Some((3, 1))).await;
    read(&bob, &room, "m.read", &b, Some(&a)).await;
    check((4, 2), (2, 1), Some((2, 1))).await;
    read(&bob, &room, "m.read.private", &d, None).await;
    check((2, 0), (1, 0), Some((1, 0))).await;
    read(&bob, &room, "m.read", &g, Some(&a)).await;
    check((1, 0), (1, 0), None).await;
}

async fn read_again_after_a_return(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    alice.say(&room, "one").await;
    bob.leave(&room).await;
    alice.say(&room, "two").await;
    bob.join(&room).await;
    assert_eq!(counts(&bob, &room).await.0, (0, 0));
    alice.say(&room, "three").await;
    let name = format!("/profile/{}/displayname", encode(&bob.user_id));
    bob.put(&name, json!({ "displayname": "Bob" })).await.ok();
    assert_eq!(counts(&bob, &room).await.0, (1, 0), "a new name reads nothing");
    bob.say(&room, "I read it").await;
    assert_eq!(counts(&bob, &room).await.0, (0, 0));
    let edited = alice.say(&room, "four").await;
    alice
        .send(&room, "m.room.message", related("five", "m.replace", &edited))
        .await;
    assert_eq!(counts(&bob, &room).await.0, (1, 0));
    alice.redact(&room, &edited).await;
    assert_eq!(counts(&bob, &room).await.0, (0, 0));
    let ignored = json!({ "ignored_users": { &alice.user_id: {} } });
    alice.say(&room, "six").await;
    assert_eq!(counts(&bob, &room).await.0, (1, 0));
    let list = format!("/user/{}/account_data/m.ignored_user_list", encode(&bob.user_id));
    bob.put(&list, ignored).await.ok();
    assert_eq!(counts(&bob, &room).await.0, (0, 0));
}

async fn a_filter_hides_no_reading(server: &TestServer) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.room().with(&bob).build().await;
    let said = alice.say(&room, "one").await;
    let filter = "filter=%7B%22room%22%3A%7B%22ephemeral%22%3A%7B%22types%22%3A%5B%5D%7D%7D%7D";
    let before = bob.sync(&format!("timeout=0&{filter}")).await;
    read(&bob, &room, "m.read.private", &said, None).await;
    let since = before["next_batch"].as_str().unwrap();
    let after = bob.sync(&format!("timeout=0&since={since}&{filter}")).await;
    let shown = &after["rooms"]["join"][&room];
    assert_eq!(pair(&shown["unread_notifications"]), (0, 0), "{after}");
    assert!(shown["unread_notifications"].is_object(), "{after}");
}

/// An event as the definition sees it.
struct Seen {
    id: String,
    sender: usize,
    /// The number of the thread's root.
    thread: Option<usize>,
    notify: bool,
    /// Whom it names.
    names: Option<usize>,
    /// Whether it names the whole room, by somebody who may.
    loud: bool,
    /// Whether it relates to another one: then no thread begins there.
    relates: bool,
    redacted: bool,
}

/// What a user has read: the greatest numbers, everywhere and by thread (none is the main timeline).
#[derive(Clone, Default)]
struct Read {
    base: usize,
    threads: Vec<(Option<usize>, usize)>,
}

struct Model {
    seen: Vec<Seen>,
    read: Vec<Read>,
    /// Whom each user ignores.
    ignores: Vec<Option<usize>>,
}

impl Model {
    /// Notifications and highlights of a thread by definition: every event after what was read.
    fn count(&self, user: usize, thread: Option<usize>, keyword: bool) -> Pair {
        let read = &self.read[user];
        let marks = read
            .threads
            .iter()
            .filter(|(of, _)| *of == thread)
            .map(|(_, at)| *at);
        let mark = marks.chain([read.base]).max().unwrap_or_default();
        let mut counts = (0, 0);
        for event in self.seen.iter().skip(mark) {
            let named = event.names == Some(user) || event.loud || (keyword && event.notify);
            let hidden = event.redacted || self.ignores[user] == Some(event.sender);
            if event.sender == user || hidden || event.thread != thread {
                continue;
            }
            counts.0 += u64::from(event.notify || event.names == Some(user));
            counts.1 += u64::from(named);
        }
        counts
    }

    fn threads(&self) -> Vec<usize> {
        let mut roots: Vec<usize> = self.seen.iter().filter_map(|event| event.thread).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }
}

/// Alice and bob have the default rules; carol has a keyword that is in every message, dora a rule that never fits.
async fn anything_at_random(server: &TestServer) {
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol", "dora"] {
        users.push(server.register(name).await);
    }
    let room = users[0].room().build().await;
    for user in &users[1..] {
        user.join(&room).await;
    }
    let rule = json!({ "pattern": "word", "actions": ["notify", { "set_tweak": "highlight" }] });
    users[2].put("/pushrules/global/content/key", rule).await.ok();
    let rule = json!({ "pattern": "never said", "actions": [] });
    users[3].put("/pushrules/global/content/key", rule).await.ok();
    let mut model = Model {
        seen: Vec::new(),
        read: vec![Read::default(); 4],
        ignores: vec![None; 4],
    };
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for step in 0..180 {
        let user = random.random_range(0..4);
        act(&users, &room, &mut model, user, &mut random).await;
        if step % 6 == 0 {
            compare(&users, &room, &model).await;
        }
    }
    compare(&users, &room, &model).await;
}

async fn act(users: &[Client], room: &str, model: &mut Model, user: usize, random: &mut ChaCha8Rng) {
    let client = &users[user];
    let any = match model.seen.len() {
        0 => None,
        len => Some(random.random_range(0..len)),
    };
    let mut content = json!({ "msgtype": "m.text", "body": "a word" });
    let mut event = Seen {
        id: String::new(),
        sender: user,
        thread: None,
        notify: true,
        names: None,
        loud: false,
        relates: false,
        redacted: false,
    };
    let mut kind = "m.room.message";
    match (random.random_range(0..15), any) {
        (0, Some(at)) if !model.seen[at].redacted && model.seen[at].sender == user => {
            client.redact(room, &model.seen[at].id).await;
            model.seen[at].redacted = true;
            return;
        }
        (0..=2, Some(at)) => {
            let (kind, id) = (["m.read", "m.read.private"][at % 2], model.seen[at].id.clone());
            // A receipt at the root of a thread may be of either.
            let thread = match model.seen[at].thread {
                None if model.threads().contains(&at) && random.random_range(0..2) == 0 => Some(at),
                thread => thread,
            };
            if random.random_range(0..3) == 0 {
                read(client, room, kind, &id, None).await;
                let base = &mut model.read[user].base;
                *base = (*base).max(at + 1);
            } else {
                let name = thread.map_or("main".to_owned(), |root| model.seen[root].id.clone());
                read(client, room, kind, &id, Some(&name)).await;
                model.read[user].threads.push((thread, at + 1));
            }
            return;
        }
        (3 | 4, Some(at)) if !model.seen[at].relates => {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": model.seen[at].id });
            event.thread = Some(at);
        }
        (5, Some(at)) => {
            content["m.relates_to"] = json!({ "rel_type": "m.reference", "event_id": model.seen[at].id });
            event.thread = model.seen[at].thread;
        }
        (6, Some(_)) => {
            content["msgtype"] = json!("m.notice");
            event.notify = false;
        }
        (10, Some(at)) if model.seen[at].sender == user && !model.seen[at].redacted => {
            content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": model.seen[at].id });
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": "another word" });
            (event.thread, event.notify) = (model.seen[at].thread, false);
        }
        (11, Some(at)) => {
            kind = "m.reaction";
            let key = model.seen.len().to_string();
            content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": model.seen[at].id, "key": key } });
            (event.thread, event.notify) = (model.seen[at].thread, false);
        }
        (12, Some(_)) => {
            content["m.mentions"] = json!({ "room": true });
            // The creator alone has the power.
            event.loud = user == 0;
        }
        (13, Some(_)) if user > 0 => {
            client.leave(room).await;
            client.join(room).await;
            model.read[user].base = model.seen.len();
            return;
        }
        (14, Some(_)) => {
            let other = random.random_range(0..users.len());
            model.ignores[user] = (other != user).then_some(other);
            let mut list = json!({});
            if other != user {
                list[&users[other].user_id] = json!({});
            }
            let path = format!(
                "/user/{}/account_data/m.ignored_user_list",
                encode(&client.user_id)
            );
            client.put(&path, json!({ "ignored_users": list })).await.ok();
            return;
        }
        (7, Some(_)) => {
            let named = random.random_range(0..users.len());
            content["m.mentions"] = json!({ "user_ids": [users[named].user_id] });
            event.names = Some(named);
        }
        _ => {}
    }
    event.relates = content.get("m.relates_to").is_some();
    event.id = client.send(room, kind, content).await;
    model.seen.push(event);
    let (at, thread) = (model.seen.len(), model.seen[model.seen.len() - 1].thread);
    model.read[user].threads.push((thread, at));
}

async fn compare(users: &[Client], room: &str, model: &Model) {
    for (user, client) in users.iter().enumerate() {
        let keyword = user == 2;
        let main = model.count(user, None, keyword);
        let mut whole = main;
        let mut threads = Vec::new();
        for root in model.threads() {
            let counts = model.count(user, Some(root), keyword);
            whole = (whole.0 + counts.0, whole.1 + counts.1);
            if counts != (0, 0) {
                threads.push((model.seen[root].id.clone(), counts));
            }
        }
        threads.sort();
        assert_eq!(
            counts(client, room).await,
            (whole, main, threads),
            "{}",
            client.user_id
        );
    }
}
