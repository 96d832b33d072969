//! One request of sliding sync, from its position to its answer.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_core::limits;
use hearth_storage::{Position, ShardId};
use ruma::OwnedRoomId;

use super::{
    connection::{Cleared, Connection, Pending, RoomSent, SentMembers, TYPING_UNKNOWN},
    extensions::{ExtensionNews, Scopes},
    filter::is_to_be_told,
    lists::{catch_up, current_direct},
    order::{Listed, ListedRoom},
    registry::Turn,
    request::{Extensions, Request, RequiredState, RoomConfig, Scope},
    room::{Asked, Reader, RoomNews},
};
use crate::{
    Error, Filter, SlidingPos, StateSide, SyncEngine, SyncRequest, SyncToken, ToDeviceToken,
    engine::{Waiting, delivered},
    look::Look,
    notifier::IndexGuard,
    positions::RoomsRead,
};

/// What a client is told.
pub struct Answer {
    /// Where to go on.
    pub pos: SlidingPos,
    /// The same as the client gets it.
    pub pos_text: String,
    /// How many rooms each list has.
    pub lists: BTreeMap<Arc<str>, usize>,
    /// The rooms with news.
    pub rooms: Vec<RoomNews>,
    /// The news beside the rooms.
    pub extensions: ExtensionNews,
}

/// What was found of rooms.
#[derive(Default)]
struct Found {
    news: Vec<RoomNews>,
    extensions: ExtensionNews,
    /// What will have been sent.
    rooms: Vec<(OwnedRoomId, RoomSent)>,
    cleared: Vec<Cleared>,
    members: Vec<SentMembers>,
}

/// A room to be looked at.
struct Candidate {
    listed: Listed,
    lists: Vec<Arc<str>>,
    config: RoomConfig,
    subscribed: bool,
}

impl SyncEngine {
    /// What is new for a connection: waits until there is something, or the time is over.
    pub async fn sliding_sync(&self, request: &Request) -> Result<Answer, Error> {
        let plain = plain_request(request);
        let presence = request.device.as_ref().and_then(|device| {
            let presence = self.users.presence();
            presence.sync(request.user.id(), device, request.set_presence)
        });
        self.let_go_of_messages(request, &plain).await?;
        let index = self.notifier.index(&request.user);
        let turn = self.connections.begin(self, request)?;
        let timeout = request
            .timeout
            .min(Duration::from_millis(limits::SYNC_MAX_TIMEOUT_MS));
        let deadline = tokio::time::Instant::now() + timeout;
        let mut waiting = None;
        // How far was looked in vain: what lies before need not be looked at again, but for rooms.
        let mut looked: Option<SyncToken> = None;
        let (mut answer, news) = loop {
            let woken = index.notify.notified();
            tokio::pin!(woken);
            // Registered before anything is looked at, so that no wake-up is lost.
            woken.as_mut().enable();
            let news = index.state.lock().first_news.take();
            let since = looked.clone().or_else(|| turn.connection().state.token.clone());
            let read = self
                .positions(&request.user, &index, since.as_ref(), RoomsRead::Ordered)
                .await?;
            let (answer, at_once) = self.find(request, &plain, &index, &turn, read, looked.as_ref())?;
            let at_once = at_once
                || request.pos.is_none()
                || self.shutdown.is_triggered()
                || has_encrypted(request, &index);
            if at_once || !answer.is_empty() || tokio::time::Instant::now() >= deadline {
                break (answer, news);
            }
            looked = turn
                .connection()
                .pending
                .as_ref()
                .map(|pending| pending.token.clone());
            waiting.get_or_insert_with(Waiting::begin);
            tokio::select! {
                biased;
                () = &mut woken => {}
                () = turn.replaced() => {}
                () = self.shutdown.wait() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        };
        if waiting.is_some() && !answer.rooms.is_empty() {
            delivered(news);
        }
        drop(presence);
        self.connections.store_answer(&turn).await;
        answer.pos_text = self
            .pos_text(&index, request.device.as_deref(), &answer.pos)
            .await;
        Ok(answer)
    }

    /// The device has got the messages up to where it asks on from.
    async fn let_go_of_messages(&self, request: &Request, plain: &SyncRequest) -> Result<(), Error> {
        let since = request.extensions.to_device.as_ref();
        let (Some(device), Some(since)) = (&plain.device, since.and_then(|wanted| wanted.since.as_deref()))
        else {
            return Ok(());
        };
        let ToDeviceToken(since) = ToDeviceToken::parse(since)?;
        // The messages stay for another time where the disk is full: reading goes on.
        if let Err(error) = request.user.acknowledge_to_device(device, since).await {
            tracing::debug!(%error, "messages to a device that it has got could not be removed");
        }
        Ok(())
    }

    /// Looks once. Says besides whether the client waits for no news. What the answer adds is kept: it counts
    /// when the client comes back with the answer's position, and is dropped when this answer is not given.
    fn find(
        &self,
        request: &Request,
        plain: &SyncRequest,
        index: &IndexGuard,
        turn: &Turn,
        (positions, user_position): (Vec<(ShardId, Position)>, Position),
        looked: Option<&SyncToken>,
    ) -> Result<(Answer, bool), Error> {
        let mut connection = turn.connection();
        let connection = &mut *connection;
        if !turn.is_current() {
            // Another request took the connection over; its client does not read this answer.
            let pos = match &request.pos {
                Some(pos) => SlidingPos::read(&request.user, pos)?,
                None => None,
            };
            return Ok((Answer::empty(pos.ok_or(Error::UnknownPos)?), true));
        }
        connection.on_index(index.start);
        let since = connection.state.token.clone();
        let mut look = Look {
            engine: self,
            request: plain,
            since: looked.or(since.as_ref()),
            index,
            positions,
            user_position,
            messages: None,
            ignored: request.user.ignored_users()?,
            rules: OnceCell::new(),
            events: Cell::default(),
        };
        let messages = super::extensions::messages(&look, &request.extensions, since.is_none())?;
        if messages.hold_rooms {
            look.hold_rooms();
        }
        let direct = current_direct(&look)?;
        let counts = catch_up(request, &look, connection, &direct)?;
        let mut found = self.read_rooms(request, &look, connection, since.as_ref(), &direct)?;
        found.extensions.to_device = messages.page;
        let state = &connection.state;
        let global = state
            .global
            .map(|seen| looked.map_or(seen, |looked| looked.user.max(seen)));
        found
            .extensions
            .read_global(&look, &request.extensions, global, state.e2ee)?;
        let threads = state
            .threads
            .map(|seen| looked.map_or(seen, |looked| looked.user.max(seen)));
        found
            .extensions
            .read_threads(&look, &request.extensions, threads)?;
        let token = token_of(&look, true);
        let lists = super::number_of(&format!("{:?}", request.lists));
        let answers_at_once = lists != connection.state.lists;
        connection.last_answer += 1;
        let answer = Answer {
            pos: SlidingPos {
                connection: connection.number,
                answer: connection.last_answer,
                token: token_of(&look, false),
            },
            pos_text: String::new(),
            lists: counts,
            rooms: found.news,
            extensions: found.extensions,
        };
        connection.pending = Some(Pending {
            answer: connection.last_answer,
            token,
            global: request
                .extensions
                .account_data
                .is_some()
                .then_some(look.user_position),
            threads: request.extensions.threads.is_some().then_some(look.user_position),
            e2ee: request.extensions.e2ee,
            lists,
            rooms: found.rooms,
            cleared: found.cleared,
            members: found.members,
        });
        connection.bound_lists();
        Ok((answer, answers_at_once))
    }

    /// Reads the rooms that may have news. What a client cannot notice is noted at once.
    fn read_rooms(
        &self,
        request: &Request,
        look: &Look<'_>,
        connection: &mut Connection,
        since: Option<&SyncToken>,
        direct: &BTreeSet<OwnedRoomId>,
    ) -> Result<Found, Error> {
        let wanted_scopes = request.extensions.scopes();
        let candidates = candidates(request, look, connection)?;
        let mut found = Found::default();
        let (mut moved, mut quiet) = (Vec::new(), Vec::new());
        let mut configs: BTreeMap<u64, Arc<RequiredState>> = BTreeMap::new();
        for candidate in candidates {
            let entry = &*candidate.listed.room;
            let number = candidate.config.required_state.number();
            let sent = connection.state.rooms.get(&entry.room_id);
            let before = sent.and_then(|sent| connection.state.configs.get(&sent.config));
            let asked = Asked {
                entry,
                sent,
                config: &candidate.config,
                number,
                before: before.map(|before| &**before),
            };
            let reader = Reader {
                look,
                since,
                direct,
                known: &connection.members,
                with_unread: request.with_unread,
            };
            let Some(read) = reader.read(&asked)? else {
                continue;
            };
            let mut next = read.sent;
            if sent.is_none() && connection.state.unsure_since.is_some() {
                next.typing = TYPING_UNKNOWN;
            }
            let scopes = scopes(&request.extensions, entry, &candidate);
            let beside = found.extensions.read_room(look, entry, scopes, &mut next)?;
            let cleared = is_read(look, &candidate.listed).then(|| candidate.cleared(wanted_scopes));
            if read.news.is_none() && !beside {
                if sent.is_some_and(|sent| *sent != next) {
                    moved.push((entry.room_id.clone(), next));
                }
                quiet.extend(cleared);
            } else {
                found.rooms.push((entry.room_id.clone(), next));
                found.cleared.extend(cleared);
                found.members.push(read.members);
                found.news.extend(read.news.map(|news| RoomNews {
                    lists: candidate.lists.clone(),
                    ..news
                }));
            }
            configs
                .entry(number)
                .or_insert_with(|| Arc::new(candidate.config.required_state.clone()));
        }
        for (room, sent) in moved {
            connection.note(room, sent);
        }
        for cleared in &quiet {
            connection.clear(cleared);
        }
        connection.state.configs.extend(configs);
        Ok(found)
    }
}

impl Answer {
    fn empty(pos: SlidingPos) -> Self {
        Self {
            pos,
            pos_text: String::new(),
            lists: BTreeMap::new(),
            rooms: Vec::new(),
            extensions: ExtensionNews::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.extensions.is_empty()
    }
}

impl Candidate {
    fn cleared(&self, scopes: u64) -> Cleared {
        Cleared {
            no: self.listed.no,
            touched: self.listed.touched,
            lists: self.lists.clone(),
            subscription: self.subscribed.then(|| self.config.number(scopes)),
        }
    }
}

/// Whether the device has encrypted something since its connection for keys alone was answered last. Clients look after
/// their keys, such as by putting new ones into the backup, when an answer comes, which may be half a minute away.
fn has_encrypted(request: &Request, index: &IndexGuard) -> bool {
    let keys_alone = request.extensions.e2ee && request.lists.is_empty() && request.subscriptions.is_empty();
    let device = request.device.as_ref().filter(|_| keys_alone);
    device.is_some_and(|device| index.state.lock().encrypted.remove(device))
}

/// The request as the parts that all renderings share read it.
fn plain_request(request: &Request) -> SyncRequest {
    SyncRequest {
        user: request.user.clone(),
        device: request.device.clone(),
        filter: Arc::new(Filter::default()),
        since: None,
        full_state: false,
        state: StateSide::After,
        timeout: request.timeout,
        set_presence: request.set_presence,
        to_device: request.extensions.to_device.is_some(),
        events_max: request.events_max,
    }
}

/// How far a look goes: of all shards, or of those that hold the user's rooms.
fn token_of(look: &Look<'_>, all: bool) -> SyncToken {
    let (typing, of_rooms) = {
        let state = look.index.state.lock();
        (state.typing_count(), state.shards().collect::<BTreeSet<_>>())
    };
    let presence = look.engine.users.presence().counter();
    let mut shards = look.positions.clone();
    shards.retain(|(shard, at)| *at > 0 && (all || of_rooms.contains(shard)));
    shards.sort_unstable_by_key(|(shard, _)| *shard);
    SyncToken {
        shards,
        user: look.user_position,
        ephemeral: (look.index.start, typing),
        presence: (presence.start, presence.value),
        messages: None,
    }
}

/// The rooms that must be looked at: those within the windows that were touched since they were read, and
/// subscribed ones likewise.
fn candidates(request: &Request, look: &Look<'_>, connection: &Connection) -> Result<Vec<Candidate>, Error> {
    let mut numbers: BTreeSet<u32> = BTreeSet::new();
    for (name, list) in &request.lists {
        let cache = connection.lists.get(name.as_str());
        numbers.extend(cache.iter().flat_map(|cache| cache.dirty_in(&list.ranges)));
    }
    let subscribed = subscribed(request, look, connection)?;
    numbers.extend(&subscribed);
    let scopes = request.extensions.scopes();
    let state = look.index.state.lock();
    let Some(order) = &state.sliding else {
        return Ok(Vec::new());
    };
    let mut found = Vec::with_capacity(numbers.len());
    for no in numbers {
        let Some(listed) = order.room(no) else { continue };
        let mut candidate = Candidate {
            listed: listed.clone(),
            lists: Vec::new(),
            config: RoomConfig::default(),
            subscribed: false,
        };
        let mut is_dirty = false;
        for (name, list) in &request.lists {
            let Some((name, cache)) = connection.lists.get_key_value(name.as_str()) else {
                continue;
            };
            if cache.has(no, &list.ranges) {
                candidate.lists.push(name.clone());
                candidate.config.widen(&list.config);
                is_dirty |= cache.is_dirty(no);
            }
        }
        if let Some(config) = request.subscriptions.get(&listed.room.room_id)
            && subscribed.contains(&no)
        {
            candidate.subscribed = true;
            candidate.config.widen(config);
            let read = connection.subscriptions.get(&no);
            let number = candidate.config.number(scopes);
            is_dirty |= read != Some(&(listed.touched, number));
        }
        if is_dirty {
            found.push(candidate);
        }
    }
    Ok(found)
}

/// The numbers of the rooms that are asked for by their ids, and may be.
fn subscribed(request: &Request, look: &Look<'_>, connection: &Connection) -> Result<BTreeSet<u32>, Error> {
    let listed: Vec<Listed> = {
        let state = look.index.state.lock();
        let rooms = request.subscriptions.keys();
        let listed = rooms.filter_map(|room| state.sliding.as_ref()?.room_by_id(room));
        listed.cloned().collect()
    };
    let mut found = BTreeSet::new();
    for listed in listed {
        if may_subscribe(look, connection, &listed)? {
            found.insert(listed.no);
        }
    }
    Ok(found)
}

/// Whether a user may follow a room by its id.
fn may_subscribe(look: &Look<'_>, connection: &Connection, listed: &Listed) -> Result<bool, Error> {
    use hearth_users::Membership;
    let entry = &*listed.room;
    Ok(match entry.membership {
        Membership::Join | Membership::Knock => true,
        Membership::Invite => !look.is_unwanted(&entry.sender)?,
        Membership::Leave | Membership::Ban => {
            let sent = connection.state.rooms.get(&entry.room_id);
            match entry.forgotten {
                true => is_to_be_told(sent),
                false => entry.was_joined || sent.is_some(),
            }
        }
    })
}

/// Whether everything that was noted of a room lay within what was read.
fn is_read(look: &Look<'_>, listed: &Listed) -> bool {
    if listed.user_last > look.user_position {
        return false;
    }
    let state = look.index.state.lock();
    let joined = state.room(&listed.room.room_id);
    joined.is_none_or(|joined| joined.last() <= look.until(joined.shard))
}

fn scopes(extensions: &Extensions, entry: &ListedRoom, candidate: &Candidate) -> Scopes {
    let has = |scope: &Option<Scope>| {
        scope
            .as_ref()
            .is_some_and(|scope| scope.has(entry.room_id.as_str(), &candidate.lists, candidate.subscribed))
    };
    Scopes {
        data: has(&extensions.account_data),
        receipts: has(&extensions.receipts),
        typing: has(&extensions.typing),
    }
}
