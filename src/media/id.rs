//! `mxc://` names.

use ruma::{OwnedServerName, ServerName};

/// The longest media id, in bytes: the specification's limit for identifiers.
const MEDIA_ID_MAX_BYTES: usize = 255;

/// A media item's name: server and media id, both checked, so that no path or key can be forged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId {
    server: OwnedServerName,
    id: String,
}

impl MediaId {
    /// The name, if both parts are well-formed. A media id has letters, digits, `_` and `-` only.
    pub fn new(server: &str, id: &str) -> Option<Self> {
        let server = ServerName::parse(server).ok()?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let valid = !id.is_empty() && id.len() <= MEDIA_ID_MAX_BYTES && id.bytes().all(allowed);
        valid.then(|| Self {
            server,
            id: id.to_owned(),
        })
    }

    /// The name of a stored `server/id` key.
    pub fn from_key(key: &str) -> Option<Self> {
        let (server, id) = key.rsplit_once('/')?;
        Self::new(server, id)
    }

    /// The server where the content originated.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The opaque part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The entity's name, `server/id`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.server, self.id)
    }

    /// The `mxc://` URI.
    pub fn uri(&self) -> String {
        format!("mxc://{}/{}", self.server, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let long = "a".repeat(256);
        for (server, id, valid) in [
            ("example.org", "AQwafuaFswefuhsfAFAgsw", true),
            ("example.org:8448", "a-b_C", true),
            ("[::1]:1", "a", true),
            ("example.org", "", false),
            ("example.org", "..", false),
            ("example.org", "a/b", false),
            ("example.org", "ä", false),
            ("example.org", "a%2fb", false),
            ("example.org", long.as_str(), false),
            ("", "a", false),
            ("..", "a/../b", false),
            ("127.0.0.1/../..", "a", false),
        ] {
            assert_eq!(MediaId::new(server, id).is_some(), valid, "{server} {id}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_name_survives_its_key(server in "[a-z.:0-9/]{0,12}", id in "[a-zA-Z0-9_./-]{0,12}") {
            if let Some(name) = MediaId::new(&server, &id) {
                prop_assert_eq!(MediaId::from_key(&name.key()), Some(name));
            }
        }
    }
}
