//! The registration file as it is written by bridges: YAML with the fields of the specification.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One registration file, before its patterns are compiled.
///
/// Unknown keys are kept rather than refused: bridges write keys of unstable features into their
/// registrations, and a server that stops at one of them would not start.
#[derive(Clone, Debug, Deserialize)]
pub struct RegistrationFile {
    /// A unique id that never changes.
    pub id: String,
    /// Where the application service listens; null when it wants no traffic.
    pub url: Option<String>,
    /// The token with which the application service authenticates at this server.
    pub as_token: String,
    /// The token with which this server authenticates at the application service.
    pub hs_token: String,
    /// The localpart of the application service's own user.
    pub sender_localpart: String,
    /// What the application service is interested in.
    #[serde(default)]
    pub namespaces: NamespacesFile,
    /// Whether requests of masqueraded users are rate limited.
    pub rate_limited: Option<bool>,
    /// The external protocols that the application service provides.
    pub protocols: Option<Vec<String>>,
    /// Whether typing, receipts and presence are sent too.
    pub receive_ephemeral: Option<bool>,
    /// The same under the name that it had in the proposal. Bridges write both.
    #[serde(rename = "de.sorunome.msc2409.push_ephemeral")]
    pub push_ephemeral: Option<bool>,
    /// Keys that this server does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_yaml_ng::Value>,
}

impl RegistrationFile {
    /// Whether typing, receipts and presence are sent too, by either name.
    pub fn takes_ephemeral(&self) -> bool {
        self.receive_ephemeral.or(self.push_ephemeral).unwrap_or(false)
    }
}

/// The three lists of namespaces; a list that is null is an empty one.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NamespacesFile {
    /// User ids.
    pub users: Option<Vec<NamespaceFile>>,
    /// Room aliases.
    pub aliases: Option<Vec<NamespaceFile>>,
    /// Room ids.
    pub rooms: Option<Vec<NamespaceFile>>,
}

/// One namespace as written in the file.
#[derive(Clone, Debug, Deserialize)]
pub struct NamespaceFile {
    /// Whether nobody else may create what matches.
    pub exclusive: bool,
    /// The pattern.
    pub regex: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_example_of_the_specification() {
        let text = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot"
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;
        let file: RegistrationFile = serde_yaml_ng::from_str(text).unwrap();
        assert_eq!(file.id, "IRC Bridge");
        assert_eq!(file.url.as_deref(), Some("http://127.0.0.1:1234"));
        assert_eq!(file.namespaces.users.unwrap().len(), 1);
        assert!(file.rate_limited.is_none());
    }

    #[test]
    fn null_lists_unknown_keys_and_a_null_url_are_accepted() {
        let text = "id: x\nurl: null\nas_token: a\nhs_token: b\nsender_localpart: s\n\
                    namespaces:\n  users: null\nio.element.msc4190: true\n\
                    de.sorunome.msc2409.push_ephemeral: true\n";
        let file: RegistrationFile = serde_yaml_ng::from_str(text).unwrap();
        assert!(file.url.is_none());
        assert!(file.namespaces.users.is_none());
        assert!(file.takes_ephemeral());
        assert_eq!(file.other.len(), 1);
    }

    #[test]
    fn both_names_of_a_key_may_stand_beside_each_other() {
        let text = "id: x\nurl: null\nas_token: a\nhs_token: b\nsender_localpart: s\n\
                    namespaces: {}\nde.sorunome.msc2409.push_ephemeral: true\nreceive_ephemeral: false\n";
        let file: RegistrationFile = serde_yaml_ng::from_str(text).unwrap();
        assert!(!file.takes_ephemeral());
    }
}
