use ruma::room_version_rules::RedactionRules;

use crate::json::{Member, get, members};
use crate::{Error, Pdu, Rules};

/// The event without what its room version lets a redaction take away. Id, hashes and signatures stay the same.
pub fn redact(rules: &Rules, pdu: &Pdu) -> Result<Pdu, Error> {
    let mut text = Vec::with_capacity(pdu.json.len());
    write_redacted_event(&mut text, rules, pdu.kind(), &pdu.json, true);
    Pdu::from_stored(rules, pdu.event_id.clone(), text.into())
}

/// Writes the redacted form of an event in canonical JSON: what is left when it is redacted, and what reference hash and signatures cover
/// (then without the signatures).
pub(crate) fn write_redacted_event(
    out: &mut Vec<u8>,
    rules: &Rules,
    kind: &str,
    event: &[u8],
    with_signatures: bool,
) {
    let rules = &rules.redaction;
    out.push(b'{');
    let mut first = true;
    for member in members(event) {
        let keep = match member.key {
            b"auth_events" | b"content" | b"depth" | b"event_id" | b"hashes" | b"origin_server_ts"
            | b"prev_events" | b"room_id" | b"sender" | b"state_key" | b"type" => true,
            b"signatures" => with_signatures,
            b"membership" | b"origin" | b"prev_state" => rules.keep_origin_membership_prev_state,
            _ => false,
        };
        if !keep {
            continue;
        }
        write_key(out, member.key, &mut first);
        if member.key == b"content" {
            write_redacted_content(out, rules, kind, member.value);
        } else {
            out.extend_from_slice(member.value);
        }
    }
    out.push(b'}');
}

/// Writes the redacted form of the content of an event of type `kind`.
pub(crate) fn write_redacted_content(out: &mut Vec<u8>, rules: &RedactionRules, kind: &str, content: &[u8]) {
    if kind == "m.room.create" && rules.keep_room_create_content {
        out.extend_from_slice(content);
        return;
    }
    out.push(b'{');
    let mut first = true;
    let kept: &dyn Fn(&[u8]) -> bool = match kind {
        "m.room.member" => &|key| match key {
            b"membership" => true,
            b"join_authorised_via_users_server" => rules.keep_room_member_join_authorised_via_users_server,
            b"third_party_invite" => rules.keep_room_member_third_party_invite_signed,
            _ => false,
        },
        "m.room.create" => &|key| key == b"creator",
        "m.room.join_rules" => {
            &|key| key == b"join_rule" || (key == b"allow" && rules.keep_room_join_rules_allow)
        }
        "m.room.power_levels" => &|key| match key {
            b"ban" | b"events" | b"events_default" | b"kick" | b"redact" | b"state_default" | b"users"
            | b"users_default" => true,
            b"invite" => rules.keep_room_power_levels_invite,
            _ => false,
        },
        "m.room.history_visibility" => &|key| key == b"history_visibility",
        "m.room.redaction" => &|key| key == b"redacts" && rules.keep_room_redaction_redacts,
        "m.room.aliases" => &|key| key == b"aliases" && rules.keep_room_aliases_aliases,
        _ => {
            out.push(b'}');
            return;
        }
    };
    // Of an invitation by a third party one key is kept: of what is no object there is none.
    let is_kept = |member: &Member<'_>| {
        kept(member.key) && (member.key != b"third_party_invite" || member.value.starts_with(b"{"))
    };
    for member in members(content).filter(is_kept) {
        write_key(out, member.key, &mut first);
        if member.key == b"third_party_invite" {
            out.push(b'{');
            if let Some(signed) = get(member.value, "signed") {
                out.extend_from_slice(b"\"signed\":");
                out.extend_from_slice(signed);
            }
            out.push(b'}');
        } else {
            out.extend_from_slice(member.value);
        }
    }
    out.push(b'}');
}

fn write_key(out: &mut Vec<u8>, key: &[u8], first: &mut bool) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

/// Writes an object without some of its members.
pub(crate) fn write_without(out: &mut Vec<u8>, object: &[u8], without: &[&[u8]]) {
    out.push(b'{');
    let mut first = true;
    for member in members(object).filter(|member| !without.contains(&member.key)) {
        write_key(out, member.key, &mut first);
        out.extend_from_slice(member.value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;

    fn check(version: &str, kind: &str, content: &str, expected: &str) {
        let rules = crate::rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
        let mut out = Vec::new();
        write_redacted_content(&mut out, &rules.redaction, kind, content.as_bytes());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{kind} in version {version}"
        );
    }

    #[test]
    fn contents() {
        check("1", "m.room.message", r#"{"body":"x"}"#, "{}");
        check(
            "5",
            "m.room.aliases",
            r#"{"aliases":["a"],"x":1}"#,
            r#"{"aliases":["a"]}"#,
        );
        check("6", "m.room.aliases", r#"{"aliases":["a"],"x":1}"#, "{}");
        check(
            "7",
            "m.room.join_rules",
            r#"{"allow":[],"join_rule":"public"}"#,
            r#"{"join_rule":"public"}"#,
        );
        check(
            "8",
            "m.room.join_rules",
            r#"{"allow":[],"join_rule":"public"}"#,
            r#"{"allow":[],"join_rule":"public"}"#,
        );
        let member = r#"{"displayname":"A","join_authorised_via_users_server":"@b:c","membership":"join","third_party_invite":{"display_name":"x","signed":{"a":1}}}"#;
        check("8", "m.room.member", member, r#"{"membership":"join"}"#);
        check(
            "9",
            "m.room.member",
            member,
            r#"{"join_authorised_via_users_server":"@b:c","membership":"join"}"#,
        );
        check(
            "11",
            "m.room.member",
            member,
            r#"{"join_authorised_via_users_server":"@b:c","membership":"join","third_party_invite":{"signed":{"a":1}}}"#,
        );
        for odd in ["null", "true", "5", r#""signed""#, "[]"] {
            let member = format!(r#"{{"membership":"join","third_party_invite":{odd}}}"#);
            check("11", "m.room.member", &member, r#"{"membership":"join"}"#);
        }
        check(
            "11",
            "m.room.member",
            r#"{"membership":"join","third_party_invite":{}}"#,
            r#"{"membership":"join","third_party_invite":{}}"#,
        );
        check(
            "10",
            "m.room.create",
            r#"{"creator":"@a:b","room_version":"10"}"#,
            r#"{"creator":"@a:b"}"#,
        );
        check(
            "11",
            "m.room.create",
            r#"{"room_version":"11"}"#,
            r#"{"room_version":"11"}"#,
        );
        check(
            "10",
            "m.room.power_levels",
            r#"{"ban":1,"invite":2,"notifications":{}}"#,
            r#"{"ban":1}"#,
        );
        check(
            "11",
            "m.room.power_levels",
            r#"{"ban":1,"invite":2,"notifications":{}}"#,
            r#"{"ban":1,"invite":2}"#,
        );
        check("10", "m.room.redaction", r#"{"reason":"r","redacts":"$x"}"#, "{}");
        check(
            "11",
            "m.room.redaction",
            r#"{"reason":"r","redacts":"$x"}"#,
            r#"{"redacts":"$x"}"#,
        );
        check(
            "12",
            "m.room.history_visibility",
            r#"{"history_visibility":"shared","x":1}"#,
            r#"{"history_visibility":"shared"}"#,
        );
    }
}
