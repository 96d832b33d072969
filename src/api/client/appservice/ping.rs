//! `POST /_matrix/client/v1/appservice/{appserviceId}/ping` — Application Service API, "Pinging".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, Json, OptionalJson, Path};

/// What the application service sends.
#[derive(Deserialize)]
pub struct Body {
    transaction_id: Option<String>,
}

/// How long its own answer took.
#[derive(Serialize)]
pub struct Answer {
    duration_ms: u64,
}

/// Calls the application service back and says how long that took.
pub async fn ping(
    State(app): State<Arc<App>>,
    auth: Auth,
    Path(id): Path<String>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Json<Answer>> {
    let Some(appservice) = auth.appservice.as_ref().filter(|one| one.id == id) else {
        let sentence = "The access token is not this application service's";
        return Err(MatrixError::forbidden(sentence).into());
    };
    let transaction_id = body.transaction_id.as_deref();
    let duration_ms =
        hearth_appservice::ping(appservice, transaction_id, &*app.appservice_outbound, &*app.clock).await?;
    Ok(Json(Answer { duration_ms }))
}
