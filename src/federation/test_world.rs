//! Other servers made up for tests: each has a key, and answers questions for keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hearth_cluster::Cluster;
use hearth_core::clock::ManualClock;
use hearth_core::http::{Destination, Outbound, OutboundRequest, OutboundResponse, TransportError};
use hearth_events::KeyPair;
use hearth_storage::{Log, MemoryEngine};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value, json};

use crate::xmatrix::{XMatrix, signed_object};
use crate::{Authenticator, Client, Remote, ServerKeys};

pub(crate) const NOW_MS: u64 = 1_700_000_000_000;
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// This server, `us.example`, and those it can reach.
pub(crate) struct World {
    pub(crate) federation: Requests,
    pub(crate) net: Arc<Net>,
    pub(crate) clock: Arc<ManualClock>,
    log: Arc<Log>,
    notaries: Vec<String>,
}

/// The parts that ask others and check who asks.
pub(crate) struct Requests {
    pub(crate) client: Arc<Client>,
    pub(crate) keys: Arc<ServerKeys>,
    pub(crate) auth: Authenticator,
    pub(crate) remote: Arc<Remote>,
}

/// The answers of other servers: by `server path`.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) answers: Mutex<BTreeMap<String, (u16, Value)>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Outbound for Net {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let Destination::Server(server) = &request.destination else {
            return Err(TransportError::Refused("not a server".to_owned()));
        };
        let line = format!("{server} {}", request.path_and_query);
        self.asked.lock().push(line.clone());
        tokio::task::yield_now().await;
        let Some((status, body)) = self.answers.lock().get(&line).cloned() else {
            return Err(TransportError::Unreachable("nobody there".to_owned()));
        };
        Ok(OutboundResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_string()),
        })
    }
}

/// Another server.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) key: KeyPair,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_notaries(&[])
    }

    pub(crate) fn with_notaries(notaries: &[&str]) -> Self {
        let log = Log::open(Arc::new(MemoryEngine::new()), 2).unwrap();
        let net = Arc::new(Net::default());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let notaries: Vec<String> = notaries.iter().map(|name| (*name).to_owned()).collect();
        Self {
            federation: federation(&log, &net, &clock, &notaries),
            net,
            clock,
            log,
            notaries,
        }
    }

    /// The same server after a restart: only what is stored is known.
    pub(crate) fn restart(&mut self) {
        self.federation = federation(&self.log, &self.net, &self.clock, &self.notaries);
    }

    /// A server that publishes its key for a day.
    pub(crate) fn peer(&self, name: &str) -> Peer {
        let peer = Peer {
            name: name.to_owned(),
            key: KeyPair::from_seed([name.as_bytes()[0]; 32], "1").unwrap(),
        };
        self.publish(&peer, peer.document(NOW_MS + DAY_MS));
        peer
    }

    pub(crate) fn publish(&self, peer: &Peer, document: Map<String, Value>) {
        self.answer(&peer.name, "/_matrix/key/v2/server", Value::Object(document));
    }

    pub(crate) fn answer(&self, server: &str, path: &str, body: Value) {
        let line = format!("{server} {path}");
        self.net.answers.lock().insert(line, (200, body));
    }

    pub(crate) fn asked(&self) -> usize {
        self.net.asked.lock().len()
    }
}

fn federation(log: &Arc<Log>, net: &Arc<Net>, clock: &Arc<ManualClock>, notaries: &[String]) -> Requests {
    let key = Arc::new(KeyPair::from_seed([255; 32], "own").unwrap());
    let us = "us.example".try_into().unwrap();
    let client = Arc::new(Client::new(us, key.clone(), net.clone(), clock.clone()));
    let notaries = notaries.iter().map(|name| name.as_str().try_into().unwrap());
    let cluster = Cluster::new(log.clone());
    let former = vec![crate::OldKey {
        id: "ed25519:former".to_owned(),
        public_key: [7; 32],
        expired_ms: NOW_MS - 1,
    }];
    let keys = ServerKeys::new(
        key,
        former,
        client.clone(),
        cluster,
        clock.clone(),
        notaries.collect(),
    );
    Requests {
        auth: Authenticator::new(client.clone(), keys.clone()),
        remote: Arc::new(Remote::new(client.clone(), keys.clone())),
        client,
        keys,
    }
}

impl Peer {
    /// Its document, signed.
    pub(crate) fn document(&self, valid_until_ms: u64) -> Map<String, Value> {
        self.document_with(valid_until_ms, json!({}))
    }

    pub(crate) fn document_with(&self, valid_until_ms: u64, old: Value) -> Map<String, Value> {
        let document = json!({
            "server_name": self.name,
            "valid_until_ts": valid_until_ms,
            "verify_keys": {self.key.key_id(): {"key": self.key.public_key_base64()}},
            "old_verify_keys": old,
        });
        self.signed(document.as_object().unwrap().clone())
    }

    pub(crate) fn signed(&self, mut object: Map<String, Value>) -> Map<String, Value> {
        hearth_events::sign_json(&mut object, &self.name, &self.key).unwrap();
        object
    }

    /// The `Authorization` header of a request.
    pub(crate) fn sign(
        &self,
        method: &str,
        path: &str,
        destination: &str,
        content: Option<&Value>,
    ) -> String {
        let origin = ServerName::parse(&self.name).unwrap();
        let to = ServerName::parse(destination).unwrap();
        let object = signed_object(method, path, &origin, &to, content);
        self.header(origin, to, &hearth_events::signing_bytes(&object).unwrap())
    }

    /// The same for a body that no value can be read from.
    pub(crate) fn sign_text(&self, method: &str, path: &str, destination: &str, content: &str) -> String {
        let origin = ServerName::parse(&self.name).unwrap();
        let to = ServerName::parse(destination).unwrap();
        let message = format!(
            r#"{{"content":{content},"destination":"{to}","method":"{method}","origin":"{origin}","uri":"{path}"}}"#
        );
        self.header(origin, to, message.as_bytes())
    }

    fn header(&self, origin: OwnedServerName, destination: OwnedServerName, message: &[u8]) -> String {
        XMatrix {
            origin,
            destination: Some(destination),
            key: self.key.key_id().to_owned(),
            signature: hearth_events::base64_encode(&self.key.sign(message)),
        }
        .to_string()
    }
}
