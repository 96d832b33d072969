//! Cross-signing: a user's three keys, and whether one device may trust another.

use hearth_testkit::PASSWORD;
use serde_json::{Value, json};
use vodozemac::Ed25519SecretKey;

use super::device::{Device, Known};
use super::signing::{self, Signer, is_signed, only_key};

/// The private parts of a user's cross-signing keys.
pub struct Secrets {
    pub master: Ed25519SecretKey,
    pub self_signing: Ed25519SecretKey,
    pub user_signing: Ed25519SecretKey,
}

/// A user's cross-signing keys as the server tells of them.
#[derive(Clone, Default)]
pub struct Identity {
    pub master: Value,
    pub self_signing: Value,
    pub user_signing: Value,
}

impl Identity {
    /// What an answer of `/keys/query` says of a user.
    pub fn of(answer: &Value, user: &str) -> Self {
        Self {
            master: answer["master_keys"][user].clone(),
            self_signing: answer["self_signing_keys"][user].clone(),
            user_signing: answer["user_signing_keys"][user].clone(),
        }
    }
}

impl Secrets {
    fn new() -> Self {
        Self {
            master: Ed25519SecretKey::new(),
            self_signing: Ed25519SecretKey::new(),
            user_signing: Ed25519SecretKey::new(),
        }
    }

    /// As one device sends them to another.
    pub fn to_json(&self) -> Value {
        json!([
            self.master.to_base64(),
            self.self_signing.to_base64(),
            self.user_signing.to_base64()
        ])
    }

    /// The reverse of [`to_json`](Self::to_json).
    pub fn from_json(value: &Value) -> Self {
        let key = |at: usize| {
            let text = value[at].as_str().expect("a secret");
            Ed25519SecretKey::from_base64(text).expect("a key")
        };
        Self {
            master: key(0),
            self_signing: key(1),
            user_signing: key(2),
        }
    }
}

fn public(user: &str, usage: &str, key: &Ed25519SecretKey) -> Value {
    json!({ "user_id": user, "usage": [usage], "keys": { key.key_id(): key.public_key().to_base64() } })
}

impl Device {
    /// Makes the user's cross-signing keys, and signs this device.
    pub async fn bootstrap(&mut self) {
        let user = self.user().to_owned();
        let secrets = Secrets::new();
        let mut master = public(&user, "master", &secrets.master);
        self.sign(&mut master);
        let mut body = json!({ "master_key": master });
        for (name, usage, key) in [
            ("self_signing_key", "self_signing", &secrets.self_signing),
            ("user_signing_key", "user_signing", &secrets.user_signing),
        ] {
            body[name] = public(&user, usage, key);
            signing::sign(&mut body[name], &user, &secrets.master);
        }
        body["auth"] = self.password();
        self.change("POST", "/keys/device_signing/upload", body).await;
        self.secrets = Some(secrets);
        self.sign_myself().await;
    }

    /// The user-interactive auth that proves the password.
    pub fn password(&self) -> Value {
        json!({ "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": self.user() } })
    }

    fn secrets(&self) -> &Secrets {
        self.secrets.as_ref().expect("the cross-signing keys")
    }

    /// Signs this device with the self-signing key.
    pub async fn sign_myself(&mut self) {
        let (user, id) = (self.user().to_owned(), self.id().to_owned());
        let mut keys = self.signed_keys();
        signing::sign(&mut keys, &user, &self.secrets().self_signing);
        self.upload_signature(&user, &id, keys).await;
    }

    /// Signs another user's master key: the two have compared emoji.
    pub async fn verify(&mut self, user: &str) {
        let known = self.keys_of(&[user.to_owned()]).await.remove(0);
        let mut master = known.identity.master;
        let key = only_key(&master).expect("a master key").to_owned();
        let mine = self.user().to_owned();
        signing::sign(&mut master, &mine, &self.secrets().user_signing);
        self.upload_signature(user, &key, master).await;
    }

    async fn upload_signature(&mut self, user: &str, id: &str, signed: Value) {
        let answer = self
            .change("POST", "/keys/signatures/upload", json!({ user: { id: signed } }))
            .await;
        assert_eq!(answer["failures"], json!({}), "{answer}");
    }

    /// Sends the secrets to another device of the same user, which was verified.
    pub async fn give_secrets(&mut self, other: &Device) {
        let backup = self.backup.as_ref().expect("a backup").to_json();
        let content = json!({ "cross_signing": self.secrets().to_json(), "backup": backup });
        self.tell(&[other.peer()], "m.secret.send", &content).await;
    }

    /// Whether this device trusts another: by its own user's keys the other user's master key, by that one the
    /// self-signing key, by that one the device; every step a signature that is checked.
    pub async fn trusts(&mut self, user: &str, device: &str) -> bool {
        let mine = self.user().to_owned();
        let known = self.keys_of(&[mine.clone(), user.to_owned()]).await;
        let master = self.secrets().master.public_key().to_base64();
        assert_eq!(
            only_key(&known[0].identity.master),
            Some(master.as_str()),
            "the user's own master key"
        );
        let Known { devices, identity } = &known[1];
        let (Some(their_master), Some(their_signing)) =
            (only_key(&identity.master), only_key(&identity.self_signing))
        else {
            return false;
        };
        let user_signing = self.secrets().user_signing.public_key().to_base64();
        let is_user_verified = match user == mine {
            true => their_master == master,
            false => {
                only_key(&known[0].identity.user_signing) == Some(&user_signing)
                    && is_signed(&known[0].identity.user_signing, &mine, &master, &master)
                    && is_signed(&identity.master, &mine, &user_signing, &user_signing)
            }
        };
        let is_device_signed = devices
            .get(device)
            .is_some_and(|(_, keys)| is_signed(keys, user, their_signing, their_signing));
        is_user_verified
            && is_signed(&identity.self_signing, user, their_master, their_master)
            && is_device_signed
    }
}
