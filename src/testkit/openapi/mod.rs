//! Whether answers, and requests to other servers, are what the specification's OpenAPI files (`tests/spec`) say. Every
//! answer that the kit's clients get is looked at, and everything that servers of a simulation send each other.

mod deviations;
mod errors;
mod files;
mod operations;
mod schema;
mod text_only;

use std::cell::RefCell;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use self::operations::{Operation, find, json_schema};
use self::schema::{Violation, violations};

/// The events that a server makes itself: what they hold is as much its own as the answer around them.
const OWN_EVENTS: &[&str] = &[
    "m.fully_read",
    "m.presence",
    "m.push_rules",
    "m.receipt",
    "m.typing",
];

/// The kinds of ephemeral data that the specification describes.
const EDUS: &[&str] = &[
    "m.device_list_update",
    "m.direct_to_device",
    "m.presence",
    "m.receipt",
    "m.signing_key_update",
    "m.typing",
];

/// How much of a body a message shows.
const SHOWN_MAX: usize = 3_000;

/// What is wrong with an answer; nothing where it is as the specification wants it.
pub fn wrong_answer(
    method: &str,
    path: &str,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<String> {
    let bare = path.split('?').next().unwrap_or_default();
    if !bare.starts_with("/_matrix/") && !bare.starts_with("/.well-known/") {
        return None;
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = content_type == Some("application/json");
    let operations = find(method, bare);
    // Pages for browsers are described nowhere, and refuse as pages.
    if operations.is_empty() && !(status >= 400 && is_json) {
        return None;
    }
    let json = serde_json::from_slice::<Value>(body).ok();
    let mut wrong = Vec::new();
    if status >= 400 {
        wrong.extend(errors::wrong(status, json.as_ref()));
    }
    // Of several operations, what the answer is closest to.
    let differences = operations.iter().map(|operation| {
        let mut found = differences(operation, status, is_json, json.as_ref());
        found.retain(|one| !deviations::is_known(operation.id(), path, one));
        found
    });
    wrong.extend(differences.min_by_key(Vec::len).into_iter().flatten());
    let what = format!("{method} {path}: the answer {status} is wrong");
    message(&what, &operations, &wrong, body)
}

/// What is wrong with a request to another server.
pub fn wrong_request(method: &str, path: &str, body: &[u8]) -> Option<String> {
    let operations = find(method, path.split('?').next().unwrap_or_default());
    let operation = operations.first()?;
    let schema = json_schema(operation.part.get("requestBody"))?;
    let mut wrong = match serde_json::from_slice::<Value>(body) {
        Ok(body) => {
            let mut wrong = violations(schema, &body);
            if operation.id() == "sendTransaction" {
                edus(&body, &mut wrong);
            }
            wrong
        }
        Err(error) => vec![Violation::of_whole(format!("JSON: {error}"))],
    };
    wrong.retain(|one| !deviations::is_known(operation.id(), path, one));
    let what = format!("{method} {path}: the request is wrong");
    message(&what, &operations, &wrong, body)
}

/// Where an answer differs from what is said of one operation.
fn differences(operation: &Operation, status: u16, is_json: bool, json: Option<&Value>) -> Vec<Violation> {
    let Some(response) = operation.response(status) else {
        // Any refusal may come from everywhere; what succeeds is described.
        let unknown = Violation::of_whole(format!("another status, as {status} is not described"));
        return if status < 300 { vec![unknown] } else { Vec::new() };
    };
    let Some(schema) = json_schema(response) else {
        return Vec::new();
    };
    let Some(json) = json.filter(|_| is_json) else {
        return vec![Violation::of_whole("application/json".to_owned())];
    };
    // A missing token is refused with the status of the stages that are still to do.
    if status == 401 && json.get("flows").is_none() {
        return Vec::new();
    }
    let mut wrong = violations(schema, json);
    if status == 200 {
        let more = text_only::schema(operation.id());
        wrong.extend(more.into_iter().flat_map(|more| violations(more, json)));
        own_events(json, &mut wrong);
    }
    wrong
}

/// The events of the server's own making, and what it adds to those of others, wherever they are.
fn own_events(json: &Value, wrong: &mut Vec<Violation>) {
    match json {
        Value::Array(items) => items.iter().for_each(|item| own_events(item, wrong)),
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
            let is_of_a_room = members.contains_key("event_id");
            if OWN_EVENTS.contains(&kind) && members.contains_key("content") && !is_of_a_room {
                let schema = files::read(&format!("event-schemas/schema/{kind}.yaml"));
                wrong.extend(violations(schema, json).into_iter().map(|one| one.inside(kind)));
                return;
            }
            if let Some(relations) = json.pointer("/unsigned/m.relations") {
                let found = violations(text_only::relations(), relations).into_iter();
                wrong.extend(found.map(|one| one.inside("m.relations")));
            }
            for (name, member) in members {
                // The content of other events is their senders'.
                if name != "content" && name != "unsigned" {
                    own_events(member, wrong);
                }
            }
        }
        _ => {}
    }
}

/// What servers tell each other beside events, each kind by its own schema.
fn edus(transaction: &Value, wrong: &mut Vec<Violation>) {
    for edu in transaction["edus"].as_array().into_iter().flatten() {
        let kind = edu["edu_type"].as_str().unwrap_or_default();
        if EDUS.contains(&kind) {
            let file = format!("api/server-server/definitions/event-schemas/{kind}.yaml");
            let found = violations(files::read(&file), edu).into_iter();
            wrong.extend(found.map(|one| one.inside(kind)));
        }
    }
}

fn message(what: &str, operations: &[Operation], wrong: &[Violation], body: &[u8]) -> Option<String> {
    if wrong.is_empty() {
        return None;
    }
    let described: Vec<_> = operations
        .iter()
        .map(|operation| format!("{} in {}", operation.id(), operation.part.file))
        .collect();
    let wrong: Vec<_> = wrong
        .iter()
        .map(|one| format!("  {}: expected {}", one.pointer, one.expected))
        .collect();
    let body: String = String::from_utf8_lossy(body).chars().take(SHOWN_MAX).collect();
    let (described, wrong) = (described.join(", "), wrong.join("\n"));
    Some(format!("{what} ({described}):\n{wrong}\nThe body: {body}"))
}

thread_local! {
    /// What was found wrong where nobody could be told: servers of a simulation speak in tasks, whose panics go to the
    /// log. Simulations are single-threaded, and each test has a thread.
    static NOTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what was found wrong until [`assert_nothing_noted`].
pub fn note(wrong: Option<String>) {
    NOTED.with_borrow_mut(|noted| noted.extend(wrong));
}

/// Fails the test if anything was noted on this thread.
#[track_caller]
pub fn assert_nothing_noted() {
    let noted = NOTED.take();
    assert!(noted.is_empty(), "{} faults:\n{}", noted.len(), noted.join("\n"));
}

/// Looks when a server goes away whether anything was noted.
pub(crate) struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_nothing_noted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let check = |method, path, status, body: &str, expected: &[&str]| {
            let found = wrong_answer(method, path, status, &headers, body.as_bytes());
            let found = found.unwrap_or_default();
            let lines: Vec<_> = found.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert_eq!(lines, expected, "{found}");
        };
        let whoami = "/_matrix/client/v3/account/whoami";
        check("GET", whoami, 200, r#"{"user_id":"@a:b","is_guest":false}"#, &[]);
        check(
            "GET",
            whoami,
            200,
            r#"{"device_id":null}"#,
            &[
                ": expected a member \"user_id\"",
                "/device_id: expected string, not null",
            ],
        );
        check(
            "GET",
            whoami,
            201,
            "{}",
            &[": expected another status, as 201 is not described"],
        );
        check(
            "GET",
            whoami,
            401,
            r#"{"errcode":"M_UNKNOWN_TOKEN","error":"No such token."}"#,
            &[],
        );
        check("GET", whoami, 404, "", &[": expected an error as JSON"]);
        let sync = "/_matrix/client/v3/sync?since=s1";
        check(
            "GET",
            sync,
            200,
            r#"{"next_batch":"1","presence":{"events":[{"type":"m.presence","sender":"@a:b","content":{}}]}}"#,
            &["m.presence/content: expected a member \"presence\""],
        );
        check("POST", "/_matrix/client/v3/rooms/!a:b/invite", 200, "{}", &[]);
        check("GET", "/_hearth/health/ready", 200, "ok", &[]);
    }

    #[test]
    fn requests() {
        let path = "/_matrix/federation/v1/user/keys/claim";
        assert_eq!(
            wrong_request(
                "POST",
                path,
                br#"{"one_time_keys":{"@a:b":{"D":"signed_curve25519"}}}"#
            ),
            None
        );
        let wrong = wrong_request("POST", path, b"{}").expect("it is wrong");
        assert!(wrong.contains("one_time_keys"), "{wrong}");
    }
}
