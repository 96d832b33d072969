//! Push rules applied to events.

use ruma::user_id;
use serde_json::json;

use super::*;

struct Room {
    members: u64,
    name: &'static str,
    powerful: bool,
    thread: Option<bool>,
}

impl Surroundings for Room {
    fn room_id(&self) -> &str {
        "!r:s"
    }
    fn members(&self) -> u64 {
        self.members
    }
    fn display_name(&self) -> Option<String> {
        Some(self.name.to_owned())
    }
    fn sender_may_notify(&self, key: &str) -> bool {
        key == "room" && self.powerful
    }
    fn thread_subscribed(&self) -> Option<bool> {
        self.thread
    }
}

const ROOM: Room = Room {
    members: 3,
    name: "Ann *",
    powerful: false,
    thread: None,
};

fn event(content: Value) -> PushEvent {
    let event = json!({"type": "m.room.message", "sender": "@bob:s", "room_id": "!r:s", "content": content});
    PushEvent::new(event.to_string().as_bytes()).unwrap()
}

fn rules(global: Value) -> Rules {
    Rules::new(ruleset(Some(global), user_id!("@ann:s")), user_id!("@ann:s"))
}

/// Whether one override rule with these conditions is met.
#[track_caller]
fn check(conditions: Value, content: Value, expected: bool) {
    let rule = json!({"rule_id": "x", "default": false, "enabled": true, "conditions": conditions,
        "actions": ["notify", {"set_tweak": "highlight"}]});
    let rules = rules(json!({ "override": [rule] }));
    let outcome = rules.outcome(user_id!("@ann:s"), &event(content.clone()), &ROOM);
    assert_eq!(outcome.highlight, expected, "{conditions} {content}");
}

#[test]
fn every_condition() {
    let body = |text: &str| json!({ "msgtype": "m.text", "body": text });
    let matching =
        |key: &str, pattern: &str| json!([{"kind": "event_match", "key": key, "pattern": pattern}]);
    check(matching("content.body", "cake"), body("Cake!"), true);
    check(matching("content.body", "cake"), body("pancake"), false);
    check(matching("content.msgtype", "m.t*"), body(""), true);
    check(matching("content.msgtype", "text"), body(""), false);
    check(matching("room_id", "!r:s"), body(""), true);
    check(matching("sender", "@BOB:s"), body(""), true);
    check(matching("content.a\\.b", "x"), json!({"a.b": "x"}), true);
    check(matching("content.a.b", "x"), json!({"a.b": "x"}), false);
    check(matching("content.a", "1"), json!({"a": 1}), false);
    // A backslash stands for itself unless a dot or another one follows.
    check(matching(r"content.a\\b", "x"), json!({r"a\b": "x"}), true);
    check(matching(r"content.a\b", "x"), json!({r"a\b": "x"}), true);
    check(matching(r"content.a\.b.c", "x"), json!({"a.b": {"c": "x"}}), true);
    check(matching("content", "*"), json!({"a": "x"}), false);
    check(matching("content.a.0", "x"), json!({"a": ["x"]}), false);
    let is = |value: Value| json!([{"kind": "event_property_is", "key": "content.v", "value": value}]);
    check(is(json!(5)), json!({"v": 5}), true);
    check(is(json!(5)), json!({"v": "5"}), false);
    check(is(json!(true)), json!({"v": true}), true);
    check(is(json!(true)), json!({"v": "true"}), false);
    check(is(json!(null)), json!({}), false);
    check(is(json!(null)), json!({"v": null}), true);
    let contains =
        |value: Value| json!([{"kind": "event_property_contains", "key": "content.v", "value": value}]);
    check(contains(json!("a")), json!({"v": ["b", "a"]}), true);
    check(contains(json!("a")), json!({"v": "a"}), false);
    check(contains(json!(1)), json!({"v": [{"a": 1}, [1], 1]}), true);
    check(contains(json!(1)), json!({"v": [{"a": 1}, [1]]}), false);
    let named = json!([{"kind": "contains_display_name"}]);
    check(named.clone(), body("hi ann *!"), true);
    check(named, body("hi ann x"), false);
    let count = |is: &str| json!([{"kind": "room_member_count", "is": is}]);
    for (is, expected) in [
        ("3", true),
        ("==3", true),
        ("<3", false),
        (">=3", true),
        (">3", false),
        ("2", false),
    ] {
        check(count(is), body(""), expected);
    }
    let permission = json!([{"kind": "sender_notification_permission", "key": "room"}]);
    check(permission, body(""), false);
    check(json!([{"kind": "org.example.unknown"}]), body(""), false);
    let versioned = json!([{"kind": "org.matrix.msc3931.push_rule_room_version_supports", "feature": "x"}]);
    check(versioned, body(""), false);
    check(json!([]), body(""), true);
}

#[test]
fn kinds_are_asked_in_their_order() {
    let rule = |id: &str, highlight: bool| {
        let actions = if highlight {
            json!(["notify", {"set_tweak": "highlight"}])
        } else {
            json!([])
        };
        json!({"rule_id": id, "default": false, "enabled": true, "actions": actions, "pattern": "word", "conditions": []})
    };
    let meets = |global: Value| {
        let outcome = rules(global).outcome(user_id!("@ann:s"), &event(json!({"body": "a word"})), &ROOM);
        (outcome.notify, outcome.highlight)
    };
    assert_eq!(meets(json!({})), (true, false));
    assert_eq!(meets(json!({"sender": [rule("@bob:s", false)]})), (false, false));
    assert_eq!(
        meets(json!({"sender": [rule("@bob:s", false)], "room": [rule("!r:s", true)]})),
        (true, true)
    );
    assert_eq!(
        meets(json!({"room": [rule("!r:s", true)], "content": [rule("w", false)]})),
        (false, false)
    );
    assert_eq!(
        meets(json!({"content": [rule("w", false)], "override": [rule("o", true)]})),
        (true, true)
    );
    assert_eq!(meets(json!({"underride": [rule("u", true)]})), (true, true));
    let mut off = rule("o", false);
    off["enabled"] = json!(false);
    assert_eq!(
        meets(json!({"override": [off]})),
        (true, false),
        "a disabled rule is not there"
    );
}

#[test]
fn names_in_the_text_and_mentions() {
    let ann = user_id!("@ann:s");
    let rules = rules(json!({}));
    let highlight = |content: Value| rules.outcome(ann, &event(content), &ROOM).highlight;
    assert!(highlight(json!({"body": "Hello @ann:s!"})));
    assert!(!highlight(json!({"body": "Hello ann"})));
    assert!(!highlight(json!({"body": "> <@ann:s> quoted", "m.mentions": {}})));
    assert!(highlight(
        json!({"body": "", "m.mentions": {"user_ids": ["@ann:s"]}})
    ));
    let own = json!({"type": "m.room.message", "sender": "@ann:s", "content": {"body": "@ann:s"}});
    let own = PushEvent::new(own.to_string().as_bytes()).unwrap();
    assert_eq!(rules.outcome(ann, &own, &ROOM), Outcome::default());
}

#[test]
fn what_counts_as_default() {
    let rule = |id: &str, conditions: Value| json!({"rule_id": id, "default": false, "enabled": true, "actions": [], "conditions": conditions});
    let is_default = |global: Value, room: &str| rules(global).is_default_in(room);
    assert!(is_default(json!({}), "!r:s"));
    assert!(!is_default(json!({"room": [rule("!r:s", json!([]))]}), "!r:s"));
    assert!(is_default(json!({"room": [rule("!r:s", json!([]))]}), "!other:s"));
    let muted = json!([{"kind": "event_match", "key": "room_id", "pattern": "!r:s"}]);
    assert!(!is_default(
        json!({"override": [rule("!r:s", muted.clone())]}),
        "!r:s"
    ));
    assert!(is_default(json!({"override": [rule("!r:s", muted)]}), "!other:s"));
    assert!(!is_default(json!({"sender": [rule("@x:s", json!([]))]}), "!r:s"));
    let louder = json!({"rule_id": ".m.rule.message", "default": true, "enabled": true, "actions": ["notify",
        {"set_tweak": "sound", "value": "ping"}], "conditions": []});
    assert!(
        is_default(json!({"underride": [louder]}), "!r:s"),
        "a sound changes no count"
    );
    let silent = json!({"rule_id": ".m.rule.message", "default": true, "enabled": true, "actions": [], "conditions": []});
    assert!(!is_default(json!({"underride": [silent]}), "!r:s"));
}

#[test]
fn stored_rules_get_new_defaults_and_nothing_breaks_them() {
    let user = user_id!("@ann:s");
    for global in [
        json!(null),
        json!([]),
        json!({"override": 7}),
        json!({"room": [{}]}),
    ] {
        assert_eq!(
            ruleset(Some(global), user).of(Kind::Override).len(),
            default_ruleset(user).of(Kind::Override).len()
        );
    }
    let order: Vec<_> = default_ruleset(user)
        .of(Kind::Underride)
        .iter()
        .map(|rule| rule.rule_id.clone())
        .collect();
    let at = |name: &str| order.iter().position(|id| id.ends_with(name)).unwrap();
    assert!(
        at("poll_start_one_to_one") < at("rule.poll_start")
            && at("poll_end_one_to_one") < at("rule.poll_end")
    );
}

#[test]
fn threads_notify_by_subscription_where_the_rules_are_switched_on() {
    let user = user_id!("@ann:s");
    let on = || {
        let mut set = default_ruleset(user);
        for rule in ["unsubscribed_thread", "subscribed_thread"] {
            let rule = format!(".io.element.msc4306.rule.{rule}");
            set.get_mut(Kind::PostContent, &rule).unwrap().enabled = true;
        }
        Rules::new(set, user)
    };
    let defaults = Rules::new(default_ruleset(user), user);
    assert!(!defaults.asks_threads() && defaults.is_default_in("!r:s"));
    assert!(on().asks_threads() && !on().is_default_in("!r:s"));
    let (plain, mention) = (
        json!({ "msgtype": "m.text", "body": "hi" }),
        json!({ "msgtype": "m.text", "body": "hi", "m.mentions": { "user_ids": ["@ann:s"] } }),
    );
    for (content, thread, by_default, switched_on) in [
        (&plain, None, true, true),
        (&plain, Some(false), true, false),
        (&plain, Some(true), true, true),
        (&mention, Some(false), true, true),
    ] {
        let room = Room { thread, ..ROOM };
        for (rules, expected) in [(&defaults, by_default), (&on(), switched_on)] {
            let outcome = rules.outcome(user, &event(content.clone()), &room);
            assert_eq!(outcome.notify, expected, "{content} {thread:?}");
        }
    }
    // A muted room does not mute a thread that the user wants to hear of.
    let mut set = on().set;
    set.insert(Kind::Room, Rule::new("!r:s", Vec::new()), None, None)
        .unwrap();
    let muted = Rules::new(set, user);
    for (thread, expected) in [(None, false), (Some(true), true)] {
        let room = Room { thread, ..ROOM };
        assert_eq!(muted.outcome(user, &event(plain.clone()), &room).notify, expected);
    }
}

#[test]
fn actions_of_older_versions_do_nothing() {
    for actions in [json!(["dont_notify"]), json!(["coalesce"]), json!([])] {
        let rule = json!({"rule_id": "!r:s", "default": false, "enabled": true, "actions": actions});
        let rules = rules(json!({"room": [rule]}));
        let outcome = rules.outcome(user_id!("@ann:s"), &event(json!({"body": "hi"})), &ROOM);
        assert_eq!(outcome, Outcome::default(), "{actions}");
    }
}

#[test]
fn the_default_rules_are_those_of_the_specification() {
    let user = user_id!("@ann:s");
    let rules = default_ruleset(user);
    let ids = |kind: Kind| -> Vec<String> {
        let rules = rules.of(kind).iter();
        rules.map(|rule| rule.rule_id.clone()).collect()
    };
    assert_eq!(
        ids(Kind::Override),
        [
            ".m.rule.master",
            ".m.rule.suppress_notices",
            ".m.rule.invite_for_me",
            ".m.rule.member_event",
            ".m.rule.is_user_mention",
            ".m.rule.is_room_mention",
            ".m.rule.tombstone",
            ".m.rule.reaction",
            ".m.rule.room.server_acl",
            ".m.rule.suppress_edits",
            ".org.matrix.msc3930.rule.poll_response",
        ]
    );
    assert_eq!(
        ids(Kind::Underride)[..5],
        [
            ".m.rule.call",
            ".m.rule.encrypted_room_one_to_one",
            ".m.rule.room_one_to_one",
            ".m.rule.message",
            ".m.rule.encrypted",
        ]
    );
    let json = |kind: Kind, id: &str| serde_json::to_value(rules.get(kind, id).unwrap()).unwrap();
    assert_eq!(
        json(Kind::Override, ".m.rule.is_room_mention"),
        json!({
            "rule_id": ".m.rule.is_room_mention", "default": true, "enabled": true,
            "conditions": [
                {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": true},
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            "actions": ["notify", {"set_tweak": "highlight"}],
        })
    );
    assert_eq!(
        json(Kind::Override, ".m.rule.master"),
        json!({"rule_id": ".m.rule.master", "default": true, "enabled": false, "conditions": [], "actions": []})
    );
    assert_eq!(
        json(Kind::Underride, ".m.rule.room_one_to_one")["conditions"][0],
        json!({"kind": "room_member_count", "is": "2"})
    );
}

/// What nobody can read meets no rule, and spoils nothing.
#[test]
fn unreadable_events() {
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    for json in [deep.as_str(), r#"{"content":{"a":1e999}}"#, "{"] {
        assert!(PushEvent::new(json.as_bytes()).is_none());
    }
}

/// Neither one rule nor many hold up those of other users: what goes too far meets no event.
#[test]
fn what_rules_come_to_is_bounded() {
    let user = user_id!("@ann:s");
    let text = "a".repeat(60_000);
    let said = event(json!({ "body": text }));
    let content =
        |id: String, pattern: String| json!({ "rule_id": id, "actions": ["notify"], "pattern": pattern });
    let slow = [
        vec![content("one".to_owned(), format!("{}?b", "a".repeat(30_000)))],
        vec![content("one".to_owned(), "a".repeat(30_000))],
        (0..1_000)
            .map(|at| content(at.to_string(), format!("a?{at}")))
            .collect(),
    ];
    for own in slow {
        let rules = rules(json!({ "content": own }));
        let asked = Asked {
            event: &said,
            room: &ROOM,
            budget: Budget::new(WORK_MAX),
        };
        let met = rules.set.iter().any(|(kind, rule)| asked.meets(kind, rule));
        assert!(!met);
        assert!(!asked.budget.pay(1), "it ended when the work was used up");
        assert_eq!(rules.outcome(user, &said, &ROOM), Outcome::default());
        // It does not matter for what is short.
        let short = event(json!({ "body": "short" }));
        assert!(rules.outcome(user, &short, &ROOM).notify);
    }
    // As many words as anybody has, in the longest text.
    let mut words: Vec<Value> = (0..50)
        .map(|at| content(at.to_string(), format!("word{at}")))
        .collect();
    words[49]["actions"] = json!(["notify", { "set_tweak": "highlight" }]);
    let rules = rules(json!({ "content": words }));
    let long = event(json!({ "body": format!("{} word49", "some text ".repeat(6_000)) }));
    assert!(rules.outcome(user, &long, &ROOM).highlight);
}
