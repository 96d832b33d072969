//! What an event counts for under the default push rules, without looking at any single user.

use ruma::UserId;
use ruma::push::Ruleset;

use crate::json::{elements, get, string};

/// The push rules of a user who has changed none.
pub fn default_ruleset(user: &UserId) -> Ruleset {
    Ruleset::server_default(user)
}

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

/// The class of an event. `may_notify_room` tells whether its sender has the power to mention the whole room.
///
/// The order is that of the rules; the first that fits decides. Types are compared as the rules do it, without regard to case.
pub fn class(kind: &str, state_key: Option<&str>, content: &[u8], may_notify_room: bool) -> Class {
    let text = |name: &str| get(content, name).and_then(string);
    let is = |other: &str| kind.eq_ignore_ascii_case(other);
    let silent = Class::default();
    if text("msgtype").is_some_and(|msgtype| msgtype.eq_ignore_ascii_case("m.notice")) {
        return silent;
    }
    if is("m.room.member") {
        return Class {
            personal: text("membership").as_deref() == Some("invite"),
            ..silent
        };
    }
    let personal = !mentioned_raw(content).is_empty();
    let loud = Class {
        notify: true,
        highlight: true,
        personal,
    };
    let mentions_room =
        get(content, "m.mentions").and_then(|mentions| get(mentions, "room")) == Some(b"true");
    if (mentions_room && may_notify_room) || (is("m.room.tombstone") && state_key == Some("")) {
        return loud;
    }
    let relation = get(content, "m.relates_to").and_then(|relation| get(relation, "rel_type"));
    if is("m.reaction")
        || (is("m.room.server_acl") && state_key == Some(""))
        || relation == Some(b"\"m.replace\"")
    {
        return Class { personal, ..silent };
    }
    let notify = ["m.call.invite", "m.room.message", "m.room.encrypted"]
        .into_iter()
        .any(is);
    Class {
        notify,
        highlight: false,
        personal,
    }
}

/// The users that an event mentions.
pub fn mentioned(content: &[u8]) -> Vec<String> {
    mentioned_raw(content)
        .into_iter()
        .filter_map(string)
        .map(|user| user.into_owned())
        .collect()
}

fn mentioned_raw(content: &[u8]) -> Vec<&[u8]> {
    let users = get(content, "m.mentions").and_then(|mentions| get(mentions, "user_ids"));
    users.into_iter().flat_map(elements).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::power_levels::NotificationPowerLevels;
    use ruma::push::{Action, PushConditionPowerLevelsCtx, PushConditionRoomCtx};
    use ruma::room_version_rules::{AuthorizationRules, RoomPowerLevelsRules};
    use ruma::serde::Raw;
    use ruma::{RoomId, int, uint};
    use serde_json::{Value, json};

    use super::*;

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
        assert_eq!(
            mentioned(br#"{"m.mentions":{"user_ids":["@a:b","@c:d",5]}}"#),
            ["@a:b", "@c:d"]
        );
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
        assert!(mentioned(b"{}").is_empty());
    }

    /// The rules as Ruma applies them for somebody whom the event does not name.
    fn by_rules(event: &Value, level: i32) -> (bool, bool) {
        let user = UserId::parse("@nobody:s").unwrap();
        let mut room = PushConditionRoomCtx::new(
            RoomId::parse("!r:s").unwrap(),
            uint!(3),
            user.clone(),
            "Nobody".to_owned(),
        );
        let levels = [(UserId::parse("@a:s").unwrap(), level.into())].into();
        let rules = RoomPowerLevelsRules::new(&AuthorizationRules::V11, None);
        room.power_levels = Some(PushConditionPowerLevelsCtx::new(
            levels,
            int!(0),
            NotificationPowerLevels::new(),
            rules,
        ));
        let raw = Raw::new(event).unwrap();
        let rules = default_ruleset(&user);
        let actions = futures::executor::block_on(rules.get_actions(&raw, &room));
        (
            actions.iter().any(Action::should_notify),
            actions.iter().any(Action::is_highlight),
        )
    }

    proptest! {
        #![proptest_config(crate::oracle::config(8))]

        #[test]
        fn classes_agree_with_the_rules(
            kind in proptest::sample::select(&["m.room.message", "m.room.member", "m.room.tombstone", "m.reaction", "m.room.server_acl",
                "m.call.invite", "m.room.encrypted", "m.room.topic", "M.Room.Message"][..]),
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
            prop_assert_eq!((ours.notify, ours.highlight), by_rules(&event, if powerful { 50 } else { 0 }));
        }

        #[test]
        fn reading_never_panics(content in any::<Vec<u8>>()) {
            class("m.room.message", None, &content, true);
            mentioned(&content);
        }
    }
}
