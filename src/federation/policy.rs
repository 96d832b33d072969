//! Policy servers: a server that the room names recommends each event by its signature (server-server API, "Policy
//! Servers"). Who has no recommendation is not sent, and soft-failed on receipt.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_events::{Pdu, Rules, base64_decode, verify_bytes, verify_signature};
use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value};

use crate::Federation;
use crate::client::FedRequest;
use crate::error::ClientError;

/// The id of every policy server's key.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";
/// Sending an event waits for the policy server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The answer is one signature.
const RESPONSE_MAX_BYTES: usize = 16 << 10;

/// The policy server of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    /// Its name. It counts only while it has a joined user in the room.
    pub via: OwnedServerName,
    /// The key with which it recommends events.
    pub public_key: [u8; 32],
}

impl PolicyServer {
    /// Reads the content of the `m.room.policy` state event with an empty state key. `None` if the room names no policy
    /// server by it. Whether the server has a joined user in the room is for the caller to check.
    pub fn parse(content: &Map<String, Value>) -> Option<Self> {
        let via = content.get("via")?.as_str()?;
        let key = content.get("public_keys")?.get("ed25519")?.as_str()?;
        Some(Self {
            via: ServerName::parse(via).ok()?,
            public_key: base64_decode(key)?.try_into().ok()?,
        })
    }
}

/// Whether the policy server is asked about an event: not about the event that names it.
pub fn needs_policy(kind: &str, state_key: Option<&str>) -> bool {
    !(kind == "m.room.policy" && state_key == Some(""))
}

impl Federation {
    /// Asks for the recommendation of an event that [needs](needs_policy) one. `None` if it bears a valid one already;
    /// else a fresh signature, checked, that is to be put under `signatures`, the policy server's name and
    /// [`POLICY_KEY_ID`]. An error is a refusal: the client hears of a [`ClientError::Status`] word for word.
    pub async fn policy_check(
        &self,
        rules: &Rules,
        policy: &PolicyServer,
        event: &Pdu,
    ) -> Result<Option<String>, ClientError> {
        let key = &policy.public_key;
        if verify_signature(rules, event, &policy.via, POLICY_KEY_ID, key).is_ok() {
            return Ok(None);
        }
        let request_failed = |why: String| ClientError::Request {
            server: policy.via.clone(),
            why,
        };
        let body: Value =
            serde_json::from_slice(&event.json).map_err(|error| request_failed(error.to_string()))?;
        let request = FedRequest::post(&policy.via, "/_matrix/policy/v1/sign", body)
            .timeout(TIMEOUT)
            .max_response_bytes(RESPONSE_MAX_BYTES);
        let mut answer: BTreeMap<String, BTreeMap<String, String>> = self.client.json(request).await?;
        let malformed = |why: &str| ClientError::Malformed {
            server: policy.via.clone(),
            why: why.to_owned(),
        };
        let signature = answer
            .get_mut(policy.via.as_str())
            .and_then(|keys| keys.remove(POLICY_KEY_ID))
            .ok_or_else(|| malformed("its signature is missing"))?;
        verify_bytes(&event.signed_text(rules), &signature, key)
            .map_err(|_| malformed("its signature does not fit the key that the room names"))?;
        Ok(Some(signature))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_a_policy_server() {
        let key = hearth_events::base64_encode(&[7; 32]);
        let check = |content: Value, valid: bool| {
            let parsed = PolicyServer::parse(content.as_object().unwrap());
            assert_eq!(parsed.is_some(), valid, "{content}");
        };
        check(json!({"via": "p.example", "public_keys": {"ed25519": key}}), true);
        check(
            json!({"via": "p.example", "public_keys": {"ed25519": "AAAA"}}),
            false,
        );
        check(json!({"via": "p.example", "public_keys": {}}), false);
        check(json!({"via": "p.example"}), false);
        check(json!({"via": "no name", "public_keys": {"ed25519": key}}), false);
        check(json!({}), false);
        assert!(needs_policy("m.room.message", None));
        assert!(needs_policy("m.room.policy", None));
        assert!(needs_policy("m.room.policy", Some("x")));
        assert!(!needs_policy("m.room.policy", Some("")));
    }
}
