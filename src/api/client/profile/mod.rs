//! Profiles: display name, avatar, and fields of any name.

pub mod delete_profile_field;
pub mod get_profile;
pub mod get_profile_field;
pub mod put_profile_field;

use axum::routing::get;
use hearth_core::error::MatrixError;
use hearth_users::ProfileChange;
use ruma::UserId;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let field = || {
        get(get_profile_field::get_profile_field)
            .put(put_profile_field::put_profile_field)
            .delete(delete_profile_field::delete_profile_field)
    };
    Routes::new()
        .v3("/profile/{userId}", get(get_profile::get_profile))
        .v3("/profile/{userId}/{keyName}", field())
        .unstable("uk.tcpip.msc4133", "/profile/{userId}/{keyName}", field())
}

/// The fields of a profile; of a user of another server, what that server says now.
async fn fields_of(app: &App, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>> {
    if user.server_name() != app.server_name {
        let mut fields = app.federation.profile(user, field).await?;
        // Some servers say null where there is none.
        for name in ["displayname", "avatar_url"] {
            if fields.get(name).is_some_and(|value| !value.is_string()) {
                fields.remove(name);
            }
        }
        return Ok(fields);
    }
    local_fields_of(app, user)
}

/// The fields of a local user's profile.
pub(crate) fn local_fields_of(app: &App, user: &UserId) -> Result<Map<String, Value>> {
    let no_profile = || MatrixError::not_found("There is no such user, or no profile");
    let user = app.users.get(user)?.ok_or_else(no_profile)?;
    if user.account()?.deactivated {
        return Err(no_profile().into());
    }
    Ok(user.profile()?.fields().clone())
}

/// Refuses changes of other users' profiles.
fn may_change(auth: &Auth, user: &UserId) -> Result<(), MatrixError> {
    auth.must_be(user)?;
    auth.must_not_be_suspended()
}

/// What follows from a change: the member events of the joined rooms, if they show the field.
async fn follow_up(app: &App, user: &UserId, change: &ProfileChange) -> Result<()> {
    if !change.concerns_members() {
        return Ok(());
    }
    // This is where a change of a name or an avatar reaches the rooms.
    app.room_links.profile_changed(user, change).await
}
