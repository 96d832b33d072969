//! To which servers an event goes.

use hearth_rooms::{Error, Event, Flags, Membership, Room};
use ruma::{OwnedServerName, OwnedUserId, ServerName};

/// A server that an event goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) server: OwnedServerName,
    /// Whether this may be the last event of the room that the server gets: it has nobody joined there.
    pub(crate) is_last: bool,
}

/// Whether this server distributes an event.
pub(crate) fn is_ours(event: &Event, own: &ServerName) -> bool {
    let flags = event.header.flags;
    let is_hidden = [
        Flags::OUTLIER,
        Flags::REJECTED,
        Flags::SOFT_FAILED,
        Flags::HANDED_OVER,
    ]
    .iter()
    .any(|flag| flags.has(*flag));
    !is_hidden && (event.pdu.sender().server_name() == own || flags.has(Flags::FORWARD))
}

/// The servers that must get an event: those with joined members, and the server of a member whom it concerns.
pub(crate) fn of_event(room: &Room, event: &Event, own: &ServerName) -> Result<Vec<Target>, Error> {
    let sender = event.pdu.sender().server_name();
    let mut targets: Vec<Target> = room
        .servers()
        .into_iter()
        .map(|server| Target {
            server,
            is_last: false,
        })
        .collect();
    if let Some(member) = removed_member(event)
        && !targets.iter().any(|target| target.server == member.server_name())
    {
        targets.push(Target {
            server: member.server_name().to_owned(),
            is_last: true,
        });
    }
    // Servers that the access list denies are told like others: what they send is refused, not what they may read.
    targets.retain(|target| target.server != own && target.server != sender);
    Ok(targets)
}

/// The member whom an event takes out of the room, or whose invitation it takes back.
pub(crate) fn removed_member(event: &Event) -> Option<OwnedUserId> {
    let member = event
        .pdu
        .state_key()
        .filter(|_| event.pdu.kind() == "m.room.member")?;
    let membership = membership_of(event)?;
    matches!(membership, Membership::Leave | Membership::Ban)
        .then(|| OwnedUserId::try_from(member).ok())
        .flatten()
}

/// The membership that a member event sets.
pub(crate) fn membership_of(event: &Event) -> Option<Membership> {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        membership: &'a str,
    }
    let content: Content<'_> = serde_json::from_slice(event.pdu.content()).ok()?;
    Some(match content.membership {
        "join" => Membership::Join,
        "invite" => Membership::Invite,
        "leave" => Membership::Leave,
        "ban" => Membership::Ban,
        "knock" => Membership::Knock,
        _ => return None,
    })
}
