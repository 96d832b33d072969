//! The few calls of the client-server API that the scenarios make.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Conn, encode};
use crate::process::APPSERVICE_TOKEN;
use crate::{Error, Result};

const V3: &str = "/_matrix/client/v3";
/// The length of a message's text.
pub const TEXT_BYTES: usize = 100;
/// Connections over which scenarios are prepared.
const SETUP_CONNECTIONS: usize = 48;

/// A user with an access token.
#[derive(Clone, Debug)]
pub struct Account {
    /// The user's id.
    pub user: String,
    /// The token.
    pub token: String,
    /// The device.
    pub device: String,
}

/// Registers a user through the application service, without a password to hash, and logs it in.
pub async fn register(conn: &mut Conn, name: &str) -> Result<Account> {
    let body = json!({ "type": "m.login.application_service", "username": name });
    let answer = conn
        .json("POST", &format!("{V3}/register"), APPSERVICE_TOKEN, &body)
        .await?;
    Ok(Account {
        user: text(&answer, "user_id")?,
        token: text(&answer, "access_token")?,
        device: text(&answer, "device_id")?,
    })
}

/// Registers a user without a device.
pub async fn register_bare(conn: &mut Conn, name: &str) -> Result<String> {
    let body = json!({ "type": "m.login.application_service", "username": name, "inhibit_login": true });
    let answer = conn
        .json("POST", &format!("{V3}/register"), APPSERVICE_TOKEN, &body)
        .await?;
    text(&answer, "user_id")
}

/// Registers several users, in any order.
pub async fn register_many(address: SocketAddr, prefix: &str, count: usize) -> Result<Vec<Account>> {
    spread(address, count, async |conn: &mut Conn, at: usize| {
        register(conn, &format!("{prefix}{at}")).await
    })
    .await
}

/// Creates a room that everybody may join.
pub async fn create_room(conn: &mut Conn, token: &str) -> Result<String> {
    // In room version 12 the create event names the room: two by one user in one millisecond must differ.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let body = json!({
        "preset": "public_chat",
        "name": "A room of the load program",
        "creation_content": { "org.example.number": number },
    });
    let answer = conn
        .json("POST", &format!("{V3}/createRoom"), token, &body)
        .await?;
    text(&answer, "room_id")
}

/// Joins a room.
pub async fn join(conn: &mut Conn, token: &str, room: &str) -> Result<()> {
    conn.ok("POST", &format!("{V3}/rooms/{}/join", encode(room)), token, b"{}")
        .await
        .map(drop)
}

/// Joins or leaves a room for a user of the application service.
pub async fn member_as(conn: &mut Conn, verb: &str, user: &str, room: &str) -> Result<()> {
    let target = format!("{V3}/rooms/{}/{verb}?user_id={}", encode(room), encode(user));
    conn.ok("POST", &target, APPSERVICE_TOKEN, b"{}").await.map(drop)
}

/// The start of the target of a message; the transaction id follows.
pub fn send_target(room: &str) -> String {
    format!("{V3}/rooms/{}/send/m.room.message/", encode(room))
}

/// A message whose text starts with `mark`.
pub fn message(mark: &str) -> Vec<u8> {
    format!(r#"{{"msgtype":"m.text","body":"{mark:x<TEXT_BYTES$}"}}"#).into_bytes()
}

/// The target of a `/sync` call.
pub fn sync_target(since: Option<&str>, timeout_ms: u64, filter: Option<&str>) -> String {
    let mut target = format!("{V3}/sync?timeout={timeout_ms}");
    for (name, value) in [("since", since), ("filter", filter)] {
        if let Some(value) = value {
            target.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    target
}

/// Stores a filter for long timelines without presence; its id.
pub async fn filter(conn: &mut Conn, account: &Account) -> Result<String> {
    let body = json!({ "presence": { "types": [] }, "room": { "timeline": { "limit": 500 } } });
    let target = format!("{V3}/user/{}/filter", encode(&account.user));
    text(
        &conn.json("POST", &target, &account.token, &body).await?,
        "filter_id",
    )
}

/// A `/sync` call whose answer is not looked at; the next token.
pub async fn sync_token(
    conn: &mut Conn,
    token: &str,
    since: Option<&str>,
    filter: Option<&str>,
) -> Result<String> {
    let answer = conn.ok("GET", &sync_target(since, 0, filter), token, b"").await?;
    #[derive(Deserialize)]
    struct Next {
        next_batch: String,
    }
    Ok(serde_json::from_slice::<Next>(answer)?.next_batch)
}

/// What a receiver reads of an answer of `/sync`: the next token and the texts of messages.
pub fn read_sync(answer: &[u8]) -> Result<(String, Vec<String>)> {
    #[derive(Deserialize)]
    struct Answer {
        next_batch: String,
        #[serde(default)]
        rooms: Rooms,
    }
    #[derive(Default, Deserialize)]
    struct Rooms {
        #[serde(default)]
        join: std::collections::HashMap<String, Room>,
    }
    #[derive(Deserialize)]
    struct Room {
        #[serde(default)]
        timeline: Timeline,
    }
    #[derive(Default, Deserialize)]
    struct Timeline {
        #[serde(default)]
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        body: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer)?;
    let rooms = answer.rooms.join.into_values();
    let events = rooms.flat_map(|room| room.timeline.events);
    Ok((
        answer.next_batch,
        events.filter_map(|event| event.content.body).collect(),
    ))
}

/// Does `count` jobs over a bounded number of connections.
pub async fn spread<T>(
    address: SocketAddr,
    count: usize,
    job: impl AsyncFn(&mut Conn, usize) -> Result<T>,
) -> Result<Vec<T>> {
    spread_over(address, SETUP_CONNECTIONS, count, job).await
}

/// Does `count` jobs over so many connections; what they gave, in order.
pub async fn spread_over<T>(
    address: SocketAddr,
    connections: usize,
    count: usize,
    job: impl AsyncFn(&mut Conn, usize) -> Result<T>,
) -> Result<Vec<T>> {
    let next = Cell::new(0);
    let done = RefCell::new((0..count).map(|_| None).collect::<Vec<Option<T>>>());
    let workers = (0..connections.min(count)).map(|_| async {
        let mut conn = Conn::open(address).await?;
        while next.get() < count {
            let at = next.replace(next.get() + 1);
            let made = job(&mut conn, at).await?;
            done.borrow_mut()[at] = Some(made);
        }
        Ok::<_, Error>(())
    });
    try_join_all(workers).await?;
    let done = done.into_inner().into_iter().collect::<Option<Vec<T>>>();
    Ok(done.ok_or("a job was not done")?)
}

fn text(answer: &Value, key: &str) -> Result<String> {
    let text = answer[key].as_str();
    Ok(text.ok_or_else(|| format!("no {key} in {answer}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length() {
        let content: Value = serde_json::from_slice(&message("t12 ")).unwrap();
        assert_eq!(content["body"].as_str().unwrap().len(), TEXT_BYTES);
    }

    #[test]
    fn receivers_read_texts() {
        let answer = br#"{"next_batch":"s1","rooms":{"join":{"!a":{"timeline":{"events":[{"content":{"body":"b"}}]}}}}}"#;
        assert_eq!(
            read_sync(answer).unwrap(),
            ("s1".to_owned(), vec!["b".to_owned()])
        );
    }
}
