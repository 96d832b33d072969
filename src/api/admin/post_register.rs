//! POST /_synapse/admin/v1/register — not in the specification; programs that make accounts on other
//! servers by a shared secret call it, Complement among them.

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_users::NewAccount;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha1::Sha1;

use crate::app::App;
use crate::client::session::{Device, logged_in};
use crate::error::Result;
use crate::extract::{Address, Json, or_default};
use crate::ratelimit::Class;

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    nonce: String,
    username: String,
    password: String,
    #[serde(default, deserialize_with = "or_default")]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    mac: String,
}

/// Makes an account for whoever knows the secret, which the MAC proves without sending it.
pub async fn post_register(
    State(app): State<Arc<App>>,
    address: Address,
    headers: HeaderMap,
    Json(body): Json<Body>,
) -> Result<Json<Map<String, Value>>> {
    let Some(secret) = &app.config.registration_shared_secret else {
        return Err(MatrixError::unrecognized().into());
    };
    if !app.nonces.take(&body.nonce) {
        return Err(MatrixError::unknown("The nonce is unknown, used or expired").into());
    }
    let is_proved = hex(&body.mac).is_some_and(|mac| proves(secret.expose(), &body, &mac));
    if !is_proved {
        // Guesses are limited, not those who know the secret: they may have many accounts to make.
        app.limits.address(Class::Registration, address.0)?;
        return Err(MatrixError::forbidden("The MAC is not right").into());
    }
    let whole = format!("@{}:{}", body.username.to_lowercase(), app.server_name);
    let invalid = |_| MatrixError::invalid_username("This is not a valid user name");
    let id = UserId::parse(whole).map_err(invalid)?;
    let new = NewAccount {
        password: Some(body.password),
        admin: body.admin,
        displayname: body.displayname,
        ..NewAccount::default()
    };
    let user = app.users.create(&id, new).await?;
    Ok(Json(
        logged_in(&app, &user, Device::default(), address, &headers).await?,
    ))
}

/// Whether the MAC was made with the secret over the parts of the request, in their order.
fn proves(secret: &str, body: &Body, mac: &[u8]) -> bool {
    let Ok(mut hmac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    let admin = if body.admin { "admin" } else { "notadmin" };
    let parts = [body.nonce.as_str(), &body.username, &body.password, admin];
    for (index, part) in parts.into_iter().chain(body.user_type.as_deref()).enumerate() {
        if index > 0 {
            hmac.update(&[0]);
        }
        hmac.update(part.as_bytes());
    }
    hmac.verify_slice(mac).is_ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    digits
        .chunks(2)
        .map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        let body = |admin: bool| Body {
            nonce: "nonce".into(),
            username: "alice".into(),
            password: "sekrit".into(),
            admin,
            user_type: None,
            displayname: None,
            mac: String::new(),
        };
        // printf 'nonce\0alice\0sekrit\0notadmin' | openssl dgst -sha1 -hmac secret
        let mac = hex("8aaa09493939bfaf8bc16f0de6def9480d82a2db").expect("hex");
        assert!(proves("secret", &body(false), &mac));
        assert!(!proves("other", &body(false), &mac));
        assert!(!proves("secret", &body(true), &mac));
        assert!(!proves("secret", &body(false), &mac[1..]));
    }

    #[test]
    fn hex_digits() {
        assert_eq!(hex("00ff1A"), Some(vec![0, 255, 26]));
        for bad in ["0", "0g", "é", "0x"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }
}
