//! Where ephemeral messages come from: typing and receipts from rooms, presence from the users. The listeners only
//! note what changed; a task reads it and hands it to the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hearth_rooms::{Changed, Error, Receipt, ReceiptKind, Room};
use hearth_storage::Position;
use hearth_users::PresenceState;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Outbound;
use super::ephemeral::EphemeralKey;
use super::meeting::Meetings;

/// So many rooms and users with news are noted at once; further news of that sort is left out until they are told.
const NOTED_MAX: usize = 20_000;
/// Of so many rooms it is known who types; in others every change is told.
const TYPERS_MAX: usize = 50_000;

/// Who is present is told again so often: other servers forget it after half an hour.
const PRESENCE_AGAIN: Duration = Duration::from_secs(25 * 60);

#[derive(Default)]
pub(super) struct Sources {
    pub(super) noted: Mutex<Noted>,
    pub(super) news: Notify,
    /// The local users of whom others were told that they type.
    typers: Mutex<BTreeMap<OwnedRoomId, BTreeSet<OwnedUserId>>>,
}

#[derive(Default)]
pub(super) struct Noted {
    pub(super) typing: BTreeSet<OwnedRoomId>,
    /// The position before the first receipt that was not told.
    receipts: BTreeMap<OwnedRoomId, Position>,
    pub(super) presence: BTreeSet<OwnedUserId>,
    pub(super) meetings: Meetings,
}

pub(super) fn register(outbound: &Arc<Outbound>) {
    let weak = Arc::downgrade(outbound);
    let note = move |changed: &Changed<'_>| note_room(&weak, changed);
    outbound.rooms.on_change(Box::new(note));
    let weak = Arc::downgrade(outbound);
    let note = move |user: &ruma::UserId, _| {
        let Some(outbound) = weak.upgrade() else { return };
        if user.server_name() != outbound.server_name() {
            return;
        }
        let mut noted = outbound.sources.noted.lock();
        if noted.presence.len() < NOTED_MAX {
            noted.presence.insert(user.to_owned());
        }
        outbound.sources.news.notify_one();
    };
    outbound.users.presence().on_change(Box::new(note));
}

fn note_room(outbound: &Weak<Outbound>, changed: &Changed<'_>) {
    let is_news = changed.change.typing || changed.change.receipts;
    let Some(outbound) = outbound.upgrade().filter(|_| is_news) else {
        return;
    };
    let room = changed.room.id();
    let mut noted = outbound.sources.noted.lock();
    if changed.change.typing && noted.typing.len() < NOTED_MAX {
        noted.typing.insert(room.to_owned());
    }
    if changed.change.receipts && noted.receipts.len() < NOTED_MAX {
        let before = changed.position.saturating_sub(1);
        noted.receipts.entry(room.to_owned()).or_insert(before);
    }
    outbound.sources.news.notify_one();
}

impl Outbound {
    /// Tells servers of what was noted, until the process stops.
    pub(super) async fn send_ephemera(self: Arc<Self>) {
        let mut again = Instant::now() + PRESENCE_AGAIN;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return,
                () = self.sources.news.notified() => {}
                () = tokio::time::sleep_until(again) => {}
            }
            let mut noted = std::mem::take(&mut *self.sources.noted.lock());
            if Instant::now() >= again {
                again = Instant::now() + PRESENCE_AGAIN;
                let present = self.users.presence().present().into_iter();
                let local = present.filter(|user| user.server_name() == self.server_name());
                noted.presence.extend(local.take(NOTED_MAX));
            }
            // Each by itself: one room that cannot be read keeps nothing from the others.
            let said = |told: Result<(), Error>| {
                if let Err(error) = told {
                    tracing::warn!(%error, "other servers are not told of typing, receipts or presence");
                }
            };
            noted.typing.iter().for_each(|room| said(self.tell_typing(room)));
            for (room, since) in &noted.receipts {
                said(self.tell_receipts(room, *since));
            }
            noted
                .presence
                .iter()
                .for_each(|user| said(self.tell_presence(user)));
            self.tell_meetings(&noted.meetings, &said);
        }
    }

    fn tell_typing(self: &Arc<Self>, room_id: &RoomId) -> Result<(), Error> {
        let Some(room) = self.rooms.get(room_id)? else {
            return Ok(());
        };
        let own = self.server_name();
        let mut now: BTreeSet<OwnedUserId> = room.typing().0.into_iter().collect();
        now.retain(|user| user.server_name() == own);
        let before = {
            let mut typers = self.sources.typers.lock();
            let before = match now.is_empty() || typers.len() >= TYPERS_MAX {
                true => typers.remove(room_id),
                false => typers.insert(room_id.to_owned(), now.clone()),
            };
            before.unwrap_or_default()
        };
        let changes = now.symmetric_difference(&before);
        let contents: Vec<_> = changes
            .map(|user| {
                let content = json!({ "room_id": room_id, "user_id": user, "typing": now.contains(user) });
                (EphemeralKey::Typing(room_id.to_owned(), user.clone()), content)
            })
            .collect();
        self.tell(self.others(&room)?, &contents)
    }

    fn tell_receipts(self: &Arc<Self>, room_id: &RoomId, since: Position) -> Result<(), Error> {
        let Some(room) = self.rooms.get(room_id)? else {
            return Ok(());
        };
        let servers = self.others(&room)?;
        if servers.is_empty() {
            return Ok(());
        }
        // Nobody's own eyes: the private receipts are left out below.
        let nobody = room.create_info().sender.clone();
        let receipts = room.receipts_between(&nobody, since, room.receipts_position())?;
        let own = self.server_name();
        let public = receipts
            .into_iter()
            .filter(|receipt| receipt.kind == ReceiptKind::Public && receipt.user.server_name() == own);
        let contents: Vec<_> = public
            .map(|receipt| {
                let content = receipt_content(room_id, &receipt);
                let key = EphemeralKey::Receipt(room_id.to_owned(), receipt.user, receipt.thread);
                (key, content)
            })
            .collect();
        self.tell(servers, &contents)
    }

    fn tell_presence(self: &Arc<Self>, user: &OwnedUserId) -> Result<(), Error> {
        let servers = self.servers_sharing(user)?;
        if servers.is_empty() {
            return Ok(());
        }
        self.tell(servers.into_iter().collect(), &[self.presence_of(user)])
    }

    /// What others are told of a local user's presence.
    pub(super) fn presence_of(&self, user: &OwnedUserId) -> (EphemeralKey, Value) {
        let info = self.users.presence().get(user);
        let mut push = json!({
            "user_id": user,
            "presence": match info.state {
                // Older servers know no fourth state.
                PresenceState::Busy => "online",
                state => state.name(),
            },
            "last_active_ago": info.last_active_ago_ms.unwrap_or(0),
            "currently_active": info.currently_active,
        });
        if let Some(status) = info.status_msg {
            push["status_msg"] = status.into();
        }
        (EphemeralKey::Presence(user.clone()), json!({ "push": [push] }))
    }

    /// The other servers in a room that its access list admits.
    pub(super) fn others(&self, room: &Room) -> Result<Vec<OwnedServerName>, Error> {
        let own = self.server_name();
        let mut servers = room.servers();
        servers.retain(|server| server != own);
        if servers.is_empty() {
            return Ok(servers);
        }
        if let Some(event) = room.state("m.room.server_acl", "")? {
            let acl = hearth_events::ServerAcl::parse(event.pdu.content());
            servers.retain(|server| acl.allows(server));
        }
        Ok(servers)
    }

    pub(super) fn tell(
        self: &Arc<Self>,
        servers: Vec<OwnedServerName>,
        contents: &[(EphemeralKey, Value)],
    ) -> Result<(), Error> {
        if contents.is_empty() {
            return Ok(());
        }
        for server in servers {
            let destination = self.destination(&server)?;
            for (key, content) in contents {
                destination.push_ephemeral(key.clone(), content.clone());
            }
            self.run(&destination);
        }
        Ok(())
    }
}

/// The content of an `m.receipt` EDU with one receipt.
fn receipt_content(room: &RoomId, receipt: &Receipt) -> Value {
    let mut data = json!({ "ts": receipt.ts });
    if let Some(thread) = &receipt.thread {
        data["thread_id"] = thread.as_str().into();
    }
    let one = json!({ "data": data, "event_ids": [receipt.event_id] });
    json!({ room.as_str(): { receipt.kind.word(): { receipt.user.as_str(): one } } })
}
