//! POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}/{action} — MSC4140, "Managing scheduled
//! delayed events".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::{MatrixError, errcode};
use hearth_users::Managed;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Anybody, Json, Path};

/// Sends the event now, cancels it, or lets its wait begin again.
///
/// NOTSPEC: no access token is asked for, as in the form of the MSC that clients and call services use: the id, which is
/// told to nobody but the one who scheduled, is the permission.
pub async fn post_delayed_event_action(
    State(app): State<Arc<App>>,
    _: Anybody,
    Path((id, action)): Path<(String, String)>,
) -> Result<Json<Value>> {
    manage(&app, &id, &action).await
}

/// Does what is asked with a delayed event.
pub(super) async fn manage(app: &App, id: &str, action: &str) -> Result<Json<Value>> {
    let delayed = app.users.delayed();
    let managed = match action {
        "send" => delayed.send(id).await?,
        "cancel" => delayed.cancel(id).await?,
        "restart" => delayed.restart(id).await?,
        _ => return Err(MatrixError::unrecognized().into()),
    };
    match managed {
        Managed::Done => Ok(Json(json!({}))),
        Managed::Unknown => Err(MatrixError::not_found("There is no such delayed event").into()),
        Managed::Conflict => {
            let sentence = "The delayed event was sent or cancelled before";
            Err(MatrixError::new(409, errcode::UNKNOWN, sentence).into())
        }
        Managed::Refused(error) => Err((*error).into()),
    }
}
