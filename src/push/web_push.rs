//! Notifications by Web Push: encrypted here for the client, so that whoever passes them on reads nothing of them
//! (MSC4174; RFC 8030 for the request, RFC 8188 and 8291 for the encryption, RFC 8292 for who sends).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hearth_core::http::OutboundRequest;
use hearth_core::random::SharedRandom;
use hearth_users::{Activation, Pusher};
use http::{HeaderValue, header};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Map, Value, json};
use web_push_native::{Auth, WebPushBuilder};

use crate::sender;

/// How long the service keeps a notification for a client that is away.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a signature says that it was this server which sent: a day at the most (RFC 8292, section 2).
const SIGNED_SECONDS: u64 = 12 * 60 * 60;

/// What a service has to take is 4,096 bytes (RFC 8030, section 7.2): with the header and the tag of the encryption
/// that leaves this much (RFC 8291, section 4).
const PLAIN_MAX_BYTES: usize = 3_993;

/// The key by which services of Web Push know this server (VAPID).
pub struct Vapid {
    key: SigningKey,
    public: String,
    contact: String,
}

impl Vapid {
    /// A new secret.
    pub fn generate(random: &SharedRandom) -> [u8; 32] {
        loop {
            let mut secret = [0; 32];
            random.fill(&mut secret);
            // All but a few of these numbers are keys.
            if SigningKey::from_slice(&secret).is_ok() {
                return secret;
            }
        }
    }

    /// The key of a secret; none where it is not one. `contact` is a URL by which a service finds who runs this server.
    pub fn from_secret(secret: &[u8], contact: String) -> Option<Self> {
        let key = SigningKey::from_slice(secret).ok()?;
        let public = key.verifying_key().to_encoded_point(false);
        Some(Self {
            public: URL_SAFE_NO_PAD.encode(public.as_bytes()),
            key,
            contact,
        })
    }

    /// The public key, uncompressed, in URL-safe Base64 without padding: clients name it when they subscribe.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The header that says who sends to a service (RFC 8292, section 3).
    fn authorization(&self, service: &str, now_ms: u64) -> String {
        let until = now_ms / 1000 + SIGNED_SECONDS;
        let claims = json!({ "aud": service, "exp": until, "sub": self.contact });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            encode(json!({ "typ": "JWT", "alg": "ES256" })),
            encode(claims)
        );
        let signature: Signature = self.key.sign(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.to_bytes());
        format!("vapid t={signed}.{signature}, k={}", self.public)
    }
}

/// What a client is sent to show that it is reached; none where nothing is awaited of it.
pub(crate) fn activation(pusher: &Pusher) -> Option<Value> {
    match &pusher.activation {
        Activation::Awaited { token, .. } => Some(json!({ "app_id": pusher.app_id, "ack_token": token })),
        Activation::None | Activation::Done => None,
    }
}

/// The message of a notification, from what a gateway would be told: its fields at the top, beside those that the
/// client wants in each message. What is too large loses the content, and then all but what it takes to ask for the event.
pub(crate) fn message(pusher: &Pusher, body: Value) -> Value {
    let mut fields = match pusher.data.get("default_payload") {
        Some(Value::Object(wanted)) => wanted.clone(),
        _ => Map::new(),
    };
    if let Value::Object(mut body) = body
        && let Some(Value::Object(mut notification)) = body.remove("notification")
    {
        notification.remove("devices");
        // It is there for old gateways, and room is scarce.
        notification.remove("id");
        fields.extend(notification);
    }
    let is_small = |fields: &Map<String, Value>| json!(fields).to_string().len() <= PLAIN_MAX_BYTES;
    if !is_small(&fields) {
        fields.remove("content");
    }
    if !is_small(&fields) {
        fields.retain(|name, _| matches!(name.as_str(), "event_id" | "room_id" | "counts" | "prio"));
    }
    Value::Object(fields)
}

/// The request that brings a message to a subscription; none where the pusher is not one that can be encrypted for.
pub(crate) fn request(
    pusher: &Pusher,
    vapid: &Vapid,
    message: &Value,
    now_ms: u64,
) -> Option<OutboundRequest> {
    let key = URL_SAFE_NO_PAD.decode(&pusher.pushkey).ok()?;
    let key = p256::PublicKey::from_sec1_bytes(&key).ok()?;
    let auth = pusher.data.get("auth").and_then(Value::as_str)?;
    let auth: [u8; 16] = URL_SAFE_NO_PAD.decode(auth).ok()?.try_into().ok()?;
    let builder =
        WebPushBuilder::new(pusher.url().parse().ok()?, key, Auth::from(auth)).with_valid_duration(KEPT);
    let (mut parts, body) = builder.build(message.to_string()).ok()?.into_parts();
    let mut request = sender::request(pusher.url(), Bytes::from(body))?;
    let urgency = match message.get("prio").and_then(Value::as_str) {
        Some("low") => "normal",
        _ => "high",
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert("urgency", HeaderValue::from_static(urgency));
    let authorization = vapid.authorization(origin(pusher.url())?, now_ms);
    parts
        .headers
        .insert(header::AUTHORIZATION, authorization.parse().ok()?);
    request.headers = parts.headers;
    Some(request)
}

/// The scheme and authority of a URL with a path.
fn origin(url: &str) -> Option<&str> {
    let authority = url.find("://")? + 3;
    let end = url[authority..].find('/')?;
    Some(&url[..authority + end])
}

/// Whether a service says that the subscription has ended, or never was (RFC 8030, section 7.3; MSC4174).
pub(crate) fn has_ended(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 403 | 404 | 410)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Verifier as _;

    use super::*;

    fn pusher(data: Value) -> Pusher {
        let Value::Object(data) = data else {
            panic!("an object")
        };
        Pusher {
            pushkey: String::new(),
            app_id: "app".to_owned(),
            kind: "webpush".to_owned(),
            app_display_name: String::new(),
            device_display_name: String::new(),
            profile_tag: None,
            lang: "en".to_owned(),
            data,
            device_id: "D".into(),
            ts: 0,
            disabled: false,
            activation: Activation::Done,
        }
    }

    #[test]
    fn the_sender_is_signed_for() {
        let vapid = Vapid::from_secret(&[7; 32], "https://hs1".to_owned()).expect("a key");
        let header = vapid.authorization("https://push.example.org", 10_000);
        let (token, key) = header
            .strip_prefix("vapid t=")
            .and_then(|rest| rest.split_once(", k="))
            .expect("two parts");
        assert_eq!(key, vapid.public());
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("Base64");
        let signature = Signature::from_slice(&signature).expect("a signature");
        vapid
            .key
            .verifying_key()
            .verify(signed.as_bytes(), &signature)
            .expect("it holds");
        let claims = URL_SAFE_NO_PAD
            .decode(signed.split_once('.').expect("claims").1)
            .expect("Base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(
            claims,
            json!({ "aud": "https://push.example.org", "exp": 43_210, "sub": "https://hs1" })
        );
    }

    #[test]
    fn messages_are_small() {
        let wants = pusher(json!({ "default_payload": { "client": "mine" } }));
        let told = |content: String, name: String| {
            let body = json!({ "notification": { "event_id": "$e", "room_id": "!r", "counts": { "unread": 2 },
                "content": { "body": content }, "room_name": name, "devices": [{}] } });
            message(&wants, body)
        };
        let all = told("hi".to_owned(), "room".to_owned());
        assert_eq!(
            all,
            json!({ "client": "mine", "event_id": "$e", "room_id": "!r", "counts": { "unread": 2 },
                "content": { "body": "hi" }, "room_name": "room" })
        );
        let long = told("x".repeat(5_000), "room".to_owned());
        assert_eq!((long.get("content"), &long["room_name"]), (None, &json!("room")));
        let longer = told("hi".to_owned(), "x".repeat(5_000));
        assert_eq!(
            longer,
            json!({ "event_id": "$e", "room_id": "!r", "counts": { "unread": 2 } })
        );
    }
}
