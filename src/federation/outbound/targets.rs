//! To which servers an event goes.

use hearth_rooms::{Error, Event, Flags, Membership, Room};
use ruma::{OwnedServerName, OwnedUserId, ServerName};

/// The flag of an event of another server that this one accepted for it and must hand on: a join, a leave or a knock
/// that came in through the two-step requests.
pub(crate) const FORWARD: u16 = 16;

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
    let is_hidden = [Flags::OUTLIER, Flags::REJECTED, Flags::SOFT_FAILED]
        .iter()
        .any(|flag| flags.has(*flag));
    !is_hidden && (event.pdu.sender().server_name() == own || flags.has(FORWARD))
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
    targets.retain(|target| target.server != own && target.server != sender);
    if !targets.is_empty()
        && let Some(acl) = acl_of(room)?
    {
        targets.retain(|target| target.is_last || acl.allows(&target.server));
    }
    Ok(targets)
}

/// The member whom an event takes out of the room, or whose invitation it takes back.
fn removed_member(event: &Event) -> Option<OwnedUserId> {
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

/// Which servers a room admits.
pub(crate) struct Acl {
    allow: Vec<String>,
    deny: Vec<String>,
    allow_ip_literals: bool,
}

/// The room's `m.room.server_acl`, if it has one (server-server API, "Server Access Control Lists").
pub(crate) fn acl_of(room: &Room) -> Result<Option<Acl>, Error> {
    let Some(event) = room.state("m.room.server_acl", "")? else {
        return Ok(None);
    };
    let content: serde_json::Value = serde_json::from_slice(event.pdu.content()).unwrap_or_default();
    let list = |name: &str| {
        let list = content.get(name).and_then(serde_json::Value::as_array);
        let texts = list.into_iter().flatten().filter_map(serde_json::Value::as_str);
        texts.map(str::to_lowercase).collect()
    };
    let allow_ip_literals = content.get("allow_ip_literals") != Some(&serde_json::Value::Bool(false));
    Ok(Some(Acl {
        allow: list("allow"),
        deny: list("deny"),
        allow_ip_literals,
    }))
}

impl Acl {
    /// Whether a server may take part.
    pub(crate) fn allows(&self, server: &ServerName) -> bool {
        let host = server.host().to_lowercase();
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let matches = |list: &[String]| {
            list.iter()
                .any(|glob| glob_matches(glob.as_bytes(), host.as_bytes()))
        };
        !matches(&self.deny) && matches(&self.allow)
    }
}

/// Whether a name matches a pattern with `*` and `?`, in time linear in both for each star.
fn glob_matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while pos < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[pos] => {
                at += 1;
                pos += 1;
            }
            _ => match star {
                Some((star_at, star_pos)) => {
                    at = star_at + 1;
                    pos = star_pos + 1;
                    star = Some((star_at, star_pos + 1));
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, expected) in [
            ("*", "a.b", true),
            ("*.evil.com", "x.evil.com", true),
            ("*.evil.com", "evil.com", false),
            ("e?il.com", "evil.com", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                glob_matches(glob.as_bytes(), name.as_bytes()),
                expected,
                "{glob} {name}"
            );
        }
    }
}
