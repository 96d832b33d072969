//! A device that speaks Olm and Megolm as the specification has it, on vodozemac. What the server hands out must
//! make every message readable: a message that cannot be decrypted, a wrong signature, and a key that was used
//! before end the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_testkit::{Client, Endpoint, encode};
use serde_json::{Value, json};
use vodozemac::Ed25519Signature;
use vodozemac::megolm::{
    GroupSession, InboundGroupSession, MegolmMessage, SessionConfig as MegolmConfig, SessionKey,
};
use vodozemac::olm::{Account, Session};

use super::backup::Backup;
use super::signing::{self, Signer, is_signed};
use super::trust::{Identity, Secrets};

pub const OLM: &str = "m.olm.v1.curve25519-aes-sha2";
const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// How many one-time keys a device keeps at the server: few, so that the fallback key is used too.
const ONE_TIME_KEYS: u64 = 3;

/// How often, and after what pause of simulated time, a server that was not reached is asked again.
const ASK_MAX: u32 = 200;
const ASK_PAUSE: Duration = Duration::from_secs(5);

/// What others know of a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub user: String,
    pub device: String,
    pub curve: String,
    pub ed: String,
}

/// The session by which a device sends into a room, and who has its key.
struct Outbound {
    session: GroupSession,
    shared: BTreeSet<Peer>,
}

/// A device.
pub struct Device {
    pub client: Client,
    pub account: Account,
    /// By the other device's Curve25519 key; the last is used for sending.
    pub olm: BTreeMap<String, Vec<Session>>,
    outbound: BTreeMap<String, Outbound>,
    /// By room and session id.
    pub inbound: BTreeMap<(String, String), InboundGroupSession>,
    /// What `/keys/query` last said of a user; who is absent must be asked for.
    known: BTreeMap<String, Known>,
    since: Option<String>,
    /// The events that syncs showed before the device had their key.
    pub early: Vec<Value>,
    pub secrets: Option<Secrets>,
    pub backup: Option<Backup>,
    /// The last request that changed something: a client whose answer was lost makes it again.
    last: Option<(&'static str, String, Value)>,
}

/// A user's keys.
#[derive(Clone, Default)]
pub struct Known {
    pub devices: BTreeMap<String, (Peer, Value)>,
    pub identity: Identity,
}

struct DeviceSigner<'a>(&'a Device);

impl Signer for DeviceSigner<'_> {
    fn key_id(&self) -> String {
        format!("ed25519:{}", self.0.client.device_id)
    }

    fn sign(&self, bytes: &[u8]) -> Ed25519Signature {
        self.0.account.sign(bytes)
    }
}

impl Device {
    /// Makes keys and uploads them.
    pub async fn new(client: Client) -> Self {
        let mut device = Self {
            client,
            account: Account::new(),
            olm: BTreeMap::new(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            known: BTreeMap::new(),
            since: None,
            early: Vec::new(),
            secrets: None,
            backup: None,
            last: None,
        };
        device.account.generate_fallback_key();
        let keys = device.signed_keys();
        device.upload(Some(keys), ONE_TIME_KEYS).await;
        device
    }

    pub fn user(&self) -> &str {
        &self.client.user_id
    }

    pub fn id(&self) -> &str {
        &self.client.device_id
    }

    /// What others are to know of this device.
    pub fn peer(&self) -> Peer {
        Peer {
            user: self.user().to_owned(),
            device: self.id().to_owned(),
            curve: self.account.curve25519_key().to_base64(),
            ed: self.account.ed25519_key().to_base64(),
        }
    }

    /// The device's keys as they are uploaded, with its signature.
    pub fn signed_keys(&self) -> Value {
        let (me, id) = (self.peer(), self.id());
        let mut keys = json!({
            "user_id": me.user, "device_id": id, "algorithms": [OLM, MEGOLM],
            "keys": { format!("curve25519:{id}"): me.curve, format!("ed25519:{id}"): me.ed },
        });
        self.sign(&mut keys);
        keys
    }

    /// Adds the device's signature.
    pub fn sign(&self, value: &mut Value) {
        signing::sign(value, self.user(), &DeviceSigner(self));
    }

    /// A request that changes something.
    pub async fn change(&mut self, method: &'static str, path: &str, body: Value) -> Value {
        self.last = Some((method, path.to_owned(), body.clone()));
        self.client.call(method, path, body).await.ok()
    }

    /// The server was started again; the device never saw its last answer, and asks once more.
    pub async fn reconnect(&mut self, endpoint: Endpoint) {
        self.client = self.client.on(endpoint);
        if let Some((method, path, body)) = self.last.clone() {
            self.client.call(method, &path, body).await.ok();
        }
    }

    async fn upload(&mut self, device_keys: Option<Value>, count: u64) {
        let count = usize::try_from(count).expect("a small number");
        self.account.generate_one_time_keys(count);
        let mut body = json!({ "one_time_keys": {}, "fallback_keys": {} });
        let sets = [
            ("one_time_keys", self.account.one_time_keys()),
            ("fallback_keys", self.account.fallback_key()),
        ];
        for (set, keys) in sets {
            for (id, key) in keys {
                let mut signed = json!({ "key": key.to_base64() });
                if set == "fallback_keys" {
                    signed["fallback"] = json!(true);
                }
                self.sign(&mut signed);
                body[set][format!("signed_curve25519:{}", id.to_base64())] = signed;
            }
        }
        if let Some(keys) = device_keys {
            body["device_keys"] = keys;
        }
        self.change("POST", "/keys/upload", body).await;
        self.account.mark_keys_as_published();
    }

    /// Takes in what is new.
    pub async fn sync(&mut self) {
        let since = self.since.as_deref();
        let since = since.map_or(String::new(), |since| format!("&since={}", encode(since)));
        let is_first = since.is_empty();
        let news = self.client.sync(&format!("timeout=0{since}")).await;
        self.since = news["next_batch"].as_str().map(str::to_owned);
        let lists = &news["device_lists"];
        for user in [&lists["changed"], &lists["left"]]
            .into_iter()
            .flat_map(Value::as_array)
            .flatten()
        {
            self.known.remove(user.as_str().expect("a user id"));
        }
        for event in news["to_device"]["events"].as_array().into_iter().flatten() {
            self.take_to_device(event);
        }
        for (room, joined) in news["rooms"]["join"].as_object().into_iter().flatten() {
            let events = crate::events(&joined["timeline"]);
            for event in events
                .into_iter()
                .filter(|event| event["type"] == "m.room.encrypted")
            {
                // What was said before the device was there comes out of the backup.
                if self.read(room, &event).is_err() && !is_first {
                    self.early.push(event);
                }
            }
        }
        let count = news["device_one_time_keys_count"]["signed_curve25519"].as_u64();
        let count = count.expect("a count of one-time keys");
        if count < ONE_TIME_KEYS {
            let is_fallback_used = news["device_unused_fallback_key_types"] == json!([]);
            if is_fallback_used {
                self.account.generate_fallback_key();
            }
            self.upload(None, ONE_TIME_KEYS - count).await;
        }
    }

    pub fn take_room_key(&mut self, content: &Value) {
        assert_eq!(content["algorithm"], MEGOLM);
        let (room, id) = (text(&content["room_id"]), text(&content["session_id"]));
        let key = SessionKey::from_base64(&text(&content["session_key"])).expect("a session key");
        let session = InboundGroupSession::new(&key, MegolmConfig::version_1());
        assert_eq!(session.session_id(), id);
        self.keep(&room, session);
    }

    /// Keeps a room key, unless there is one that reads more.
    pub fn keep(&mut self, room: &str, session: InboundGroupSession) {
        let at = (room.to_owned(), session.session_id());
        let known = self.inbound.get(&at).map(InboundGroupSession::first_known_index);
        if known.is_none_or(|first| first > session.first_known_index()) {
            self.inbound.insert(at, session);
        }
    }

    pub fn take_secrets(&mut self, plain: &Value) {
        assert_eq!(plain["sender"], self.user(), "a secret of another user");
        self.secrets = Some(Secrets::from_json(&plain["content"]["cross_signing"]));
        self.backup = Some(Backup::from_json(&plain["content"]["backup"]));
    }

    /// Asks for keys, until no server is out of reach.
    pub async fn ask(&self, path: &str, body: Value) -> Value {
        for _ in 0..ASK_MAX {
            let answer = self.client.post(path, body.clone()).await.ok();
            if answer["failures"]
                .as_object()
                .is_none_or(|failures| failures.is_empty())
            {
                return answer;
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
        panic!("{path}: a server is not reached");
    }

    /// What a user's keys are, asking the server where something changed.
    pub async fn keys_of(&mut self, users: &[String]) -> Vec<Known> {
        let wanted: Vec<_> = users
            .iter()
            .filter(|user| !self.known.contains_key(*user))
            .collect();
        if !wanted.is_empty() {
            let query: serde_json::Map<_, _> =
                wanted.iter().map(|user| ((*user).clone(), json!([]))).collect();
            let answer = self.ask("/keys/query", json!({ "device_keys": query })).await;
            for user in wanted {
                let mut known = Known {
                    identity: Identity::of(&answer, user),
                    ..Known::default()
                };
                for (id, keys) in answer["device_keys"][user].as_object().into_iter().flatten() {
                    let peer = checked_peer(user, id, keys);
                    known.devices.insert(id.clone(), (peer, keys.clone()));
                }
                self.known.insert(user.clone(), known);
            }
        }
        users.iter().map(|user| self.known[user].clone()).collect()
    }

    /// The devices of a user that the server tells of.
    pub async fn devices_of(&mut self, user: &str) -> Vec<String> {
        let known = self.keys_of(&[user.to_owned()]).await.remove(0);
        known.devices.into_keys().collect()
    }

    /// Sends an encrypted message, and its key to whoever does not have it.
    pub async fn say(&mut self, room: &str, body: &str) -> String {
        let peers = self.peers_in(room).await;
        let lost = self
            .outbound
            .get(room)
            .is_some_and(|known| !known.shared.is_subset(&peers));
        if lost {
            // Who is gone may have the key of what was said, not of what will be.
            self.outbound.remove(room);
        }
        if !self.outbound.contains_key(room) {
            let session = GroupSession::new(MegolmConfig::version_1());
            let key = session.session_key();
            self.keep(room, InboundGroupSession::new(&key, MegolmConfig::version_1()));
            let shared = BTreeSet::new();
            self.outbound
                .insert(room.to_owned(), Outbound { session, shared });
        }
        let outbound = &self.outbound[room];
        let (id, key) = (outbound.session.session_id(), outbound.session.session_key());
        let missing: Vec<_> = peers.difference(&outbound.shared).cloned().collect();
        let content =
            json!({ "algorithm": MEGOLM, "room_id": room, "session_id": id, "session_key": key.to_base64() });
        self.tell(&missing, "m.room_key", &content).await;
        let device = self.id().to_owned();
        let sender_key = self.account.curve25519_key().to_base64();
        let outbound = self.outbound.get_mut(room).expect("a session");
        outbound.shared = peers;
        let plain = json!({ "type": "m.room.message", "room_id": room,
            "content": { "msgtype": "m.text", "body": body } });
        let sealed = outbound.session.encrypt(plain.to_string().as_bytes()).to_base64();
        let content = json!({ "algorithm": MEGOLM, "sender_key": sender_key, "device_id": device, "session_id": id,
            "ciphertext": sealed });
        let path = format!(
            "/rooms/{}/send/m.room.encrypted/{}",
            encode(room),
            self.client.txn()
        );
        let answer = self.change("PUT", &path, content).await;
        text(&answer["event_id"])
    }

    /// The other devices of everybody in a room.
    async fn peers_in(&mut self, room: &str) -> BTreeSet<Peer> {
        let members = self
            .client
            .get(&format!("/rooms/{}/joined_members", encode(room)))
            .await
            .ok();
        let members: Vec<_> = members["joined"]
            .as_object()
            .expect("members")
            .keys()
            .cloned()
            .collect();
        let known = self.keys_of(&members).await;
        let me = self.peer();
        let peers = known.into_iter().flat_map(|known| known.devices.into_values());
        peers.map(|(peer, _)| peer).filter(|peer| *peer != me).collect()
    }

    /// Everything that was said in a room, oldest first.
    pub async fn history(&mut self, room: &str) -> Result<Vec<String>, String> {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.client.messages(room, &format!("dir=b&limit=20{from}")).await;
            for event in page["chunk"].as_array().expect("a chunk") {
                if event["type"] == "m.room.encrypted" {
                    found.push(self.read(room, event)?);
                }
            }
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={}", encode(end));
        }
        found.reverse();
        Ok(found)
    }

    /// The text of an encrypted event, or why it cannot be read.
    pub fn read(&mut self, room: &str, event: &Value) -> Result<String, String> {
        let content = &event["content"];
        let id = text(&content["session_id"]);
        let session = self.inbound.get_mut(&(room.to_owned(), id.clone()));
        let session = session.ok_or_else(|| format!("no key of session {id}"))?;
        let message = MegolmMessage::from_base64(&text(&content["ciphertext"])).expect("a message");
        let plain = session.decrypt(&message).map_err(|error| error.to_string())?;
        let plain: Value = serde_json::from_slice(&plain.plaintext).expect("JSON");
        assert_eq!(plain["room_id"], room);
        Ok(text(&plain["content"]["body"]))
    }
}

/// What is known of a device by its keys, which it must have signed.
fn checked_peer(user: &str, id: &str, keys: &Value) -> Peer {
    let key = |algorithm: &str| text(&keys["keys"][format!("{algorithm}:{id}")]);
    let (curve, ed) = (key("curve25519"), key("ed25519"));
    assert!(is_signed(keys, user, id, &ed), "not signed by itself: {keys}");
    assert_eq!((&keys["user_id"], &keys["device_id"]), (&json!(user), &json!(id)));
    let (user, device) = (user.to_owned(), id.to_owned());
    Peer {
        user,
        device,
        curve,
        ed,
    }
}

/// A text that must be there.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
