//! Rooms that other servers know: where an alias points, and through whom a room is reached.

use hearth_core::error::MatrixError;
use hearth_users::{Membership, RoomEntry};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId};
use serde::Deserialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;

/// The query of the endpoints that name a room on which other servers may help.
#[derive(Debug, Default, Deserialize)]
pub struct Via {
    #[serde(default)]
    via: Vec<OwnedServerName>,
    /// The older name of `via`.
    #[serde(default)]
    server_name: Vec<OwnedServerName>,
}

/// A room and the servers through which it can be reached.
pub struct Reach {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that may be in it, without this one.
    pub via: Vec<OwnedServerName>,
}

/// Where an alias points, of this server or of another.
pub async fn resolve_alias(app: &App, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    if alias.server_name() == app.server_name {
        let found = app.rooms.alias(alias)?;
        let found = found.ok_or_else(|| MatrixError::not_found("There is no such alias"))?;
        let mut servers = vec![app.server_name.clone()];
        if let Some(room) = app.rooms.get(&found.room_id)? {
            servers.extend(room.servers_to_ask(10));
        }
        return Ok((found.room_id, servers));
    }
    let found = app.federation.alias(alias).await?;
    Ok((found.room_id, found.servers))
}

/// What a request names, and whom to ask about it: the servers it lists, those the alias lists, and that of whoever
/// invited the user.
pub async fn reach(app: &App, auth: &Auth, target: &RoomOrAliasId, query: Via) -> Result<Reach> {
    let mut via = query.via;
    via.extend(query.server_name);
    let room_id = match <&RoomId>::try_from(target) {
        Ok(room_id) => room_id.to_owned(),
        Err(_) => {
            let alias = <&RoomAliasId>::try_from(target)
                .map_err(|_| MatrixError::invalid_param("This is neither a room id nor a room alias"))?;
            let (room_id, servers) = resolve_alias(app, alias).await?;
            via.extend(servers);
            room_id
        }
    };
    if let Some(entry) = auth.handle.room(&room_id)? {
        via.extend(servers_of_entry(&entry));
    }
    if let Some(room) = app.rooms.get(&room_id)?
        && via.is_empty()
    {
        via.extend(room.servers_to_ask(10));
    }
    let mut seen = std::collections::HashSet::new();
    via.retain(|server| *server != app.server_name && seen.insert(server.clone()));
    Ok(Reach { room_id, via })
}

/// The servers of those who appear in an invitation or a knock.
pub fn servers_of_entry(entry: &RoomEntry) -> Vec<OwnedServerName> {
    let mut servers: Vec<OwnedServerName> = entry.via.iter().cloned().collect();
    if matches!(entry.membership, Membership::Invite) {
        servers.push(entry.sender.server_name().to_owned());
    }
    #[derive(Deserialize)]
    struct Stripped {
        sender: OwnedUserId,
    }
    for event in &entry.stripped_state {
        if let Ok(event) = serde_json::from_str::<Stripped>(event.get()) {
            servers.push(event.sender.server_name().to_owned());
        }
    }
    servers
}
