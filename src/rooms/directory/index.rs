//! The public directory in memory: what each listed room shows, in the order of the pages.
//!
//! It is read once, beside the requests after the start, or by the first who asks before that is done. From then on a
//! listed room is read again only after its state has changed, and by the first who asks: a page costs what it shows and
//! what changed, however many rooms there are. A search looks through the texts in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use hearth_core::limits::DIRECTORY_PAGE_MAX_ROOMS;
use hearth_storage::{EntityKind, Family};
use parking_lot::{Mutex, RwLock};
use ruma::serde::{Base64, base64::UrlSafe};
use ruma::{OwnedRoomId, RoomId};
use serde_json::Value;

use super::{DirectoryEntry, DirectoryPage, VIEW};
use crate::{Error, Room, Rooms, keys, state_tree::NodeId};

/// Where a room stands: those with most members come first.
type Place = (Reverse<u32>, OwnedRoomId);

/// Where a page begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryToken {
    /// Whether the page ends before the place, not begins after it.
    backwards: bool,
    place: Place,
}

impl DirectoryToken {
    /// Reads what [`Display`](fmt::Display) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let backwards = match text.get(..1)? {
            "n" => false,
            "p" => true,
            _ => return None,
        };
        let (joined, room) = text[1..].split_once('.')?;
        let room = Base64::<UrlSafe>::parse(room).ok()?;
        let room = std::str::from_utf8(room.as_bytes()).ok()?;
        Some(Self {
            backwards,
            place: (Reverse(joined.parse().ok()?), OwnedRoomId::try_from(room).ok()?),
        })
    }
}

impl fmt::Display for DirectoryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Reverse(joined), room) = &self.place;
        let room = Base64::<UrlSafe, _>::new(room.as_bytes()).encode();
        write!(f, "{}{joined}.{room}", if self.backwards { 'p' } else { 'n' })
    }
}

/// The directory of a server.
#[derive(Default)]
pub(crate) struct DirectoryIndex {
    /// The listed rooms, with the root of the state that was read of each. Every change of a room looks here.
    read_at: RwLock<HashMap<OwnedRoomId, Option<NodeId>>>,
    /// What has changed since the lists were brought up to date.
    news: Mutex<News>,
    /// Lock order: the lists, then one of the others.
    lists: Mutex<Option<Lists>>,
}

#[derive(Default)]
struct News {
    /// Whether there are lists to be brought up to date.
    wanted: bool,
    /// Rooms that came into the list of a network or went out of it, in order.
    listed: Vec<(OwnedRoomId, String, bool)>,
    /// Rooms whose state has changed.
    changed: HashSet<OwnedRoomId>,
}

#[derive(Default)]
struct Lists {
    rooms: HashMap<OwnedRoomId, Entry>,
    by_network: BTreeMap<String, BTreeSet<Place>>,
    all: BTreeSet<Place>,
}

#[derive(Default)]
struct Entry {
    networks: BTreeSet<String>,
    shown: Option<Shown>,
}

/// What the directory shows of a room.
struct Shown {
    joined: u32,
    summary: Value,
    /// What is searched, in lower case.
    text: String,
}

impl DirectoryIndex {
    /// A room changed.
    pub(crate) fn changed(&self, room: &Room) {
        let root = room.view().root;
        let is_news = |read: &Option<NodeId>| *read != Some(root);
        if self.read_at.read().get(room.id()).is_some_and(is_news) {
            self.news.lock().changed.insert(room.id().to_owned());
        }
    }

    /// A room is gone.
    pub(crate) fn gone(&self, room: &RoomId) {
        if self.read_at.read().contains_key(room) {
            self.news.lock().changed.insert(room.to_owned());
        }
    }

    /// A room came into the list of a network, or went out of it.
    pub(super) fn listed(&self, room: &RoomId, network: &str, listed: bool) {
        let mut news = self.news.lock();
        if news.wanted {
            news.listed.push((room.to_owned(), network.to_owned(), listed));
        }
    }

    /// A page of the directory.
    pub(super) fn page(&self, rooms: &Arc<Rooms>, query: &DirectoryEntry) -> Result<DirectoryPage, Error> {
        let mut guard = self.lists.lock();
        let fresh = match guard.take() {
            None => self.build(rooms, &|| false),
            Some(mut lists) => self.refresh(rooms, &mut lists).map(|()| lists),
        };
        // After a failure the lists are read anew: part of the news is lost.
        Ok(guard.insert(fresh?).page(query))
    }

    /// Reads the directory, unless it was read. Gives up with [`hearth_storage::Error::Stopped`] when `stops` says so.
    pub(super) fn warm(&self, rooms: &Arc<Rooms>, stops: &dyn Fn() -> bool) -> Result<(), Error> {
        let mut lists = self.lists.lock();
        if lists.is_none() {
            *lists = Some(self.build(rooms, stops)?);
        }
        Ok(())
    }

    /// Whether the directory was read.
    #[cfg(test)]
    pub(crate) fn is_warm(&self) -> bool {
        self.lists.lock().is_some()
    }

    fn build(&self, rooms: &Arc<Rooms>, stops: &dyn Fn() -> bool) -> Result<Lists, Error> {
        // First, so that nothing that changes meanwhile is missed.
        self.news.lock().wanted = true;
        let mut listed = Vec::new();
        let (start, end) = keys::range(VIEW.to_vec());
        rooms
            .reader()
            .scan(Family::View, &start, &end, false, &mut |key, _| {
                let mut parts = key[start.len()..].splitn(2, |byte| *byte == 0);
                let network = parts.next().and_then(|network| std::str::from_utf8(network).ok());
                let room = parts.next().and_then(|room| std::str::from_utf8(room).ok());
                let room = room.and_then(|room| OwnedRoomId::try_from(room).ok());
                if let (Some(network), Some(room)) = (network, room) {
                    listed.push((room, network.to_owned()));
                }
                true
            })?;
        let mut lists = Lists::default();
        let mut found = BTreeSet::new();
        for (room, network) in listed {
            lists
                .rooms
                .entry(room.clone())
                .or_default()
                .networks
                .insert(network);
            found.insert(room);
        }
        for room in found {
            if stops() {
                return Err(hearth_storage::Error::Stopped.into());
            }
            self.read_again(rooms, &mut lists, &room)?;
        }
        self.refresh(rooms, &mut lists)?;
        Ok(lists)
    }

    fn refresh(&self, rooms: &Arc<Rooms>, lists: &mut Lists) -> Result<(), Error> {
        let (listed, mut changed) = {
            let mut news = self.news.lock();
            (
                std::mem::take(&mut news.listed),
                std::mem::take(&mut news.changed),
            )
        };
        for (room, network, listed) in listed {
            // It is taken out of the order of all its lists before one of them goes.
            lists.show(&room, None);
            let entry = lists.rooms.entry(room.clone()).or_default();
            match listed {
                true => entry.networks.insert(network),
                false => entry.networks.remove(&network),
            };
            changed.insert(room);
        }
        for room in changed {
            self.read_again(rooms, lists, &room)?;
        }
        Ok(())
    }

    fn read_again(&self, rooms: &Arc<Rooms>, lists: &mut Lists, id: &RoomId) -> Result<(), Error> {
        if lists.rooms.get(id).is_none_or(|entry| entry.networks.is_empty()) {
            lists.show(id, None);
            lists.rooms.remove(id);
            self.read_at.write().remove(id);
            return Ok(());
        }
        // Watched from before it is read, so that no change falls between.
        self.read_at.write().insert(id.to_owned(), None);
        match what_is_shown(rooms, id) {
            Ok(Some((root, shown))) => {
                lists.show(id, shown);
                self.read_at.write().insert(id.to_owned(), Some(root));
            }
            Ok(None) => lists.show(id, None),
            Err(error) if error.is_of_storage() => return Err(error),
            // One room that cannot be read takes the directory from nobody.
            Err(error) => {
                tracing::error!(%error, room = %id, "a room cannot be shown in the directory");
                lists.show(id, None);
            }
        }
        Ok(())
    }
}

/// What the directory shows of a room, if anything, and of which state; none where the room is not here.
fn what_is_shown(rooms: &Arc<Rooms>, id: &RoomId) -> Result<Option<(NodeId, Option<Shown>)>, Error> {
    let Some(room) = for_reading(rooms, id)? else {
        return Ok(None);
    };
    let view = room.view();
    let shown = match view.joined {
        // Nobody is there to be met.
        0 => None,
        joined => Some(Shown::new(joined, room.summary()?)),
    };
    Ok(Some((view.root, shown)))
}

/// A room to be read and let go. One that nobody uses is not kept in memory for it.
fn for_reading(rooms: &Arc<Rooms>, id: &RoomId) -> Result<Option<Room>, Error> {
    if let Some(room) = rooms.loaded.get(id) {
        return Ok(Some(room.clone()));
    }
    match hearth_storage::entity(rooms.reader(), EntityKind::Room, id.as_str())? {
        Some(key) => rooms.load(id, key),
        None => Ok(None),
    }
}

impl Shown {
    fn new(joined: u32, summary: Value) -> Self {
        let texts = ["name", "topic", "canonical_alias"]
            .map(|name| summary.get(name).and_then(Value::as_str).unwrap_or_default());
        Self {
            joined,
            text: texts.join("\n").to_lowercase(),
            summary,
        }
    }

    fn room_type(&self) -> Option<&str> {
        self.summary.get("room_type").and_then(Value::as_str)
    }
}

impl Lists {
    /// Puts what a room shows in the place of what it showed.
    fn show(&mut self, id: &RoomId, shown: Option<Shown>) {
        let Some(entry) = self.rooms.get_mut(id) else {
            return;
        };
        let place = |shown: &Shown| (Reverse(shown.joined), id.to_owned());
        if let Some(before) = &entry.shown {
            let before = place(before);
            self.all.remove(&before);
            for network in &entry.networks {
                if let Some(list) = self.by_network.get_mut(network) {
                    list.remove(&before);
                }
            }
        }
        if let Some(shown) = &shown {
            let now = place(shown);
            for network in &entry.networks {
                self.by_network
                    .entry(network.clone())
                    .or_default()
                    .insert(now.clone());
            }
            self.all.insert(now);
        }
        entry.shown = shown;
    }

    fn page(&self, query: &DirectoryEntry) -> DirectoryPage {
        let network = query.network.as_deref().unwrap_or_default();
        let list = match query.all_networks {
            true => Some(&self.all),
            false => self.by_network.get(network),
        };
        let Some(list) = list else {
            return DirectoryPage::default();
        };
        let limit = query
            .limit
            .unwrap_or(DIRECTORY_PAGE_MAX_ROOMS)
            .min(DIRECTORY_PAGE_MAX_ROOMS);
        // Of a page of none it is to be known all the same whether anything follows.
        let looked_for = limit.max(1);
        let search = query.search.as_deref().unwrap_or_default().to_lowercase();
        let takes_all = search.is_empty() && query.room_types.is_none();
        let shown = |place: &Place| self.rooms.get(&place.1).and_then(|entry| entry.shown.as_ref());
        let matches = |place: &&Place| {
            takes_all || shown(place).is_some_and(|shown| shown.matches(&search, query.room_types.as_deref()))
        };
        let after = |place: &Place| list.range((Bound::Excluded(place.clone()), Bound::Unbounded));
        let before = |place: &Place| list.range(..place.clone()).rev();
        let chunk: Vec<&Place> = match &query.since {
            None => list.iter().filter(matches).take(looked_for).collect(),
            Some(since) if since.backwards => {
                let mut chunk: Vec<_> = before(&since.place).filter(matches).take(looked_for).collect();
                chunk.reverse();
                chunk
            }
            Some(since) => after(&since.place).filter(matches).take(looked_for).collect(),
        };
        let token = |backwards: bool, place: &Place| DirectoryToken {
            backwards,
            place: place.clone(),
        };
        let total = match takes_all {
            true => list.len(),
            false => list.iter().filter(matches).count(),
        };
        if limit == 0 {
            // What follows begins where the page would have begun: there, or right before the first.
            let begin = |(Reverse(joined), room): &Place| (Reverse(joined.saturating_add(1)), room.clone());
            let next = |first: &&Place| match &query.since {
                Some(since) => since.clone(),
                None => token(false, &begin(first)),
            };
            return DirectoryPage {
                next: chunk.first().map(next),
                total,
                ..DirectoryPage::default()
            };
        }
        let goes_on = |last: &Place| after(last).any(|place| matches(&place));
        let went_before = |first: &Place| before(first).any(|place| matches(&place));
        let next = chunk.last().copied().filter(|last| goes_on(last));
        let previous = chunk.first().copied().filter(|first| went_before(first));
        DirectoryPage {
            next: next.map(|last| token(false, last)),
            previous: previous.map(|first| token(true, first)),
            total,
            chunk: chunk
                .into_iter()
                .filter_map(|place| shown(place).map(|shown| shown.summary.clone()))
                .collect(),
        }
    }
}

impl Shown {
    fn matches(&self, search: &str, types: Option<&[Option<String>]>) -> bool {
        let is_of_type =
            |types: &[Option<String>]| types.iter().any(|one| one.as_deref() == self.room_type());
        types.is_none_or(is_of_type) && self.text.contains(search)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room(number: usize) -> OwnedRoomId {
        OwnedRoomId::try_from(format!("!r{number}:a")).expect("an id")
    }

    fn lists(members: &[u32]) -> Lists {
        let mut lists = Lists::default();
        for (number, joined) in members.iter().enumerate() {
            let entry = lists.rooms.entry(room(number)).or_default();
            entry.networks.insert(String::new());
            let summary = json!({ "room_id": room(number), "name": format!("Room {}", number % 2) });
            lists.show(&room(number), Some(Shown::new(*joined, summary)));
        }
        lists
    }

    fn ids(page: &DirectoryPage) -> Vec<&str> {
        page.chunk
            .iter()
            .map(|summary| summary["room_id"].as_str().expect("an id"))
            .collect()
    }

    #[test]
    fn pages_go_to_and_fro() {
        let lists = lists(&[3, 9, 9, 1, 5]);
        for (search, expected) in [
            ("", vec!["!r1:a", "!r2:a", "!r4:a", "!r0:a", "!r3:a"]),
            ("ROOM 0", vec!["!r2:a", "!r4:a", "!r0:a"]),
            ("nothing", vec![]),
        ] {
            for limit in 1..=6 {
                let mut query = DirectoryEntry {
                    search: Some(search.to_owned()),
                    limit: Some(limit),
                    ..DirectoryEntry::default()
                };
                let mut forth = Vec::new();
                let mut pages = Vec::new();
                loop {
                    let page = lists.page(&query);
                    assert_eq!(page.total, expected.len());
                    assert!(page.chunk.len() <= limit);
                    forth.extend(ids(&page).into_iter().map(str::to_owned));
                    query.since = page.next.clone();
                    pages.push(page);
                    if query.since.is_none() {
                        break;
                    }
                }
                assert_eq!(forth, expected, "{search} {limit}");
                assert!(pages[0].previous.is_none());
                for pair in pages.windows(2) {
                    query.since = pair[1].previous.clone();
                    assert_eq!(ids(&lists.page(&query)), ids(&pair[0]), "{search} {limit}");
                }
            }
        }
    }

    #[test]
    fn a_page_of_none_says_where_it_would_have_begun() {
        let lists = lists(&[3, 9, 9, 1, 5]);
        let page = |limit: usize, since: &Option<DirectoryToken>| {
            lists.page(&DirectoryEntry {
                search: Some("room 0".to_owned()),
                limit: Some(limit),
                since: since.clone(),
                ..DirectoryEntry::default()
            })
        };
        let mut since = None;
        for expected in ["!r2:a", "!r4:a", "!r0:a"] {
            let none = page(0, &since);
            assert_eq!((ids(&none).len(), none.total), (0, 3));
            assert!(none.next.is_some(), "{expected}");
            let one = page(1, &none.next);
            assert_eq!(ids(&one), [expected]);
            since = one.next;
        }
        assert!(since.is_none());
        let last = DirectoryToken {
            backwards: false,
            place: (Reverse(3), room(0)),
        };
        assert!(page(0, &Some(last)).next.is_none(), "nothing follows");
    }

    #[test]
    fn lists_are_apart() {
        let mut lists = lists(&[1, 2]);
        let entry = lists.rooms.get_mut(&room(0)).expect("a room");
        let before = entry.shown.take().expect("shown");
        lists.by_network.clear();
        lists.all.clear();
        lists.rooms.get_mut(&room(0)).expect("a room").networks = BTreeSet::from(["irc".to_owned()]);
        lists.show(&room(0), Some(before));
        let second = lists.rooms.get_mut(&room(1)).and_then(|entry| entry.shown.take());
        lists.show(&room(1), second);
        let page = |network: Option<&str>, all_networks| {
            let query = DirectoryEntry {
                network: network.map(str::to_owned),
                all_networks,
                ..DirectoryEntry::default()
            };
            ids(&lists.page(&query)).join(" ")
        };
        assert_eq!(page(None, false), "!r1:a");
        assert_eq!(page(Some("irc"), false), "!r0:a");
        assert_eq!(page(Some("other"), false), "");
        assert_eq!(page(None, true), "!r1:a !r0:a");
    }

    #[test]
    fn rooms_without_a_type_are_one_type() {
        let shown = |kind: Option<&str>| {
            let mut summary = json!({});
            if let Some(kind) = kind {
                summary["room_type"] = kind.into();
            }
            Shown::new(1, summary)
        };
        let types = [None, Some("m.space".to_owned())];
        assert!(shown(None).matches("", Some(&types)));
        assert!(shown(Some("m.space")).matches("", Some(&types[1..])));
        assert!(!shown(None).matches("", Some(&types[1..])));
        assert!(!shown(Some("x")).matches("", Some(&types)));
        assert!(!shown(None).matches("", Some(&[])));
    }

    #[test]
    fn tokens() {
        for backwards in [true, false] {
            let token = DirectoryToken {
                backwards,
                place: (Reverse(7), room(1)),
            };
            let text = token.to_string();
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            );
            assert_eq!(DirectoryToken::parse(&text), Some(token));
        }
        for bad in [
            "",
            "n",
            "x1.IXI6YQ",
            "n1",
            "n-1.IXI6YQ",
            "n1.!",
            "n1.YWJj",
            "ä",
            "p1.",
        ] {
            assert_eq!(DirectoryToken::parse(bad), None, "{bad}");
        }
    }
}
