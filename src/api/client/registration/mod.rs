//! Making an account.

pub mod get_register_available;
pub mod get_registration_token_validity;
pub mod post_register;

use std::sync::Arc;

use axum::routing::{get, post};
use hearth_core::config::{RegistrationMode, Secret};
use hearth_core::error::MatrixError;
use ruma::{OwnedUserId, UserId};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::error::Result;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let validity = get(get_registration_token_validity::get_registration_token_validity);
    Routes::new()
        .v3("/register", post(post_register::post_register))
        .v3(
            "/register/available",
            get(get_register_available::get_register_available),
        )
        .v1("/register/m.login.registration_token/validity", validity)
}

/// The user id that a registration asks for, if it can be given to a person.
fn free_name(app: &Arc<App>, username: &str) -> Result<OwnedUserId> {
    let user = user_id(app, username)?;
    app.users.check_available(&user)?;
    app.appservices.check_user(None, &user)?;
    Ok(user)
}

/// The user id of a name. Capitals become small: the names of users have none.
fn user_id(app: &App, username: &str) -> Result<OwnedUserId, MatrixError> {
    let whole = format!("@{}:{}", username.to_lowercase(), app.server_name);
    let invalid = |_| MatrixError::invalid_username("A user name may contain only a-z, 0-9, and ._=-/+");
    UserId::parse(whole).map_err(invalid)
}

fn is_closed(app: &App) -> bool {
    app.config.registration == RegistrationMode::Closed
}

/// Whether this is one of the tokens in the configuration, which are good any number of times.
pub(crate) fn is_configured_token(app: &App, token: &str) -> bool {
    // Compared in constant time: the tokens are secrets.
    let is_it = |one: &Secret| bool::from(one.expose().as_bytes().ct_eq(token.as_bytes()));
    app.config.registration_tokens.iter().any(is_it)
}
