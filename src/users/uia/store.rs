//! What is stored of a session. It holds what clients have sent, passwords among it, so it is sealed with a key made
//! from the session's id, of which only a hash is stored: whoever reads the disk can read none of it.

use std::sync::Arc;
use std::time::Duration;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use hearth_core::Shutdown;
use hearth_core::random::Random;
use hearth_core::tasks::{Rhythm, repeat};
use hearth_storage::schema::uia_session::UiaSessionKey;
use hearth_storage::{Family, Slot};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sessions::UiaSession;
use super::{Completed, Stage, Uia};
use crate::error::{Error, Result};
use crate::user::Users;

/// The tag of a stored session.
const SESSION_V1: u8 = 1;

/// The tag, the end, and the nonce.
const HEAD_BYTES: usize = 1 + 8 + NONCE_BYTES;

const NONCE_BYTES: usize = 12;

/// What the key of a session is made for, as BLAKE3 wants it.
const KEY_CONTEXT: &str = "Hearth 2026-11 stored session of user-interactive authentication";

/// How often what earlier starts of the server left is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(30 * 60);

/// A session as it is stored, before it is sealed.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<OwnedUserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<OwnedDeviceId>,
    method: String,
    path: String,
    body: Map<String, Value>,
    flows: Vec<Vec<Stage>>,
    completed: Vec<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration_token: Option<String>,
    expires_at: u64,
}

impl Uia {
    /// Stores a session if it changed, and removes what is left of sessions that ended.
    pub(super) async fn save(&self, id: &str) -> Result<()> {
        let leftovers = self.sessions.lock().take_leftovers();
        for ended in leftovers {
            self.delete_row(&ended).await?;
        }
        let (slot, row) = row(id);
        // The session is read in the lane: of two changes at once the later row has both.
        let save = |tx: &mut crate::write::Tx<'_>| -> Result<()> {
            let mut sessions = self.sessions.lock();
            let Some(session) = sessions.get_mut(id).filter(|one| one.unsaved && !one.finished) else {
                return Ok(());
            };
            let value = seal(id, &stored(session), self.random.as_ref())?;
            session.unsaved = false;
            session.stored = true;
            tx.put(Family::UiaSession, row, value);
            Ok(())
        };
        self.lanes.write(slot, save).await
    }

    /// Brings a session into memory that an earlier start of the server stored.
    pub(super) fn recall(&self, users: &Arc<Users>, id: &str) -> Result<()> {
        if self.sessions.lock().get(id).is_some() {
            return Ok(());
        }
        let (_, row) = row(id);
        let value = self.log.engine().get(Family::UiaSession, &row)?;
        let Some(stored) = value.and_then(|value| unseal(id, &value)) else {
            return Ok(());
        };
        let now = self.clock.now_ms();
        if stored.expires_at <= now {
            return Ok(());
        }
        let mut completed = stored.completed;
        let registration_token = match stored.registration_token {
            Some(token) => match users.registration_tokens().hold(&token) {
                Ok(held) => Some(held),
                Err(Error::InvalidRegistrationToken) => {
                    completed.retain(|stage| *stage != Stage::RegistrationToken);
                    None
                }
                Err(error) => return Err(error),
            },
            None => None,
        };
        let session = UiaSession {
            user: stored.user,
            device: stored.device,
            method: stored.method,
            path: stored.path,
            body_bytes: super::sessions::size_of(&stored.body),
            body: stored.body,
            flows: stored.flows,
            completed,
            registration_token,
            expires_at: stored.expires_at,
            unsaved: false,
            stored: true,
            finished: false,
        };
        self.sessions.lock().put(id.to_owned(), session, now);
        Ok(())
    }

    /// Uses a session up; nothing if it is used up already.
    pub(super) async fn finish(&self, id: &str) -> Result<Option<Completed>> {
        let taken = self.with(id, |session| {
            if std::mem::replace(&mut session.finished, true) {
                return None;
            }
            let completed = Completed {
                stages: session.completed.clone(),
                body: std::mem::take(&mut session.body),
                registration_token: session.registration_token.take(),
            };
            Some((completed, session.stored))
        });
        let Some((completed, is_stored)) = taken.flatten() else {
            return Ok(None);
        };
        if is_stored {
            self.delete_row(id).await?;
        }
        self.sessions.lock().remove(id);
        Ok(Some(completed))
    }

    async fn delete_row(&self, id: &str) -> Result<()> {
        let (slot, row) = row(id);
        self.lanes
            .write(slot, |tx| {
                tx.delete(Family::UiaSession, row);
                Ok(())
            })
            .await
    }

    /// Removes stored sessions that have ended.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let now = self.clock.now_ms();
        let mut ended = Vec::new();
        self.log
            .engine()
            .scan(Family::UiaSession, &[], &[0xFF], false, &mut |key, value| {
                if end_of(value).is_none_or(|end| end <= now) {
                    ended.push(key.to_vec());
                }
                true
            })?;
        for key in ended {
            let Some(slot) = UiaSessionKey::decode(&key).map(|key| key.slot) else {
                continue;
            };
            self.lanes
                .write(slot, |tx| {
                    tx.delete(Family::UiaSession, key);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

impl Users {
    /// Removes, from time to time, what is left of authentications that nobody finished.
    pub(crate) fn start_uia_sweep(self: &Arc<Self>, shutdown: &Shutdown) {
        let rhythm = Rhythm {
            first: Duration::ZERO,
            pause: SWEEP_EVERY,
        };
        repeat(
            "authentication sweep",
            rhythm,
            shutdown,
            self,
            |users: Arc<Self>| async move {
                if let Err(error) = users.uia().sweep().await {
                    tracing::warn!(%error, "authentications that ended could not be removed");
                }
            },
        );
    }
}

fn stored(session: &UiaSession) -> Stored {
    Stored {
        user: session.user.clone(),
        device: session.device.clone(),
        method: session.method.clone(),
        path: session.path.clone(),
        body: session.body.clone(),
        flows: session.flows.clone(),
        completed: session.completed.clone(),
        registration_token: session
            .registration_token
            .as_ref()
            .map(|held| held.token().to_owned()),
        expires_at: session.expires_at,
    }
}

/// Where a session is stored.
fn row(id: &str) -> (Slot, Vec<u8>) {
    let hash = *blake3::hash(id.as_bytes()).as_bytes();
    let slot = Slot::new(u16::from_be_bytes([hash[0] & 0x3F, hash[1]]))
        .unwrap_or_else(|| hearth_storage::slot_of(id));
    (slot, UiaSessionKey { slot, hash }.encode())
}

fn cipher(id: &str) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(blake3::derive_key(KEY_CONTEXT, id.as_bytes())))
}

fn seal(id: &str, session: &Stored, random: &dyn Random) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(session).map_err(|error| Error::Internal(error.to_string()))?;
    let mut nonce = [0; NONCE_BYTES];
    random.fill(&mut nonce);
    let mut value = Vec::with_capacity(HEAD_BYTES + text.len() + 16);
    value.push(SESSION_V1);
    value.extend_from_slice(&session.expires_at.to_be_bytes());
    value.extend_from_slice(&nonce);
    // The end is in clear for the sweep, and bound to the rest.
    let payload = Payload {
        msg: &text,
        aad: &value,
    };
    let sealed = cipher(id)
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| Error::Internal("a session could not be sealed".to_owned()))?;
    value.extend_from_slice(&sealed);
    Ok(value)
}

/// The session of a row; nothing if it was not made for this id.
fn unseal(id: &str, value: &[u8]) -> Option<Stored> {
    let (head, sealed) = value.split_at_checked(HEAD_BYTES)?;
    if head[0] != SESSION_V1 {
        return None;
    }
    let nonce: [u8; NONCE_BYTES] = head[1 + 8..].try_into().ok()?;
    let payload = Payload {
        msg: sealed,
        aad: head,
    };
    let text = cipher(id).decrypt(&Nonce::from(nonce), payload).ok()?;
    serde_json::from_slice(&text).ok()
}

fn end_of(value: &[u8]) -> Option<u64> {
    let (tag, rest) = value.split_first()?;
    let end = rest.first_chunk::<8>().copied().map(u64::from_be_bytes);
    end.filter(|_| *tag == SESSION_V1)
}

#[cfg(test)]
mod tests {
    use hearth_core::random::SeededRandom;
    use serde_json::json;

    use super::*;

    fn session() -> Stored {
        Stored {
            user: Some("@a:x".try_into().expect("an id")),
            device: Some("D".into()),
            method: "POST".into(),
            path: "/x".into(),
            body: Map::from_iter([("new_password".to_owned(), json!("secret words"))]),
            flows: vec![vec![Stage::Terms, Stage::Password]],
            completed: vec![Stage::Terms],
            registration_token: None,
            expires_at: 7,
        }
    }

    /// The stored form; a change of it is a decision, since data in the field has it.
    #[test]
    fn stored_form() {
        let text = r#"{"user":"@a:x","device":"D","method":"POST","path":"/x","body":{"new_password":"secret words"},"flows":[["m.login.terms","m.login.password"]],"completed":["m.login.terms"],"expires_at":7}"#;
        assert_eq!(serde_json::to_string(&session()).expect("JSON"), text);
    }

    #[test]
    fn only_the_id_opens_a_row() {
        let random = SeededRandom::new(1);
        let value = seal("id", &session(), &random).expect("sealed");
        assert_eq!(end_of(&value), Some(7));
        assert!(!value.windows(6).any(|bytes| bytes == b"secret"));
        let opened = unseal("id", &value).expect("opened");
        assert_eq!(
            (opened.body, opened.completed),
            (session().body, session().completed)
        );
        assert!(unseal("other", &value).is_none());
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(unseal("id", &changed).is_none(), "byte {at}");
            assert!(unseal("id", &value[..at]).is_none(), "cut at {at}");
        }
        assert_ne!(
            value,
            seal("id", &session(), &random).expect("sealed"),
            "a nonce is used once"
        );
        assert_eq!(end_of(&[]), None);
    }
}
