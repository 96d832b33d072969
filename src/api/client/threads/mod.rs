//! Thread subscriptions (MSC4306), and pages of their changes (MSC4308).

pub mod delete_subscription;
pub mod get_subscription;
pub mod get_subscriptions;
pub mod put_subscription;

use std::sync::Arc;

use axum::routing::get;
use hearth_core::error::MatrixError;
use hearth_rooms::{Event, Room};
use ruma::{EventId, RoomId};

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let subscription = get(get_subscription::get_subscription)
        .put(put_subscription::put_subscription)
        .delete(delete_subscription::delete_subscription);
    Routes::new()
        .unstable(
            "io.element.msc4306",
            "/rooms/{roomId}/thread/{eventId}/subscription",
            subscription,
        )
        .unstable(
            "io.element.msc4308",
            "/thread_subscriptions",
            get(get_subscriptions::get_subscriptions),
        )
}

/// The event at which a thread begins, if the user may see it; M_NOT_FOUND else. Any event may become the root of a thread.
fn root(app: &App, auth: &Auth, room: &RoomId, root: &EventId) -> Result<(Room, Arc<Event>)> {
    let not_found = || MatrixError::not_found("There is no such thread, or you may not see it");
    let room = app.rooms.get(room)?.ok_or_else(not_found)?;
    let mut viewer = room.viewer(&auth.user)?;
    let event = room.shown_event(root)?.ok_or_else(not_found)?;
    match viewer.may_see(&event)? {
        true => Ok((room, event)),
        false => Err(not_found().into()),
    }
}
