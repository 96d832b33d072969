//! Other homeservers: resolving their names, their keys, signed requests to them, and the queues in both directions.
//! `docs/federation.md` describes it.

pub mod client;
pub mod error;
pub mod keys;
pub mod queries;
mod reachability;
pub mod remote;
pub mod resolver;
pub mod xmatrix;

pub use client::{Client, FedRequest};
pub use error::ClientError;
pub use keys::ServerKeys;
pub use remote::Remote;
pub use resolver::Resolver;
pub use xmatrix::{AuthFailure, Authenticator, XMatrix};

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_core::SharedClock;
use hearth_core::http::SharedOutbound;
use hearth_events::KeyPair;
use ruma::OwnedServerName;

/// What federation is built of.
pub struct Parts {
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The key with which this server signs.
    pub signing_key: Arc<KeyPair>,
    /// Servers that are asked for the keys of others.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// The way to other machines.
    pub outbound: SharedOutbound,
    /// Where keys are stored.
    pub cluster: Arc<Cluster>,
    /// The time.
    pub clock: SharedClock,
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
}

impl Federation {
    /// Federation out of its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            server_name,
            signing_key,
            trusted_key_servers,
            outbound,
            cluster,
            clock,
        } = parts;
        let client = Arc::new(Client::new(
            server_name.clone(),
            signing_key.clone(),
            outbound,
            clock.clone(),
        ));
        let keys = ServerKeys::new(signing_key, client.clone(), cluster, clock, trusted_key_servers);
        Arc::new(Self {
            server_name,
            auth: Authenticator::new(client.clone(), keys.clone()),
            remote: Arc::new(Remote::new(client.clone(), keys.clone())),
            client,
            keys,
        })
    }
}
