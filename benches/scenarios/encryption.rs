//! What end-to-end encryption asks of a server: uploads of keys, claims of one-time keys, messages to devices.

use std::net::SocketAddr;

use futures::future::try_join_all;
use hearth_events::{KeyPair, base64_encode, sign_json};
use serde_json::{Map, Value, json};

use crate::ceilings::Ceilings;
use crate::client::{Conn, encode};
use crate::matrix::{self, Account};
use crate::measure::{Meter, micros_each};
use crate::process::Home;
use crate::report::{Report, Row};
use crate::{Result, Settings};

const V3: &str = "/_matrix/client/v3";
/// Devices, one of each account.
const DEVICES: usize = 200;
/// One-time keys in an upload, as clients do it.
const KEYS_AT_ONCE: usize = 50;
/// Uploads of each device.
const UPLOADS: usize = 6;
/// Devices in one claim of many: those of a room in which somebody begins to speak.
const CLAIMED_AT_ONCE: usize = 20;
/// Claims of one key; there are keys for all of them.
const CLAIMS: usize = 4_000;
/// Claims of many.
const BIG_CLAIMS: usize = 200;
/// Messages to one device.
const MESSAGES: usize = 4_000;
/// Messages to many.
const BIG_MESSAGES: usize = 400;
/// Connections over which it is measured.
const CONNECTIONS: usize = 64;
/// The length of an encrypted room key.
const CIPHERTEXT_BYTES: usize = 900;

struct Request {
    method: &'static str,
    target: String,
    token: String,
    body: Vec<u8>,
}

/// Runs the scenario.
pub async fn run(settings: &Settings, ceilings: &Ceilings, report: &mut Report) -> Result<()> {
    let home = Home::new(settings)?;
    let (server, _) = home.start()?;
    let (address, pid) = (server.address, server.pid());
    let devices = settings.count(DEVICES).max(CLAIMED_AT_ONCE + 1);
    let accounts = matrix::register_many(address, "device", devices).await?;
    let at = ceilings.at(CONNECTIONS);
    let ceiling = at.echo + at.commit;
    let mut figures = vec![
        (
            format!("uploads of device keys and {KEYS_AT_ONCE} one-time keys"),
            1,
            uploads(&accounts, 0..1)?,
        ),
        (
            format!("uploads of {KEYS_AT_ONCE} one-time keys"),
            1,
            uploads(&accounts, 1..UPLOADS)?,
        ),
        (
            "claims of one key".to_owned(),
            1,
            claims(&accounts, settings.count(CLAIMS), 1),
        ),
        (
            format!("claims of {CLAIMED_AT_ONCE} keys"),
            CLAIMED_AT_ONCE,
            claims(&accounts, settings.count(BIG_CLAIMS), CLAIMED_AT_ONCE),
        ),
        (
            "messages to one device".to_owned(),
            1,
            messages(&accounts, settings.count(MESSAGES), 1),
        ),
        (
            format!("messages to {CLAIMED_AT_ONCE} devices"),
            CLAIMED_AT_ONCE,
            messages(&accounts, settings.count(BIG_MESSAGES), CLAIMED_AT_ONCE),
        ),
    ];
    for (what, each, requests) in &mut figures {
        let meter = Meter::start(pid)?;
        flood(address, requests).await?;
        let usage = meter.stop()?;
        let count = requests.len();
        let cpu = micros_each(usage.server, count);
        let row = Row::new(format!("{what}, {CONNECTIONS} at once"), cpu, "µs CPU").ceiling(ceiling);
        let note = "for each request; the ceiling is an echo and a commit";
        report.add(row.note(match *each {
            1 => note.to_owned(),
            each => format!("{note}; {:.1} µs for each device", cpu / each as f64),
        }));
        let rate = count as f64 / usage.wall.as_secs_f64();
        let row = Row::new(format!("{what}, a second"), rate, "/s").ceiling(at.commits);
        report.add(row.note(format!("other work on {:.2} processors", usage.others)));
    }
    server.stop()
}

/// All requests over a bounded number of connections.
async fn flood(address: SocketAddr, requests: &[Request]) -> Result<()> {
    let conns = Conn::open_all(address, CONNECTIONS.min(requests.len())).await?;
    let lanes = conns.len();
    let lanes = conns.into_iter().enumerate().map(|(lane, mut conn)| async move {
        for request in requests.iter().skip(lane).step_by(lanes) {
            conn.ok(request.method, &request.target, &request.token, &request.body)
                .await?;
        }
        Ok::<_, crate::Error>(())
    });
    try_join_all(lanes).await.map(drop)
}

fn uploads(accounts: &[Account], numbers: std::ops::Range<usize>) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for number in numbers {
        for (at, account) in accounts.iter().enumerate() {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
            let key = KeyPair::from_seed(seed, &account.device)?;
            let mut one_time = Map::new();
            for key_number in 0..KEYS_AT_ONCE {
                let name = format!("signed_curve25519:AAAA{number:02}{key_number:02}");
                let public = base64_encode(&[number as u8, key_number as u8].repeat(16));
                let mut value = Map::from_iter([("key".to_owned(), public.into())]);
                sign_json(&mut value, &account.user, &key)?;
                one_time.insert(name, Value::Object(value));
            }
            let mut body = json!({ "one_time_keys": one_time });
            if number == 0 {
                body["device_keys"] = device_keys(account, &key)?;
            }
            requests.push(Request {
                method: "POST",
                target: format!("{V3}/keys/upload"),
                token: account.token.clone(),
                body: body.to_string().into_bytes(),
            });
        }
    }
    Ok(requests)
}

fn device_keys(account: &Account, key: &KeyPair) -> Result<Value> {
    let keys = json!({
        "user_id": account.user,
        "device_id": account.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{}", account.device): base64_encode(&[9; 32]),
            key.key_id(): key.public_key_base64(),
        },
    });
    let Value::Object(mut keys) = keys else {
        return Err("keys are an object".into());
    };
    sign_json(&mut keys, &account.user, key)?;
    Ok(Value::Object(keys))
}

/// The devices that request number `at` is about: others than its sender's.
fn others(accounts: &[Account], at: usize, each: usize) -> impl Iterator<Item = &Account> {
    (1..=each).map(move |step| &accounts[(at + step) % accounts.len()])
}

fn claims(accounts: &[Account], count: usize, each: usize) -> Vec<Request> {
    let claim = |at: usize| {
        let wanted: Map<String, Value> = others(accounts, at, each)
            .map(|other| (other.user.clone(), json!({ &other.device: "signed_curve25519" })))
            .collect();
        Request {
            method: "POST",
            target: format!("{V3}/keys/claim"),
            token: accounts[at % accounts.len()].token.clone(),
            body: json!({ "one_time_keys": wanted }).to_string().into_bytes(),
        }
    };
    (0..count).map(claim).collect()
}

fn messages(accounts: &[Account], count: usize, each: usize) -> Vec<Request> {
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2",
        "sender_key": base64_encode(&[9; 32]),
        "ciphertext": { base64_encode(&[8; 32]): { "type": 0, "body": "x".repeat(CIPHERTEXT_BYTES) } },
    });
    let message = |at: usize| {
        let messages: Map<String, Value> = others(accounts, at, each)
            .map(|other| (other.user.clone(), json!({ &other.device: content })))
            .collect();
        Request {
            method: "PUT",
            target: format!("{V3}/sendToDevice/{}/{each}-{at}", encode("m.room.encrypted")),
            token: accounts[at % accounts.len()].token.clone(),
            body: json!({ "messages": messages }).to_string().into_bytes(),
        }
    };
    (0..count).map(message).collect()
}
