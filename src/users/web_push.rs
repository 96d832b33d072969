//! Subscriptions of Web Push among the pushers (MSC4174): what they have to be, and how their clients show that they are
//! reached.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_core::{Random, random};
use hearth_storage::{Family, record};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::pusher::{Pusher, is_authority};
use crate::user::User;

/// The kind of subscriptions of Web Push (MSC4174).
pub(crate) const WEB_PUSH: &str = "webpush";

/// The public key of a subscription: a byte that says that it is not compressed, and two coordinates.
const PUBLIC_KEY_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;
const AUTH_BYTES: usize = 16;

/// The token by which a client shows that it is reached.
const TOKEN_CHARS: usize = 32;
const TOKEN_LIFETIME_MS: u64 = 5 * 60 * 1000;

/// How far the proof is that a pusher reaches its client (MSC4174).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// This kind of pusher needs none.
    #[default]
    None,
    /// The client has to give back a token that it is sent.
    Awaited {
        /// The token.
        token: String,
        /// When it expires, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The client gave the token back.
    Done,
}

impl Activation {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What came of a token that a client gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activated {
    /// The pusher is told of things from now on.
    Done,
    /// The application has no pusher for Web Push.
    NoPusher,
    /// The token is none that is awaited.
    UnknownToken,
    /// The token came too late.
    ExpiredToken,
}

/// A new token, which is awaited from now on.
pub(crate) fn awaited(source: &dyn Random, now_ms: u64) -> Activation {
    Activation::Awaited {
        token: random::alphanumeric(source, TOKEN_CHARS),
        until_ms: now_ms + TOKEN_LIFETIME_MS,
    }
}

/// What MSC4174 asks of a subscription: an https URL, a public key of P-256 in the uncompressed form, and a secret of
/// 16 bytes, both in URL-safe Base64 without padding.
pub(crate) fn check(url: &str, pushkey: &str, auth: Option<&Value>) -> Result<()> {
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(0));
    let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_authority(authority) || !is_path {
        return Err(Error::InvalidParam("data.url must be an https URL with a path"));
    }
    let key = URL_SAFE_NO_PAD.decode(pushkey).unwrap_or_default();
    if key.len() != PUBLIC_KEY_BYTES || key[0] != UNCOMPRESSED {
        return Err(Error::InvalidParam(
            "The pushkey must be a public key of P-256, uncompressed, in URL-safe Base64",
        ));
    }
    let auth = auth.ok_or(Error::MissingParam("A pusher of kind webpush needs data.auth"))?;
    let secret = auth.as_str().and_then(|auth| URL_SAFE_NO_PAD.decode(auth).ok());
    match secret.is_some_and(|secret| secret.len() == AUTH_BYTES) {
        true => Ok(()),
        false => Err(Error::InvalidParam(
            "data.auth must be 16 bytes in URL-safe Base64",
        )),
    }
}

impl User {
    /// Takes back the token that a subscription of Web Push was sent (MSC4174).
    pub async fn activate_pusher(&self, app_id: &str, token: &str) -> Result<Activated> {
        let now_ms = self.users.now_ms();
        self.write(|tx| {
            let mut outcome = Activated::NoPusher;
            for (row, value) in tx.scan(Family::User, &keys::user(self.key, field::PUSHER, ""))? {
                let mut pusher: Pusher = record::decode(&value)?;
                if pusher.app_id != app_id || !pusher.is_web_push() {
                    continue;
                }
                match &pusher.activation {
                    Activation::Awaited {
                        token: awaited,
                        until_ms,
                    } if awaited == token => {
                        if *until_ms <= now_ms {
                            return Ok(Activated::ExpiredToken);
                        }
                        pusher.activation = Activation::Done;
                        tx.put(Family::User, row, record::encode(&pusher));
                        return Ok(Activated::Done);
                    }
                    _ => outcome = Activated::UnknownToken,
                }
            }
            Ok(outcome)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions() {
        let key = URL_SAFE_NO_PAD.encode([&[UNCOMPRESSED][..], &[7; 64]].concat());
        let short = URL_SAFE_NO_PAD.encode([2; 33]);
        let auth = Value::from(URL_SAFE_NO_PAD.encode([1; 16]));
        let url = "https://push.example.org/subscription/abc?d=e";
        for (url, key, auth, good) in [
            (url, &key, Some(&auth), true),
            ("https://push.example.org:8443/", &key, Some(&auth), true),
            ("http://push.example.org/abc", &key, Some(&auth), false),
            ("https://push.example.org", &key, Some(&auth), false),
            ("https://user@push.example.org/abc", &key, Some(&auth), false),
            ("https://push.example.org/a b", &key, Some(&auth), false),
            (url, &short, Some(&auth), false),
            (url, &key, Some(&Value::from("AAAA")), false),
            (url, &key, Some(&Value::from(5)), false),
            (url, &key, None, false),
        ] {
            assert_eq!(check(url, key, auth).is_ok(), good, "{url} {key} {auth:?}");
        }
    }
}
