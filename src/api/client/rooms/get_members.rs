//! GET /_matrix/client/v3/rooms/{roomId}/members — Client-Server API, "Getting events for a room".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{Event, Membership, Rendering};
use ruma::OwnedRoomId;
use serde::Deserialize;

use super::parts;
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Path, Query, token_unless_empty};

#[derive(Deserialize)]
pub struct Options {
    #[serde(default, deserialize_with = "token_unless_empty")]
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

impl Options {
    /// One of two conditions is enough.
    fn keeps(&self, membership: Membership) -> bool {
        let word = membership.word();
        let is_wanted = self.membership.as_deref().map(|wanted| wanted == word);
        let is_not_unwanted = self.not_membership.as_deref().map(|unwanted| unwanted != word);
        match (is_wanted, is_not_unwanted) {
            (None, None) => true,
            (wanted, not_unwanted) => wanted == Some(true) || not_unwanted == Some(true),
        }
    }
}

/// The member events, now or at a token.
pub async fn get_members(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(room_id): Path<OwnedRoomId>,
    Query(options): Query<Options>,
) -> Result<Response> {
    let mut reading = super::Reading::begin(&app, &room_id, &auth.user)?;
    let room = reading.room.clone();
    super::whole::wait(&room).await?;
    let shorts = match (options.at.as_deref(), &reading.left) {
        (None, None) => {
            let mut shorts = Vec::new();
            room.visit_members(&mut |_, membership, short| {
                if options.keeps(membership) {
                    shorts.push(short);
                }
                true
            })?;
            shorts
        }
        (None, Some(_)) => reading.state_shorts()?,
        (Some(token), left) => {
            let place = super::tokens::place(&reading, token)?;
            // Who has left sees nothing later than that.
            let place = left.as_ref().map_or(place, |left| place.min(left.header.place));
            room.state_shorts_at(room.state_root_after(place)?)?
        }
    };
    parts::answer(room.clone(), shorts, ("{\"chunk\":[", "]}"), move |event| {
        if !is_member(event, &options) {
            return Ok(None);
        }
        let rendering = Rendering {
            bundle: false,
            ..Rendering::default()
        };
        let shown = room.render(event, &mut reading.viewer, &rendering)?;
        Ok(Some(Box::<str>::from(shown).into()))
    })
}

/// Whether an event of the state is a member event that is asked for.
fn is_member(event: &Event, options: &Options) -> bool {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    event.pdu.kind() == "m.room.member"
        && serde_json::from_slice::<Content>(event.pdu.content())
            .is_ok_and(|content| options.keeps(Membership::from_word(&content.membership)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_condition_is_enough() {
        use Membership::{Ban, Invite, Join, Knock, Leave};
        let all = [Join, Invite, Knock, Leave, Ban];
        let check = |membership: Option<&str>, not_membership: Option<&str>, expected: &[Membership]| {
            let options = Options {
                at: None,
                membership: membership.map(str::to_owned),
                not_membership: not_membership.map(str::to_owned),
            };
            let kept: Vec<_> = all.into_iter().filter(|one| options.keeps(*one)).collect();
            assert_eq!(kept, expected, "{membership:?} {not_membership:?}");
        };
        check(None, None, &all);
        check(Some("join"), None, &[Join]);
        check(None, Some("leave"), &[Join, Invite, Knock, Ban]);
        check(Some("join"), Some("leave"), &[Join, Invite, Knock, Ban]);
        check(Some("leave"), Some("leave"), &all);
        check(Some("ban"), Some("join"), &[Invite, Knock, Leave, Ban]);
    }
}
