//! Tokens of pages: every batch token is good for every endpoint that pages through a room.

use hearth_core::error::MatrixError;
use hearth_rooms::Place;
use hearth_sync::BatchToken;

use super::Reading;
use crate::error::Result;

/// The gap in the room's timeline that a token names, as far as the user may read.
pub(crate) fn place(reading: &Reading, token: &str) -> Result<Place> {
    let token = read(reading, token)?;
    match (&token, &reading.left) {
        // A sync token names the shards of the rooms that the user is in; of one that was left, the
        // user has seen all there is to see.
        (BatchToken::Sync(sync), Some(left)) if sync.shard(reading.room.shard()) == 0 => {
            Ok(left.header.place)
        }
        _ => Ok(token.place_in(&reading.room)?),
    }
}

/// As [`place`], where a page backwards begins. Who reads a room from outside has no place of it in the token of a sync:
/// that stands for now.
pub(crate) fn place_backwards(reading: &Reading, token: &str, newest: Place) -> Result<Place> {
    let is_outside = reading.viewer.membership() != hearth_rooms::Membership::Join;
    if is_outside
        && let BatchToken::Sync(sync) = read(reading, token)?
        && sync.shard(reading.room.shard()) == 0
    {
        return Ok(newest);
    }
    place(reading, token)
}

fn read(reading: &Reading, token: &str) -> Result<BatchToken> {
    let token = match &reading.user {
        Some(user) => BatchToken::read(user, token),
        None => BatchToken::parse(token),
    };
    Ok(token.map_err(|error| MatrixError::invalid_param(error.to_string()))?)
}

/// The token of a gap.
pub(crate) fn token(place: Place) -> String {
    BatchToken::Place(place).to_string()
}

/// Reads `dir`.
pub(crate) fn is_backward(dir: Option<&str>, default: bool) -> Result<bool, MatrixError> {
    match dir {
        None => Ok(default),
        Some("b") => Ok(true),
        Some("f") => Ok(false),
        Some(_) => Err(MatrixError::invalid_param("dir must be b or f")),
    }
}

/// Reads `limit`, within bounds. 0 is none: such a page has no events, and the token of where it would have begun.
pub(crate) fn limit(limit: Option<u64>, default: usize, max: usize) -> usize {
    limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(max).min(max))
}
