//! What an event counts for under the default push rules, without looking at any single user.
//!
//! The rules themselves stand in [`crate::push`].

use std::borrow::Cow;

use crate::json::{elements, get, members, string};

/// An event that names more users than this in its text names nobody: that is a list, not a mention. Each of them is
/// looked up when the event is stored.
pub const NAMED_MAX: usize = 256;

/// What an event counts for with everybody who has the default rules and is not named by it. Its sender is never notified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// It raises the number of notifications.
    pub notify: bool,
    /// It raises the number of highlights, too.
    pub highlight: bool,
    /// It may count for more with some users: it mentions them, or is their invitation.
    pub personal: bool,
}

impl Class {
    /// The stored form.
    pub fn to_u8(self) -> u8 {
        u8::from(self.notify) | u8::from(self.highlight) << 1 | u8::from(self.personal) << 2
    }

    /// Reads the stored form.
    pub fn from_u8(bits: u8) -> Class {
        Class {
            notify: bits & 1 != 0,
            highlight: bits & 2 != 0,
            personal: bits & 4 != 0,
        }
    }
}

/// The types that the default rules notify of, whatever the content says.
const NOTIFYING_TYPES: [&str; 5] = [
    "m.call.invite",
    "m.room.message",
    "m.room.encrypted",
    "org.matrix.msc3381.poll.start",
    "org.matrix.msc3381.poll.end",
];

/// The class of an event. `may_notify_room` tells whether its sender has the power to mention the whole room.
///
/// The order is that of the rules; the first that fits decides. Types are compared as the rules do it, without regard to case.
pub fn class(kind: &str, state_key: Option<&str>, content: &[u8], may_notify_room: bool) -> Class {
    let is = |other: &str| kind.eq_ignore_ascii_case(other);
    let silent = Class::default();
    let seen = Seen::of(content);
    if seen
        .text(seen.msgtype)
        .is_some_and(|msgtype| msgtype.eq_ignore_ascii_case("m.notice"))
    {
        return silent;
    }
    if is("m.room.member") {
        return Class {
            personal: seen.text(seen.membership).as_deref() == Some("invite"),
            ..silent
        };
    }
    let personal = seen.names_somebody();
    let loud = Class {
        notify: true,
        highlight: true,
        personal,
    };
    let mentions_room = seen.mentions.and_then(|mentions| get(mentions, "room")) == Some(b"true");
    if (mentions_room && may_notify_room) || (is("m.room.tombstone") && state_key == Some("")) {
        return loud;
    }
    let relation = seen.relates_to.and_then(|relation| get(relation, "rel_type"));
    if is("m.reaction")
        || (is("m.room.server_acl") && state_key == Some(""))
        || relation == Some(b"\"m.replace\"")
    {
        return Class { personal, ..silent };
    }
    let notify = NOTIFYING_TYPES.into_iter().any(is);
    Class {
        notify,
        highlight: false,
        personal,
    }
}

/// The members of a content that decide what it counts for, found in one pass.
#[derive(Default)]
struct Seen<'a> {
    body: Option<&'a [u8]>,
    mentions: Option<&'a [u8]>,
    relates_to: Option<&'a [u8]>,
    membership: Option<&'a [u8]>,
    msgtype: Option<&'a [u8]>,
}

impl<'a> Seen<'a> {
    fn of(content: &'a [u8]) -> Self {
        let mut seen = Seen::default();
        for member in members(content) {
            let place = match member.key {
                b"body" => &mut seen.body,
                b"m.mentions" => &mut seen.mentions,
                b"m.relates_to" => &mut seen.relates_to,
                b"membership" => &mut seen.membership,
                b"msgtype" => &mut seen.msgtype,
                _ => continue,
            };
            place.get_or_insert(member.value);
        }
        seen
    }

    fn text(&self, value: Option<&'a [u8]>) -> Option<Cow<'a, str>> {
        value.and_then(string)
    }

    fn names_somebody(&self) -> bool {
        match self.mentions {
            Some(mentions) => get(mentions, "user_ids").is_some_and(|users| elements(users).next().is_some()),
            None => self
                .body
                .is_some_and(|body| body.contains(&b'@') || body.contains(&b'\\')),
        }
    }
}

/// The users of `server` that an event names: in `m.mentions`, or, where it has none, by their whole ids in the text.
pub fn named(content: &[u8], server: &str) -> Vec<String> {
    let mut users: Vec<String> = match get(content, "m.mentions") {
        Some(_) => mentioned_raw(content)
            .into_iter()
            .filter_map(string)
            .filter(|user| user.split_once(':').is_some_and(|(_, of)| of == server))
            .map(|user| user.into_owned())
            .collect(),
        None => match get(content, "body").and_then(string) {
            Some(body) => named_in_text(&body.to_lowercase(), &server.to_lowercase()),
            None => Vec::new(),
        },
    };
    users.sort_unstable();
    users.dedup();
    users
}

/// Whether a text has so many ids in it that none of them counts.
pub(crate) fn names_too_many(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'@').count() > NAMED_MAX
}

fn named_in_text(text: &str, server: &str) -> Vec<String> {
    if names_too_many(text) {
        return Vec::new();
    }
    let mut users = Vec::new();
    for (at, _) in text.match_indices('@') {
        let rest = &text[at..];
        // An id has one colon between the name and the server, and no white space.
        let Some(colon) = rest.find(|c: char| c == ':' || c.is_whitespace()) else {
            continue;
        };
        if rest[colon..]
            .strip_prefix(':')
            .is_some_and(|of| of.starts_with(server))
        {
            users.push(rest[..colon + 1 + server.len()].to_owned());
        }
    }
    users
}

fn mentioned_raw(content: &[u8]) -> Vec<&[u8]> {
    let users = get(content, "m.mentions").and_then(|mentions| get(mentions, "user_ids"));
    users.into_iter().flat_map(elements).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::UserId;
    use serde_json::{Value, json};

    use super::*;
    use crate::push::{Outcome, PushEvent, Rules};

    #[test]
    fn classes_as_stored() {
        for bits in 0..8 {
            assert_eq!(Class::from_u8(bits).to_u8(), bits);
        }
        assert_eq!(
            Class {
                notify: true,
                highlight: false,
                personal: true
            }
            .to_u8(),
            5
        );
    }

    #[test]
    fn mentions() {
        let check = |content: &[u8], expected: &[&str]| assert_eq!(named(content, "b"), expected);
        check(
            br#"{"m.mentions":{"user_ids":["@c:b","@a:b","@c:d",5]}}"#,
            &["@a:b", "@c:b"],
        );
        check(br#"{"m.mentions":{},"body":"@a:b"}"#, &[]);
        check(br#"{"body":"Hello @A:b! @x:c @y @a:b:"}"#, &["@a:b"]);
        check(br#"{"body":"@a :b @@a:b"}"#, &["@@a:b", "@a:b"]);
        check(b"{}", &[]);
        let many = format!(r#"{{"body":"{}"}}"#, "@a:b ".repeat(NAMED_MAX + 1));
        check(many.as_bytes(), &[]);
        assert!(
            class(
                "m.room.message",
                None,
                br#"{"m.mentions":{"user_ids":["@a:b"]}}"#,
                false
            )
            .personal
        );
        assert!(
            class(
                "m.room.member",
                Some("@a:b"),
                br#"{"membership":"invite"}"#,
                false
            )
            .personal
        );
    }

    /// The rules as they apply to somebody whom the event does not name.
    fn by_rules(event: &Value, powerful: bool) -> Outcome {
        struct Room(bool);
        impl crate::push::Surroundings for Room {
            fn room_id(&self) -> &str {
                "!r:s"
            }
            fn members(&self) -> u64 {
                3
            }
            fn display_name(&self) -> Option<String> {
                None
            }
            fn sender_may_notify(&self, _: &str) -> bool {
                self.0
            }
            fn thread_subscribed(&self) -> Option<bool> {
                None
            }
        }
        let user = UserId::parse("@nobody:s").unwrap();
        let rules = Rules::of_content(None, &user);
        let event = PushEvent::new(event.to_string().as_bytes()).unwrap();
        rules.outcome(&user, &event, &Room(powerful))
    }

    proptest! {
        #![proptest_config(crate::oracle::config(8))]

        #[test]
        fn classes_agree_with_the_rules(
            kind in proptest::sample::select(&["m.room.message", "m.room.member", "m.room.tombstone", "m.reaction", "m.room.server_acl",
                "m.call.invite", "m.room.encrypted", "org.matrix.msc3381.poll.start", "org.matrix.msc3381.poll.end",
                "org.matrix.msc3381.poll.response", "m.room.topic", "M.Room.Message"][..]),
            state_key in proptest::sample::select(&[None, Some(""), Some("x")][..]),
            msgtype in proptest::sample::select(&[None, Some("m.text"), Some("m.notice")][..]),
            room in proptest::sample::select(vec![json!(null), json!(true), json!(false), json!("true")]),
            relation in proptest::sample::select(&["m.replace", "m.thread", "other"][..]),
            powerful in any::<bool>(),
        ) {
            let mut content = json!({"membership": "join", "m.mentions": {"room": room}, "m.relates_to": {"rel_type": relation}});
            if let Some(msgtype) = msgtype { content["msgtype"] = json!(msgtype); }
            let mut event = json!({"type": kind, "sender": "@a:s", "content": content});
            if let Some(key) = state_key { event["state_key"] = json!(key); }
            let ours = class(kind, state_key, content.to_string().as_bytes(), powerful);
            let rules = by_rules(&event, powerful);
            prop_assert_eq!((ours.notify, ours.highlight), (rules.notify, rules.highlight));
        }

        #[test]
        fn reading_never_panics(content in any::<Vec<u8>>()) {
            class("m.room.message", None, &content, true);
            named(&content, "s");
        }
    }
}
