//! What the bodies of both wires have in common.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::error::MatrixError;
use hearth_core::limits::{ID_MAX_BYTES, SYNC_TIMELINE_MAX_EVENTS};
use hearth_sync::sliding::{Extensions, ListFilter, Scope, Threads, ToDevice};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::error::Result;

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
pub(super) const STATE_PATTERNS_MAX: usize = 1_000;

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
    pub(super) fn into_extensions(self) -> Extensions {
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

/// Whose bounds a request has to keep.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Those of the wire before MSC4186 was merged: lists are called what clients call them.
    Unstable,
    /// Those of MSC4186.
    Merged,
}

/// Refuses what is more than a request may ask.
pub(super) fn check<L, S>(
    conn_id: &str,
    lists: &BTreeMap<String, L>,
    subscriptions: &BTreeMap<OwnedRoomId, S>,
    bounds: Bounds,
) -> Result<()> {
    let (subscriptions_max, names_opaque) = match bounds {
        Bounds::Unstable => (SUBSCRIPTIONS_UNSTABLE_MAX, false),
        Bounds::Merged => (SUBSCRIPTIONS_MAX, true),
    };
    if conn_id.len() > ID_MAX_BYTES {
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
    if subscriptions.len() > subscriptions_max {
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

/// A limit of timelines, as far as the server goes along.
pub(super) fn timeline_limit(limit: u64) -> usize {
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
