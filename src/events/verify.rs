use ruma::{OwnedServerName, ServerName, UserId};

use crate::json::{get, members, string};
use crate::keys::verify_bytes;
use crate::pdu::content_hash;
use crate::{Error, Pdu, Rules, base64_decode};

/// Whether the content hash fits. An event of which it does not is to be redacted before it is judged (server-server API, "Checks performed
/// on receipt of a PDU").
pub fn verify_content_hash(pdu: &Pdu) -> bool {
    let stated = get(&pdu.json, "hashes")
        .and_then(|hashes| get(hashes, "sha256"))
        .and_then(string)
        .and_then(|hash| base64_decode(&hash));
    stated.is_some_and(|stated| stated == content_hash(&pdu.json))
}

/// The servers that must have signed the event: the sender's, in some room versions that of the event's id, and that of the member who let a
/// restricted join in. An invitation by a third party is signed by somebody else.
pub fn required_servers(rules: &Rules, pdu: &Pdu) -> Result<Vec<OwnedServerName>, Error> {
    let mut servers = Vec::with_capacity(1);
    let is_member = pdu.kind() == "m.room.member";
    let by_third_party = is_member
        && get(pdu.content(), "membership") == Some(b"\"invite\"")
        && get(pdu.content(), "third_party_invite").is_some_and(|value| value.starts_with(b"{"));
    if !by_third_party {
        servers.push(pdu.sender().server_name().to_owned());
    }
    if rules.signatures.check_event_id_server {
        let server = pdu
            .event_id
            .server_name()
            .ok_or_else(|| Error::Format("`event_id` names no server".to_owned()))?;
        servers.push(server.to_owned());
    }
    // Of other events it is nothing but a part of the content.
    if is_member
        && rules.signatures.check_join_authorised_via_users_server
        && let Some(value) = get(pdu.content(), "join_authorised_via_users_server")
    {
        let user = string(value).and_then(|user| UserId::parse(&*user).ok());
        let user = user
            .ok_or_else(|| Error::Format("`join_authorised_via_users_server` is not a user id".to_owned()))?;
        servers.push(user.server_name().to_owned());
    }
    servers.sort();
    servers.dedup();
    Ok(servers)
}

/// The ids of the ed25519 keys with which `server` has signed the event.
pub fn signature_keys(pdu: &Pdu, server: &ServerName) -> Vec<String> {
    signatures(pdu, server).map(|(key_id, _)| key_id).collect()
}

fn signatures<'a>(
    pdu: &'a Pdu,
    server: &ServerName,
) -> impl Iterator<Item = (String, Option<String>)> + use<'a> {
    let of_server = get(&pdu.json, "signatures")
        .and_then(|all| get(all, server.as_str()))
        .unwrap_or(b"");
    members(of_server).filter_map(|member| {
        let key_id = std::str::from_utf8(member.key)
            .ok()
            .filter(|key_id| key_id.starts_with("ed25519:"))?;
        Some((
            key_id.to_owned(),
            string(member.value).map(|signature| signature.into_owned()),
        ))
    })
}

/// Checks one signature on the event.
pub fn verify_signature(
    rules: &Rules,
    pdu: &Pdu,
    server: &ServerName,
    key_id: &str,
    public_key: &[u8; 32],
) -> Result<(), Error> {
    let signature = signatures(pdu, server)
        .find(|(id, _)| id == key_id)
        .and_then(|(_, signature)| signature);
    let signature = signature
        .ok_or_else(|| Error::Signature(format!("{server} has not signed with the key {key_id}")))?;
    verify_bytes(&pdu.signed_text(rules), &signature, public_key)
}

/// Checks the signatures of all servers that must have signed. `key_of` gives the public keys this server knows and trusts for the time of
/// the event; signatures with other keys are passed over, but one of each server must remain.
pub fn verify_event_signatures(
    rules: &Rules,
    pdu: &Pdu,
    key_of: &dyn Fn(&ServerName, &str) -> Option<[u8; 32]>,
) -> Result<(), Error> {
    let text = pdu.signed_text(rules);
    for server in required_servers(rules, pdu)? {
        let mut checked = false;
        for (key_id, signature) in signatures(pdu, &server) {
            let Some(key) = key_of(&server, &key_id) else {
                continue;
            };
            let signature = signature.ok_or_else(|| {
                Error::Signature(format!("the one of {server} with {key_id} is not a string"))
            })?;
            verify_bytes(&text, &signature, &key).map_err(|error| {
                Error::Signature(format!(
                    "the one of {server} with {key_id} does not hold ({error})"
                ))
            })?;
            checked = true;
        }
        if !checked {
            return Err(Error::Signature(format!(
                "{server} has not signed with any key that is known"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_must_sign() {
        let check = |version: &str, kind: &str, voucher: &str, expected: Option<&[&str]>| {
            let rules = crate::rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
            let event = json!({"auth_events": [], "content": {"join_authorised_via_users_server": voucher, "membership": "join"}, "depth": 3,
                "hashes": {"sha256": "x"}, "origin_server_ts": 5, "prev_events": [], "room_id": "!r:s", "sender": "@a:s", "state_key": "@a:s",
                "type": kind});
            let pdu = Pdu::parse(rules, event.to_string().as_bytes()).unwrap();
            let found = required_servers(rules, &pdu).ok();
            let found = found.map(|servers| servers.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected = expected.map(|servers| servers.iter().map(ToString::to_string).collect());
            assert_eq!(found, expected, "{kind} with {voucher} in {version}");
        };
        check("7", "m.room.member", "@b:t", Some(&["s"]));
        check("8", "m.room.member", "@b:t", Some(&["s", "t"]));
        check("12", "m.room.member", "nobody", None);
        for voucher in ["@b:t", "nobody"] {
            check("12", "m.room.message", voucher, Some(&["s"]));
        }
    }
}
