use http::{HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::test_world::World;

fn parsed(text: &str) -> Option<[String; 4]> {
    XMatrix::parse(text.as_bytes()).map(|header| {
        let destination = header
            .destination
            .map(|name| name.to_string())
            .unwrap_or_default();
        [
            header.origin.to_string(),
            destination,
            header.key,
            header.signature,
        ]
    })
}

#[test]
fn headers() {
    let good = Some(["a.example:8448", "b.example", "ed25519:k", "s+/="].map(str::to_owned));
    for text in [
        r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k",sig="s+/=""#,
        r#"x-matrix  Origin="a.example:8448" , DESTINATION=b.example	,	key="ed25519:k",sig="s+/=""#,
        r#"X-Matrix origin=a.example:8448,destination=b.example,key=ed25519:k,sig=s+/="#,
        r#"X-Matrix sig="s+\/=",key="ed\25519:k",destination="b.example",origin="a.example:8448""#,
        r#"X-Matrix ,origin="a.example:8448",,destination="b.example",more="x,y=\"z",key="ed25519:k",sig="s+/=","#,
        r#"X-Matrix origin = "a.example:8448",destination="b.example",key= "ed25519:k",signature="s+/=""#,
    ] {
        assert_eq!(parsed(text), good, "{text}");
    }
    let old = parsed(r#"X-Matrix origin="a",key="k",sig="s""#).unwrap();
    assert_eq!(old, ["a", "", "k", "s"].map(str::to_owned));
    for text in [
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer origin=a,key=k,sig=s",
        "X-Matrixorigin=a,key=k,sig=s",
        "X-Matrix origin=a,key=k",
        "X-Matrix origin=a,sig=s",
        "X-Matrix key=k,sig=s",
        "X-Matrix origin=a,key=k,sig=",
        "X-Matrix origin=a,origin=a,key=k,sig=s",
        "X-Matrix origin=a,key=k,sig=s,signature=s",
        "X-Matrix origin=\"a,key=k,sig=s",
        "X-Matrix origin=\"a\"b,key=k,sig=s",
        "X-Matrix origin=\"a\\",
        "X-Matrix origin=a b,key=k,sig=s",
        "X-Matrix origin=a,key=k,sig=s,x",
        "X-Matrix origin=a,key=k,sig=s,=x",
        "X-Matrix origin=a/b,key=k,sig=s",
        "X-Matrix origin=a,destination=\"\",key=k,sig=s",
    ] {
        assert_eq!(parsed(text), None, "{text}");
    }
    let long = format!("X-Matrix origin=a,key=k,sig={}", "s".repeat(HEADER_MAX_BYTES));
    assert_eq!(parsed(&long), None);
    let many = "x=1,".repeat(PARAMETERS_MAX);
    assert_eq!(parsed(&format!("X-Matrix {many}origin=a,key=k,sig=s")), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        drop(XMatrix::parse(&bytes));
        let mut whole = b"X-Matrix ".to_vec();
        whole.extend(bytes);
        drop(XMatrix::parse(&whole));
    }

    #[test]
    fn what_looks_like_a_header_is_read_or_refused(text in "X-Matrix [a-z=,\" \\\\:é]{0,60}") {
        drop(XMatrix::parse(text.as_bytes()));
    }

    #[test]
    fn headers_round_trip(
        origin in "[a-z][a-z0-9.-]{0,20}(:[1-9][0-9]{0,3})?",
        destination in prop::option::of("[a-z][a-z0-9.-]{0,20}"),
        version in "[a-zA-Z0-9_]{1,10}",
        signature in "[a-zA-Z0-9+/]{1,86}",
    ) {
        let header = XMatrix {
            origin: ServerName::parse(&origin).unwrap(),
            destination: destination.map(|name| ServerName::parse(name).unwrap()),
            key: format!("ed25519:{version}"),
            signature,
        };
        prop_assert_eq!(XMatrix::parse(header.to_string().as_bytes()), Some(header));
    }
}

fn with(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[tokio::test]
async fn who_sent_a_request() {
    let world = World::new();
    let peer = world.peer("a.example");
    let body = json!({"x": [1, {"y": "ä"}]});
    let bytes = body.to_string();
    let path = "/_matrix/federation/v1/send/1?x=%2F";
    let check = |headers: HeaderMap, body: &str| {
        let (world, body) = (&world, body.to_owned());
        async move {
            world
                .federation
                .auth
                .check(&Method::PUT, path, &headers, body.as_bytes())
                .await
        }
    };
    let good = peer.sign("PUT", path, "us.example", Some(&body));
    assert_eq!(check(with(&[&good]), &bytes).await.unwrap(), "a.example");
    // Other order and white space are the same JSON; other schemes are not ours to judge.
    let spaced = r#"{ "x" : [1, {"y":"\u00e4"}] }"#;
    let bearer = "Bearer x".to_owned();
    assert!(check(with(&[&bearer, &good]), spaced).await.is_ok());
    // One valid key of several is enough, but every header must be well formed.
    let unknown = good.replace("ed25519:1", "ed25519:2");
    assert!(check(with(&[&unknown, &good]), &bytes).await.is_ok());
    let malformed = check(with(&[&good, "X-Matrix origin="]), &bytes).await;
    assert_eq!(malformed, Err(AuthFailure::Malformed));
    let origin = "a.example".try_into().unwrap();
    let failed = Err(AuthFailure::Signature { origin });
    assert_eq!(check(with(&[&good]), r#"{"x":[2]}"#).await, failed);
    // Something deep in it, or a number that is not held, is not for the signature to judge.
    for inner in [
        format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)),
        "18446744073709551617".to_owned(),
    ] {
        let body = format!(r#"{{"pdus":[{inner}]}}"#);
        let deep = peer.sign_text("PUT", path, "us.example", &body);
        assert_eq!(check(with(&[&deep]), &body).await.unwrap(), "a.example");
        assert_eq!(check(with(&[&deep]), &body.replace("pdus", "edus")).await, failed);
    }
    assert_eq!(check(with(&[&good]), "").await, failed);
    assert_eq!(check(with(&[&good]), "{").await, Err(AuthFailure::NotJson));
    assert_eq!(check(with(&[]), &bytes).await, Err(AuthFailure::Missing));
    assert_eq!(check(with(&[&bearer]), &bytes).await, Err(AuthFailure::Missing));
    let elsewhere = peer.sign("PUT", path, "other.example", Some(&body));
    assert_eq!(
        check(with(&[&elsewhere]), &bytes).await,
        Err(AuthFailure::Destination)
    );
    // Without the parameter the destination still is signed.
    let silent = elsewhere.replace("destination=\"other.example\",", "");
    assert_eq!(check(with(&[&silent]), &bytes).await, failed);
    let silent = good.replace("destination=\"us.example\",", "");
    assert!(check(with(&[&silent]), &bytes).await.is_ok());
    let ours = good.replace("origin=\"a.example\"", "origin=\"us.example\"");
    assert_eq!(check(with(&[&ours]), &bytes).await, Err(AuthFailure::Origin));
    let two = world
        .peer("b.example")
        .sign("PUT", path, "us.example", Some(&body));
    assert_eq!(
        check(with(&[&good, &two]), &bytes).await,
        Err(AuthFailure::Origin)
    );
    let nobody = check(with(&[&unknown]), &bytes).await;
    assert!(matches!(nobody, Err(AuthFailure::NoKey { .. })), "{nobody:?}");
}
