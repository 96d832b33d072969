//! PUT /_matrix/federation/v1/3pid/onbind — Server-Server API, "Third-party invites".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_federation::FedRequest;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::put_exchange_third_party_invite::invite;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Json};
use crate::ratelimit::Class;

/// How many invitations one identifier may have waiting: each is a request to another server.
const INVITES_MAX: usize = 20;

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    mxid: OwnedUserId,
    invites: Vec<Invite>,
}

#[derive(Deserialize)]
struct Invite {
    mxid: OwnedUserId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    signed: Map<String, Value>,
    display_name: Option<String>,
}

/// An identity server says that a user of this server has bound an identifier that others invited: they are asked to
/// invite the user. Nobody signs this; what counts is the signature in each invitation, which the room checks.
pub async fn put_onbind(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    app.limits.address(Class::Invite, address)?;
    if !app.users.is_local(&body.mxid) {
        return Err(MatrixError::forbidden(format!("{} is not a user of this server", body.mxid)).into());
    }
    app.user(&body.mxid)?;
    for one in body.invites.into_iter().take(INVITES_MAX) {
        if one.mxid != body.mxid {
            continue;
        }
        // One that fails does not hold up the others.
        if let Err(error) = ask(&app, &one).await {
            tracing::info!(?error, room_id = %one.room_id, "a third-party invite was not exchanged");
        }
    }
    Ok(Json(json!({})))
}

async fn ask(app: &Arc<App>, one: &Invite) -> Result<()> {
    let mut third_party_invite = Map::new();
    let name = one.display_name.as_deref().unwrap_or_default();
    third_party_invite.insert("display_name".to_owned(), json!(name));
    third_party_invite.insert("signed".to_owned(), json!(one.signed));
    if app.users.is_local(&one.sender) {
        let room = app.rooms.require(&one.room_id)?;
        return invite(app, &room, &one.sender, &one.mxid, third_party_invite).await;
    }
    let body = json!({
        "type": "m.room.member",
        "room_id": one.room_id,
        "sender": one.sender,
        "state_key": one.mxid,
        "content": { "membership": "invite", "third_party_invite": third_party_invite },
    });
    let request = FedRequest::put(one.sender.server_name(), path(&one.room_id), body);
    let asked = app.federation.client.request(request).await;
    asked.map_err(|error| MatrixError::unknown(error.to_string()))?;
    Ok(())
}

fn path(room_id: &RoomId) -> String {
    let room_id: String = room_id
        .as_str()
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("/_matrix/federation/v1/exchange_third_party_invite/{room_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ids_are_encoded() {
        let room_id = RoomId::parse("!a/b:s:1").expect("a room id");
        assert_eq!(
            path(&room_id),
            "/_matrix/federation/v1/exchange_third_party_invite/%21a%2Fb%3As%3A1"
        );
    }
}
