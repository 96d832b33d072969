//! What rooms and accounts need of each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use hearth_core::error::{MatrixError, errcode};
use hearth_core::tasks;
use hearth_rooms::{Room, Rooms, Visibility};
use hearth_users::{InviteVerdict, Profile, ProfileChange, RoomEntry, User, Users};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};

use crate::admin::server_notices::must_not_decline;
use crate::app::{App, RoomLinks};
use crate::error::Result;

/// In how many rooms a user's name changes at a time, or a user leaves: each waits for the disk, which takes at once what
/// comes together.
const ROOMS_AT_ONCE: usize = 16;

/// How long other servers are waited for that are told of a user who goes.
const ELSEWHERE_WAIT: Duration = Duration::from_secs(10);

/// What a user's rooms show as long as somebody sees to it: the profile that went to all of them last.
type Shown = tokio::sync::Mutex<Option<Arc<Profile>>>;

/// [`RoomLinks`] over the rooms of the server.
pub struct Links {
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    /// The users whose profiles are on their way to rooms.
    showing: Mutex<HashMap<OwnedUserId, Weak<Shown>>>,
}

impl Links {
    /// Links between these.
    pub fn new(rooms: Arc<Rooms>, users: Arc<Users>) -> Self {
        Self {
            rooms,
            users,
            showing: Mutex::default(),
        }
    }

    fn shown(&self, user: &UserId) -> Arc<Shown> {
        let mut showing = self.showing.lock();
        if let Some(shown) = showing.get(user).and_then(Weak::upgrade) {
            return shown;
        }
        showing.retain(|_, shown| shown.strong_count() > 0);
        let shown = Arc::default();
        showing.insert(user.to_owned(), Arc::downgrade(&shown));
        shown
    }
}

#[async_trait]
impl RoomLinks for Links {
    async fn profile_changed(&self, user: &UserId, _change: &ProfileChange) -> Result<()> {
        let Some(handle) = self.users.get(user)? else {
            return Ok(());
        };
        let mut rooms = Vec::new();
        for room_id in self.joined_rooms(user)? {
            rooms.extend(self.rooms.get(&room_id)?);
        }
        let shown = self.shown(user);
        // A client that hangs up must not leave the old name in half of the rooms.
        let all = tasks::spawn("profile in rooms", async move {
            if let Err(error) = show_profile(&handle, rooms, &shown).await {
                tracing::error!(%error, "rooms do not show a changed profile");
            }
        });
        // A panic in it is logged there.
        let _ = all.await;
        Ok(())
    }

    async fn leave_all(&self, user: &UserId) -> Result<()> {
        let Some(handle) = self.users.get(user)? else {
            return Ok(());
        };
        use hearth_users::Membership::{Invite, Join, Knock};
        let entries = handle.rooms(&[Join, Invite, Knock])?;
        let leave = |entry: RoomEntry| async move {
            let room = match self.rooms.get(&entry.room_id) {
                Ok(room) => room.filter(Room::is_decided_here),
                Err(error) => return Err(error),
            };
            match room {
                Some(room) => room.leave(user, None).await.map(drop),
                // An invitation to a room, or a knock on one, that this server is not in.
                None => {
                    let via = super::elsewhere::servers_of_entry(&entry);
                    let (id, event) = (&entry.room_id, &entry.event_id);
                    let told = self.rooms.leave_remote(user, id, &via, event, None);
                    // Who asked for it may not wait so long; the account ends whether or not they hear of it.
                    tokio::time::timeout(ELSEWHERE_WAIT, told).await.unwrap_or(Ok(()))
                }
            }
        };
        let all = stream::iter(entries).for_each_concurrent(ROOMS_AT_ONCE, |entry| async move {
            if let Err(error) = leave(entry).await {
                tracing::warn!(%error, "a deactivated user could not leave a room");
            }
        });
        all.await;
        Ok(())
    }

    fn joined_rooms(&self, user: &UserId) -> Result<BTreeSet<OwnedRoomId>> {
        let Some(local) = self.users.get(user)? else {
            return Ok(self.rooms.rooms_of_remote(user)?.into_iter().collect());
        };
        let entries = local.rooms(&[hearth_users::Membership::Join])?;
        Ok(entries.into_iter().map(|entry| entry.room_id).collect())
    }

    fn is_open(&self, room: &RoomId) -> bool {
        let Ok(Some(room)) = self.rooms.get(room) else {
            return false;
        };
        let is_public = room
            .join_rule()
            .is_ok_and(|rule| rule.rule == hearth_events::JoinRule::Public);
        is_public
            || room
                .history_visibility()
                .is_ok_and(|found| found == Visibility::WorldReadable)
    }

    fn share_a_room(&self, one: &UserId, other: &UserId) -> bool {
        match (self.joined_rooms(one), self.joined_rooms(other)) {
            (Ok(one), Ok(other)) => !one.is_disjoint(&other),
            _ => false,
        }
    }
}

/// Brings a user's profile, as it is now, to his member events in rooms. Of several changes one goes to the rooms at a time,
/// so that the last one stays; those that it has overtaken have nothing left to do.
async fn show_profile(user: &User, rooms: Vec<Room>, shown: &Shown) -> Result<(), hearth_users::Error> {
    let mut shown = shown.lock().await;
    let profile = user.profile()?;
    if shown.as_ref() == Some(&profile) {
        return Ok(());
    }
    let fields = profile.fields();
    let update = |room: Room| async move {
        // A room that refuses, say because it is read-only for the user, keeps the old name.
        if let Err(error) = room.update_profile(user.id(), fields).await {
            tracing::debug!(%error, "a room did not take a changed profile");
        }
    };
    stream::iter(rooms)
        .for_each_concurrent(ROOMS_AT_ONCE, update)
        .await;
    *shown = Some(profile.clone());
    Ok(())
}

/// Refuses the invitation of a user of this server who does not want it ("Invite permission").
pub(crate) fn check_invite(app: &App, inviter: &UserId, target: &UserId) -> Result<()> {
    if let Some(user) = app.users.get(target)?
        && user.invite_verdict(inviter)? == InviteVerdict::Block
    {
        let sentence = format!("{target} takes no invitations from you");
        return Err(MatrixError::new(403, errcode::INVITE_BLOCKED, sentence).into());
    }
    Ok(())
}

/// A member event as a client sends it.
pub(crate) struct MemberContent {
    /// Whom it is about.
    pub(crate) target: OwnedUserId,
    /// The content, without what only servers say.
    pub(crate) content: Map<String, Value>,
    /// It invites a user of another server, who has to be asked.
    pub(crate) invites_remote: bool,
}

/// Reads a member event; refuses those whose form no action of the API would make.
pub(crate) fn check_member_content(
    app: &App,
    room: &Room,
    sender: &UserId,
    target: &str,
    content: &[u8],
) -> Result<MemberContent> {
    let mut content: Map<String, Value> =
        serde_json::from_slice(content).map_err(|error| MatrixError::bad_json(error.to_string()))?;
    let Some(membership) = content.get("membership").and_then(Value::as_str) else {
        return Err(MatrixError::bad_json("membership is missing").into());
    };
    let target = <&UserId>::try_from(target)
        .map_err(|_| MatrixError::invalid_param("The state key of a member event is a user id"))?;
    let invited = membership == "invite";
    if invited {
        check_invite(app, sender, target)?;
    }
    if sender == target && membership == "leave" {
        must_not_decline(app, room, target)?;
    }
    // Who lets a user into a restricted room is the server's to say.
    content.remove("join_authorised_via_users_server");
    Ok(MemberContent {
        target: target.to_owned(),
        content,
        invites_remote: invited && !app.rooms.is_local(target),
    })
}
