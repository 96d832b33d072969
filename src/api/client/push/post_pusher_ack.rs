//! POST /_matrix/client/v3/pushers/ack — MSC4174.

use hearth_core::error::MatrixError;
use hearth_users::Activated;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    app_id: String,
    ack_token: String,
}

/// Takes back the token that a subscription of Web Push was sent, from when on it is told of notifications.
pub async fn post_pusher_ack(auth: Auth, Json(body): Json<Body>) -> Result<Json<Value>> {
    match auth.handle.activate_pusher(&body.app_id, &body.ack_token).await? {
        Activated::Done => Ok(Json(json!({}))),
        Activated::NoPusher => {
            Err(MatrixError::not_found("The application has no pusher for Web Push").into())
        }
        Activated::UnknownToken => {
            let why = "No pusher of the application awaits this token";
            Err(MatrixError::new(400, "M_UNKNOWN_ACTIVATION_TOKEN", why).into())
        }
        Activated::ExpiredToken => {
            let why = "The token has expired: set the pusher again";
            Err(MatrixError::new(400, "M_EXPIRED_ACTIVATION_TOKEN", why).into())
        }
    }
}
