//! OpenID tokens, with which a user proves the own identity to another service. They are stored as other tokens are, by
//! their hash, and are good for an hour, whatever happens to the server meanwhile.

use std::sync::Arc;

use hearth_storage::{EntityKey, Family, record};
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::error::Result;
use crate::keys::{self, field};
use crate::token::{self, Hash, TokenKind};
use crate::user::{User, Users};
use crate::write::Tx;

/// How long a token is good.
const LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How many tokens of a user there may be; the oldest go first. A client asks for one for each widget that it opens.
const TOKENS_MAX: usize = 50;

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
    pub async fn issue_openid_token(&self) -> Result<OpenIdToken> {
        let now = self.users.clock.now_ms();
        let (text, hash) = token::make(self.users.random.as_ref(), TokenKind::OpenId, self.key.slot);
        self.write(|tx| {
            let mut open = open_tokens(tx, self.key)?;
            let ended = open.iter().take_while(|(_, end)| *end <= now).count();
            let beyond = (open.len() + 1).saturating_sub(TOKENS_MAX);
            for (gone, _) in open.drain(..ended.max(beyond)) {
                tx.delete(Family::UserToken, keys::token(self.key.slot, &gone));
                tx.token_changed(gone);
            }
            let end = now + LIFETIME_MS;
            open.push((hash, end));
            put_open_tokens(tx, self.key, &open);
            let no_device = OwnedDeviceId::from("");
            self.put_token(tx, hash, TokenKind::OpenId, &no_device, Some(end), false);
            Ok(())
        })
        .await?;
        Ok(OpenIdToken {
            access_token: text,
            expires_in_s: LIFETIME_MS / 1000,
        })
    }
}

impl Users {
    /// Whose OpenID token this is.
    pub fn openid_user(self: &Arc<Self>, text: &str) -> Result<Option<OwnedUserId>> {
        let Some((slot, hash)) = token::parse(TokenKind::OpenId, text) else {
            return Ok(None);
        };
        let now = self.clock.now_ms();
        let token = self
            .token(slot, hash)?
            .filter(|token| token.kind == TokenKind::OpenId && token.expires_at.is_some_and(|end| end > now));
        Ok(token.map(|token| token.user_id.clone()))
    }
}

/// Deletes a user's tokens.
pub(crate) fn delete_all(tx: &mut Tx<'_>, key: EntityKey) -> Result<()> {
    for (hash, _) in open_tokens(tx, key)? {
        tx.delete(Family::UserToken, keys::token(key.slot, &hash));
        tx.token_changed(hash);
    }
    put_open_tokens(tx, key, &[]);
    Ok(())
}

/// The tokens that may still be good, with their ends: the oldest first.
fn open_tokens(tx: &Tx<'_>, key: EntityKey) -> Result<Vec<(Hash, u64)>> {
    let value = tx.get(Family::User, &keys::user(key, field::OPENID_TOKENS, ""))?;
    Ok(value
        .as_deref()
        .map(record::decode)
        .transpose()?
        .unwrap_or_default())
}

fn put_open_tokens(tx: &mut Tx<'_>, key: EntityKey, tokens: &[(Hash, u64)]) {
    let row = keys::user(key, field::OPENID_TOKENS, "");
    match tokens.is_empty() {
        true => tx.delete(Family::User, row),
        false => tx.put(Family::User, row, record::encode(tokens)),
    }
}
