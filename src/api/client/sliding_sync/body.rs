//! What the bodies of both wires have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::response::Response;
use hearth_core::error::MatrixError;
use hearth_core::limits::{ID_MAX_BYTES, SYNC_TIMELINE_MAX_EVENTS};
use hearth_sync::sliding::{
    self, Extensions, List, ListFilter, Request, RequiredState, RoomConfig, Scope, StateRule, Threads,
    ToDevice, Wire,
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::app::App;
use crate::client::large;
use crate::client::sync::presence;
use crate::error::Result;
use crate::extract::Auth;

/// Lists in one request, set by MSC4186.
const LISTS_MAX: usize = 100;
/// Room subscriptions in one request, set by MSC4186.
const SUBSCRIPTIONS_MAX: usize = 100;
/// The same on the wire before it was merged, which sets none: clients there may add to their subscriptions as the
/// user scrolls.
const SUBSCRIPTIONS_UNSTABLE_MAX: usize = 1_000;
/// Ranges of one list: clients use one or two.
const RANGES_MAX: usize = 100;
/// Entries of one required state: clients name some twenty.
const STATE_PATTERNS_MAX: usize = 1_000;

/// Filters of a list; `is_invite` and `is_invited` are the names of the two wires.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filters {
    is_dm: Option<bool>,
    spaces: Option<BTreeSet<OwnedRoomId>>,
    is_encrypted: Option<bool>,
    #[serde(alias = "is_invite")]
    is_invited: Option<bool>,
    room_types: Option<Vec<Option<String>>>,
    not_room_types: Option<Vec<Option<String>>>,
    tags: Option<Vec<String>>,
    not_tags: Option<Vec<String>>,
    room_name_like: Option<String>,
}

impl Filters {
    pub(super) fn into_filter(self) -> ListFilter {
        ListFilter {
            is_dm: self.is_dm,
            spaces: self.spaces,
            is_encrypted: self.is_encrypted,
            is_invited: self.is_invited,
            room_types: self.room_types,
            not_room_types: self.not_room_types,
            tags: self.tags,
            not_tags: self.not_tags,
            name_like: self.room_name_like,
        }
    }
}

/// The extensions. One that this server does not know is passed over.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ExtensionsBody {
    to_device: Option<ToDeviceBody>,
    e2ee: Option<Switch>,
    account_data: Option<ScopeBody>,
    receipts: Option<ScopeBody>,
    typing: Option<ScopeBody>,
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    threads: Option<ThreadsBody>,
}

#[derive(Debug, Deserialize)]
struct ThreadsBody {
    enabled: Option<bool>,
    limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Switch {
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ToDeviceBody {
    enabled: Option<bool>,
    limit: Option<u64>,
    since: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ScopeBody {
    enabled: Option<bool>,
    lists: Option<BTreeSet<String>>,
    rooms: Option<BTreeSet<String>>,
}

impl ExtensionsBody {
    fn into_extensions(self) -> Extensions {
        let scope = |body: Option<ScopeBody>| {
            let body = body.filter(|body| body.enabled == Some(true))?;
            Some(Scope {
                lists: body.lists,
                rooms: body.rooms,
            })
        };
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let threads = self.threads.filter(|body| body.enabled == Some(true));
        let to_device = self.to_device.filter(|body| body.enabled == Some(true));
        Extensions {
            to_device: to_device.map(|body| ToDevice {
                since: body.since.filter(|since| !since.is_empty()),
                limit: body.limit.map(size),
            }),
            e2ee: self.e2ee.is_some_and(|body| body.enabled == Some(true)),
            account_data: scope(self.account_data),
            receipts: scope(self.receipts),
            typing: scope(self.typing),
            threads: threads.map(|body| Threads {
                limit: body.limit.map(size),
            }),
        }
    }
}

/// What a client asks, in whichever places its wire has the parts.
pub(super) struct Asked {
    pub(super) pos: Option<String>,
    pub(super) timeout_ms: u64,
    pub(super) set_presence: Option<String>,
    pub(super) conn_id: Option<String>,
    pub(super) lists: BTreeMap<String, List>,
    pub(super) subscriptions: BTreeMap<OwnedRoomId, RoomConfig>,
    pub(super) extensions: ExtensionsBody,
}

/// Answers on a wire.
pub(super) async fn answer(app: &App, auth: Auth, wire: Wire, asked: Asked) -> Result<Response> {
    check(&asked, wire)?;
    let mut request = Request {
        user: auth.handle,
        device: auth.device,
        conn_id: asked.conn_id.unwrap_or_default(),
        pos: asked.pos.filter(|pos| !pos.is_empty()),
        timeout: Duration::from_millis(asked.timeout_ms),
        set_presence: presence(asked.set_presence.as_deref())?,
        lists: asked.lists,
        subscriptions: asked.subscriptions,
        extensions: asked.extensions.into_extensions(),
        // MSC4186 as it was merged has no counts.
        with_unread: wire == Wire::Unstable,
        events_max: large::EVENTS_MAX,
    };
    let (mut answer, place) = large::sliding_sync(app, &mut request).await?;
    let text = sliding::render(wire, request.device.as_deref(), &mut answer)?;
    Ok(large::respond(text.into_bytes(), place))
}

/// Reads each value of a map.
pub(super) fn read_all<K: Ord, A, B>(
    map: BTreeMap<K, A>,
    read: impl Fn(A) -> Result<B>,
) -> Result<BTreeMap<K, B>> {
    map.into_iter()
        .map(|(key, value)| Ok((key, read(value)?)))
        .collect()
}

/// Refuses what is more than a request may ask. The bounds of the wire before MSC4186 was merged are wider: lists are
/// called there what clients call them.
fn check(asked: &Asked, wire: Wire) -> Result<()> {
    let (subscriptions_max, names_opaque) = match wire {
        Wire::Unstable => (SUBSCRIPTIONS_UNSTABLE_MAX, false),
        Wire::V4 => (SUBSCRIPTIONS_MAX, true),
    };
    let lists = &asked.lists;
    if asked.conn_id.as_ref().is_some_and(|id| id.len() > ID_MAX_BYTES) {
        return Err(MatrixError::invalid_param("conn_id has at most 255 bytes").into());
    }
    if lists.len() > LISTS_MAX {
        return Err(MatrixError::invalid_param("A request has at most 100 lists").into());
    }
    if lists.keys().any(|name| name.len() > ID_MAX_BYTES) {
        return Err(MatrixError::invalid_param("The name of a list has at most 255 bytes").into());
    }
    if names_opaque && lists.keys().any(|name| !is_opaque_id(name)) {
        let sentence = "The name of a list has 1 to 255 of the characters a-z A-Z 0-9 - . _ ~";
        return Err(MatrixError::invalid_param(sentence).into());
    }
    if asked.subscriptions.len() > subscriptions_max {
        let sentence = format!("A request has at most {subscriptions_max} room subscriptions");
        return Err(MatrixError::invalid_param(sentence).into());
    }
    Ok(())
}

/// Opaque identifiers, by the specification's appendix.
fn is_opaque_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (1..=ID_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// Checks ranges: the first is not after the last.
pub(super) fn ranges(ranges: Vec<(u64, u64)>) -> Result<Vec<(u64, u64)>> {
    if ranges.len() > RANGES_MAX {
        return Err(MatrixError::invalid_param("A list has at most 100 ranges").into());
    }
    if ranges.iter().any(|(first, last)| first > last) {
        return Err(MatrixError::invalid_param("A range ends before it begins").into());
    }
    Ok(ranges)
}

/// What is to be shown of a room.
pub(super) fn config(limit: u64, rule: StateRule) -> Result<RoomConfig> {
    if rule.include.len() + rule.exclude.len() > STATE_PATTERNS_MAX {
        return Err(MatrixError::invalid_param("required_state has at most 1000 entries").into());
    }
    Ok(RoomConfig {
        timeline_limit: timeline_limit(limit),
        required_state: RequiredState::of(rule),
    })
}

/// A limit of timelines, as far as the server goes along.
fn timeline_limit(limit: u64) -> usize {
    usize::try_from(limit).map_or(SYNC_TIMELINE_MAX_EVENTS, |limit| {
        limit.min(SYNC_TIMELINE_MAX_EVENTS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(timeline_limit(3), 3);
        assert_eq!(timeline_limit(u64::MAX), SYNC_TIMELINE_MAX_EVENTS);
        assert!(ranges(vec![(0, 5), (6, 6)]).is_ok());
        assert!(ranges(vec![(2, 1)]).is_err());
        assert!(ranges(vec![(0, 0); 101]).is_err());
        for (name, expected) in [("all_rooms", true), ("", false), ("a b", false), ("ä", false)] {
            assert_eq!(is_opaque_id(name), expected, "{name}");
        }
    }
}
