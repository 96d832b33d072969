//! SRV records, which the operating system's resolver does not give. Addresses are looked up by the system, so that its
//! hosts file counts.

use async_trait::async_trait;
use hearth_federation::resolver::{Dns, Srv};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

/// The name servers of the machine.
pub struct SystemDns(Option<TokioResolver>);

impl SystemDns {
    /// The name servers that the machine is configured with. Without any, no name has SRV records.
    pub fn new() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        match resolver {
            Ok(resolver) => Self(Some(resolver)),
            Err(error) => {
                tracing::warn!(%error, "the machine's name servers cannot be found; SRV records are not looked up");
                Self(None)
            }
        }
    }
}

#[async_trait]
impl Dns for SystemDns {
    async fn srv(&self, name: &str) -> Result<Vec<Srv>, String> {
        let Some(resolver) = &self.0 else {
            return Ok(Vec::new());
        };
        let found = match resolver.srv_lookup(name).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        });
        Ok(records.collect())
    }
}
