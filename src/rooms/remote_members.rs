//! In which rooms of this server the users of other servers are: a view that federation keeps, from the feed, so that
//! a change of such a user finds the rooms without asking each.

use hearth_storage::schema::view::ViewKey;
use hearth_storage::{Batch, Family, Record, prefix_end};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{Error, Membership, Room, Rooms, keys};

/// What came of bringing the view up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Users of other servers with whom this server shares no room any more, or did not before: what was known of them is
    /// out of date.
    pub strangers: Vec<OwnedUserId>,
    /// Whether it was done for all members, as this server has come in, or has gone.
    pub whole: bool,
}

/// The view: user id, 0, room id.
const VIEW: &str = "remote_user_rooms";
/// The rooms whose remote members stand in it.
const ROOMS: &str = "remote_rooms";
/// So many rows are written at once when a room is joined.
const PAGE_ROWS: usize = 1_000;

impl Rooms {
    /// The rooms that this server shares with a user of another one.
    pub fn rooms_of_remote(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, Error> {
        self.some_rooms_of_remote(user, usize::MAX)
    }

    /// Whether this server shares a room with a user of another one: then it is told of what becomes of the user.
    pub fn shares_with_remote(&self, user: &UserId) -> Result<bool, Error> {
        Ok(!self.some_rooms_of_remote(user, 1)?.is_empty())
    }

    fn some_rooms_of_remote(&self, user: &UserId, most: usize) -> Result<Vec<OwnedRoomId>, Error> {
        let mut found = Vec::new();
        let start = row(user, "");
        let end = prefix_end(&start);
        self.reader()
            .scan(Family::View, &start, &end, false, &mut |key, _| {
                let room = std::str::from_utf8(&key[start.len()..]).ok();
                found.extend(room.and_then(|room| OwnedRoomId::try_from(room).ok()));
                found.len() < most
            })?;
        Ok(found)
    }
}

impl Room {
    /// Brings the view up to date after a member event.
    pub async fn index_remote_member(&self, member: &UserId) -> Result<Indexed, Error> {
        let rooms = &self.0.rooms;
        let resident = self.is_resident();
        let indexed = self.reader().get(Family::View, &marker(self.id()))?.is_some();
        match (resident, indexed) {
            (false, false) => return Ok(Indexed::default()),
            (true, true) => {}
            (put, _) => {
                return Ok(Indexed {
                    strangers: self.index_all(put).await?,
                    whole: true,
                });
            }
        }
        if rooms.is_local(member) {
            return Ok(Indexed::default());
        }
        let key = row(member, self.id().as_str());
        let before = self.reader().get(Family::View, &key)?.is_some();
        let now = self.membership(member)? == Membership::Join;
        if before == now {
            return Ok(Indexed::default());
        }
        let mut batch = Batch::new();
        match now {
            true => batch.put(Family::View, key, keys::tagged(&[])),
            false => batch.delete(Family::View, key),
        }
        let shared_before = now && rooms.shares_with_remote(member)?;
        self.write_view(batch).await?;
        let shares = shared_before || (!now && rooms.shares_with_remote(member)?);
        Ok(Indexed {
            strangers: (!shares).then(|| member.to_owned()).into_iter().collect(),
            whole: false,
        })
    }

    /// Brings the view up to date where any membership may have changed; what it gives is as above.
    pub async fn index_remote_members(&self) -> Result<Vec<OwnedUserId>, Error> {
        let mut gone = Vec::new();
        let rooms = self.0.rooms.clone();
        self.visit_members(&mut |user, membership, _| {
            if membership != Membership::Join && !rooms.is_local(user) {
                gone.push(user.to_owned());
            }
            true
        })?;
        let mut strangers = Vec::new();
        for user in gone {
            strangers.extend(self.index_remote_member(&user).await?.strangers);
        }
        if self.is_resident() {
            strangers.extend(self.index_all(true).await?);
        }
        Ok(strangers)
    }

    /// Writes the rows of all remote members, or removes them.
    async fn index_all(&self, put: bool) -> Result<Vec<OwnedUserId>, Error> {
        let rooms = self.0.rooms.clone();
        let mut members = Vec::new();
        self.visit_members(&mut |user, membership, _| {
            if membership == Membership::Join && !rooms.is_local(user) {
                members.push(user.to_owned());
            }
            true
        })?;
        let mut strangers = Vec::new();
        for page in members.chunks(PAGE_ROWS) {
            let mut batch = Batch::new();
            for user in page {
                if put && !rooms.shares_with_remote(user)? {
                    strangers.push(user.clone());
                }
                let key = row(user, self.id().as_str());
                match put {
                    true => batch.put(Family::View, key, keys::tagged(&[])),
                    false => batch.delete(Family::View, key),
                }
            }
            self.write_view(batch).await?;
            for user in page {
                if !put && !rooms.shares_with_remote(user)? {
                    strangers.push(user.clone());
                }
            }
        }
        let mut batch = Batch::new();
        match put {
            true => batch.put(Family::View, marker(self.id()), keys::tagged(&[])),
            false => batch.delete(Family::View, marker(self.id())),
        }
        self.write_view(batch).await?;
        Ok(strangers)
    }

    async fn write_view(&self, batch: Batch) -> Result<(), Error> {
        let cluster = &self.0.rooms.cluster;
        cluster.commit(self.key().slot, |_| Record::of(batch)).await?;
        Ok(())
    }
}

fn row(user: &UserId, room: &str) -> Vec<u8> {
    let key = [user.as_bytes(), &[0], room.as_bytes()].concat();
    ViewKey {
        view: VIEW.into(),
        key: key[..].into(),
    }
    .encode()
}

fn marker(room: &RoomId) -> Vec<u8> {
    ViewKey {
        view: ROOMS.into(),
        key: room.as_bytes().into(),
    }
    .encode()
}
