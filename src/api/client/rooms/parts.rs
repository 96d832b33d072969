//! Answers that have a piece for each member of a room, or for each event of its state. They are made while they are sent: for
//! a room of 100,000 members they are some 80 MB, and everybody in it may ask as often as he likes.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hearth_rooms::{Event, Room};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::error::{ApiError, Result};

/// So many events are read and written at once.
const PART_EVENTS: usize = 128;

/// Writes what an answer says of an event; nothing where it says nothing.
type Write = dyn FnMut(&Arc<Event>) -> Result<Option<String>> + Send;

/// What of an answer is still to be made.
struct Unmade {
    room: Room,
    /// The events that follow, the last one first.
    events: Vec<u32>,
    write: Box<Write>,
    close: &'static str,
    /// Whether nothing was written yet, so that no comma goes before what follows.
    is_first: bool,
}

impl Unmade {
    fn part(&mut self, mut out: String) -> Result<Bytes> {
        let from = self.events.len().saturating_sub(PART_EVENTS);
        let mut next = self.events.split_off(from);
        next.reverse();
        for event in self.room.events(&next)? {
            let Some(piece) = (self.write)(&event)? else {
                continue;
            };
            if !std::mem::take(&mut self.is_first) {
                out.push(',');
            }
            out.push_str(&piece);
        }
        if self.events.is_empty() {
            out.push_str(self.close);
        }
        Ok(out.into())
    }
}

/// An answer with what `write` makes of these events of a room, separated by commas, between `open` and `close`. What fails
/// after the first part cuts the answer off.
pub(super) fn answer(
    room: Room,
    mut events: Vec<u32>,
    (open, close): (&str, &'static str),
    write: impl FnMut(&Arc<Event>) -> Result<Option<String>> + Send + 'static,
) -> Result<Response> {
    events.reverse();
    let mut unmade = Unmade {
        room,
        events,
        write: Box::new(write),
        close,
        is_first: true,
    };
    let first = unmade.part(open.to_owned())?;
    let body = match unmade.events.is_empty() {
        true => Body::from(first),
        false => {
            let rest = stream::try_unfold(unmade, |mut unmade| async move {
                if unmade.events.is_empty() {
                    return Ok(None);
                }
                let part = unmade.part(String::new()).map_err(cut_off)?;
                Ok(Some((part, unmade)))
            });
            Body::from_stream(stream::iter([Ok::<_, io::Error>(first)]).chain(rest))
        }
    };
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], body).into_response())
}

fn cut_off(error: ApiError) -> io::Error {
    io::Error::other(error.errcode().unwrap_or_default().to_owned())
}
