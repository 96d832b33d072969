//! The texts of tokens, and what is stored of them: a hash, never the text.
//!
//! `hth_<slot, 4 hex digits>_<43 letters>`: the slot in clear makes the look-up one read, the 43
//! letters of 62 are 256 random bits. Refresh, login and OpenID tokens differ in their first word.

use hearth_core::random::{Random, alphanumeric};
use hearth_storage::Slot;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenKind {
    Access,
    Refresh,
    Login,
    #[serde(rename = "openid")]
    OpenId,
}

impl TokenKind {
    fn word(self) -> &'static str {
        match self {
            Self::Access => "hth",
            Self::Refresh => "hthr",
            Self::Login => "hthl",
            Self::OpenId => "htho",
        }
    }
}

/// The BLAKE3 hash of a token's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hash(pub [u8; 32]);

impl Hash {
    pub(crate) fn of(text: &str) -> Self {
        Self(*blake3::hash(text.as_bytes()).as_bytes())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// What `user_token` holds for a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub user_id: OwnedUserId,
    /// The user's number in the slot.
    pub no: u32,
    pub device_id: OwnedDeviceId,
    pub kind: TokenKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Made by a refresh and not used yet: its first use ends the tokens before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

/// A new token: the text for the client, and its hash.
pub(crate) fn make(random: &dyn Random, kind: TokenKind, slot: Slot) -> (String, Hash) {
    let text = format!("{}_{:04x}_{}", kind.word(), slot.get(), alphanumeric(random, 43));
    let hash = Hash::of(&text);
    (text, hash)
}

/// The slot and hash of a token text of the given kind, if it has the right form.
pub(crate) fn parse(kind: TokenKind, text: &str) -> Option<(Slot, Hash)> {
    let rest = text.strip_prefix(kind.word())?.strip_prefix('_')?;
    let (slot, secret) = rest.split_once('_')?;
    if slot.len() != 4 || secret.len() != 43 || !secret.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let slot = u16::from_str_radix(slot, 16).ok().and_then(Slot::new)?;
    Some((slot, Hash::of(text)))
}

#[cfg(test)]
mod tests {
    use hearth_core::random::SeededRandom;

    use super::*;

    #[test]
    fn tokens_parse_as_what_they_are() {
        let slot = Slot::new(0x12ab).unwrap();
        let (text, hash) = make(&SeededRandom::new(1), TokenKind::Access, slot);
        assert!(text.starts_with("hth_12ab_"), "{text}");
        assert_eq!(parse(TokenKind::Access, &text), Some((slot, hash)));
        assert_eq!(parse(TokenKind::Refresh, &text), None);
        for bad in [
            "",
            "hth_",
            "hth_12ab_short",
            "hth_ffff_",
            &text[..text.len() - 1],
            "hth_+2ab_",
            "\u{0}",
        ] {
            assert_eq!(parse(TokenKind::Access, bad), None, "{bad}");
        }
    }

    #[test]
    fn hashes_are_stored_as_hex() {
        let hash = Hash::of("x");
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json.len(), 66);
        assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
        assert!(serde_json::from_str::<Hash>("\"zz\"").is_err());
    }
}
