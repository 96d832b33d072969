//! The keys of remote users' devices, for clients: from what is kept, else from their servers
//! (server-server API, "End-to-End Encryption").

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_core::error::errcode;
use hearth_rooms::Error;
use http::Method;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Edus;
use super::lists::{Device, WholeList, is_key_of};
use crate::client::{Asker, FedRequest};
use crate::outbound::Failure;

/// The longest that a client waits for other servers.
const TIMEOUT_MAX: Duration = Duration::from_secs(20);
/// The largest answer: a few thousand devices.
const RESPONSE_MAX_BYTES: usize = 10 << 20;
/// So many lists of one server are fetched at once.
const FETCHES_AT_ONCE: usize = 8;

/// The devices wanted of each user; none named is all.
pub type WantedDevices = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;
/// The algorithm wanted of each user's devices.
pub type WantedKeys = BTreeMap<OwnedUserId, BTreeMap<String, String>>;

/// Keys of remote users, by user.
#[derive(Debug, Default)]
pub struct RemoteKeys {
    /// The identity keys, by device.
    pub device_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// The master keys.
    pub master_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// The self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// The servers that could not be asked, with an error for each.
    pub failures: Map<String, Value>,
}

/// One-time keys of remote users, and the servers that could not be asked.
#[derive(Debug, Default)]
pub struct RemoteClaim {
    /// By user and device: the key by its id.
    pub one_time_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// By server.
    pub failures: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct QueryAnswer {
    device_keys: BTreeMap<String, BTreeMap<String, Value>>,
    master_keys: BTreeMap<String, Value>,
    self_signing_keys: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct ClaimAnswer {
    one_time_keys: BTreeMap<String, Map<String, Value>>,
}

fn by_server<T>(wanted: BTreeMap<OwnedUserId, T>) -> BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>> {
    let mut servers: BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>> = BTreeMap::new();
    for (user, what) in wanted {
        let of_server = servers.entry(user.server_name().to_owned()).or_default();
        of_server.insert(user, what);
    }
    servers
}

impl RemoteKeys {
    fn absorb(&mut self, other: RemoteKeys) {
        self.device_keys.extend(other.device_keys);
        self.master_keys.extend(other.master_keys);
        self.self_signing_keys.extend(other.self_signing_keys);
        self.failures.extend(other.failures);
    }

    /// Adds what is known of one user.
    fn add(
        &mut self,
        user: &UserId,
        wanted: &[OwnedDeviceId],
        devices: impl IntoIterator<Item = Device>,
        keys: [Option<Value>; 2],
    ) {
        let mut of_user = Map::new();
        for device in devices {
            let is_wanted = wanted.is_empty() || wanted.contains(&device.device_id);
            let Some(mut keys) = device.keys.filter(|_| is_wanted) else {
                continue;
            };
            keys.remove("unsigned");
            if let Some(name) = device.device_display_name {
                keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
            }
            of_user.insert(device.device_id.to_string(), Value::Object(keys));
        }
        self.device_keys.insert(user.to_owned(), of_user);
        let [master, self_signing] = keys.map(|key| key.filter(|key| is_key_of(key, user)));
        for (section, key) in [
            (&mut self.master_keys, master),
            (&mut self.self_signing_keys, self_signing),
        ] {
            if let Some(Value::Object(key)) = key {
                section.insert(user.to_owned(), key);
            }
        }
    }
}

impl Edus {
    /// The keys of remote users' devices: `POST /_matrix/client/v3/keys/query`.
    pub async fn query_keys(&self, wanted: WantedDevices, timeout: Duration) -> Result<RemoteKeys, Error> {
        let timeout = timeout.min(TIMEOUT_MAX);
        let asked = by_server(wanted)
            .into_iter()
            .map(|(server, wanted)| self.query_server(server, wanted, timeout));
        let mut found = RemoteKeys::default();
        for answer in futures::future::join_all(asked).await {
            found.absorb(answer?);
        }
        Ok(found)
    }

    async fn query_server(
        &self,
        server: OwnedServerName,
        wanted: WantedDevices,
        timeout: Duration,
    ) -> Result<RemoteKeys, Error> {
        let mut found = RemoteKeys::default();
        let mut to_fetch = Vec::new();
        let mut to_ask = WantedDevices::new();
        for (user, devices) in wanted {
            if !self.rooms.shares_with_remote(&user)? {
                to_ask.insert(user, devices);
            } else if let Some(list) = self.list(&user)?.filter(|list| !list.is_stale)
                && !self.gone.contains_key(&user)
            {
                let kept = self.devices(&user)?;
                found.add(&user, &devices, kept, [list.master_key, list.self_signing_key]);
            } else {
                to_fetch.push((user, devices));
            }
        }
        // In half of the time as many lists are fetched as can be, to be kept; the rest is asked for in one request.
        let whole_until = Instant::now() + timeout / 2;
        for page in to_fetch.chunks(FETCHES_AT_ONCE) {
            if !found.failures.is_empty() {
                break;
            }
            if Instant::now() >= whole_until {
                to_ask.extend(page.iter().cloned());
                continue;
            }
            let timeout = timeout / 2;
            let fetches = page.iter().map(|(user, _)| self.fetch_list(user, timeout));
            let fetched = futures::future::join_all(fetches).await;
            for ((user, devices), fetched) in page.iter().zip(fetched) {
                match fetched? {
                    Ok(whole) => {
                        let good = whole.devices.into_iter().filter(|device| device.is_good(user));
                        found.add(user, devices, good, [whole.master_key, whole.self_signing_key]);
                    }
                    // A server that answers at all may know the older way.
                    Err(failure) if failure.status.is_some() => {
                        to_ask.insert(user.clone(), devices.clone());
                    }
                    Err(failure) => fail(&mut found.failures, &server, &failure),
                }
            }
        }
        if !to_ask.is_empty() && found.failures.is_empty() {
            match self.ask_keys(&server, &to_ask, timeout).await {
                Ok(answer) => answer.into_keys(&to_ask, &mut found),
                Err(failure) => fail(&mut found.failures, &server, &failure),
            }
        }
        Ok(found)
    }

    /// Fetches a user's whole list, and keeps it while a room is shared.
    async fn fetch_list(
        &self,
        user: &UserId,
        timeout: Duration,
    ) -> Result<Result<WholeList, Failure>, Error> {
        let _turn = self.turn_of(user).await;
        let path = format!("/_matrix/federation/v1/user/devices/{}", encode(user.as_str()));
        let answer = self
            .ask(user.server_name(), Method::GET, path, None, timeout)
            .await;
        let whole = match answer.and_then(|body| read::<WholeList>(&body)) {
            Ok(whole) => whole,
            Err(failure) => return Ok(Err(failure)),
        };
        if self.rooms.shares_with_remote(user)? {
            self.keep_list(user, &whole).await?;
        }
        Ok(Ok(whole))
    }

    async fn ask_keys(
        &self,
        server: &ServerName,
        wanted: &WantedDevices,
        timeout: Duration,
    ) -> Result<QueryAnswer, Failure> {
        let path = "/_matrix/federation/v1/user/keys/query".to_owned();
        let body = json!({ "device_keys": wanted });
        let answer = self.ask(server, Method::POST, path, Some(body), timeout).await?;
        read(&answer)
    }

    /// Takes one-time keys of remote users' devices: `POST /_matrix/client/v3/keys/claim`.
    pub async fn claim_keys(&self, wanted: WantedKeys, timeout: Duration) -> RemoteClaim {
        let timeout = timeout.min(TIMEOUT_MAX);
        let asked = by_server(wanted).into_iter().map(|(server, wanted)| async move {
            let path = "/_matrix/federation/v1/user/keys/claim".to_owned();
            let body = json!({ "one_time_keys": wanted });
            let answer = self.ask(&server, Method::POST, path, Some(body), timeout).await;
            (server, wanted, answer.and_then(|body| read::<ClaimAnswer>(&body)))
        });
        let mut claimed = RemoteClaim::default();
        for (server, wanted, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(mut answer) => {
                    for (user, devices) in wanted {
                        let mut keys = answer.one_time_keys.remove(user.as_str()).unwrap_or_default();
                        keys.retain(|device, key| devices.contains_key(device) && key.is_object());
                        if !keys.is_empty() {
                            claimed.one_time_keys.insert(user, keys);
                        }
                    }
                }
                Err(failure) => fail(&mut claimed.failures, &server, &failure),
            }
        }
        claimed
    }

    async fn ask(
        &self,
        server: &ServerName,
        method: Method,
        path_and_query: String,
        body: Option<Value>,
        timeout: Duration,
    ) -> Result<bytes::Bytes, Failure> {
        self.transport
            .ask(FedRequest {
                destination: server.to_owned(),
                method,
                path_and_query,
                body,
                timeout,
                max_response_bytes: RESPONSE_MAX_BYTES,
                // Of every message to an encrypted room, servers that are away would cost their time anew.
                asker: Asker::Nobody,
            })
            .await
    }
}

impl QueryAnswer {
    fn into_keys(mut self, wanted: &WantedDevices, found: &mut RemoteKeys) {
        for (user, devices) in wanted {
            // Whom that server does not know is missing from the answer.
            let Some(of_user) = self.device_keys.remove(user.as_str()) else {
                continue;
            };
            let of_user = of_user.into_iter().filter_map(|(id, keys)| {
                let Value::Object(keys) = keys else { return None };
                let name = keys
                    .get("unsigned")
                    .and_then(|all| all["device_display_name"].as_str());
                let device = Device {
                    device_id: id.into(),
                    device_display_name: name.map(str::to_owned),
                    keys: Some(keys),
                };
                Some(device).filter(|device| device.is_good(user))
            });
            let keys = [
                self.master_keys.remove(user.as_str()),
                self.self_signing_keys.remove(user.as_str()),
            ];
            found.add(user, devices, of_user, keys);
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure {
        status: Some(200),
        retry_after_ms: None,
        why: format!("the answer cannot be read: {error}"),
        sort: "malformed",
    })
}

fn fail(failures: &mut Map<String, Value>, server: &ServerName, failure: &Failure) {
    tracing::debug!(%server, %failure, "keys of a remote user cannot be had");
    let error =
        json!({ "errcode": errcode::UNKNOWN, "error": "The server cannot be reached", "status": 503 });
    failures.insert(server.to_string(), error);
}

/// An id as a part of a path.
fn encode(id: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
