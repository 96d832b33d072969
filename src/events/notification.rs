//! What an event counts for under the default push rules, without looking at any single user.

use ruma::UserId;
use ruma::push::Ruleset;

use crate::json::{elements, get, string};

/// The push rules of a user who has changed none.
pub fn default_ruleset(user: &UserId) -> Ruleset {
    Ruleset::server_default(user)
}

/// What an event counts for with everybody who has the default rules and is not named by it. Its sender is never notified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// It raises the number of notifications.
    pub notify: bool,
    /// It raises the number of highlights, too.
    pub highlight: bool,
    /// It may count for more with some users: it mentions them, or is their invitation.
    pub personal: bool,
}

impl Class {
    /// The stored form.
    pub fn to_u8(self) -> u8 {
        u8::from(self.notify) | u8::from(self.highlight) << 1 | u8::from(self.personal) << 2
    }

    /// Reads the stored form.
    pub fn from_u8(bits: u8) -> Class {
        Class { notify: bits & 1 != 0, highlight: bits & 2 != 0, personal: bits & 4 != 0 }
    }
}

/// The class of an event. `may_notify_room` tells whether its sender has the power to mention the whole room.
///
/// The order is that of the rules; the first that fits decides.
pub fn class(kind: &str, state_key: Option<&str>, content: &[u8], may_notify_room: bool) -> Class {
    let text = |name: &str| get(content, name).and_then(string);
    let silent = Class::default();
    let personal = !mentioned_raw(content).is_empty();
    if kind == "m.room.message" && text("msgtype").as_deref() == Some("m.notice") {
        return silent;
    }
    if kind == "m.room.member" {
        return Class { personal: text("membership").as_deref() == Some("invite"), ..silent };
    }
    if get(content, "m.mentions").and_then(|mentions| get(mentions, "room")) == Some(b"true") && may_notify_room {
        return Class { notify: true, highlight: true, personal };
    }
    if kind == "m.room.tombstone" && state_key == Some("") {
        return Class { notify: true, highlight: true, personal };
    }
    if kind == "m.reaction" || (kind == "m.room.server_acl" && state_key == Some("")) {
        return Class { personal, ..silent };
    }
    let relation = get(content, "m.relates_to").and_then(|relation| get(relation, "rel_type"));
    if relation == Some(b"\"m.replace\"") {
        return Class { personal, ..silent };
    }
    let notify = matches!(kind, "m.call.invite" | "m.room.message" | "m.room.encrypted");
    Class { notify, highlight: false, personal }
}

/// The users that an event mentions.
pub fn mentioned(content: &[u8]) -> Vec<String> {
    mentioned_raw(content).into_iter().filter_map(string).map(|user| user.into_owned()).collect()
}

fn mentioned_raw(content: &[u8]) -> Vec<&[u8]> {
    let users = get(content, "m.mentions").and_then(|mentions| get(mentions, "user_ids"));
    users.into_iter().flat_map(elements).collect()
}
