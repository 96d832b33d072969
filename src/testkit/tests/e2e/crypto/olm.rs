//! Messages from device to device.

use serde_json::{Value, json};
use vodozemac::olm::{OlmMessage, SessionConfig};
use vodozemac::{Curve25519PublicKey, base64_decode, base64_encode};

use super::device::{Device, OLM, Peer, text};
use super::signing::is_signed;

impl Device {
    /// Takes a message to this device.
    pub fn take_to_device(&mut self, event: &Value) {
        if event["type"] != "m.room.encrypted" {
            return;
        }
        let content = &event["content"];
        let mine = self.peer();
        let sealed = &content["ciphertext"][&mine.curve];
        let sender_key = content["sender_key"].as_str().expect("a sender key");
        let kind = sealed["type"]
            .as_u64()
            .and_then(|kind| usize::try_from(kind).ok());
        let body = base64_decode(sealed["body"].as_str().expect("a body")).expect("base64");
        let message = OlmMessage::from_parts(kind.expect("a type"), &body).expect("an Olm message");
        let plain = self.open(sender_key, &message);
        let plain: Value = serde_json::from_slice(&plain).expect("JSON");
        assert_eq!(plain["sender"], event["sender"]);
        assert_eq!(
            (&plain["recipient"], &plain["recipient_keys"]["ed25519"]),
            (&json!(mine.user), &json!(mine.ed))
        );
        match plain["type"].as_str() {
            Some("m.room_key") => self.take_room_key(&plain["content"]),
            Some("m.secret.send") => self.take_secrets(&plain),
            other => panic!("a message of type {other:?}"),
        }
    }

    fn open(&mut self, sender_key: &str, message: &OlmMessage) -> Vec<u8> {
        let sessions = self.olm.entry(sender_key.to_owned()).or_default();
        for (at, session) in sessions.iter_mut().enumerate() {
            if let Ok(plain) = session.decrypt(message) {
                // The session that was last heard from is the one to use.
                let used = sessions.remove(at);
                sessions.push(used);
                return plain;
            }
        }
        let OlmMessage::PreKey(first) = message else {
            panic!("{} cannot decrypt a message", self.client.device_id);
        };
        let key = Curve25519PublicKey::from_base64(sender_key).expect("a key");
        let made = self
            .account
            .create_inbound_session(SessionConfig::version_1(), key, first);
        let made = made.unwrap_or_else(|error| panic!("{}: no session: {error}", self.client.device_id));
        sessions.push(made.session);
        made.plaintext
    }

    /// Sends an encrypted message to devices, by new Olm sessions where there are none.
    pub async fn tell(&mut self, peers: &[Peer], kind: &str, content: &Value) {
        if peers.is_empty() {
            return;
        }
        self.claim(peers).await;
        let me = self.peer();
        let mut messages = json!({});
        for peer in peers {
            let plain = json!({
                "type": kind, "content": content, "sender": me.user, "keys": { "ed25519": me.ed },
                "recipient": peer.user, "recipient_keys": { "ed25519": peer.ed },
            });
            let session = self
                .olm
                .get_mut(&peer.curve)
                .and_then(|sessions| sessions.last_mut());
            let session = session.unwrap_or_else(|| panic!("no session with {} {}", peer.user, peer.device));
            let message = session
                .encrypt(plain.to_string().as_bytes())
                .expect("an Olm message");
            let (kind, body) = message.to_parts();
            messages[&peer.user][&peer.device] = json!({
                "algorithm": OLM, "sender_key": me.curve,
                "ciphertext": { peer.curve.clone(): { "type": kind, "body": base64_encode(body) } },
            });
        }
        let path = format!("/sendToDevice/m.room.encrypted/{}", self.client.txn());
        self.change("PUT", &path, json!({ "messages": messages })).await;
    }

    async fn claim(&mut self, peers: &[Peer]) {
        let missing: Vec<_> = peers
            .iter()
            .filter(|peer| !self.olm.contains_key(&peer.curve))
            .collect();
        if missing.is_empty() {
            return;
        }
        let mut wanted = json!({});
        for peer in &missing {
            wanted[&peer.user][&peer.device] = json!("signed_curve25519");
        }
        let claimed = self.ask("/keys/claim", json!({ "one_time_keys": wanted })).await;
        for peer in missing {
            let keys = claimed["one_time_keys"][&peer.user][&peer.device].as_object();
            let keys = keys.unwrap_or_else(|| panic!("no key of {} {}: {claimed}", peer.user, peer.device));
            let key = keys.values().next().expect("a one-time key");
            assert!(
                is_signed(key, &peer.user, &peer.device, &peer.ed),
                "not signed: {key}"
            );
            let one_time = Curve25519PublicKey::from_base64(&text(&key["key"])).expect("a key");
            let identity = Curve25519PublicKey::from_base64(&peer.curve).expect("a key");
            let session =
                self.account
                    .create_outbound_session(SessionConfig::version_1(), identity, one_time);
            self.olm
                .insert(peer.curve.clone(), vec![session.expect("a session")]);
        }
    }
}
