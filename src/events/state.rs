use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::json::{elements, get, string};
use crate::{Error, Rules, base64_decode};

/// What a user is to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Membership {
    /// In the room.
    Join = 1,
    /// Asked to come in.
    Invite = 2,
    /// Not in the room any more, or never was.
    Leave = 3,
    /// Kept out.
    Ban = 4,
    /// Asking to be let in.
    Knock = 5,
}

impl Membership {
    /// Reads the string of the specification.
    pub fn parse(text: &str) -> Option<Membership> {
        Some(match text {
            "join" => Membership::Join,
            "invite" => Membership::Invite,
            "leave" => Membership::Leave,
            "ban" => Membership::Ban,
            "knock" => Membership::Knock,
            _ => return None,
        })
    }

    /// The string of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Membership::Join => "join",
            Membership::Invite => "invite",
            Membership::Leave => "leave",
            Membership::Ban => "ban",
            Membership::Knock => "knock",
        }
    }

    /// The membership with this number, as stored.
    pub fn from_u8(number: u8) -> Option<Membership> {
        [
            Membership::Join,
            Membership::Invite,
            Membership::Leave,
            Membership::Ban,
            Membership::Knock,
        ]
        .into_iter()
        .find(|m| *m as u8 == number)
    }
}

/// What authorization asks of an `m.room.member` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// The membership.
    pub membership: Membership,
}

impl MemberInfo {
    /// Reads the content of a member event.
    pub fn parse(content: &[u8]) -> Result<MemberInfo, Error> {
        let membership = get(content, "membership")
            .and_then(string)
            .and_then(|text| Membership::parse(&text));
        membership
            .map(|membership| MemberInfo { membership })
            .ok_or_else(|| Error::Format("`membership` is missing or unknown".to_owned()))
    }
}

/// What is asked of an `m.room.create` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateInfo {
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who made the room.
    pub sender: OwnedUserId,
    /// The creators, the one who made the room first.
    pub creators: Vec<OwnedUserId>,
    /// Whether creators have infinite power.
    pub privileged_creators: bool,
    /// Whether users of other servers may take part.
    pub federate: bool,
    /// The room's type, as `m.space`.
    pub room_type: Option<String>,
    /// The room that this one replaces.
    pub predecessor: Option<OwnedRoomId>,
}

impl CreateInfo {
    /// Reads a create event.
    pub fn parse(
        rules: &Rules,
        event_id: &EventId,
        sender: &UserId,
        content: &[u8],
    ) -> Result<CreateInfo, Error> {
        let creator = if rules.authorization.use_room_create_sender {
            sender.to_owned()
        } else {
            let creator = get(content, "creator")
                .and_then(string)
                .and_then(|user| UserId::parse(&*user).ok());
            creator.ok_or_else(|| Error::Format("`creator` is not a user id".to_owned()))?
        };
        let mut creators = vec![creator];
        creators.extend(additional_creators(rules, content)?);
        let federate = match get(content, "m.federate") {
            None | Some(b"true" | b"null") => true,
            Some(b"false") => false,
            Some(_) => return Err(Error::Format("`m.federate` is not a boolean".to_owned())),
        };
        Ok(CreateInfo {
            event_id: event_id.to_owned(),
            sender: sender.to_owned(),
            creators,
            privileged_creators: rules.authorization.explicitly_privilege_room_creators,
            federate,
            room_type: get(content, "type")
                .and_then(string)
                .map(|kind| kind.into_owned()),
            predecessor: get(content, "predecessor")
                .and_then(|p| get(p, "room_id"))
                .and_then(string)
                .and_then(|id| RoomId::parse(&*id).ok()),
        })
    }
}

/// The users that share the creator's power, in room versions that know such.
pub(crate) fn additional_creators(rules: &Rules, content: &[u8]) -> Result<Vec<OwnedUserId>, Error> {
    let Some(value) =
        get(content, "additional_creators").filter(|_| rules.authorization.additional_room_creators)
    else {
        return Ok(Vec::new());
    };
    if !value.starts_with(b"[") {
        return Err(Error::Format("`additional_creators` is not an array".to_owned()));
    }
    let users = elements(value).map(|user| string(user).and_then(|user| UserId::parse(&*user).ok()));
    users
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Format("`additional_creators` has an entry that is not a user id".to_owned()))
}

/// How users come into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRule {
    /// Anybody may join.
    Public,
    /// Only who is invited.
    Invite,
    /// Who is invited; anybody may ask for it.
    Knock,
    /// Who is invited or fulfils a condition.
    Restricted,
    /// The same, and anybody may ask for an invitation.
    KnockRestricted,
    /// `private`, and whatever this server does not know: nobody.
    Other,
}

impl JoinRule {
    /// Reads the string of the specification.
    pub fn parse(text: &str) -> JoinRule {
        match text {
            "public" => JoinRule::Public,
            "invite" => JoinRule::Invite,
            "knock" => JoinRule::Knock,
            "restricted" => JoinRule::Restricted,
            "knock_restricted" => JoinRule::KnockRestricted,
            _ => JoinRule::Other,
        }
    }

    /// The string of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            JoinRule::Public => "public",
            JoinRule::Invite => "invite",
            JoinRule::Knock => "knock",
            JoinRule::Restricted => "restricted",
            JoinRule::KnockRestricted => "knock_restricted",
            JoinRule::Other => "private",
        }
    }
}

/// A condition of a restricted room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// Whoever is in this room.
    RoomMembership(OwnedRoomId),
    /// A condition that this server does not know; nobody fulfils it.
    Other,
}

/// An `m.room.join_rules` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRuleInfo {
    /// The rule.
    pub rule: JoinRule,
    /// The conditions of a restricted room.
    pub allow: Vec<AllowRule>,
}

impl Default for JoinRuleInfo {
    /// The rule of a room without such an event: only who is invited.
    fn default() -> Self {
        JoinRuleInfo {
            rule: JoinRule::Invite,
            allow: Vec::new(),
        }
    }
}

impl JoinRuleInfo {
    /// Reads the content of a join rules event. What cannot be read lets nobody in.
    pub fn parse(content: &[u8]) -> JoinRuleInfo {
        let rule = get(content, "join_rule")
            .and_then(string)
            .map_or(JoinRule::Other, |rule| JoinRule::parse(&rule));
        let condition = |entry: &[u8]| {
            if get(entry, "type") != Some(b"\"m.room_membership\"") {
                return AllowRule::Other;
            }
            let room = get(entry, "room_id")
                .and_then(string)
                .and_then(|room| RoomId::parse(&*room).ok());
            room.map_or(AllowRule::Other, AllowRule::RoomMembership)
        };
        JoinRuleInfo {
            rule,
            allow: get(content, "allow")
                .map(|allow| elements(allow).map(condition).collect())
                .unwrap_or_default(),
        }
    }
}

/// An `m.room.third_party_invite` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThirdPartyInviteInfo {
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The keys that may sign for the one who is invited.
    pub public_keys: Vec<[u8; 32]>,
}

impl ThirdPartyInviteInfo {
    /// Reads such an event. Keys that cannot be read are passed over.
    pub fn parse(sender: &UserId, content: &[u8]) -> ThirdPartyInviteInfo {
        let decode = |key: &[u8]| base64_decode(&string(key)?).and_then(|key| <[u8; 32]>::try_from(key).ok());
        let single = get(content, "public_key").and_then(decode);
        let listed = get(content, "public_keys")
            .into_iter()
            .flat_map(elements)
            .filter_map(|entry| get(entry, "public_key").and_then(decode));
        ThirdPartyInviteInfo {
            sender: sender.to_owned(),
            public_keys: single.into_iter().chain(listed).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_as_stored() {
        for (number, text) in [(1, "join"), (2, "invite"), (3, "leave"), (4, "ban"), (5, "knock")] {
            let membership = Membership::parse(text).unwrap();
            assert_eq!(
                (membership as u8, membership.as_str(), Membership::from_u8(number)),
                (number, text, Some(membership))
            );
        }
        assert_eq!(
            (
                Membership::from_u8(0),
                Membership::from_u8(6),
                Membership::parse("x")
            ),
            (None, None, None)
        );
    }

    #[test]
    fn create_events() {
        let id = EventId::parse("$c").unwrap();
        let sender = UserId::parse("@a:s").unwrap();
        let read = |version: usize, content: &str| {
            CreateInfo::parse(&Rules::all()[version - 1], &id, &sender, content.as_bytes())
        };
        let old = read(1, r#"{"creator":"@b:s","m.federate":false,"type":"m.space"}"#).unwrap();
        assert_eq!(
            (
                old.creators[0].as_str(),
                old.federate,
                old.room_type.as_deref(),
                old.privileged_creators
            ),
            ("@b:s", false, Some("m.space"), false)
        );
        assert!(read(10, "{}").is_err());
        assert!(read(11, "{}").unwrap().federate);
        let new = read(
            12,
            r#"{"additional_creators":["@b:s"],"predecessor":{"room_id":"!old:s"}}"#,
        )
        .unwrap();
        assert_eq!(
            (
                new.creators.len(),
                new.privileged_creators,
                new.predecessor.unwrap().as_str()
            ),
            (2, true, "!old:s")
        );
        assert!(read(12, r#"{"additional_creators":["b"]}"#).is_err());
        assert!(read(12, r#"{"additional_creators":null}"#).is_err());
        assert!(read(11, r#"{"additional_creators":null}"#).is_ok());
    }

    #[test]
    fn join_rules() {
        let read = |content: &str| JoinRuleInfo::parse(content.as_bytes());
        assert_eq!(read(r#"{"join_rule":"public"}"#).rule, JoinRule::Public);
        assert_eq!(read("{}").rule, JoinRule::Other);
        let room = RoomId::parse("!r:s").unwrap();
        let restricted = read(
            r#"{"allow":[{"room_id":"!r:s","type":"m.room_membership"},{"type":"x"},5],"join_rule":"restricted"}"#,
        );
        assert_eq!(
            restricted.allow,
            [
                AllowRule::RoomMembership(room),
                AllowRule::Other,
                AllowRule::Other
            ]
        );
    }
}
