//! POST /_matrix/client/v3/account/deactivate — Client-Server API, "Account deactivation".

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::uia::confirm_by_password;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, or_default};

/// The request's body.
#[derive(Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "or_default")]
    erase: bool,
}

/// Ends the account for good. Its name is never given again.
pub async fn post_deactivate(
    State(app): State<Arc<App>>,
    auth: Auth,
    OptionalJson(body): OptionalJson<Map<String, Value>>,
) -> Result<Json<Value>> {
    let body: Body = confirm_by_password(&app, &auth, "POST", "/account/deactivate", &body).await?;
    // The rooms first: if that fails halfway the user can still ask again.
    app.room_links.leave_all(&auth.user).await?;
    auth.handle.deactivate(body.erase).await?;
    // There is no identifier that an identity server would have to forget, which counts as success.
    Ok(Json(json!({ "id_server_unbind_result": "success" })))
}
