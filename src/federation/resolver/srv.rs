//! SRV records: which of them counts, and in which order their targets are tried (RFC 2782).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hearth_core::{SharedClock, SharedRandom, random};
use quick_cache::sync::Cache;

use super::Endpoint;

/// A name server that does not answer in this time counts as having no record; it is within the time of a connection.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A name whose look-up failed is not looked up again within this time.
const FAILURE_MS: u64 = 5 * 60 * 1000;
/// Names whose look-up failed.
const FAILURES_MAX: usize = 10_000;
/// Targets that are tried: each may cost the time of a connection.
const ENDPOINTS_MAX: usize = 8;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones are tried first.
    pub priority: u16,
    /// Among those of a priority, the share of being first.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host; `.` says that there is no service.
    pub target: String,
}

/// The part of the name system that the operating system's resolver does not give.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The SRV records of a name, none where there is no such name; an error if that could not be found out.
    async fn srv(&self, name: &str) -> Result<Vec<Srv>, String>;
}

/// No SRV records at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDns;

#[async_trait]
impl Dns for NoDns {
    async fn srv(&self, _: &str) -> Result<Vec<Srv>, String> {
        Ok(Vec::new())
    }
}

/// Looks up the SRV records of servers. Records are cached by [`Dns`], for as long as they say.
pub(super) struct SrvLookup {
    dns: Arc<dyn Dns>,
    clock: SharedClock,
    random: SharedRandom,
    failed_until_ms: Cache<String, u64>,
}

impl SrvLookup {
    pub(super) fn new(dns: Arc<dyn Dns>, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            dns,
            clock,
            random,
            failed_until_ms: Cache::new(FAILURES_MAX),
        }
    }

    /// The endpoints of `_matrix-fed._tcp`, or of the older `_matrix._tcp`, in the order in which to try them; none if
    /// there are no such records, or nobody knows.
    pub(super) async fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        let host = host.trim_end_matches('.');
        let now_ms = self.clock.now_ms();
        if self
            .failed_until_ms
            .get(host)
            .is_some_and(|until_ms| until_ms > now_ms)
        {
            return Vec::new();
        }
        // The dot at the end says that the name is whole: no search domain is tried.
        let names = (
            format!("_matrix-fed._tcp.{host}."),
            format!("_matrix._tcp.{host}."),
        );
        let both = futures::future::join(self.dns.srv(&names.0), self.dns.srv(&names.1));
        let (newer, older) = match tokio::time::timeout(TIMEOUT, both).await {
            Ok(found) => found,
            Err(_) => {
                let silent = || Err("the name server did not answer".to_owned());
                (silent(), silent())
            }
        };
        let error = newer.as_ref().and(older.as_ref()).err().cloned();
        let endpoints = [newer, older]
            .into_iter()
            .map(|found| self.ordered(found.unwrap_or_default()))
            .find(|found| !found.is_empty())
            .unwrap_or_default();
        if let Some(error) = error
            && endpoints.is_empty()
        {
            tracing::debug!(host, error, "SRV records could not be looked up");
            self.failed_until_ms
                .insert(host.to_owned(), now_ms.saturating_add(FAILURE_MS));
        }
        endpoints
    }

    /// By priority; within one, the first is drawn by weight, then the next from what is left.
    fn ordered(&self, mut records: Vec<Srv>) -> Vec<Endpoint> {
        records.retain(|record| record.port != 0 && !matches!(record.target.as_str(), "" | "."));
        // A fixed order first, so that the same numbers draw the same records.
        records.sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
        let mut endpoints = Vec::new();
        while let Some(first) = records.first() {
            let group = records
                .iter()
                .take_while(|record| record.priority == first.priority);
            let shares: Vec<u64> = group.map(|record| u64::from(record.weight)).collect();
            let record = records.remove(self.draw(&shares));
            endpoints.push(Endpoint {
                host: record.target.trim_end_matches('.').to_ascii_lowercase(),
                port: record.port,
            });
            if endpoints.len() == ENDPOINTS_MAX {
                break;
            }
        }
        endpoints
    }

    /// A place in the list, each as likely as its share; the shares may all be zero.
    fn draw(&self, shares: &[u64]) -> usize {
        let total: u64 = shares.iter().sum();
        if total == 0 {
            return 0;
        }
        let mut point = random::u64(&*self.random) % total;
        for (at, share) in shares.iter().enumerate() {
            match point.checked_sub(*share) {
                Some(left) => point = left,
                None => return at,
            }
        }
        0
    }
}
