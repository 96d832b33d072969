//! Policy servers: a server that the room names recommends each event by its signature (server-server API, "Policy
//! Servers"). An event without a recommendation is not sent, and soft-failed on receipt.

use hearth_events::{Pdu, base64_decode, verify_bytes, verify_signature};
use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value};

use crate::{
    Error, NewEvent, RemoteFailure, Room, Sent, Txn,
    receive::{Manner, Received, Verified},
};

/// The id of every policy server's key.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// The policy server of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    /// Its name.
    pub via: OwnedServerName,
    /// The key with which it recommends events.
    pub public_key: [u8; 32],
}

impl PolicyServer {
    /// Reads the content of the `m.room.policy` state event with an empty state key. `None` if it names no policy
    /// server.
    fn parse(content: &[u8]) -> Option<Self> {
        let content: Map<String, Value> = serde_json::from_slice(content).ok()?;
        let via = content.get("via")?.as_str()?;
        let key = content.get("public_keys")?.get("ed25519")?.as_str()?;
        Some(Self {
            via: ServerName::parse(via).ok()?,
            public_key: base64_decode(key)?.try_into().ok()?,
        })
    }
}

/// Whether the policy server is asked about an event: not about the one that names it, so that a room is never locked.
fn needs_recommendation(kind: &str, state_key: Option<&str>) -> bool {
    !(kind == "m.room.policy" && state_key == Some(""))
}

impl Room {
    /// The policy server that the room uses by its current state: it counts while it has a joined user in the room.
    pub fn policy_server(&self) -> Result<Option<PolicyServer>, Error> {
        let ever = || Ok(self.state_key_short("m.room.policy", "")?.is_some());
        if !self.0.policy.be::<Error>(ever)? {
            return Ok(None);
        }
        let Some(event) = self.state("m.room.policy", "")? else {
            return Ok(None);
        };
        let is_in = |policy: &PolicyServer| {
            self.has_server(policy.via.as_str()) || self.partial_servers().contains(&policy.via)
        };
        Ok(PolicyServer::parse(event.pdu.content()).filter(is_in))
    }

    /// Whether an event that is to be sent waits for a recommendation.
    pub(crate) fn waits_for_policy(&self, event: &NewEvent) -> Result<bool, Error> {
        Ok(needs_recommendation(&event.kind, event.state_key.as_deref()) && self.policy_server()?.is_some())
    }

    /// The event with the recommendation of the room's policy server, which is asked for it where the event has none
    /// that holds. Events that need none come back as they are.
    ///
    /// # Errors
    /// [`Error::Policy`] where the event is not recommended.
    pub(crate) async fn recommended(&self, pdu: Pdu) -> Result<Pdu, Error> {
        if !needs_recommendation(pdu.kind(), pdu.state_key()) {
            return Ok(pdu);
        }
        let Some(PolicyServer { via, public_key }) = self.policy_server()? else {
            return Ok(pdu);
        };
        let rules = self.rules();
        if verify_signature(rules, &pdu, &via, POLICY_KEY_ID, &public_key).is_ok() {
            return Ok(pdu);
        }
        let failed = |why: &str| {
            Error::Policy(RemoteFailure::Failed {
                server: via.clone(),
                why: why.to_owned(),
            })
        };
        if via == self.0.rooms.server_name {
            return Err(failed("this server recommends no events"));
        }
        let remote = self.0.rooms.remote()?;
        let signature = remote
            .policy_sign(&via, POLICY_KEY_ID, &pdu.json)
            .await
            .map_err(Error::Policy)?;
        verify_bytes(&pdu.signed_text(rules), &signature, &public_key)
            .map_err(|_| failed("its signature does not fit the key that the room names"))?;
        Ok(pdu.with_signature(rules, &via, POLICY_KEY_ID, signature)?)
    }

    /// The last check on receipt: the event with its recommendation, and whether it has one or needs none.
    pub(crate) async fn checked_by_policy(&self, pdu: Pdu) -> Result<(Pdu, bool), Error> {
        match self.recommended(pdu.clone()).await {
            Ok(pdu) => Ok((pdu, true)),
            // The second is an event that has no room for the signature.
            Err(error @ (Error::Policy(_) | Error::Event(_))) => {
                tracing::debug!(%error, event = %pdu.event_id, room = %self.id(), "an event is not recommended");
                Ok((pdu, false))
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Room::send`], in a room with a policy server: the event is made and signed, shown to the policy server, and
    /// then enters the room like one that another server made. Nothing is held up meanwhile.
    pub(crate) async fn send_recommended(&self, event: NewEvent, txn: Option<Txn>) -> Result<Sent, Error> {
        let txn_key = txn.as_ref().map(|txn| txn.key(&event.sender));
        if let Some(sent) = self.sent_before(txn_key.as_ref()).await? {
            return Ok(sent);
        }
        let pdu = self.recommended(self.draft(event).await?).await?;
        let event_id = pdu.event_id.clone();
        let _turn = self.0.receiving.lock().await;
        // The same request may have come again meanwhile.
        if let Some(sent) = self.sent_before(txn_key.as_ref()).await? {
            return Ok(sent);
        }
        let manner = Manner {
            origin: txn.as_ref().map(Txn::origin),
            txn: txn_key,
            ..Manner::default()
        };
        let own = self.0.rooms.server_name.clone();
        let verified = Verified { pdu, redacted: false };
        match self.take_in(&own, verified, manner).await? {
            Received::Accepted | Received::Known => {}
            Received::SoftFailed => {
                return Err(Error::Forbidden("The room does not allow this now".to_owned()));
            }
            Received::Rejected(why) => return Err(Error::Forbidden(why)),
        }
        let position = self.0.head.lock().record.position;
        Ok(Sent { event_id, position })
    }

    /// The event of a transaction that is done, once that is durable.
    async fn sent_before(&self, key: Option<&[u8; 16]>) -> Result<Option<Sent>, Error> {
        let Some(key) = key else { return Ok(None) };
        self.settle().await?;
        Ok(self.stored_txn(key)?.map(|event_id| Sent {
            event_id,
            position: 0,
        }))
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
            let parsed = PolicyServer::parse(content.to_string().as_bytes());
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
        assert!(needs_recommendation("m.room.message", None));
        assert!(needs_recommendation("m.room.policy", None));
        assert!(needs_recommendation("m.room.policy", Some("x")));
        assert!(!needs_recommendation("m.room.policy", Some("")));
    }
}
