//! Fetching the keys of other servers: from themselves, and from notaries (server-server API, "Retrieving server keys").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::metrics::KEY_FETCHES;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ServerKeys;
use super::document::{DOCUMENT_MAX_BYTES, Document};
use crate::client::{self, FedRequest};
use crate::error::ClientError;

/// A server that does not give its keys in this time is taken for away. Requests wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A notary may have to ask other servers itself.
const NOTARY_TIMEOUT: Duration = Duration::from_secs(30);
/// So many servers are asked for in one request to a notary.
pub(super) const NOTARY_BATCH_SERVERS: usize = 100;
/// The largest answer of a notary.
const NOTARY_RESPONSE_MAX_BYTES: usize = 4 << 20;

/// For each server the wanted keys, and when they have to be valid.
pub(super) type Wanted = BTreeMap<OwnedServerName, BTreeMap<String, u64>>;

#[derive(Deserialize)]
struct NotaryAnswer {
    server_keys: Vec<Map<String, Value>>,
}

/// Asks a server for its own keys, and remembers them.
pub(super) async fn from_itself(keys: &Arc<ServerKeys>, server: &ServerName) -> bool {
    let fetched = ask_itself(keys, server).await;
    count("server", fetched.is_ok());
    match fetched {
        Ok(document) => {
            keys.remember(server, document, true).await;
            true
        }
        Err(error) => {
            tracing::debug!(%server, %error, "the keys of a server cannot be had from it");
            false
        }
    }
}

async fn ask_itself(keys: &Arc<ServerKeys>, server: &ServerName) -> Result<Document, ClientError> {
    let request = FedRequest::get(server, "/_matrix/key/v2/server")
        .timeout(TIMEOUT)
        .max_response_bytes(DOCUMENT_MAX_BYTES);
    let response = keys.client.request_unsigned(request).await?;
    let document: Map<String, Value> = client::parse(server, &response)?;
    Document::check(document, server).map_err(|why| ClientError::Malformed {
        server: server.to_owned(),
        why: format!("key document: {why}"),
    })
}

/// Asks the notaries, one after the other, until what is wanted is there.
pub(super) async fn from_notaries(keys: &Arc<ServerKeys>, mut wanted: Wanted) {
    for notary in &keys.notaries {
        wanted.retain(|server, ids| {
            ids.retain(|id, at_ms| keys.known(server).key(id, *at_ms).is_none());
            !ids.is_empty() && server != notary
        });
        if wanted.is_empty() {
            return;
        }
        let asked = from_notary(keys, notary, &wanted).await;
        count("notary", asked.is_ok());
        if let Err(error) = asked {
            tracing::debug!(%notary, %error, "a notary did not give keys");
        }
    }
}

async fn from_notary(
    keys: &Arc<ServerKeys>,
    notary: &OwnedServerName,
    wanted: &Wanted,
) -> Result<(), ClientError> {
    let malformed = |why: &str| ClientError::Malformed {
        server: notary.clone(),
        why: why.to_owned(),
    };
    let criteria: BTreeMap<_, BTreeMap<_, _>> = wanted
        .iter()
        .map(|(server, ids)| {
            let ids = ids
                .iter()
                .map(|(id, at_ms)| (id, json!({"minimum_valid_until_ts": at_ms})));
            (server, ids.collect())
        })
        .collect();
    let body = json!({"server_keys": criteria});
    let request = FedRequest::post(notary, "/_matrix/key/v2/query", body)
        .timeout(NOTARY_TIMEOUT)
        .max_response_bytes(NOTARY_RESPONSE_MAX_BYTES);
    let response = keys.client.request_unsigned(request).await?;
    let answer: NotaryAnswer = client::parse(notary, &response)?;
    for json in answer.server_keys {
        let name = json.get("server_name").and_then(Value::as_str);
        // What was not asked for is not taken: it could fill our memory.
        let Some((server, _)) =
            name.and_then(|name| wanted.get_key_value(<&ServerName>::try_from(name).ok()?))
        else {
            continue;
        };
        let server = server.clone();
        if !signed_by(keys, notary, &json).await {
            return Err(malformed("its own signature is missing or wrong"));
        }
        match Document::check(json, &server) {
            Ok(document) => keys.remember(&server, document, false).await,
            Err(error) => tracing::debug!(%notary, %server, error, "a notary gave a document of no use"),
        }
    }
    Ok(())
}

/// Whether a notary signed a document, with a key that it has now. Its keys come from itself: asking another notary for
/// them would have no end.
async fn signed_by(keys: &Arc<ServerKeys>, notary: &ServerName, json: &Map<String, Value>) -> bool {
    let Some(signatures) = json
        .get("signatures")
        .and_then(|all| all.get(notary.as_str()))
        .and_then(Value::as_object)
    else {
        return false;
    };
    // A handful is what a notary has; more would only cost.
    for id in signatures.keys().take(8) {
        if let Some(key) = keys.key_from_itself(notary, id).await
            && hearth_events::verify_json(json, notary, id, &key).is_ok()
        {
            return true;
        }
    }
    false
}

fn count(source: &'static str, success: bool) {
    let outcome = if success { "success" } else { "failure" };
    metrics::counter!(KEY_FETCHES, "source" => source, "outcome" => outcome).increment(1);
}
