//! Members of other servers, as their events come: the view of their rooms, what is kept of their devices, and their
//! entries in the user directory.

use hearth_rooms::{Changed, Error, Event, Membership, Room};
use hearth_users::SearchUpdate;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use super::Edus;
use crate::outbound::Watcher;

/// So many users who went out are noted at once.
const GONE_MAX: usize = 20_000;
/// So many entries of the directory are written at once when a room comes in.
const PAGE_MEMBERS: usize = 1_000;

#[async_trait::async_trait]
impl Watcher for Edus {
    /// Keeps the view of remote users' rooms and the directory, and forgets the devices of users who are out of sight.
    async fn event(&self, room: &Room, event: &Event) -> Result<(), Error> {
        let member = event
            .pdu
            .state_key()
            .filter(|_| event.pdu.kind() == "m.room.member");
        let Some(member) = member.and_then(|member| <&UserId>::try_from(member).ok()) else {
            return Ok(());
        };
        self.gone.remove_if(member, |_, from| from == room.id());
        let indexed = room.index_remote_member(member).await?;
        for stranger in &indexed.strangers {
            self.forget_list(stranger).await?;
        }
        self.meet(&indexed.strangers)?;
        match indexed.whole {
            true if room.is_resident() => self.put_all_in_directory(room).await,
            true => self.put_in_directory(room, &indexed.strangers).await,
            false if self.rooms.is_local(member) => Ok(()),
            false => self.put_in_directory(room, &[member.to_owned()]).await,
        }
    }

    async fn members(&self, room: &Room) -> Result<(), Error> {
        // Who went out without an event, and may have come back since, was out of sight.
        let gone = self.gone.iter().filter(|entry| entry.value() == room.id());
        let gone: Vec<OwnedUserId> = gone.map(|entry| entry.key().clone()).collect();
        for user in &gone {
            self.forget_list(user).await?;
            self.gone.remove_if(user, |_, from| from == room.id());
        }
        let strangers = room.index_remote_members().await?;
        for stranger in &strangers {
            self.forget_list(stranger).await?;
        }
        self.meet(&strangers)?;
        self.put_in_directory(room, &strangers).await?;
        match room.is_resident() {
            true => self.put_all_in_directory(room).await,
            false => Ok(()),
        }
    }
}

impl Edus {
    /// Notes who goes out of a room, before anybody learns of it: what is kept of such a user is not given until it is
    /// known whether another room is shared.
    pub(super) fn note_gone(&self, changed: &Changed<'_>) {
        for change in &changed.change.members {
            let goes = change.before == Membership::Join && change.after != Membership::Join;
            if goes && !self.rooms.is_local(&change.user) && self.gone.len() < GONE_MAX {
                self.gone
                    .insert(change.user.clone(), changed.room.id().to_owned());
            }
        }
    }

    /// Brings the directory's entries of all members of other servers up to date.
    async fn put_all_in_directory(&self, room: &Room) -> Result<(), Error> {
        let mut members = Vec::new();
        room.visit_members(&mut |user, membership, _| {
            if membership == Membership::Join && !self.rooms.is_local(user) {
                members.push(user.to_owned());
            }
            true
        })?;
        self.put_in_directory(room, &members).await
    }

    /// Brings the directory's entries of users of other servers up to date: by what the room says of those in it; who
    /// shares no room with anybody here goes.
    async fn put_in_directory(&self, room: &Room, members: &[OwnedUserId]) -> Result<(), Error> {
        for page in members.chunks(PAGE_MEMBERS) {
            let mut updates = Vec::with_capacity(page.len());
            for user in page {
                match entry(room, user)? {
                    Some(update) => updates.push(update),
                    None if self.rooms.shares_with_remote(user)? => {}
                    None => updates.push(SearchUpdate::new(user, None)),
                }
            }
            let listed = self.users.directory().put_all(updates).await;
            listed.map_err(|error| match error {
                hearth_users::Error::Storage(error) => Error::Storage(error),
                other => Error::Invalid(other.to_string()),
            })?;
        }
        Ok(())
    }
}

/// The entry of a joined member.
fn entry(room: &Room, user: &UserId) -> Result<Option<SearchUpdate>, Error> {
    #[derive(Default, Deserialize)]
    struct Profile {
        displayname: Option<String>,
        avatar_url: Option<String>,
    }
    if room.membership(user)? != Membership::Join {
        return Ok(None);
    }
    let event = room.state("m.room.member", user.as_str())?;
    let profile = event.and_then(|event| serde_json::from_slice::<Profile>(event.pdu.content()).ok());
    let profile = profile.unwrap_or_default();
    Ok(Some(SearchUpdate::of_member(
        user,
        profile.displayname.as_deref(),
        profile.avatar_url.as_deref(),
    )))
}
