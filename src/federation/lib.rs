//! Other homeservers: resolving their names, their keys, signed requests to them, and the queues in both directions.
//! `docs/federation.md` describes it.

pub mod client;
pub mod described;
pub mod edus;
pub mod error;
pub mod inbound;
pub mod keys;
pub mod outbound;
pub mod queries;
mod reachability;
pub mod remote;
pub mod resolver;
#[cfg(test)]
mod world;
pub mod xmatrix;

pub use client::{Asker, Client, FedRequest};
pub use described::described_room;
pub use edus::{Edus, EdusParts};
pub use error::{ClientError, is_about_the_session};
pub use inbound::{Inbound, InboundParts, RoomReceive};
pub use keys::{OldKey, ServerKeys};
pub use outbound::{Outbound, OutboundParts};
pub use remote::Remote;
pub use resolver::Resolver;
pub use xmatrix::{AuthFailure, Authenticator, XMatrix};

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_core::http::SharedOutbound;
use hearth_core::{SharedClock, SharedRandom, Shutdown};
use hearth_events::KeyPair;
use hearth_rooms::Rooms;
use hearth_users::Users;
use ruma::OwnedServerName;

/// What federation is built of.
pub struct Parts {
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The key with which this server signs.
    pub signing_key: Arc<KeyPair>,
    /// Keys with which it signed before.
    pub former_keys: Vec<OldKey>,
    /// Servers that are asked for the keys of others.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// The way to other machines.
    pub outbound: SharedOutbound,
    /// Where keys are stored.
    pub cluster: Arc<Cluster>,
    /// The time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The local users.
    pub users: Arc<Users>,
    /// The signal to stop.
    pub shutdown: Shutdown,
}

/// Everything that has to do with other servers.
pub struct Federation {
    /// This server's name.
    pub server_name: OwnedServerName,
    /// Signed requests to others.
    pub client: Arc<Client>,
    /// The keys of servers.
    pub keys: Arc<ServerKeys>,
    /// Who sent a request.
    pub auth: Authenticator,
    /// What rooms ask of others.
    pub remote: Arc<Remote>,
    /// The queues to others.
    pub outbound: Arc<Outbound>,
    /// What others send.
    pub inbound: Arc<Inbound>,
    /// What others tell besides events.
    pub edus: Arc<Edus>,
}

impl Federation {
    /// Federation out of its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            server_name,
            signing_key,
            former_keys,
            trusted_key_servers,
            outbound,
            cluster,
            clock,
            random,
            rooms,
            users,
            shutdown,
        } = parts;
        let client = Arc::new(Client::new(
            server_name.clone(),
            signing_key.clone(),
            outbound,
            clock.clone(),
        ));
        let keys = ServerKeys::new(
            signing_key,
            former_keys,
            client.clone(),
            cluster.clone(),
            clock.clone(),
            trusted_key_servers,
        );
        let outbound = Outbound::new(OutboundParts {
            cluster: cluster.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            transport: client.clone(),
            clock: clock.clone(),
            random,
            shutdown: shutdown.clone(),
        });
        let edus = Edus::new(EdusParts {
            cluster: cluster.clone(),
            transport: client.clone(),
            outbound: outbound.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            clock: clock.clone(),
        });
        let inbound = Inbound::new(InboundParts {
            cluster,
            rooms,
            users,
            receive: Arc::new(RoomReceive::new(keys.clone())),
            edus: edus.clone(),
            outbound: outbound.clone(),
            clock,
            shutdown,
        });
        Arc::new(Self {
            server_name,
            auth: Authenticator::new(client.clone(), keys.clone()),
            remote: Arc::new(Remote::new(client.clone(), keys.clone())),
            client,
            keys,
            outbound,
            inbound,
            edus,
        })
    }

    /// Starts the queues in both directions. Needs a runtime; call it when outbox delivery has started.
    pub fn start(&self) -> Result<(), hearth_rooms::Error> {
        self.outbound.start()?;
        self.inbound.start()
    }
}

#[cfg(test)]
mod test_world;
