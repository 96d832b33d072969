//! GET /_matrix/client/v3/account/3pid — Client-Server API, "Adding account administrative contact information".

use serde_json::{Value, json};

use crate::error::Result;
use crate::extract::{Auth, Json};

/// No account here has an email address or a phone number.
pub async fn get_threepids(_auth: Auth) -> Result<Json<Value>> {
    Ok(Json(json!({ "threepids": [] })))
}
