//! End-to-end tests: clients against a whole server. Every scenario runs with 1 and with 16 shards, so that nothing
//! may assume that two entities share one.

#![expect(
    clippy::disallowed_methods,
    reason = "a test awaits the value, or the panic, of what it spawned"
)]

/// Makes of each named `async fn(&TestServer)` two tests.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[tokio::test]
            async fn on_1_shard() {
                super::$name(&hearth_testkit::TestServer::memory(1).await).await;
            }

            #[tokio::test]
            async fn on_16_shards() {
                super::$name(&hearth_testkit::TestServer::memory(16).await).await;
            }
        }
    )* };
}

mod accounts;
mod admin_federation;
mod answers;
mod bad_input;
mod client_edges;
mod create_room;
mod crypto;
mod data;
mod dehydrated;
mod delayed;
mod directory;
mod federation;
mod federation_edus;
mod federation_hostile;
mod federation_joining;
mod federation_lacking;
mod federation_members;
mod federation_outside;
mod federation_partial;
mod federation_peers;
mod federation_policy;
mod federation_purge;
mod federation_random;
mod federation_third_party;
mod guests;
mod history;
mod ignored;
mod membership;
mod mutual_rooms;
mod network;
mod outside;
mod owned_state;
mod process;
mod process_push;
mod property;
mod push;
mod receipts;
mod relations;
mod search;
mod sending;
mod server_notices;
mod sliding;
mod spec;
mod spec_files;
mod sync;
mod threads;
mod unread;
mod upgrade;
mod visibility;
mod web_push;

use serde_json::Value;

/// The events of a section (`timeline`, `state`, `ephemeral`, …) of a room or of the whole answer.
fn events(section: &Value) -> Vec<Value> {
    section["events"].as_array().cloned().unwrap_or_default()
}

/// The event ids of a list.
fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|event| event["event_id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The bodies of a list's messages.
fn bodies(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
        .collect()
}

/// The first event of a type and state key.
fn state_event<'a>(list: &'a [Value], kind: &str, key: &str) -> Option<&'a Value> {
    list.iter()
        .find(|event| event["type"] == kind && event["state_key"] == key)
}
