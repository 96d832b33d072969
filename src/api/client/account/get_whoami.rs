//! GET /_matrix/client/v3/account/whoami — Client-Server API, "Account management: whoami".

use serde_json::{Value, json};

use crate::extract::{Auth, Json};

/// Who the access token stands for.
pub async fn get_whoami(auth: Auth) -> Json<Value> {
    let mut answer = json!({ "user_id": auth.user, "is_guest": auth.account.guest });
    if let Some(device) = &auth.device {
        answer["device_id"] = device.as_str().into();
    }
    Json(answer)
}
