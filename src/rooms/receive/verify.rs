//! Signatures and hashes of events from other servers.

use std::collections::HashMap;

use hearth_events::{Pdu, Rules};
use ruma::ServerName;

use crate::{Error, KeyAt, Room, Rooms};

/// How many events are checked in one section of the pool: about 10 ms of work.
const SECTION_EVENTS: usize = 200;

/// An event whose signatures hold.
pub(crate) struct Verified {
    pub(crate) pdu: Pdu,
    /// Its content did not fit its hash, and is gone.
    pub(crate) redacted: bool,
}

impl Room {
    pub(crate) async fn verify_one(&self, pdu: Pdu) -> Result<Verified, Error> {
        self.0.rooms.verify_one(self.rules(), pdu).await
    }

    pub(crate) async fn verify(&self, pdus: Vec<Pdu>) -> Result<Vec<Result<Verified, Error>>, Error> {
        self.0.rooms.verify(self.rules(), pdus).await
    }
}

impl Rooms {
    pub(crate) async fn verify_one(&self, rules: &'static Rules, pdu: Pdu) -> Result<Verified, Error> {
        let mut checked = self.verify(rules, vec![pdu]).await?;
        checked.pop().ok_or(Error::Damaged("verification"))?
    }

    /// Checks the signatures of events, on all processors, and takes the content from those whose hash does not
    /// fit (server-server API, "Checks performed on receipt of a PDU", points 2 and 3).
    pub(crate) async fn verify(
        &self,
        rules: &'static Rules,
        pdus: Vec<Pdu>,
    ) -> Result<Vec<Result<Verified, Error>>, Error> {
        let mut wanted: Vec<KeyAt> = Vec::new();
        for pdu in &pdus {
            let at = key_time(rules, pdu);
            for server in hearth_events::required_servers(rules, pdu).unwrap_or_default() {
                for key in hearth_events::signature_keys(pdu, &server) {
                    wanted.push((server.clone(), key, at));
                }
            }
        }
        wanted.sort();
        wanted.dedup();
        let keys = std::sync::Arc::new(self.remote()?.keys(&wanted).await);
        let mut sections = Vec::new();
        let mut rest = pdus.into_iter();
        loop {
            let section: Vec<Pdu> = rest.by_ref().take(SECTION_EVENTS).collect();
            if section.is_empty() {
                break;
            }
            let keys = keys.clone();
            sections.push(self.pool.run(move || {
                let check = |pdu| check(rules, pdu, &keys);
                section.into_iter().map(check).collect::<Vec<_>>()
            }));
        }
        Ok(futures::future::join_all(sections)
            .await
            .into_iter()
            .flatten()
            .collect())
    }
}

/// When the keys of an event have to be valid. Old room versions do not ask.
fn key_time(rules: &Rules, pdu: &Pdu) -> u64 {
    match rules.enforce_key_validity {
        true => pdu.origin_server_ts(),
        false => 0,
    }
}

/// A key without which an event cannot be checked: its server has signed, with no key that is here.
fn missing_key(rules: &Rules, pdu: &Pdu, keys: &HashMap<KeyAt, [u8; 32]>, at: u64) -> Option<KeyAt> {
    let servers = hearth_events::required_servers(rules, pdu).unwrap_or_default();
    servers.into_iter().find_map(|server| {
        let signed = hearth_events::signature_keys(pdu, &server).into_iter();
        let mut wanted = signed.map(|key| (server.clone(), key, at)).peekable();
        let first = wanted.peek().cloned();
        first.filter(|_| wanted.all(|key| !keys.contains_key(&key)))
    })
}

fn check(rules: &Rules, pdu: Pdu, keys: &HashMap<KeyAt, [u8; 32]>) -> Result<Verified, Error> {
    let at = key_time(rules, &pdu);
    let key_of = |server: &ServerName, key: &str| {
        let name = (server.to_owned(), key.to_owned(), at);
        keys.get(&name).copied()
    };
    hearth_events::verify_event_signatures(rules, &pdu, &key_of)
        .map_err(|error| missing_key(rules, &pdu, keys, at).map_or(error.into(), Error::MissingKey))?;
    match hearth_events::verify_content_hash(&pdu) {
        true => Ok(Verified { pdu, redacted: false }),
        false => Ok(Verified {
            pdu: hearth_events::redact(rules, &pdu)?,
            redacted: true,
        }),
    }
}
