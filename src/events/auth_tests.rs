use std::collections::BTreeMap;

use ruma::RoomVersionId;

use super::*;
use crate::JoinRule;

/// A room of `@admin:s`, who has power level 100 (in version 12: created it), with `@member:s` in it.
struct Room {
    rules: &'static Rules,
    levels: Option<Arc<PowerLevels>>,
    rule: JoinRule,
    members: BTreeMap<&'static str, Membership>,
    federate: bool,
}

impl Room {
    fn new(version: &str) -> Room {
        let rules = crate::rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
        let users = if rules.authorization.explicitly_privilege_room_creators {
            "{}"
        } else {
            r#"{"@admin:s":100}"#
        };
        let levels = PowerLevels::parse(rules, format!(r#"{{"users":{users}}}"#).as_bytes()).unwrap();
        let members = [
            ("@admin:s", Membership::Join),
            ("@member:s", Membership::Join),
            ("@banned:s", Membership::Ban),
            ("@asked:t", Membership::Invite),
        ];
        Room {
            rules,
            levels: Some(Arc::new(levels)),
            rule: JoinRule::Invite,
            members: members.into(),
            federate: true,
        }
    }

    fn judge(&self, sender: &str, kind: &str, state_key: Option<&str>, content: &str) -> Result<(), String> {
        let event = AuthInput {
            event_id: None,
            room_id: None,
            sender: <&UserId>::try_from(sender).unwrap(),
            kind,
            state_key,
            content: content.as_bytes(),
            prev_events: &[],
            redacts: None,
        };
        authorize(self.rules, &event, self).map_err(|denied| denied.0)
    }
}

impl StateView for Room {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        let content = format!(r#"{{"creator":"@admin:s","m.federate":{}}}"#, self.federate);
        let id = EventId::parse("$create").unwrap();
        CreateInfo::parse(
            self.rules,
            &id,
            <&UserId>::try_from("@admin:s").unwrap(),
            content.as_bytes(),
        )
        .ok()
        .map(Arc::new)
    }
    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        self.levels.clone()
    }
    fn join_rule(&self) -> JoinRuleInfo {
        JoinRuleInfo {
            rule: self.rule,
            allow: Vec::new(),
        }
    }
    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        self.members.get(user.as_str()).map(|membership| MemberInfo {
            membership: *membership,
        })
    }
    fn third_party_invite(&self, _: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        None
    }
}

#[test]
fn owned_state_is_for_its_owner_and_for_more_power() {
    let check = |version: &str, sender: &str, key: &str, expected: bool| {
        let mut room = Room::new(version);
        let levels = r#"{"users":{"@admin:s":100},"state_default":0}"#;
        room.levels = Some(Arc::new(
            PowerLevels::parse(room.rules, levels.as_bytes()).unwrap(),
        ));
        let judged = room.judge(sender, "x", Some(key), "{}");
        assert_eq!(judged.is_ok(), expected, "{version} {sender} {key}: {judged:?}");
    };
    for (sender, key, owned, plain) in [
        ("@member:s", "@member:s", true, true),
        ("@member:s", "@member:s_x:!@#", true, false),
        ("@member:s", "@member:sx", false, false),
        ("@member:s", "@other:s", false, false),
        ("@member:s", "@other:s_x", false, false),
        ("@member:s", "@admin:s_x", false, false),
        ("@member:s", "@prefix_@member:s_x", false, false),
        ("@member:s", "no user", true, true),
        ("@admin:s", "@admin:s_x", true, false),
        ("@admin:s", "@member:s", true, false),
        ("@admin:s", "@member:s_x", true, false),
        ("@admin:s", "@nobody:t", true, false),
        ("@admin:s", "@oops", false, false),
        ("@admin:s", "@member:s@x", false, false),
    ] {
        check("org.matrix.msc3757.10", sender, key, owned);
        check("10", sender, key, plain);
    }
}

#[test]
fn denials_say_what_was_wrong() {
    let room = Room::new("11");
    let check = |sender: &str, kind: &str, state_key: Option<&str>, content: &str, expected: &str| {
        assert_eq!(
            room.judge(sender, kind, state_key, content)
                .err()
                .as_deref()
                .unwrap_or(""),
            expected,
            "{kind}"
        );
    };
    check("@member:s", "m.room.message", None, "{}", "");
    check(
        "@member:s",
        "m.room.name",
        Some(""),
        "{}",
        "You need power level 50 to send m.room.name, you have 0.",
    );
    check(
        "@other:s",
        "m.room.message",
        None,
        "{}",
        "You are not in the room.",
    );
    check(
        "@admin:s",
        "x",
        Some("@member:s"),
        "{}",
        "The state key @member:s is for that user alone.",
    );
    check(
        "@other:s",
        "m.room.member",
        Some("@other:s"),
        r#"{"membership":"join"}"#,
        "You are not invited to the room.",
    );
    check(
        "@asked:t",
        "m.room.member",
        Some("@asked:t"),
        r#"{"membership":"join"}"#,
        "",
    );
    check(
        "@banned:s",
        "m.room.member",
        Some("@banned:s"),
        r#"{"membership":"join"}"#,
        "You are banned from the room.",
    );
    check(
        "@member:s",
        "m.room.member",
        Some("@new:s"),
        r#"{"membership":"invite"}"#,
        "",
    );
    check(
        "@member:s",
        "m.room.member",
        Some("@admin:s"),
        r#"{"membership":"leave"}"#,
        "You need power level 50 to remove users, you have 0.",
    );
    check(
        "@admin:s",
        "m.room.member",
        Some("@admin:s"),
        r#"{"membership":"ban"}"#,
        "The power of @admin:s (100) is not below yours (100).",
    );
    check(
        "@new:s",
        "m.room.member",
        Some("@new:s"),
        r#"{"membership":"knock"}"#,
        "One cannot knock on the room: its join rule is invite.",
    );
    check(
        "@new:s",
        "m.room.member",
        Some("@new:s"),
        r#"{"membership":"x"}"#,
        r#"This room version knows no membership "x"."#,
    );
    let levels = r#"{"ban":101,"users":{"@admin:s":100}}"#;
    check(
        "@admin:s",
        "m.room.power_levels",
        Some(""),
        levels,
        "You need power level 101 to change the power level of `ban`, you have 100.",
    );
    let levels = r#"{"users":{"@admin:s":100,"@member:s":101}}"#;
    check(
        "@admin:s",
        "m.room.power_levels",
        Some(""),
        levels,
        "You cannot give @member:s the power level 101, you have 100.",
    );
    let levels = r#"{"users":{"@admin:s":"100"}}"#;
    check(
        "@admin:s",
        "m.room.power_levels",
        Some(""),
        levels,
        "The event is malformed: the power level `users.@admin:s` is not an integer.",
    );
}

#[test]
fn creators_have_infinite_power_from_version_12() {
    let mut room = Room::new("12");
    let levels = r#"{"users":{"@admin:s":100}}"#;
    assert_eq!(
        room.judge("@admin:s", "m.room.power_levels", Some(""), levels)
            .unwrap_err(),
        "@admin:s created the room, has infinite power and cannot be given a power level."
    );
    room.judge(
        "@admin:s",
        "m.room.power_levels",
        Some(""),
        r#"{"users":{"@member:s":9007199254740991}}"#,
    )
    .unwrap();
    room.levels = Some(Arc::new(
        PowerLevels::parse(room.rules, br#"{"users":{"@member:s":9007199254740991}}"#).unwrap(),
    ));
    room.judge(
        "@admin:s",
        "m.room.member",
        Some("@member:s"),
        r#"{"membership":"leave"}"#,
    )
    .unwrap();
    let denied = room
        .judge(
            "@member:s",
            "m.room.member",
            Some("@admin:s"),
            r#"{"membership":"leave"}"#,
        )
        .unwrap_err();
    assert_eq!(
        denied,
        "The power of @admin:s (infinite) is not below yours (9007199254740991)."
    );
}

#[test]
fn rooms_without_power_levels_or_federation() {
    let mut room = Room::new("6");
    room.levels = None;
    room.judge("@admin:s", "m.room.name", Some(""), "{}").unwrap();
    assert!(room.judge("@member:s", "m.room.name", Some(""), "{}").is_err());
    room.federate = false;
    assert_eq!(
        room.judge("@x:t", "m.room.message", None, "{}").unwrap_err(),
        "The room is only for users of s."
    );
}
