//! GET /_matrix/client/v3/voip/turnServer — Client-Server API, "Voice over IP".

use std::sync::Arc;

use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_core::config::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json};

/// Where calls are relayed, and how to log in there.
///
/// NOTSPEC: without a TURN server the answer is an empty object, which clients read as that; an error they would take for
/// an outage.
pub async fn get_turn_server(State(app): State<Arc<App>>, auth: Auth) -> Result<Json<Value>> {
    let turn = &app.config.turn;
    if turn.uris.is_empty() {
        return Ok(Json(json!({})));
    }
    let (username, password) = match (&turn.shared_secret, &turn.username, &turn.password) {
        (Some(secret), ..) => {
            let until_s = app.clock.now_ms() / 1000 + turn.ttl_seconds;
            let username = format!("{until_s}:{}", auth.user);
            let password = password(secret, &username)?;
            (username, password)
        }
        (None, Some(username), Some(password)) => (username.clone(), password.expose().to_owned()),
        // The configuration is checked at the start.
        _ => return Err(ApiError::internal(&"a TURN server without credentials")),
    };
    Ok(Json(json!({
        "username": username,
        "password": password,
        "uris": turn.uris,
        "ttl": turn.ttl_seconds,
    })))
}

/// The password that TURN servers compute, too, from a name which says until when it is good ("A REST API for access to
/// TURN services", draft-uberti-behave-turn-rest-00).
fn password(secret: &Secret, username: &str) -> Result<String> {
    let hmac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes());
    let mut hmac = hmac.map_err(|error| ApiError::internal(&error))?;
    hmac.update(username.as_bytes());
    Ok(STANDARD.encode(hmac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_those_of_turn_servers() {
        // printf '1443779631:@user:example.com' | openssl dgst -sha1 -hmac secret -binary | base64
        let password = password(&Secret::new("secret"), "1443779631:@user:example.com");
        assert_eq!(password.expect("a password"), "Xm0lErj7sx/fpxQLH9q1I3FF0uw=");
    }
}
