//! Brings what is kept of lists up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::OwnedRoomId;

use super::{
    connection::Connection,
    filter::{Sieve, children_of},
    list::ListCache,
    order::direct_rooms,
    request::{List, Request},
};
use crate::{Error, look::Look};

/// The rooms that are direct chats, read again where they changed.
pub(super) fn current_direct(look: &Look<'_>) -> Result<Arc<BTreeSet<OwnedRoomId>>, Error> {
    let is_stale = {
        let mut state = look.index.state.lock();
        state
            .sliding
            .as_mut()
            .is_some_and(|order| order.take_stale_direct())
    };
    let read = match is_stale {
        true => Some(direct_rooms(&look.request.user)?),
        false => None,
    };
    let mut state = look.index.state.lock();
    let Some(order) = &mut state.sliding else {
        return Ok(Arc::default());
    };
    if let Some(direct) = read {
        order.set_direct(direct);
    }
    Ok(order.direct())
}

/// Brings the lists up to date with the rooms that were touched; gives how many rooms each has.
pub(super) fn catch_up(
    request: &Request,
    look: &Look<'_>,
    connection: &mut Connection,
    direct: &BTreeSet<OwnedRoomId>,
) -> Result<BTreeMap<Arc<str>, usize>, Error> {
    connection
        .lists
        .retain(|name, _| request.lists.contains_key(&**name));
    let scopes = request.extensions.scopes();
    let mut counts = BTreeMap::new();
    for (name, list) in &request.lists {
        let name: Arc<str> = name.as_str().into();
        // Where reading fails in the middle, the list is made anew next time.
        let cache = connection.lists.remove(&name);
        let sieve = Sieve {
            look,
            state: &connection.state,
            direct,
        };
        let config = list.config.number(scopes);
        let cache = current_list(&sieve, list, config, cache)?;
        counts.insert(name.clone(), cache.count());
        connection.lists.insert(name, cache);
    }
    Ok(counts)
}

/// A list as it is now, made anew where what was kept is of no use. `config` is a number for what is shown of its rooms.
fn current_list(
    sieve: &Sieve<'_>,
    list: &List,
    config: u64,
    cache: Option<ListCache>,
) -> Result<ListCache, Error> {
    let spaces = list.filter.spaces.clone().unwrap_or_default();
    let (epoch, touches) = {
        let state = sieve.look.index.state.lock();
        let order = state.sliding.as_deref();
        let touched = |space: OwnedRoomId| {
            let last = order.and_then(|order| order.room_by_id(&space));
            let last = last.map_or(0, |listed| listed.touched);
            (space, last)
        };
        let touches: BTreeMap<_, _> = spaces.iter().cloned().map(touched).collect();
        (order.map_or(0, |order| order.epoch()), touches)
    };
    let kept = cache.filter(|cache| cache.filter == list.filter && cache.epoch == epoch);
    let children = match &kept {
        Some(cache) if cache.spaces == touches => cache.children.clone(),
        _ => children_of(sieve.look, &spaces)?,
    };
    let kept = kept.filter(|cache| cache.children == children);
    let seen = kept.as_ref().map_or(0, |cache| cache.caught_up);
    let (touched, count) = {
        let state = sieve.look.index.state.lock();
        let order = state.sliding.as_deref();
        let touched = order.map(|order| order.touched_after(seen)).unwrap_or_default();
        (touched, order.map_or(0, |order| order.touch_count()))
    };
    let mut cache = match kept {
        Some(mut cache) => {
            for room in &touched {
                let has = sieve.passes(room, &list.filter, &children)?;
                cache.update(room, has);
            }
            if cache.config != config {
                cache.all_dirty();
            }
            cache
        }
        None => {
            let mut rooms = Vec::with_capacity(touched.len());
            for room in touched {
                if sieve.passes(&room, &list.filter, &children)? {
                    rooms.push(room);
                }
            }
            let mut cache = ListCache::default();
            cache.fill(&rooms);
            cache
        }
    };
    cache.filter = list.filter.clone();
    (cache.config, cache.epoch, cache.caught_up) = (config, epoch, count);
    (cache.children, cache.spaces) = (children, touches);
    Ok(cache)
}
