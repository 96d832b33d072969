//! The sessions in memory.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::limits;
use hearth_core::random::{Random, alphanumeric};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde_json::{Map, Value};

use super::{Stage, UiaRequest};
use crate::registration::PendingUse;
use crate::user::User;

/// How many characters a session id has: 142 bits, which also protect what is stored of the session.
const SESSION_CHARS: usize = 24;

/// What the sessions remember together; beyond it the oldest give way. Anybody can begin a session, so this is what bounds
/// the memory that strangers take.
const REMEMBERED_MAX_BYTES: usize = 8 << 20;

pub(super) fn size_of(body: &Map<String, Value>) -> usize {
    serde_json::to_string(body).map_or(0, |text| text.len())
}

/// A session.
pub(super) struct UiaSession {
    pub user: Option<OwnedUserId>,
    pub device: Option<OwnedDeviceId>,
    pub method: String,
    pub path: String,
    pub body: Map<String, Value>,
    /// About how much memory the body takes.
    pub body_bytes: usize,
    /// The flows that were offered.
    pub flows: Vec<Vec<Stage>>,
    pub completed: Vec<Stage>,
    pub registration_token: Option<PendingUse>,
    pub expires_at: u64,
    /// Whether there is something to store.
    pub unsaved: bool,
    /// Whether something was stored.
    pub stored: bool,
    /// Whether it is used up; it stays until nothing is stored of it any more.
    pub finished: bool,
}

impl UiaSession {
    pub fn new(request: &UiaRequest<'_>, body: Map<String, Value>, now: u64) -> Self {
        Self {
            user: request.user.map(|user: &User| user.id().to_owned()),
            device: request.device.map(ToOwned::to_owned),
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            body_bytes: size_of(&body),
            body,
            flows: request.flows.to_vec(),
            completed: Vec::new(),
            registration_token: None,
            expires_at: now + limits::UIA_SESSION_LIFETIME.as_millis() as u64,
            unsaved: true,
            stored: false,
            finished: false,
        }
    }

    /// Whether it can still be used.
    pub fn is_open(&self, now: u64) -> bool {
        !self.finished && self.expires_at > now
    }

    /// Notes a completed stage.
    pub fn complete(&mut self, stage: Stage) {
        if !self.completed.contains(&stage) {
            self.completed.push(stage);
            self.unsaved = true;
        }
    }
}

/// The sessions in memory.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<String, UiaSession>,
    /// The bodies of all sessions.
    bytes: usize,
    /// Sessions by their end. An entry may be stale.
    by_end: BTreeSet<(u64, String)>,
    /// Sessions that ended or gave way, of which something is stored.
    leftovers: Vec<String>,
}

impl Sessions {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn get(&self, id: &str) -> Option<&UiaSession> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut UiaSession> {
        self.by_id.get_mut(id)
    }

    /// Adds a session under a new id.
    pub fn add(&mut self, random: &dyn Random, session: UiaSession, now: u64) -> String {
        let id = alphanumeric(random, SESSION_CHARS);
        self.put(id.clone(), session, now);
        id
    }

    /// Adds a session, unless it is there.
    pub fn put(&mut self, id: String, session: UiaSession, now: u64) {
        if self.by_id.contains_key(&id) {
            return;
        }
        self.bytes += session.body_bytes;
        self.clean(now);
        self.by_end.insert((session.expires_at, id.clone()));
        self.by_id.insert(id, session);
    }

    /// Gives a session another body.
    pub fn remember(&mut self, id: &str, body: Map<String, Value>, now: u64) {
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        let bytes = size_of(&body);
        self.bytes = self.bytes - session.body_bytes + bytes;
        (session.body, session.body_bytes, session.unsaved) = (body, bytes, true);
        self.clean(now);
    }

    pub fn remove(&mut self, id: &str) -> Option<UiaSession> {
        let session = self.by_id.remove(id)?;
        self.bytes -= session.body_bytes;
        Some(session)
    }

    /// Of which sessions something is stored that has no use.
    pub fn take_leftovers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.leftovers)
    }

    /// Removes sessions that have ended, and the oldest beyond the limit.
    fn clean(&mut self, now: u64) {
        while let Some((end, _)) = self.by_end.first() {
            let fits = self.by_id.len() < limits::UIA_SESSIONS_MAX && self.bytes <= REMEMBERED_MAX_BYTES;
            if *end > now && fits {
                break;
            }
            if let Some((_, id)) = self.by_end.pop_first()
                && self.remove(&id).is_some_and(|session| session.stored)
            {
                self.leftovers.push(id);
            }
        }
    }
}
