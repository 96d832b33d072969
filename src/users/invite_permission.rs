//! Who may invite a user (client-server API, "Invite permission"; MSC4155).

use ruma::UserId;
use serde::Deserialize;

use crate::error::Result;
use crate::user::User;

/// The type of the account data in which a user takes no invitations.
const PERMISSION: &str = "m.invite_permission_config";
/// The same under the name that it had while MSC4380 was open.
const PERMISSION_UNSTABLE: &str = "org.matrix.msc4380.invite_permission_config";
/// The type of the account data with lists of users and servers.
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

/// Whether account data of a type says which invitations a user is told of.
pub fn is_invite_setting(kind: &str) -> bool {
    [PERMISSION, PERMISSION_UNSTABLE, LISTS, crate::data::IGNORED_USERS].contains(&kind)
}

/// What becomes of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteVerdict {
    /// The user is told of it.
    Take,
    /// The user is not told of it, and the inviter does not learn that.
    Ignore,
    /// It is refused.
    Block,
}

#[derive(Deserialize)]
struct Permission {
    default_action: Option<String>,
}

#[derive(Deserialize)]
struct Lists {
    enabled: Option<bool>,
    allowed_users: Option<Vec<String>>,
    ignored_users: Option<Vec<String>>,
    blocked_users: Option<Vec<String>>,
    allowed_servers: Option<Vec<String>>,
    ignored_servers: Option<Vec<String>>,
    blocked_servers: Option<Vec<String>>,
}

impl Lists {
    fn verdict(&self, inviter: &UserId) -> InviteVerdict {
        use InviteVerdict::{Block, Ignore, Take};
        if self.enabled == Some(false) {
            return Take;
        }
        let (user, server) = (inviter.as_str(), inviter.server_name().host());
        for (list, text, verdict) in [
            (&self.allowed_users, user, Take),
            (&self.ignored_users, user, Ignore),
            (&self.blocked_users, user, Block),
            (&self.allowed_servers, server, Take),
            (&self.ignored_servers, server, Ignore),
            (&self.blocked_servers, server, Block),
        ] {
            let mut globs = list.iter().flatten();
            if globs.any(|glob| hearth_events::push::glob(glob, text)) {
                return verdict;
            }
        }
        Take
    }
}

impl User {
    /// What becomes of an invitation by `inviter`. Settings that make no sense forbid nothing.
    pub fn invite_verdict(&self, inviter: &UserId) -> Result<InviteVerdict> {
        // Where both are set the name of the specification decides.
        let permission = match self.account_data(None, PERMISSION)? {
            Some(permission) => Some(permission),
            None => self.account_data(None, PERMISSION_UNSTABLE)?,
        };
        let permission = permission.and_then(|raw| serde_json::from_str::<Permission>(raw.get()).ok());
        if permission.is_some_and(|permission| permission.default_action.as_deref() == Some("block")) {
            return Ok(InviteVerdict::Block);
        }
        let lists = self.account_data(None, LISTS)?;
        let lists = lists.and_then(|lists| serde_json::from_str::<Lists>(lists.get()).ok());
        Ok(lists.map_or(InviteVerdict::Take, |lists| lists.verdict(inviter)))
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_list_that_names_somebody_decides() {
        use InviteVerdict::{Block, Ignore, Take};
        let check = |lists: serde_json::Value, expected: InviteVerdict| {
            let parsed: Lists = serde_json::from_value(lists.clone()).unwrap();
            assert_eq!(parsed.verdict(user_id!("@bob:hs2:8448")), expected, "{lists}");
        };
        check(json!({}), Take);
        check(json!({"blocked_users": null}), Take);
        check(json!({"blocked_users": ["@b?b:*"]}), Block);
        check(
            json!({"ignored_users": ["@bob:hs2:8448"], "blocked_users": ["*"]}),
            Ignore,
        );
        check(json!({"allowed_users": ["@bob:*"], "ignored_users": ["*"]}), Take);
        check(json!({"blocked_servers": ["hs*"]}), Block);
        check(json!({"ignored_servers": ["hs2"]}), Ignore);
        check(
            json!({"allowed_servers": ["hs2"], "blocked_servers": ["*"]}),
            Take,
        );
        check(
            json!({"allowed_servers": ["hs2"], "blocked_users": ["@bob:*"]}),
            Block,
        );
        check(json!({"enabled": false, "blocked_users": ["*"]}), Take);
    }
}
