//! What a local user waits for in a room that is not here, and who may end it. The room's state is not known, so the rules
//! cannot be asked: what the user's server was told counts, and what only those in the room can know.

use hearth_events::{CreateInfo, Pdu, PowerField, PowerLevels, PowerView, Rules};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Membership};

/// An invitation to a room that this server is not in, or a knock at one.
pub enum Awaited {
    /// The user was invited.
    Invitation {
        /// By whom.
        inviter: OwnedUserId,
    },
    /// The user knocks.
    Knock {
        /// The knock.
        event_id: OwnedEventId,
        /// The server that took it.
        via: Option<OwnedServerName>,
        /// What that server showed of the room.
        shown: Vec<Box<RawValue>>,
    },
}

impl Awaited {
    /// Whether an event that takes the user out may end this. It is of its sender's server, and signed.
    pub(super) fn check_end(&self, rules: &Rules, pdu: &Pdu, user: &UserId) -> Result<(), Error> {
        match self {
            // Others who may take it back have no way to show it.
            Self::Invitation { inviter } if pdu.sender() == inviter => Ok(()),
            Self::Invitation { .. } => Err(Error::Forbidden(
                "Only the inviting user ends an invitation".to_owned(),
            )),
            Self::Knock { event_id, via, shown } => {
                // The membership that it changes is among the events that allow it (server-server API, "Auth events
                // selection"), and only servers that were sent the knock know what it is called.
                if !pdu.auth_events().contains(event_id) {
                    return Err(Error::Forbidden("The event does not name the knock".to_owned()));
                }
                // What this server was shown may be out of date, but not to the server that showed it.
                if via.as_deref() == Some(pdu.sender().server_name()) || may_by(rules, shown, pdu, user) {
                    return Ok(());
                }
                Err(Error::Forbidden(
                    "The sender may not decide about those who knock".to_owned(),
                ))
            }
        }
    }
}

#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    sender: OwnedUserId,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// Whether the power levels that were shown allow an event that takes a user out. Where none were shown, nothing speaks
/// against it.
fn may_by(rules: &Rules, shown: &[Box<RawValue>], pdu: &Pdu, user: &UserId) -> bool {
    let shown: Vec<Shown<'_>> = shown
        .iter()
        .filter_map(|event| serde_json::from_str(event.get()).ok())
        .collect();
    let find = |kind: &str| {
        shown
            .iter()
            .find(|event| event.kind == kind && event.state_key.is_empty())
    };
    let (Some(create), Some(levels)) = (find("m.room.create"), find("m.room.power_levels")) else {
        return true;
    };
    let create = CreateInfo::parse(
        rules,
        &pdu.event_id,
        &create.sender,
        create.content.get().as_bytes(),
    );
    let levels = PowerLevels::parse(rules, levels.content.get().as_bytes());
    let (Ok(create), Ok(levels)) = (create, levels) else {
        return true;
    };
    let view = PowerView::new(&create, Some(&levels));
    let needed = match Membership::of_content(pdu.content()) {
        Membership::Ban => PowerField::Ban,
        _ => PowerField::Kick,
    };
    let sender = view.user(pdu.sender());
    sender.reaches(view.field(needed)) && sender > view.user(user)
}
