//! OpenID tokens, with which a user proves the own identity to another service. They live in memory for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_core::random::alphanumeric;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use crate::token::Hash;
use crate::user::{User, Users};

/// How long a token is good.
const LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How many tokens there may be; the oldest go first.
const TOKENS_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct OpenIdTokens(Mutex<State>);

#[derive(Default)]
struct State {
    by_hash: BTreeMap<Hash, (OwnedUserId, u64)>,
    by_end: BTreeMap<(u64, Hash), ()>,
}

impl OpenIdTokens {
    /// Ends a user's tokens.
    pub(crate) fn forget(&self, user: &UserId) {
        self.0.lock().by_hash.retain(|_, (owner, _)| owner != user);
    }
}

/// An OpenID token for a client.
#[derive(Clone, Debug)]
pub struct OpenIdToken {
    /// The token.
    pub access_token: String,
    /// How many seconds it is good.
    pub expires_in_s: u64,
}

impl User {
    /// A new OpenID token.
    pub fn issue_openid_token(&self) -> OpenIdToken {
        let text = format!("htho_{}", alphanumeric(self.users.random.as_ref(), 43));
        let now = self.users.clock.now_ms();
        let (hash, end) = (Hash::of(&text), now + LIFETIME_MS);
        let mut state = self.users.openid.0.lock();
        while let Some((end, hash)) = state.by_end.first_key_value().map(|(key, ())| *key) {
            if end > now && state.by_end.len() < TOKENS_MAX {
                break;
            }
            state.by_end.remove(&(end, hash));
            state.by_hash.remove(&hash);
        }
        state.by_end.insert((end, hash), ());
        state.by_hash.insert(hash, (self.id.clone(), end));
        OpenIdToken {
            access_token: text,
            expires_in_s: LIFETIME_MS / 1000,
        }
    }
}

impl Users {
    /// Whose OpenID token this is.
    pub fn openid_user(self: &Arc<Self>, token: &str) -> Option<OwnedUserId> {
        let state = self.openid.0.lock();
        let (user, end) = state.by_hash.get(&Hash::of(token))?;
        (*end > self.clock.now_ms()).then(|| user.clone())
    }
}
