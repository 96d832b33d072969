//! All registrations of this server, and who owns what.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use hearth_core::error::MatrixError;
use ruma::{OwnedServerName, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId};

use crate::{
    file::RegistrationFile,
    namespace::{Namespaces, any, any_exclusive},
};

/// Why the registrations could not be read. The server does not start with such a mistake, since a
/// bridge that is silently missing is worse than a clear message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file is not a registration.
    #[error("{}: not a valid registration: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Two files claim the same id or token.
    #[error("{}: the same {field} as in {}; every application service needs its own", second.display(), first.display())]
    Duplicate {
        /// `id` or `as_token`; the value is a secret and not shown.
        field: &'static str,
        /// The file that was read first.
        first: PathBuf,
        /// The file that repeats it.
        second: PathBuf,
    },
}

/// One application service.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its unique id.
    pub id: String,
    /// Where it listens, if it wants traffic.
    pub url: Option<String>,
    /// Its token at this server.
    pub as_token: String,
    /// This server's token at it.
    pub hs_token: String,
    /// Its own user.
    pub sender: OwnedUserId,
    /// What it is interested in.
    pub namespaces: Namespaces,
    /// Whether requests of its masqueraded users are rate limited; its own user never is.
    pub rate_limited: bool,
    /// The external protocols that it provides.
    pub protocols: Vec<String>,
    /// Whether it wants typing, receipts and presence.
    pub receive_ephemeral: bool,
}

impl Registration {
    /// Checks and compiles a registration file for a server of this name.
    pub fn compile(file: RegistrationFile, server_name: &ServerName) -> Result<Self, String> {
        for (field, value) in [
            ("id", &file.id),
            ("as_token", &file.as_token),
            ("hs_token", &file.hs_token),
        ] {
            if value.is_empty() {
                return Err(format!("{field} is empty"));
            }
        }
        let sender = UserId::parse(format!("@{}:{server_name}", file.sender_localpart))
            .map_err(|error| format!("sender_localpart makes no valid user id: {error}"))?;
        let receive_ephemeral = file.takes_ephemeral();
        let url = file.url.filter(|url| !url.is_empty());
        if let Some(url) = &url {
            crate::ping::split_url(url).map_err(|error| format!("url: {error}"))?;
        }
        let namespaces = Namespaces::compile(&file.namespaces)
            .map_err(|(pattern, error)| format!("namespace pattern {pattern:?}: {error}"))?;
        Ok(Self {
            id: file.id,
            url,
            as_token: file.as_token,
            hs_token: file.hs_token,
            sender,
            namespaces,
            // The specification names no default; bridges that say nothing send in bursts and
            // other servers limit them, so a file must say `false` to be exempt.
            rate_limited: file.rate_limited.unwrap_or(true),
            protocols: file.protocols.unwrap_or_default(),
            receive_ephemeral,
        })
    }

    /// Whether the application service may act as this local user.
    pub fn controls_user(&self, user: &UserId) -> bool {
        user.server_name() == self.sender.server_name()
            && (user == self.sender || any(&self.namespaces.users, user.as_str()))
    }

    /// Whether events about or seen by this user go to it. Only local users count.
    pub fn is_interested_in_user(&self, user: &UserId) -> bool {
        self.controls_user(user)
    }

    /// Whether events of rooms with this alias go to it.
    pub fn is_interested_in_alias(&self, alias: &RoomAliasId) -> bool {
        any(&self.namespaces.aliases, alias.as_str())
    }

    /// Whether events of this room go to it because of the room's own id.
    pub fn is_interested_in_room(&self, room: &RoomId) -> bool {
        any(&self.namespaces.rooms, room.as_str())
    }

    /// Whether requests of this user, made with the application service's token, are rate limited.
    pub fn limits(&self, user: &UserId) -> bool {
        self.rate_limited && user != self.sender
    }
}

/// All registrations, read once at start.
#[derive(Debug, Default)]
pub struct Registrations {
    all: Vec<Arc<Registration>>,
    /// The map's hash is keyed at random, so how long a look-up takes says nothing about tokens.
    by_token: HashMap<String, Arc<Registration>>,
}

impl Registrations {
    /// Reads every `*.yaml` and `*.yml` of the folder, in the order of their names.
    pub fn load(directory: &Path, server_name: &ServerName) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            if is_yaml && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(io(&path))?;
            files.push((path, text));
        }
        Self::from_texts(files, &server_name.to_owned())
    }

    /// The same from texts already read; the path names the text in messages.
    pub fn from_texts(files: Vec<(PathBuf, String)>, server_name: &OwnedServerName) -> Result<Self, Error> {
        let mut read: Vec<(PathBuf, Registration)> = Vec::new();
        for (path, text) in files {
            let invalid = |message: String| Error::Invalid {
                path: path.clone(),
                message,
            };
            let file: RegistrationFile =
                serde_yaml_ng::from_str(&text).map_err(|error| invalid(error.to_string()))?;
            for key in file.other.keys() {
                tracing::info!(file = %path.display(), key, "unknown key in a registration");
            }
            let registration = Registration::compile(file, server_name).map_err(invalid)?;
            for (first, other) in &read {
                let field = if other.id == registration.id {
                    "id"
                } else if other.as_token == registration.as_token {
                    "as_token"
                } else {
                    continue;
                };
                return Err(Error::Duplicate {
                    field,
                    first: first.clone(),
                    second: path,
                });
            }
            read.push((path, registration));
        }
        let all: Vec<_> = read.into_iter().map(|(_, one)| Arc::new(one)).collect();
        let by_token = all
            .iter()
            .map(|one| (one.as_token.clone(), one.clone()))
            .collect();
        Ok(Self { all, by_token })
    }

    /// Every registration, in the order of the files' names.
    pub fn all(&self) -> &[Arc<Registration>] {
        &self.all
    }

    /// The application service that authenticates with this token.
    pub fn by_token(&self, as_token: &str) -> Option<&Arc<Registration>> {
        self.by_token.get(as_token)
    }

    /// The application service of this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Registration>> {
        self.all.iter().find(|one| one.id == id)
    }

    /// The application service whose own user this is.
    pub fn by_sender(&self, user: &UserId) -> Option<&Arc<Registration>> {
        self.all.iter().find(|one| one.sender == user)
    }

    /// Who alone may create this user. An application service's own user counts as exclusive.
    pub fn exclusive_owner_of_user(&self, user: &UserId) -> Option<&Arc<Registration>> {
        self.all.iter().find(|one| {
            user.server_name() == one.sender.server_name()
                && (user == one.sender || any_exclusive(&one.namespaces.users, user.as_str()))
        })
    }

    /// Who alone may create this alias.
    pub fn exclusive_owner_of_alias(&self, alias: &RoomAliasId) -> Option<&Arc<Registration>> {
        self.all
            .iter()
            .find(|one| any_exclusive(&one.namespaces.aliases, alias.as_str()))
    }

    /// Who alone may manage this room.
    pub fn exclusive_owner_of_room(&self, room: &RoomId) -> Option<&Arc<Registration>> {
        self.all
            .iter()
            .find(|one| any_exclusive(&one.namespaces.rooms, room.as_str()))
    }

    /// Whether `requester` (None for a person) may create or act as this user: M_EXCLUSIVE both
    /// when the user is somebody else's and when an application service leaves its own namespaces.
    pub fn check_user(&self, requester: Option<&Registration>, user: &UserId) -> Result<(), MatrixError> {
        if requester.is_some_and(|requester| !requester.controls_user(user)) {
            return Err(MatrixError::exclusive(
                "The user is not in this application service's namespaces",
            ));
        }
        refuse_foreign(requester, self.exclusive_owner_of_user(user), "user ID")
    }

    /// Whether `requester` (None for a person) may create or delete this alias.
    pub fn check_alias(
        &self,
        requester: Option<&Registration>,
        alias: &RoomAliasId,
    ) -> Result<(), MatrixError> {
        if requester.is_some_and(|requester| !requester.is_interested_in_alias(alias)) {
            return Err(MatrixError::exclusive(
                "The alias is not in this application service's namespaces",
            ));
        }
        refuse_foreign(requester, self.exclusive_owner_of_alias(alias), "room alias")
    }

    /// Every protocol that some application service provides, sorted, once each.
    pub fn protocols(&self) -> Vec<&str> {
        let mut protocols: Vec<&str> = self
            .all
            .iter()
            .flat_map(|one| one.protocols.iter().map(String::as_str))
            .collect();
        protocols.sort_unstable();
        protocols.dedup();
        protocols
    }
}

fn refuse_foreign(
    requester: Option<&Registration>,
    owner: Option<&Arc<Registration>>,
    what: &str,
) -> Result<(), MatrixError> {
    match (requester, owner) {
        (Some(requester), Some(owner)) if requester.id == owner.id => Ok(()),
        (_, None) => Ok(()),
        (_, Some(_)) => Err(MatrixError::exclusive(format!(
            "This {what} is reserved by an application service"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{room_alias_id, room_id, server_name, user_id};

    fn text(id: &str, token: &str, sender: &str, namespaces: &str) -> (PathBuf, String) {
        let text = format!(
            "id: {id}\nurl: http://localhost:1\nas_token: {token}\nhs_token: h\n\
             sender_localpart: {sender}\nnamespaces: {namespaces}\n"
        );
        (PathBuf::from(format!("{id}-{token}.yaml")), text)
    }

    fn bridges() -> Registrations {
        let irc = r##"{users: [{exclusive: true, regex: "@_irc_.*"}, {exclusive: false, regex: "@shared_.*"}], aliases: [{exclusive: true, regex: "#_irc_.*"}], rooms: [{exclusive: true, regex: "!irc.*"}]}"##;
        let xmpp =
            r##"{users: [{exclusive: true, regex: "@_xmpp_.*"}, {exclusive: false, regex: "@shared_.*"}]}"##;
        Registrations::from_texts(
            vec![
                text("irc", "t1", "_ircbot", irc),
                text("xmpp", "t2", "xmppbot", xmpp),
            ],
            &server_name!("example.org").to_owned(),
        )
        .unwrap()
    }

    #[test]
    fn look_ups() {
        let all = bridges();
        assert_eq!(all.by_token("t1").unwrap().id, "irc");
        assert!(all.by_token("t3").is_none());
        assert_eq!(all.by_id("xmpp").unwrap().as_token, "t2");
        assert_eq!(
            all.by_sender(user_id!("@xmppbot:example.org")).unwrap().id,
            "xmpp"
        );
        let owner = |user| all.exclusive_owner_of_user(user).map(|one| one.id.as_str());
        assert_eq!(owner(user_id!("@_irc_a:example.org")), Some("irc"));
        assert_eq!(owner(user_id!("@_ircbot:example.org")), Some("irc"));
        assert_eq!(owner(user_id!("@_irc_a:elsewhere.org")), None);
        assert_eq!(owner(user_id!("@shared_a:example.org")), None);
        let alias = room_alias_id!("#_irc_x:example.org");
        assert_eq!(all.exclusive_owner_of_alias(alias).unwrap().id, "irc");
        let room = room_id!("!irc1:example.org");
        assert_eq!(all.exclusive_owner_of_room(room).unwrap().id, "irc");
        assert!(all.by_id("irc").unwrap().is_interested_in_room(room));
    }

    #[test]
    fn exclusive_in_both_directions() {
        let all = bridges();
        let (irc, xmpp) = (all.by_id("irc").unwrap(), all.by_id("xmpp").unwrap());
        for (requester, user, allowed) in [
            (None, user_id!("@alice:example.org"), true),
            (None, user_id!("@shared_1:example.org"), true),
            (None, user_id!("@_irc_a:example.org"), false),
            (None, user_id!("@_ircbot:example.org"), false),
            (Some(irc), user_id!("@_irc_a:example.org"), true),
            (Some(irc), user_id!("@_ircbot:example.org"), true),
            (Some(irc), user_id!("@shared_1:example.org"), true),
            (Some(irc), user_id!("@alice:example.org"), false),
            (Some(irc), user_id!("@_irc_a:elsewhere.org"), false),
            (Some(xmpp), user_id!("@_irc_a:example.org"), false),
        ] {
            let result = all.check_user(requester.map(|one| &**one), user);
            assert_eq!(result.is_ok(), allowed, "{user}");
            if let Err(error) = result {
                assert_eq!(error.errcode, "M_EXCLUSIVE");
            }
        }
        let alias = room_alias_id!("#_irc_x:example.org");
        assert!(all.check_alias(None, alias).is_err());
        assert!(all.check_alias(Some(irc), alias).is_ok());
        assert!(all.check_alias(Some(xmpp), alias).is_err());
        assert!(
            all.check_alias(Some(irc), room_alias_id!("#x:example.org"))
                .is_err()
        );
    }

    #[test]
    fn mistakes_are_refused_with_a_clear_message() {
        let server = server_name!("example.org").to_owned();
        for (files, expected) in [
            (
                vec![text("a", "t", "x", "{}"), text("a", "u", "y", "{}")],
                "the same id",
            ),
            (
                vec![text("a", "t", "x", "{}"), text("b", "t", "y", "{}")],
                "the same as_token",
            ),
            (vec![text("a", "t", "x:y", "{}")], "sender_localpart"),
            (
                vec![text("a", "t", "x", r#"{users: [{exclusive: true, regex: "("}]}"#)],
                "namespace pattern \"(\"",
            ),
            (
                vec![(PathBuf::from("q.yaml"), "id: 1".into())],
                "q.yaml: not a valid registration",
            ),
            (vec![(PathBuf::from("q.yaml"), "\u{0}".into())], "q.yaml"),
        ] {
            let message = Registrations::from_texts(files, &server).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn reads_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (_, one) = text("a", "t", "x", "{}");
        std::fs::write(folder.path().join("a.yaml"), one).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no registration").unwrap();
        let all = Registrations::load(folder.path(), server_name!("example.org")).unwrap();
        assert_eq!(all.all().len(), 1);
        assert!(all.protocols().is_empty());
        let missing = folder.path().join("missing");
        assert!(Registrations::load(&missing, server_name!("example.org")).is_err());
    }
}
