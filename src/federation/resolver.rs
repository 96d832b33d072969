//! From a server name to where its server is (server-server API, "Resolving server names").
//!
//! [`Resolver::route`] says how a server is reached: at a given port, or by the name alone, which [`Resolver::endpoints`]
//! turns into hosts and ports. The addresses of hosts are looked up by whoever connects, so that the check of an address
//! and the connection to it are of the same look-up.

mod name;
mod srv;
mod well_known;

pub use name::{Host, HostPort};
pub use srv::{Dns, NoDns, Srv};
pub use well_known::read_well_known;

use std::sync::Arc;

use hearth_core::http::SharedOutbound;
use hearth_core::{SharedClock, SharedRandom};

use srv::SrvLookup;
use well_known::WellKnown;

/// The port of servers that name none.
pub const DEFAULT_PORT: u16 = 8448;

/// How a server is reached. In every case TLS must prove the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// At this port of an address or of a host, whose addresses are looked up.
    Port {
        /// The address or the host's name, which the certificate must be for.
        host: Host,
        /// The port.
        port: u16,
        /// What the `Host` header says: with the port only where the server name has one.
        header: String,
    },
    /// At the [endpoints](Resolver::endpoints) of this name. The certificate must be for it, and the `Host` header says it.
    Name(String),
}

/// Where to connect: the addresses of a host are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Finds servers by their names, and remembers what their well-known documents say.
pub struct Resolver {
    well_known: WellKnown,
    srv: SrvLookup,
}

impl Resolver {
    /// A resolver that fetches well-known documents through `outbound` and asks `dns` for SRV records.
    pub fn new(
        outbound: SharedOutbound,
        dns: Arc<dyn Dns>,
        clock: SharedClock,
        random: SharedRandom,
    ) -> Self {
        Self {
            well_known: WellKnown::new(outbound, clock.clone()),
            srv: SrvLookup::new(dns, clock, random),
        }
    }

    /// How the server of this name is reached; `None` if it is no server name. The steps are those of the specification.
    pub async fn route(&self, server: &str) -> Option<Route> {
        let name = HostPort::parse(server)?;
        // Steps 1 and 2: an address, or a port.
        let host = match direct(&name) {
            Ok(route) => return Some(route),
            Err(host) => host,
        };
        // Step 3: delegation.
        let Some(delegated) = self.well_known.delegate(&host).await else {
            return Some(Route::Name(host));
        };
        Some(match direct(&delegated) {
            Ok(route) => route,
            Err(host) => Route::Name(host),
        })
    }

    /// Where the server of a name without a port is: by its SRV records, in the order in which they are to be tried, else
    /// at the name itself (steps 3.3 to 3.5, and 4 to 6).
    pub async fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        let found = self.srv.endpoints(host).await;
        if !found.is_empty() {
            return found;
        }
        vec![Endpoint {
            host: host.to_owned(),
            port: DEFAULT_PORT,
        }]
    }
}

/// The route where a name needs no further look-up, else its host.
fn direct(name: &HostPort) -> Result<Route, String> {
    let port = match (&name.host, name.port) {
        (Host::Name(host), None) => return Err(host.clone()),
        (_, port) => port.unwrap_or(DEFAULT_PORT),
    };
    Ok(Route::Port {
        host: name.host.clone(),
        port,
        header: name.to_string(),
    })
}

#[cfg(test)]
mod tests;
