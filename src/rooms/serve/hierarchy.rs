//! Which rooms another server may know of.

use hearth_events::{AllowRule, JoinRule};
use ruma::ServerName;

use crate::{Error, Membership, Room, Visibility};

/// How many rooms of a restricted join rule are looked into.
const ALLOWED_ROOMS_MAX: usize = 100;

/// How many members are looked at to find one of a server that is invited.
const MEMBER_ROWS_MAX: usize = 20_000;

impl Room {
    /// Whether everybody may know of the room: all may join it, ask to be let in, or look into it. Rules that the room's version
    /// does not have let nobody in.
    pub fn is_open_to_all(&self) -> Result<bool, Error> {
        let rules = &self.rules().authorization;
        let lets_in = match self.join_rule()?.rule {
            JoinRule::Public => true,
            JoinRule::Knock => rules.knocking,
            JoinRule::KnockRestricted => rules.knock_restricted_join_rule,
            _ => false,
        };
        Ok(lets_in || self.history_visibility()? == Visibility::WorldReadable)
    }

    /// Whether some user of a server might join the room or look into it (server-server API,
    /// `GET /hierarchy/{roomId}`).
    pub fn is_open_to(&self, server: &ServerName) -> Result<bool, Error> {
        if !self.acl_allows(server)? {
            return Ok(false);
        }
        if self.is_open_to_all()? || self.has_server(server.as_str()) {
            return Ok(true);
        }
        if let Some(rule) = self.restricted_rule()? {
            for allow in rule.allow.iter().take(ALLOWED_ROOMS_MAX) {
                if let AllowRule::RoomMembership(room_id) = allow
                    && let Some(room) = self.0.rooms.get(room_id)?
                    && room.is_resident()
                    && room.has_server(server.as_str())
                {
                    return Ok(true);
                }
            }
        }
        self.has_invited(server)
    }

    fn has_invited(&self, server: &ServerName) -> Result<bool, Error> {
        if self.view().invited == 0 {
            return Ok(false);
        }
        let (mut found, mut looked_at) = (false, 0);
        self.visit_members(&mut |user, membership, _| {
            looked_at += 1;
            found = membership == Membership::Invite && *user.server_name() == *server;
            !found && looked_at < MEMBER_ROWS_MAX
        })?;
        Ok(found)
    }
}
