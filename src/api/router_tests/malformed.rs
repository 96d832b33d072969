//! Whatever is sent to whichever endpoint: the answer is JSON and no 5xx.

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Paths below `/_matrix/client/v3`; `{}` stands for a parameter.
const PATHS: &[&str] = &[
    "/account/3pid",
    "/account/3pid/delete",
    "/account/deactivate",
    "/account/password",
    "/account/whoami",
    "/admin/whois/{}",
    "/capabilities",
    "/delete_devices",
    "/devices",
    "/devices/{}",
    "/keys/changes?from=s1_AA&to={}",
    "/keys/claim",
    "/keys/device_signing/upload",
    "/keys/query",
    "/keys/signatures/upload",
    "/keys/upload",
    "/sendToDevice/{}/{}",
    "/login",
    "/presence/{}/status",
    "/profile/{}",
    "/profile/{}/{}",
    "/pushrules/",
    "/pushrules/global/content/{}",
    "/pushrules/global/override/{}",
    "/pushrules/global/room/{}",
    "/pushrules/global/sender/{}",
    "/pushrules/global/{}/{}",
    "/pushrules/global/{}/{}/actions",
    "/pushrules/global/{}/{}/enabled",
    "/refresh",
    "/register",
    "/register/available",
    "/register/email/requestToken",
    "/thirdparty/protocols",
    "/user/{}/account_data/{}",
    "/user/{}/filter",
    "/user/{}/filter/{}",
    "/user/{}/openid/request_token",
    "/user/{}/rooms/{}/account_data/{}",
    "/user/{}/rooms/{}/tags",
    "/user/{}/rooms/{}/tags/{}",
    "/user_directory/search",
    "/users/{}/report",
    "/voip/turnServer",
    "/../v1/admin/lock/{}",
    "/../v1/admin/suspend/{}",
    "/../v1/login/get_token",
    "/../v1/register/m.login.registration_token/validity",
    "/../unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
    "/../unstable/io.element.msc4308/thread_subscriptions?dir={}&from={}&to={}",
    "/../unstable/org.matrix.msc3814.v1/dehydrated_device",
    "/../unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events?next_batch={}",
    "/../unstable/org.matrix.msc4140/delayed_events",
    "/../unstable/org.matrix.msc4140/delayed_events/{}",
    "/../unstable/org.matrix.msc4140/delayed_events/{}/{}",
    "/../unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}",
    "/../versions",
    "/../../../_synapse/admin/v1/send_server_notice",
    "/../../../_synapse/admin/v1/send_server_notice/{}",
    "/../../../_synapse/admin/v1/federation/destinations",
    "/../../../_synapse/admin/v1/federation/destinations/{}",
    "/../../../_synapse/admin/v1/federation/destinations/{}/rooms",
    "/../../../_synapse/admin/v1/federation/destinations/{}/reset_connection",
    "/../../../_hearth/admin/v1/federation/rooms_on_hold",
    "/../../federation/v1/backfill/{}?v={}&limit=5",
    "/../../federation/v1/event/{}",
    "/../../federation/v1/get_missing_events/{}",
    "/../../federation/v1/hierarchy/{}",
    "/../../federation/v1/make_join/{}/{}",
    "/../../federation/v1/media/download/{}",
    "/../../federation/v1/openid/userinfo?access_token={}",
    "/../../federation/v1/3pid/onbind",
    "/../../federation/v1/query/directory?room_alias={}",
    "/../../federation/v1/user/keys/query",
    "/../../federation/v2/invite/{}/{}",
    "/../../federation/v2/send_join/{}/{}",
    "/nothing/{}",
    "/createRoom",
    "/directory/list/appservice/{}/{}",
    "/directory/list/room/{}",
    "/directory/room/{}",
    "/events?timeout=0&from={}",
    "/initialSync",
    "/join/{}",
    "/joined_rooms",
    "/knock/{}",
    "/publicRooms",
    "/publicRooms?since={}",
    "/room_keys/keys?version=1",
    "/room_keys/keys/{}?version=1",
    "/room_keys/keys/{}/{}?version=1",
    "/room_keys/version",
    "/room_keys/version/{}",
    "/rooms/{}/aliases",
    "/rooms/{}/ban",
    "/rooms/{}/context/{}",
    "/rooms/{}/event/{}",
    "/rooms/{}/forget",
    "/rooms/{}/initialSync",
    "/rooms/{}/invite",
    "/rooms/{}/join",
    "/rooms/{}/joined_members",
    "/rooms/{}/kick",
    "/rooms/{}/leave",
    "/rooms/{}/members",
    "/rooms/{}/members?at={}",
    "/rooms/{}/messages",
    "/rooms/{}/messages?from={}&dir=b",
    "/rooms/{}/messages?filter={}",
    "/rooms/{}/read_markers",
    "/rooms/{}/receipt/{}/{}",
    "/rooms/{}/receipt/m.read/{}",
    "/rooms/{}/redact/{}/{}",
    "/rooms/{}/report",
    "/rooms/{}/report/{}",
    "/rooms/{}/send/{}/{}",
    "/rooms/{}/state",
    "/rooms/{}/state/{}",
    "/rooms/{}/state/{}/{}",
    "/rooms/{}/state/m.room.member/{}",
    "/rooms/{}/state/m.room.power_levels",
    "/rooms/{}/state/m.room.join_rules",
    "/rooms/{}/typing/{}",
    "/rooms/{}/unban",
    "/rooms/{}/upgrade",
    "/search",
    "/search?next_batch={}",
    "/sync?timeout=0",
    "/sync?timeout=0&filter={}",
    "/sync?timeout=0&since={}",
    "/../v1/media/config",
    "/../v1/media/download/{}/{}?timeout_ms=0",
    "/../v1/media/preview_url?url={}",
    "/../v1/media/thumbnail/{}/{}?timeout_ms=0",
    "/../v1/mutual_rooms",
    "/../v1/mutual_rooms?user_id={}&from={}",
    "/../v1/room_summary/{}",
    "/../v1/rooms/{}/relations/{}",
    "/../v1/rooms/{}/relations/{}/{}",
    "/../v1/rooms/{}/threads",
    "/../v1/rooms/{}/timestamp_to_event",
    "/../v1/rooms/{}/timestamp_to_event?ts={}&dir=f",
];

/// Something for a parameter of a path: good ids, encoded rubbish, and letters.
fn parameter() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("@alice:hs1".to_owned()),
        1 => Just("!room:hs1".to_owned()),
        3 => Just("ROOM".to_owned()),
        1 => Just("$event".to_owned()),
        1 => Just("m.room.message".to_owned()),
        1 => Just("%7B%22room%22%3A1%7D".to_owned()),
        1 => Just("%ff%fe".to_owned()),
        1 => Just("%00".to_owned()),
        1 => Just("%2F..%2F".to_owned()),
        1 => Just("@:".to_owned()),
        1 => Just("%".to_owned()),
        1 => "[a-z.@!:$_%0-9]{1,300}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let filled =
        (0..PATHS.len(), proptest::collection::vec(parameter(), 3)).prop_map(|(index, parameters)| {
            let mut path = format!("{V3}{}", PATHS[index])
                .replace("/v3/..", "")
                .replace("/client/..", "")
                .replace("/_matrix/..", "");
            for parameter in parameters {
                path = path.replacen("{}", &parameter, 1);
            }
            path
        });
    (
        filled,
        prop_oneof![Just(String::new()), "[a-z_]{1,12}=[a-z0-9%@:!&=+]{0,40}"],
    )
        .prop_map(|(path, query)| {
            if query.is_empty() {
                path
            } else {
                format!("{path}?{query}")
            }
        })
}

/// A value of any shape.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        Just(json!("@alice:hs1")),
        Just(json!("public_chat")),
        Just(json!("11")),
        Just(json!("join")),
        Just(json!("m.login.password")),
        Just(json!("m.login.dummy")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(key(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Mostly keys that some endpoint reads.
fn key() -> impl Strategy<Value = String> {
    let known = [
        "actions",
        "auth",
        "body",
        "conditions",
        "creation_content",
        "device_id",
        "devices",
        "displayname",
        "event_id",
        "identifier",
        "initial_state",
        "invite",
        "join_rule",
        "kind",
        "limit",
        "locked",
        "m.fully_read",
        "m.relates_to",
        "membership",
        "name",
        "new_password",
        "new_version",
        "order",
        "password",
        "pattern",
        "power_level_content_override",
        "presence",
        "preset",
        "reason",
        "room",
        "room_alias_name",
        "room_id",
        "room_version",
        "room_events",
        "search_categories",
        "search_term",
        "session",
        "status_msg",
        "timeline",
        "timeout",
        "token",
        "type",
        "typing",
        "user",
        "user_id",
        "username",
        "users",
        "visibility",
    ];
    prop_oneof![
        9 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::collection::btree_map(key(), value(), 0..6)
            .prop_map(|map| json!(map).to_string().into_bytes()),
        1 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => (1..400_usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
        1 => Just(Vec::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_a_server_error(
        requests in proptest::collection::vec((path(), body(), 0..5_usize), 40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let server = Server::new();
            let token = server.user("admin", "DEVICE").await;
            let room = server.post(&format!("{V3}/createRoom"), &token, json!({})).await.ok();
            let room = room["room_id"].as_str().expect("a room id").to_owned();
            for (path, body, method) in requests {
                let path = path.replace("ROOM", &room);
                let method = ["GET", "PUT", "POST", "DELETE", "PATCH"][method];
                let request = Request::builder()
                    .method(method)
                    .uri(&path)
                    .header("authorization", format!("Bearer {token}"))
                    .body(Body::from(body.clone()));
                // What is no URI at all never gets as far as the router.
                let Ok(request) = request else { continue };
                let answer = server.send(request).await;
                let shown = String::from_utf8_lossy(&body).into_owned();
                assert!(answer.status.as_u16() < 500, "{} {method} {path} {shown}", answer.status);
                assert!(answer.json().is_object() || answer.json().is_array(), "{method} {path} {shown}");
                if answer.status.as_u16() >= 400 && answer.json().get("flows").is_none() {
                    let errcode = answer.json()["errcode"].as_str().map(str::to_owned);
                    assert!(errcode.is_some_and(|code| code.starts_with("M_")), "{method} {path} {shown}");
                }
            }
        });
    }
}
