//! Questions that clients have and only another server can answer: aliases, directories, profiles, hierarchies.

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::client::{self, Asker, FedRequest};
use crate::described::described_room;
use crate::{ClientError, Federation};

/// How many servers an alias may name.
const SERVERS_MAX: usize = 100;
/// How many rooms of a page of a directory are passed on: servers give up to a few hundred.
const ROOMS_MAX: usize = 1_000;

/// Where an alias of another server points.
#[derive(Debug, Deserialize)]
pub struct RemoteAlias {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    #[serde(default, deserialize_with = "server_names")]
    pub servers: Vec<OwnedServerName>,
}

/// The names in a list of servers. What is no name is left out: members of servers with odd names are in some rooms.
fn server_names<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<OwnedServerName>, D::Error> {
    let names = Vec::<Value>::deserialize(list)?;
    let names = names.iter().filter_map(Value::as_str);
    Ok(names
        .filter_map(|name| OwnedServerName::try_from(name).ok())
        .collect())
}

/// A page of another server's directory.
#[derive(Deserialize)]
struct DirectoryPage {
    chunk: Vec<Value>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    total_room_count_estimate: Option<u64>,
}

impl Federation {
    /// `GET /_matrix/federation/v1/query/directory`
    pub async fn alias(&self, alias: &RoomAliasId) -> Result<RemoteAlias, ClientError> {
        let query = client::query([("room_alias", alias.as_str())]);
        let path = format!("/_matrix/federation/v1/query/directory{query}");
        let request = FedRequest::get(alias.server_name(), path).asker(Asker::Actor);
        let mut found: RemoteAlias = self.client.json(request).await?;
        found.servers.truncate(SERVERS_MAX);
        Ok(found)
    }

    /// `GET /_matrix/federation/v1/query/profile`: the whole profile, or one field of it.
    pub async fn profile(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, ClientError> {
        let pairs = [("user_id", user.as_str())]
            .into_iter()
            .chain(field.map(|field| ("field", field)));
        let path = format!("/_matrix/federation/v1/query/profile{}", client::query(pairs));
        let request = FedRequest::get(user.server_name(), path).asker(Asker::Reader);
        self.client.json(request).await
    }

    /// `POST /_matrix/federation/v1/publicRooms`, with the body as clients send it; the answer as they read it.
    pub async fn public_rooms(&self, server: &ServerName, body: Value) -> Result<Value, ClientError> {
        let request = FedRequest::post(server, "/_matrix/federation/v1/publicRooms", body);
        let page: DirectoryPage = self.client.json(request.asker(Asker::Reader)).await?;
        let rooms = page.chunk.iter().take(ROOMS_MAX).filter_map(described_room);
        let rooms: Vec<_> = rooms.map(|(_, room)| room).collect();
        let mut answer = json!({ "chunk": rooms });
        for (name, token) in [("next_batch", page.next_batch), ("prev_batch", page.prev_batch)] {
            if let Some(token) = token {
                answer[name] = token.into();
            }
        }
        if let Some(total) = page.total_room_count_estimate {
            answer["total_room_count_estimate"] = total.into();
        }
        Ok(answer)
    }

    /// `GET /_matrix/federation/v1/hierarchy/{roomId}`
    pub async fn hierarchy(
        &self,
        server: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<Value, ClientError> {
        let query = client::query([("suggested_only", if suggested_only { "true" } else { "false" })]);
        let path = client::path(&["_matrix", "federation", "v1", "hierarchy", room.as_str()]);
        let request = FedRequest::get(server, format!("{path}{query}"));
        self.client.json(request.asker(Asker::Reader)).await
    }
}
