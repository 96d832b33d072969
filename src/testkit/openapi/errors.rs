//! What every refusal of the Matrix APIs looks like ("Standard error response"), whichever endpoint refuses.

use serde_json::Value;

use super::schema::Violation;

/// The statuses with which an errcode may come. Where the files say nothing, the common error codes do; other servers'
/// refusals are handed on with their own status, so that those of a join through another server are here too.
const STATUSES: &[(&str, &[u16])] = &[
    ("M_BAD_ALIAS", &[400]),
    ("M_BAD_JSON", &[400, 405]),
    ("M_BAD_STATE", &[403]),
    ("M_BAD_STATUS", &[502]),
    ("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", &[403]),
    ("M_CANNOT_OVERWRITE_MEDIA", &[409]),
    ("M_CONNECTION_FAILED", &[502]),
    ("M_CONNECTION_TIMEOUT", &[504]),
    ("M_DUPLICATE_ANNOTATION", &[400]),
    ("M_EXCLUSIVE", &[400, 403]),
    ("M_FORBIDDEN", &[401, 403]),
    ("M_GUEST_ACCESS_FORBIDDEN", &[401, 403]),
    ("M_INCOMPATIBLE_ROOM_VERSION", &[400]),
    ("M_INVALID_PARAM", &[400]),
    ("M_INVALID_ROOM_STATE", &[400]),
    ("M_INVALID_USERNAME", &[400]),
    ("M_KEY_TOO_LARGE", &[400]),
    ("M_LIMIT_EXCEEDED", &[429]),
    ("M_MISSING_PARAM", &[400]),
    ("M_MISSING_TOKEN", &[401]),
    ("M_NOT_FOUND", &[404]),
    ("M_NOT_JSON", &[400]),
    ("M_NOT_YET_UPLOADED", &[504]),
    ("M_PROFILE_TOO_LARGE", &[400]),
    ("M_ROOM_IN_USE", &[400, 409]),
    ("M_TOO_LARGE", &[400, 413, 502]),
    ("M_UNABLE_TO_AUTHORISE_JOIN", &[400]),
    ("M_UNABLE_TO_GRANT_JOIN", &[400]),
    ("M_UNAUTHORIZED", &[401]),
    ("M_UNKNOWN_DEVICE", &[400]),
    ("M_UNKNOWN_POS", &[400]),
    ("M_UNKNOWN_TOKEN", &[401]),
    ("M_UNRECOGNIZED", &[404, 405]),
    ("M_UNSUPPORTED_ROOM_VERSION", &[400]),
    ("M_URL_NOT_SET", &[400]),
    ("M_USER_DEACTIVATED", &[403]),
    ("M_USER_IN_USE", &[400]),
    ("M_USER_LOCKED", &[401]),
    ("M_USER_SUSPENDED", &[403]),
    ("M_WEAK_PASSWORD", &[400]),
    ("M_WRONG_ROOM_KEYS_VERSION", &[403]),
];

/// Members without which an error of this code is not whole, and how their values begin as JSON.
const MEMBERS: &[(&str, &str, &str)] = &[
    ("M_INCOMPATIBLE_ROOM_VERSION", "room_version", "\""),
    ("M_RESOURCE_LIMIT_EXCEEDED", "admin_contact", "\""),
    ("M_USER_LIMIT_EXCEEDED", "info_uri", "\""),
    ("M_USER_LOCKED", "soft_logout", "t"),
    ("M_WRONG_ROOM_KEYS_VERSION", "current_version", "\""),
];

/// What is wrong with a refusal. One that asks for more authentication need not say what went wrong.
pub(super) fn wrong(status: u16, body: Option<&Value>) -> Vec<Violation> {
    let Some(body) = body else {
        return vec![Violation::of_whole("an error as JSON".to_owned())];
    };
    let mut wrong = Vec::new();
    let mut expect = |is_so: bool, pointer: &str, expected: String| {
        let pointer = pointer.to_owned();
        wrong.extend((!is_so).then_some(Violation { pointer, expected }));
    };
    let asks_for_stages = status == 401 && body.get("flows").is_some();
    if asks_for_stages && body.get("errcode").is_none() {
        return wrong;
    }
    let error = body.get("error").and_then(Value::as_str);
    expect(
        error.is_some_and(|error| !error.is_empty()),
        "/error",
        "a sentence".to_owned(),
    );
    let errcode = body.get("errcode").and_then(Value::as_str).unwrap_or_default();
    let is_named = errcode.starts_with("M_") || errcode.contains('.');
    expect(
        is_named,
        "/errcode",
        format!("M_ or a namespace, not {errcode:?}"),
    );
    let statuses = STATUSES.iter().find(|(code, _)| *code == errcode);
    if let Some((_, statuses)) = statuses {
        let is_right = statuses.contains(&status) || asks_for_stages;
        expect(
            is_right,
            "",
            format!("one of the statuses {statuses:?} with {errcode}"),
        );
    }
    for (code, member, begin) in MEMBERS {
        let value = body.get(member).map(Value::to_string).unwrap_or_default();
        let is_whole = *code != errcode || value.starts_with(begin);
        expect(is_whole, "", format!("a member {member:?} with {errcode}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals() {
        let check =
            |status, body: Value, count| assert_eq!(wrong(status, Some(&body)).len(), count, "{body}");
        check(403, json!({ "errcode": "M_FORBIDDEN", "error": "No." }), 0);
        check(404, json!({ "errcode": "M_FORBIDDEN", "error": "No." }), 1);
        check(404, json!({ "errcode": "M_NOT_FOUND" }), 1);
        check(400, json!({ "error": "No." }), 1);
        check(400, json!([]), 2);
        check(401, json!({ "flows": [] }), 0);
        check(401, json!({ "flows": [], "errcode": "M_FORBIDDEN" }), 1);
        check(
            403,
            json!({ "errcode": "M_USER_LIMIT_EXCEEDED", "error": "No." }),
            1,
        );
    }
}
