//! The bodies of the fuzz targets over samples and what a seeded hand makes of them: cut, spliced, bits turned, values of
//! JSON replaced. A sample that once failed stays in the table.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hearth_events::{Draft, KeyPair};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use ruma::{OwnedEventId, RoomVersionId, room_id, server_name, user_id};
use serde_json::{Value, json};

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

/// What is made of each sample. `HEARTH_FUZZ_ROUNDS` asks for more.
const ROUNDS: usize = 300;

fn rounds() -> usize {
    std::env::var("HEARTH_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(ROUNDS)
}

/// Runs a body over samples and what is made of them, and shows the bytes that it fails with.
fn check(body: fn(&[u8]), samples: &[Vec<u8>]) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for sample in samples {
        run(body, sample);
        for _ in 0..rounds() {
            let mut made = match serde_json::from_slice::<Value>(sample) {
                Ok(mut value) if random.random_range(0..2) == 0 => {
                    replace(&mut value, &mut random);
                    value.to_string().into_bytes()
                }
                _ => sample.clone(),
            };
            for _ in 0..random.random_range(0..4) {
                mutate(&mut made, samples, &mut random);
            }
            run(body, &made);
        }
    }
}

fn run(body: fn(&[u8]), data: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(data))) {
        eprintln!("failed with {:?}", String::from_utf8_lossy(data));
        eprintln!("which is {data:?}");
        std::panic::resume_unwind(panic);
    }
}

fn mutate(data: &mut Vec<u8>, samples: &[Vec<u8>], random: &mut ChaCha8Rng) {
    if data.is_empty() {
        data.push(random.random());
        return;
    }
    let at = random.random_range(0..data.len());
    match random.random_range(0..6) {
        0 => data[at] ^= 1 << random.random_range(0..8),
        1 => data[at] = random.random(),
        2 => data.truncate(at),
        3 => data.insert(at, b"\"\\{}[],:=-.0\0\xff"[random.random_range(0..14)]),
        4 => {
            let end = (at + random.random_range(1..20)).min(data.len());
            let part = data[at..end].to_vec();
            data.splice(at..at, part);
        }
        _ => {
            let other = &samples[random.random_range(0..samples.len())];
            let from = random.random_range(0..=other.len());
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
    }
}

/// Puts something else into one place of a document.
fn replace(value: &mut Value, random: &mut ChaCha8Rng) {
    let deeper = random.random_range(0..4) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = random.random_range(0..map.len());
            if let Some(inner) = map.values_mut().nth(at) {
                replace(inner, random);
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.random_range(0..list.len());
            replace(&mut list[at], random);
        }
        place => {
            let strange = [
                json!(null),
                json!(true),
                json!(0),
                json!(-1),
                json!(1.5),
                json!(1e300),
                json!(9_007_199_254_740_992_u64),
                json!(u64::MAX),
                json!(""),
                json!("x".repeat(300)),
                json!("\u{0}\u{feff}"),
                json!("@:"),
                json!("$"),
                json!([]),
                json!([[]]),
                json!({}),
                json!({"": {"": ""}}),
                json!("!r:s"),
                json!("@a:s"),
                json!("101"),
            ];
            *place = strange[random.random_range(0..strange.len())].clone();
        }
    }
}

/// Events as servers send them, in rooms of several versions.
fn events() -> Vec<Vec<u8>> {
    let key = KeyPair::from_seed([1; 32], "1").expect("a key");
    let mut samples = Vec::new();
    for version in ["1", "6", "11", "12"] {
        let version = RoomVersionId::try_from(version).expect("a room version");
        let rules = hearth_events::rules(&version).expect("a known version");
        for (kind, state_key, content) in [
            (
                "m.room.message",
                None,
                r#"{"body":"hé\"","m.mentions":{"user_ids":["@b:s"]},"msgtype":"m.text"}"#,
            ),
            (
                "m.room.member",
                Some("@a:example.org"),
                r#"{"membership":"join","third_party_invite":{"signed":{}}}"#,
            ),
            (
                "m.room.power_levels",
                Some(""),
                r#"{"events":{"a":1},"users":{"@a:example.org":100}}"#,
            ),
            (
                "m.room.create",
                Some(""),
                r#"{"creator":"@a:example.org","room_version":"11"}"#,
            ),
            ("m.room.redaction", None, r#"{"redacts":"$x:example.org"}"#),
        ] {
            let ids = [OwnedEventId::try_from("$abc:example.org").expect("an id")];
            let draft = Draft {
                room_id: (kind != "m.room.create").then_some(room_id!("!r:example.org")),
                sender: user_id!("@a:example.org"),
                kind,
                state_key,
                content: content.as_bytes(),
                origin_server_ts: 1_700_000_000_000,
                depth: 5,
                prev_events: if kind == "m.room.create" { &[] } else { &ids },
                auth_events: if kind == "m.room.create" { &[] } else { &ids },
                redacts: None,
            };
            // Not every draft is an event of every version.
            if let Ok(unsigned) = hearth_events::build(rules, &draft, None) {
                samples.push(unsigned.sign(&key, server_name!("example.org")).json.to_vec());
            }
        }
    }
    assert!(samples.len() >= 12, "{} samples", samples.len());
    samples
}

#[test]
fn events_of_others() {
    let mut samples = events();
    samples.push(b"{}".to_vec());
    check(bodies::pdu, &samples);
}

#[test]
fn transactions_of_others() {
    let pdus: Vec<Value> = events()
        .iter()
        .take(3)
        .map(|event| serde_json::from_slice(event).expect("JSON"))
        .collect();
    let edus = json!([
        { "edu_type": "m.typing", "content": { "room_id": "!r:s", "user_id": "@a:s", "typing": true } },
        { "edu_type": "m.receipt", "content": { "!r:s": { "m.read": { "@a:s": { "event_ids": ["$e"], "data": { "ts": 1 } } } } } },
        { "edu_type": "m.presence", "content": { "push": [{ "user_id": "@a:s", "presence": "online" }] } },
        { "edu_type": "m.direct_to_device", "content": { "sender": "@a:s", "type": "m.x", "message_id": "1",
            "messages": { "@b:s": { "*": {} } } } },
        { "edu_type": "m.device_list_update", "content": { "user_id": "@a:s", "device_id": "D", "stream_id": 5,
            "prev_id": [4], "keys": {} } },
        { "edu_type": "m.signing_key_update", "content": { "user_id": "@a:s", "master_key": {} } },
    ]);
    let whole = json!({ "origin": "example.org", "origin_server_ts": 1, "pdus": pdus, "edus": edus });
    let many = json!({ "pdus": vec![json!({}); 60] });
    check(
        bodies::transaction,
        &[
            whole.to_string().into_bytes(),
            many.to_string().into_bytes(),
            b"{}".to_vec(),
        ],
    );
}

#[test]
fn headers_of_others() {
    let samples: Vec<Vec<u8>> = [
        r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:1",sig="abcd+/""#,
        r#"x-matrix  origin=a.example,key=ed25519:1,sig=abcd"#,
        r#"X-Matrix origin="a\"b", , KEY="ed25519:a_\\b",sig="" ,extension="x=y,z""#,
        r#"X-Matrix origin="[2001:db8::1]:1",destination="1.2.3.4",key="ed25519:1",signature="abcd""#,
        // A backslash in the name of a key, which has to be written as it was read.
        r#"X-Matrix origin="a.example",destination="b.example",key="ed25519:a_\\b",sig="""#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    check(bodies::x_matrix, &samples);
}

#[test]
fn names_of_others() {
    let samples: Vec<Vec<u8>> = [
        "example.org",
        "example.org:8448",
        "1.2.3.4:65535",
        "[2001:db8::1]:8448",
        "[::ffff:1.2.3.4]",
        "xn--nxasmq6b.example",
        r#"{"m.server":"delegated.example.org:443"}"#,
        r#"{"m.server":"[::1]:1","other":[]}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    check(bodies::names, &samples);
}

#[test]
fn graphs_of_every_shape() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for round in 0..rounds() * 10 {
        let mut data = vec![0; 20 + round % 900];
        random.fill_bytes(&mut data);
        run(bodies::resolution, &data);
    }
    for constant in [0, 1, 7, 255] {
        run(bodies::resolution, &[constant; 1_200]);
    }
}
