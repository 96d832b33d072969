//! Whom an administrator may act upon.

use hearth_core::error::MatrixError;
use hearth_users::User;
use ruma::UserId;

use crate::app::App;
use crate::error::Result;
use crate::extract::Auth;

/// The account that an administrator looks at. Who asks is checked before anything is looked up, so
/// that nobody else learns who exists.
pub(super) fn visible(app: &App, auth: &Auth, user: &UserId) -> Result<User> {
    auth.must_be_admin(app)?;
    if !app.users.is_local(user) {
        return Err(MatrixError::invalid_param("User does not belong to the local server.").into());
    }
    let target = app.user(user)?;
    let account = target.account()?;
    if account.deactivated {
        return Err(MatrixError::not_found("There is no such user").into());
    }
    if app.is_admin(user, &account) && auth.user != user {
        return Err(MatrixError::forbidden("The user is another administrator").into());
    }
    Ok(target)
}

/// The account that an administrator changes: not his own.
pub(super) fn changeable(app: &App, auth: &Auth, user: &UserId) -> Result<User> {
    let target = visible(app, auth, user)?;
    if auth.user == user {
        return Err(MatrixError::forbidden("You cannot do this to your own account").into());
    }
    Ok(target)
}
