//! Reading the timeline, page by page.

use std::sync::Arc;

use hearth_storage::{Family, Position};

use crate::{Error, Event, Place, Room, Sees, event::Short, keys};

/// How many rows are read at once.
const CHUNK_ROWS: usize = 64;

/// How many events a page may look at when a filter leaves most of them out.
const PAGE_LOOKED_AT_MAX: usize = 5_000;

/// A page that has so much has enough events, however many are asked for: each of them may take 64 KiB.
const PAGE_FULL_BYTES: usize = 8 << 20;

/// How many events of one millisecond are looked at to find the one that is meant.
const SAME_TIME_MAX: usize = 100;

/// A page of the timeline.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events, in the direction of reading.
    pub events: Vec<Arc<Event>>,
    /// The gap where the next page begins; none at the end.
    pub next: Option<Place>,
}

/// A row of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where the event stands.
    pub place: Place,
    /// Which it is.
    pub short: Short,
    /// The batch that put it there.
    pub position: Position,
}

impl Place {
    /// The gap before every event.
    pub const START: Place = Place { anchor: 0, offset: 0 };
    /// The gap after every event.
    pub const END: Place = Place {
        anchor: u64::MAX,
        offset: i32::MAX,
    };

    /// The gap right before the event at this place. A gap is named by the last place before it.
    pub fn before(self) -> Place {
        Place {
            anchor: self.anchor,
            offset: self.offset.saturating_sub(1),
        }
    }

    /// The place right behind this gap, if history can be filled in here; else this place.
    pub(crate) fn behind(self) -> Place {
        Place {
            anchor: self.anchor,
            offset: self.offset.saturating_add(i32::from(self.offset < 0)),
        }
    }
}

impl Room {
    /// Timeline rows after gap `after` up to gap `until`, or the same backwards; stop by
    /// returning false.
    pub fn visit_timeline(
        &self,
        after: Place,
        until: Place,
        backward: bool,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), Error> {
        let Some((rows, begin)) = self.0.tail.rows(after, until) else {
            return self.visit_stored_timeline(after, until, backward, visit);
        };
        if backward {
            if rows.into_iter().rev().all(&mut *visit) && after < begin {
                self.visit_stored_timeline(after, until.min(begin.before()), true, visit)?;
            }
            return Ok(());
        }
        if after < begin {
            return self.visit_stored_timeline(after, until, false, visit);
        }
        rows.into_iter().all(visit);
        Ok(())
    }

    fn visit_stored_timeline(
        &self,
        after: Place,
        until: Place,
        backward: bool,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), Error> {
        let start = hearth_storage::prefix_end(&keys::timeline(self.0.key, after));
        let end = match until {
            Place::END => keys::entity_range(self.0.key).1,
            until => hearth_storage::prefix_end(&keys::timeline(self.0.key, until)),
        };
        if start >= end {
            return Ok(());
        }
        let mut damaged = false;
        self.reader().scan(
            Family::RoomTimeline,
            &start,
            &end,
            backward,
            &mut |key, value| match (keys::read_place(&key[6..]), keys::read_timeline_value(value)) {
                (Some(place), Some((short, position))) => visit(Row {
                    place,
                    short,
                    position,
                }),
                _ => {
                    damaged = true;
                    false
                }
            },
        )?;
        if damaged {
            Err(Error::Damaged("timeline row"))
        } else {
            Ok(())
        }
    }

    /// Up to `limit` events that `viewer` may see and `keep` keeps, from gap `from` towards gap
    /// `to`.
    pub fn page(
        &self,
        from: Place,
        to: Option<Place>,
        backward: bool,
        limit: usize,
        viewer: &mut dyn Sees,
        keep: &dyn Fn(&Event) -> bool,
    ) -> Result<Page, Error> {
        let bounds = (limit, PAGE_LOOKED_AT_MAX);
        self.page_within(from, to, backward, bounds, viewer, keep)
    }

    /// As [`Self::page`], with so many events, of so many that are looked at. Large events fill a page sooner.
    pub fn page_within(
        &self,
        from: Place,
        to: Option<Place>,
        backward: bool,
        (limit, looked_at_max): (usize, usize),
        viewer: &mut dyn Sees,
        keep: &dyn Fn(&Event) -> bool,
    ) -> Result<Page, Error> {
        let mut page = Page::default();
        let mut at = from;
        let (mut looked_at, mut bytes) = (0, 0);
        loop {
            let (after, until) = match backward {
                true => (to.unwrap_or(Place::START), at),
                false => (at, to.unwrap_or(Place::END)),
            };
            let mut rows = Vec::with_capacity(CHUNK_ROWS);
            self.visit_timeline(after, until, backward, &mut |row| {
                rows.push(row);
                rows.len() < CHUNK_ROWS
            })?;
            let shorts: Vec<_> = rows.iter().map(|row| row.short).collect();
            for event in self.events(&shorts)? {
                if page.events.len() >= limit || looked_at >= looked_at_max || bytes >= PAGE_FULL_BYTES {
                    page.next = Some(at);
                    return Ok(page);
                }
                looked_at += 1;
                at = if backward {
                    event.header.place.before()
                } else {
                    event.header.place
                };
                if keep(&event) && viewer.may_see(&event)? {
                    bytes += event.pdu.json.len();
                    page.events.push(event);
                }
            }
            if rows.len() < CHUNK_ROWS {
                if !backward && page.events.len() >= limit {
                    page.next = Some(at);
                }
                return Ok(page);
            }
        }
    }

    /// The event at a place.
    pub fn event_at(&self, place: Place) -> Result<Option<Arc<Event>>, Error> {
        let row = self
            .reader()
            .get(Family::RoomTimeline, &keys::timeline(self.0.key, place))?;
        match row.and_then(|value| keys::read_timeline_value(&value)) {
            Some((short, _)) => self.event(short),
            None => Ok(None),
        }
    }

    /// The root of the state at a gap: after the last event before it.
    ///
    /// The gap before everything counts as the one after the room's first batch: tokens are positions
    /// of batches, and a room without a member is of no use to anybody.
    pub fn state_root_after(&self, gap: Place) -> Result<crate::state_tree::NodeId, Error> {
        let mut last = None;
        self.visit_timeline(Place::START, gap, true, &mut |row| {
            last = Some(row.short);
            false
        })?;
        match last.map(|short| self.event(short)).transpose()?.flatten() {
            Some(event) => self.state_after(&event),
            None => {
                let first = self.event_at(Place { anchor: 1, offset: 0 })?;
                self.state_root_at(first.map_or(0, |first| first.header.position))
            }
        }
    }

    /// The gap after everything that log position `position` shows.
    pub fn place_at(&self, position: Position) -> Result<Place, Error> {
        let view = self.view();
        if view.timeline_position <= position {
            return Ok(Place {
                anchor: view.last_n,
                offset: 0,
            });
        }
        if let Some(place) = self.0.tail.place_at(position) {
            return Ok(place);
        }
        let after = |anchor: u64| -> Result<bool, Error> {
            let row = keys::timeline(self.0.key, Place { anchor, offset: 0 });
            let row = self.reader().get(Family::RoomTimeline, &row)?;
            let at = row
                .and_then(|value| keys::read_timeline_value(&value))
                .map(|(_, position)| position);
            at.map(|at| at > position).ok_or(Error::Damaged("timeline row"))
        };
        let (mut high, mut step) = (view.last_n, 1);
        // Mostly asked for a position that is near the end: from there in growing steps, then by halves.
        while high > step && after(high - step)? {
            high -= step + 1;
            step *= 2;
        }
        let mut low = high.saturating_sub(step);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match after(middle)? {
                true => high = middle - 1,
                false => low = middle,
            }
        }
        Ok(Place {
            anchor: low,
            offset: 0,
        })
    }

    /// The event at or nearest to a time: the first at or after it, or the last at or before it
    /// (`timestamp_to_event`). Looks at origin_server_ts in the order of the timeline. Of several events of the same
    /// millisecond it is the one that stands first in the graph, or last. Where that is the very time that was asked for,
    /// an event that says something goes before state: whoever names the time has most likely seen it.
    pub fn event_near(
        &self,
        timestamp_ms: u64,
        backward: bool,
        viewer: &mut dyn Sees,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Some(nearest) = self.any_event_near(timestamp_ms, backward, viewer)? else {
            return Ok(None);
        };
        let same = |event: &Event| event.pdu.origin_server_ts() == nearest.pdu.origin_server_ts();
        let exact = nearest.pdu.origin_server_ts() == timestamp_ms;
        let mut found = nearest.clone();
        let mut looked_at = 0;
        let from = match backward {
            true => nearest.header.place.before(),
            false => nearest.header.place,
        };
        let (after, until) = match backward {
            true => (Place::START, from),
            false => (from, Place::END),
        };
        let mut rows = Vec::new();
        self.visit_timeline(after, until, backward, &mut |row| {
            rows.push(row.short);
            rows.len() < SAME_TIME_MAX
        })?;
        for chunk in rows.chunks(8) {
            for event in self.events(chunk)? {
                looked_at += usize::from(same(&event));
                if same(&event)
                    && is_meant_before(&event, &found, backward, exact)
                    && viewer.may_see(&event)?
                {
                    found = event;
                }
            }
            // Events of one millisecond stand side by side.
            if std::mem::take(&mut looked_at) == 0 {
                break;
            }
        }
        Ok(Some(found))
    }

    /// An event at or nearest to a time, the first that is found.
    fn any_event_near(
        &self,
        timestamp_ms: u64,
        backward: bool,
        viewer: &mut dyn Sees,
    ) -> Result<Option<Arc<Event>>, Error> {
        let view = self.view();
        // Times mostly rise with n: search by halves for the neighborhood, then walk.
        let (mut low, mut high) = (0, view.last_n);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let row = self.reader().get(
                Family::RoomTimeline,
                &keys::timeline(
                    self.0.key,
                    Place {
                        anchor: middle,
                        offset: 0,
                    },
                ),
            )?;
            let short = row
                .and_then(|value| keys::read_timeline_value(&value))
                .map(|(short, _)| short);
            let event = short.map(|short| self.event(short)).transpose()?.flatten();
            match event {
                Some(event) if event.pdu.origin_server_ts() < timestamp_ms => low = middle,
                // Of several at that time it is the last that counts backwards, the first forwards.
                Some(event) if backward && event.pdu.origin_server_ts() == timestamp_ms => low = middle,
                Some(_) => high = middle - 1,
                None => return Err(Error::Damaged("timeline row")),
            }
        }
        let at = Place {
            anchor: low,
            offset: 0,
        };
        let keep = |event: &Event| match backward {
            true => event.pdu.origin_server_ts() <= timestamp_ms,
            false => event.pdu.origin_server_ts() >= timestamp_ms,
        };
        let from = if backward {
            Place {
                anchor: low + 1,
                offset: 0,
            }
        } else {
            at
        };
        let mut page = self.page(from, None, backward, 1, viewer, &keep)?;
        if page.events.is_empty() {
            // Times that do not rise: imported messages stand behind newer ones.
            let from = if backward { Place::END } else { Place::START };
            page = self.page(from, None, backward, 1, viewer, &keep)?;
        }
        Ok(page.events.into_iter().next())
    }
}

/// Whether of two events of the same time the one is meant rather than the other; `exact` says that it is the time that
/// was asked for.
fn is_meant_before(one: &Event, other: &Event, backward: bool, exact: bool) -> bool {
    let is_state = |event: &Event| event.pdu.state_key().is_some();
    match (is_state(one), is_state(other)) {
        (false, true) if exact => true,
        (true, false) if exact => false,
        _ if backward => one.pdu.depth() > other.pdu.depth(),
        _ => one.pdu.depth() < other.pdu.depth(),
    }
}
