//! Answering a search: the index proposes, the rooms decide.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_rooms::{Event, Room, Viewer};
use hearth_storage::EntityKey;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::document::{self, Document};
use crate::index::{Candidate, Fields, Moment, Slice, Wanted};
use crate::words::Term;
use crate::{Error, Search};

/// How many proposals are looked at together.
const CANDIDATES_AT_ONCE: usize = 64;
/// How many proposals one request looks at: where a user may see few of them, the page is short and has a token.
const CANDIDATES_MAX: usize = 1_000;
/// How many parts of an index that is not whole are built before a search: all there is on a small server. On a large
/// one the search finds what is there.
const BUILT_FIRST_MAX: usize = 50;
/// How far results can be paged through by relevance; each page finds all before it again.
const RANKED_MAX: usize = 10_000;

/// The order of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The most relevant first.
    #[default]
    Rank,
    /// The newest first.
    Recent,
}

/// A part of the results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Those of a room.
    RoomId(OwnedRoomId),
    /// Those of a sender.
    Sender(OwnedUserId),
}

impl Group {
    fn has(&self, hit: &Hit) -> bool {
        match self {
            Self::RoomId(room) => hit.room.id() == room,
            Self::Sender(sender) => hit.event.pdu.sender() == sender,
        }
    }
}

/// How far into the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    /// By relevance, how many are passed over.
    Rank(u64),
    /// By time, the last one before.
    Recent(Moment),
}

/// Where a page of results begins. Only this module reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    at: At,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Group>,
}

impl Token {
    /// Reads what a client sent back.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::BadToken)?;
        serde_json::from_slice(&bytes).map_err(|_| Error::BadToken)
    }

    /// The same place, for the results of one group that follow.
    pub fn in_group(&self, group: Group) -> Self {
        Self {
            at: self.at,
            group: Some(group),
        }
    }

    /// The group by which the index is asked. Places by relevance are counted over all groups, so that others are passed
    /// over one by one there.
    fn narrows(&self) -> Option<&Group> {
        self.group.as_ref().filter(|_| matches!(self.at, At::Recent(_)))
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = serde_json::to_vec(self).map_err(|_| std::fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Which other events are wanted: what the index does not know of.
pub type Keep = Box<dyn Fn(&Event) -> bool + Send>;

/// What is searched for, by whom.
pub struct Criteria {
    /// Who searches.
    pub user: OwnedUserId,
    /// What events have to say.
    pub term: Term,
    /// Where in events.
    pub fields: Fields,
    /// In these rooms.
    pub rooms: Vec<OwnedRoomId>,
    /// Only of these senders.
    pub senders: Option<Vec<OwnedUserId>>,
    /// Of none of these.
    pub not_senders: Vec<OwnedUserId>,
    /// What else an event must be.
    pub keep: Keep,
    /// The order.
    pub order: Order,
    /// At most so many.
    pub limit: usize,
    /// Where the page begins.
    pub from: Option<Token>,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The room.
    pub room: Room,
    /// The event.
    pub event: Arc<Event>,
    /// How well it fits: the higher the better.
    pub rank: f32,
    /// What was searched of it.
    pub text: String,
}

/// A page of results.
#[derive(Debug, Default)]
pub struct Found {
    /// The results, in their order.
    pub hits: Vec<Hit>,
    /// About how many there are on all pages.
    pub count: usize,
    /// Where the next page begins; none at the end.
    pub next: Option<Token>,
}

impl Search {
    /// Searches everything that was published before the call.
    pub async fn find(self: &Arc<Self>, criteria: Criteria) -> Result<Found, Error> {
        if criteria.term.words().is_empty() || criteria.rooms.is_empty() || criteria.fields == Fields::NONE {
            return Ok(Found::default());
        }
        if let Err(error) = self.bring_up_to_date().await {
            // What is there can still be searched; what is found is read from its room anyway.
            tracing::warn!(%error, "a search finds an index that is not up to date");
        }
        let search = self.clone();
        self.pool.run(move || search.find_now(&criteria)).await
    }

    async fn bring_up_to_date(self: &Arc<Self>) -> Result<(), Error> {
        for _ in 0..BUILT_FIRST_MAX {
            if !self.build_some().await? {
                break;
            }
        }
        self.catch_up().await
    }

    fn find_now(self: &Arc<Self>, criteria: &Criteria) -> Result<Found, Error> {
        let wanted = self.wanted(criteria)?;
        let group = criteria.from.as_ref().and_then(|token| token.group.clone());
        let mut slice = first_slice(criteria)?;
        let mut looked = Looking::new(self, &criteria.user);
        let mut found = Found {
            count: self.index.count(&wanted)?,
            ..Found::default()
        };
        let (mut looked_at, mut unseen) = (0, 0);
        'pages: loop {
            let candidates = self.index.find(&wanted, slice, CANDIDATES_AT_ONCE)?;
            let is_last = candidates.len() < CANDIDATES_AT_ONCE;
            for candidate in candidates {
                if found.hits.len() == criteria.limit || looked_at == CANDIDATES_MAX {
                    found.next = next(slice, group);
                    break 'pages;
                }
                looked_at += 1;
                slice = after(slice, candidate);
                // What cannot be read takes the other results from nobody.
                let hit = match looked.hit(candidate, criteria) {
                    Err(error) if error.is_of_one_room() => {
                        tracing::error!(%error, "an event is not found, as it cannot be read");
                        None
                    }
                    hit => hit?,
                };
                match hit {
                    Some(hit) if group.as_ref().is_some_and(|group| !group.has(&hit)) => {}
                    Some(hit) => found.hits.push(hit),
                    None => unseen += 1,
                }
            }
            if is_last {
                // A full page says that there may be more, so that a client need not know how many it asked for.
                if found.hits.len() == criteria.limit {
                    found.next = next(slice, group);
                }
                break;
            }
        }
        found.count = found.count.saturating_sub(unseen).max(found.hits.len());
        Ok(found)
    }
}

impl Search {
    /// What the index is asked; in a page of a group, for that group alone.
    fn wanted(&self, criteria: &Criteria) -> Result<Wanted, Error> {
        let texts = |ids: &[OwnedUserId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let group = criteria.from.as_ref().and_then(Token::narrows);
        let mut rooms = Vec::with_capacity(criteria.rooms.len());
        for id in &criteria.rooms {
            if !matches!(group, Some(Group::RoomId(only)) if only != id) {
                rooms.extend(self.rooms.key_of(id)?);
            }
        }
        let mut wanted = Wanted {
            words: criteria.term.words().to_vec(),
            fields: criteria.fields,
            rooms,
            senders: criteria.senders.as_deref().map(texts),
            not_senders: texts(&criteria.not_senders),
        };
        if let Some(Group::Sender(sender)) = group {
            let is_allowed = wanted
                .senders
                .as_ref()
                .is_none_or(|all| all.iter().any(|one| one == sender.as_str()));
            wanted.senders = Some(if is_allowed {
                vec![sender.to_string()]
            } else {
                Vec::new()
            });
        }
        Ok(wanted)
    }
}

fn first_slice(criteria: &Criteria) -> Result<Slice, Error> {
    let at = criteria.from.as_ref().map(|token| token.at);
    match (criteria.order, at) {
        (Order::Rank, None) => Ok(Slice::Rank { skip: 0 }),
        (Order::Recent, None) => Ok(Slice::Recent { before: None }),
        (Order::Recent, Some(At::Recent(last))) => Ok(Slice::Recent { before: Some(last) }),
        (Order::Rank, Some(At::Rank(skip))) => {
            let skip = usize::try_from(skip).ok().filter(|skip| *skip <= RANKED_MAX);
            Ok(Slice::Rank {
                skip: skip.ok_or(Error::BadToken)?,
            })
        }
        _ => Err(Error::BadToken),
    }
}

/// The slice behind a candidate.
fn after(slice: Slice, candidate: Candidate) -> Slice {
    match slice {
        Slice::Rank { skip } => Slice::Rank { skip: skip + 1 },
        Slice::Recent { .. } => Slice::Recent {
            before: Some(candidate.moment),
        },
    }
}

fn next(slice: Slice, group: Option<Group>) -> Option<Token> {
    let at = match slice {
        Slice::Rank { skip } => (skip <= RANKED_MAX).then_some(At::Rank(skip as u64)),
        Slice::Recent { before } => before.map(At::Recent),
    };
    at.map(|at| Token { at, group })
}

/// A user's look at rooms, each opened once.
struct Looking<'a> {
    search: &'a Arc<Search>,
    user: &'a UserId,
    rooms: HashMap<EntityKey, Option<(Room, Viewer)>>,
}

impl<'a> Looking<'a> {
    fn new(search: &'a Arc<Search>, user: &'a UserId) -> Self {
        Self {
            search,
            user,
            rooms: HashMap::new(),
        }
    }

    /// The result that a proposal comes to, if it is there and the user may see it.
    fn hit(&mut self, candidate: Candidate, criteria: &Criteria) -> Result<Option<Hit>, Error> {
        let key = candidate.key.room;
        if !self.rooms.contains_key(&key) {
            let room = self.search.rooms.room_of_key(key)?;
            let opened = match room {
                // It may have been encrypted since it was indexed.
                Some(room) if !document::is_encrypted(&room)? => {
                    let viewer = room.viewer(self.user)?;
                    Some((room, viewer))
                }
                _ => None,
            };
            self.rooms.insert(key, opened);
        }
        let Some(Some((room, viewer))) = self.rooms.get_mut(&key) else {
            return Ok(None);
        };
        let Some(event) = room.event(candidate.key.short)? else {
            return Ok(None);
        };
        if !(criteria.keep)(&event) || !viewer.may_see(&event)? {
            return Ok(None);
        }
        // As it is now: it may have been redacted or edited since it was indexed.
        let Some(document) = Document::of(room, &event)? else {
            return Ok(None);
        };
        let text = document.text.into_string();
        if !criteria.term.fits(&text) {
            return Ok(None);
        }
        if let Some(edit) = document.edit {
            // Whoever may not see the edit must not learn its words.
            match room.event(edit.short)? {
                Some(edit) if viewer.may_see(&edit)? => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(Hit {
            room: room.clone(),
            event,
            rank: candidate.rank,
            text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let last = Moment {
            recent: u64::MAX,
            tie: 7,
        };
        let token = Token {
            at: At::Recent(last),
            group: None,
        };
        assert_eq!(Token::parse(&token.to_string()).expect("a token"), token);
        let room = ruma::room_id!("!r:x").to_owned();
        let grouped = token.in_group(Group::RoomId(room));
        assert_eq!(Token::parse(&grouped.to_string()).expect("a token"), grouped);
        let ranked = Token {
            at: At::Rank(3),
            group: None,
        };
        let grouped = ranked.in_group(Group::Sender(ruma::user_id!("@a:x").to_owned()));
        assert_eq!(Token::parse(&grouped.to_string()).expect("a token"), grouped);
        for bad in ["", "x", "e30", "!!!!"] {
            assert!(matches!(Token::parse(bad), Err(Error::BadToken)), "{bad}");
        }
    }
}
