//! Whatever is sent to whichever endpoint: the answer is JSON and no 5xx.

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Paths below `/_matrix/client/v3`; `{}` stands for a parameter.
const PATHS: [&str; 43] = [
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
    "/../versions",
    "/nothing/{}",
];

/// Something for a parameter of a path: good ids, encoded rubbish, and letters.
fn parameter() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("@alice:hs1".to_owned()),
        Just("!room:hs1".to_owned()),
        Just("%ff%fe".to_owned()),
        Just("%00".to_owned()),
        Just("%2F..%2F".to_owned()),
        Just("@:".to_owned()),
        Just("%".to_owned()),
        "[a-z.@!:$_%0-9]{1,300}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let filled =
        (0..PATHS.len(), proptest::collection::vec(parameter(), 3)).prop_map(|(index, parameters)| {
            let mut path = format!("{V3}{}", PATHS[index]).replace("/v3/..", "");
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
        "conditions",
        "device_id",
        "devices",
        "displayname",
        "identifier",
        "kind",
        "limit",
        "locked",
        "new_password",
        "order",
        "password",
        "pattern",
        "presence",
        "reason",
        "room",
        "search_term",
        "session",
        "status_msg",
        "timeline",
        "token",
        "type",
        "user",
        "username",
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
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_a_server_error(
        requests in proptest::collection::vec((path(), body(), 0..5_usize), 40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let server = Server::new();
            let token = server.user("admin", "DEVICE").await;
            for (path, body, method) in requests {
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
                assert!(answer.json().is_object(), "{method} {path} {shown}");
                if answer.status.as_u16() >= 400 && answer.json().get("flows").is_none() {
                    let errcode = answer.json()["errcode"].as_str().map(str::to_owned);
                    assert!(errcode.is_some_and(|code| code.starts_with("M_")), "{method} {path} {shown}");
                }
            }
        });
    }
}
