//! The backup of room keys: encrypted for a key that the user keeps.

use hearth_testkit::encode;
use serde_json::{Value, json};
use vodozemac::megolm::{ExportedSessionKey, InboundGroupSession, SessionConfig};
use vodozemac::pk_encryption::{Message, PkDecryption, PkEncryption};
use vodozemac::{Curve25519PublicKey, Curve25519SecretKey, base64_decode, base64_encode};

use super::device::{Device, text};
use super::signing::{self, is_signed, only_key};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

/// A backup that this device knows the key of.
#[derive(Clone)]
pub struct Backup {
    version: String,
    key: [u8; 32],
    /// How many sessions were put there.
    done: usize,
}

impl Backup {
    fn decryption(&self) -> PkDecryption {
        PkDecryption::from_key(Curve25519SecretKey::from_slice(&self.key))
    }

    /// As one device sends it to another.
    pub fn to_json(&self) -> Value {
        json!({ "version": self.version, "key": base64_encode(self.key) })
    }

    /// The reverse of [`to_json`](Self::to_json).
    pub fn from_json(value: &Value) -> Self {
        let key = base64_decode(text(&value["key"])).expect("base64");
        Self {
            version: text(&value["version"]),
            key: key.try_into().expect("32 bytes"),
            done: 0,
        }
    }
}

impl Device {
    /// Makes a backup, signed by the master key.
    pub async fn make_backup(&mut self) {
        let secret = Curve25519SecretKey::new();
        let public = Curve25519PublicKey::from(&secret).to_base64();
        let mut auth = json!({ "public_key": public });
        let user = self.user().to_owned();
        signing::sign(
            &mut auth,
            &user,
            &self.secrets.as_ref().expect("the cross-signing keys").master,
        );
        let body = json!({ "algorithm": ALGORITHM, "auth_data": auth });
        // Not by `change`: made once more it would be another version.
        let made = self.client.post("/room_keys/version", body).await.ok();
        self.backup = Some(Backup {
            version: text(&made["version"]),
            key: *secret.to_bytes(),
            done: 0,
        });
    }

    /// Puts all room keys into the backup.
    pub async fn back_up(&mut self) {
        let backup = self.backup.clone().expect("a backup");
        if backup.done == self.inbound.len() {
            return;
        }
        let encryption = PkEncryption::from(&backup.decryption());
        let mut rooms = json!({});
        for ((room, id), session) in &self.inbound {
            let exported = session.export_at_first_known_index().to_base64();
            let plain = json!({ "algorithm": "m.megolm.v1.aes-sha2", "session_key": exported });
            let sealed = encryption
                .encrypt(plain.to_string().as_bytes())
                .expect("a message");
            let first = session.first_known_index();
            rooms[room]["sessions"][id] = json!({
                "first_message_index": first, "forwarded_count": 0, "is_verified": true,
                "session_data": {
                    "ephemeral": sealed.ephemeral_key.to_base64(),
                    "ciphertext": base64_encode(&sealed.ciphertext),
                    "mac": base64_encode(&sealed.mac),
                },
            });
        }
        let path = format!("/room_keys/keys?version={}", encode(&backup.version));
        self.change("PUT", &path, json!({ "rooms": rooms })).await;
        self.backup.as_mut().expect("a backup").done = self.inbound.len();
    }

    /// Takes all room keys out of the backup, which must be the user's own.
    pub async fn restore(&mut self) {
        let backup = self.backup.clone().expect("a backup");
        let current = self.client.get("/room_keys/version").await.ok();
        assert_eq!(
            (&current["version"], &current["algorithm"]),
            (&json!(backup.version), &json!(ALGORITHM))
        );
        let user = self.user().to_owned();
        let known = self.keys_of(std::slice::from_ref(&user)).await.remove(0);
        let master = only_key(&known.identity.master).expect("a master key").to_owned();
        assert!(
            is_signed(&current["auth_data"], &user, &master, &master),
            "{current}"
        );
        let decryption = backup.decryption();
        assert_eq!(
            current["auth_data"]["public_key"],
            decryption.public_key().to_base64()
        );
        let path = format!("/room_keys/keys?version={}", encode(&backup.version));
        let stored = self.client.get(&path).await.ok();
        let mut count = 0;
        for (room, stored) in stored["rooms"].as_object().expect("rooms") {
            for (id, stored) in stored["sessions"].as_object().expect("sessions") {
                let data = &stored["session_data"];
                let part = |name: &str| text(&data[name]);
                let sealed = Message::from_base64(&part("ciphertext"), &part("mac"), &part("ephemeral"));
                let plain = decryption
                    .decrypt(&sealed.expect("a message"))
                    .expect("a key that can be decrypted");
                let plain: Value = serde_json::from_slice(&plain).expect("JSON");
                let key = ExportedSessionKey::from_base64(&text(&plain["session_key"])).expect("a key");
                let session = InboundGroupSession::import(&key, SessionConfig::version_1());
                assert_eq!(session.session_id(), *id);
                self.keep(room, session);
                count += 1;
            }
        }
        assert_eq!(current["count"], count);
    }
}
