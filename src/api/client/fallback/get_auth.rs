//! GET /_matrix/client/v3/auth/{authType}/fallback/web — Client-Server API, "Fallback".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_core::error::MatrixError;
use hearth_users::Stage;
use serde::Deserialize;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Path, Query};
use crate::ratelimit::Class;

/// The query.
#[derive(Deserialize)]
pub struct Asked {
    session: String,
}

/// The page on which a person completes a stage.
pub async fn get_auth(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Path(kind): Path<String>,
    Query(Asked { session }): Query<Asked>,
) -> Result<Response> {
    app.limits.address(Class::Read, address)?;
    // A stage that no session here has.
    let stage = Stage::parse(&kind).ok_or_else(MatrixError::unrecognized)?;
    let state = app.users.uia().page(&app.users, &session, stage)?;
    super::stage_page(&app, &session, stage, &state, "")
}
