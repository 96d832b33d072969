//! `GET /_matrix/client/v1/media/config` — Client-Server API, "Content repository".

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use crate::app::App;
use crate::extract::{Auth, Json};

/// What uploads are limited to.
#[derive(Serialize)]
pub struct Answer {
    #[serde(rename = "m.upload.size")]
    upload_size: u64,
}

/// Says how large an upload may be.
pub async fn get_config(State(app): State<Arc<App>>, _auth: Auth) -> Json<Answer> {
    Json(Answer {
        upload_size: app.media.max_upload_bytes(),
    })
}
