//! GET /_matrix/client/v3/register/available — Client-Server API, "Legacy API: account registration".

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, Json, Query};
use crate::ratelimit::Class;

/// The query.
#[derive(Deserialize)]
pub struct Wanted {
    username: String,
}

/// Whether a name is free.
pub async fn get_register_available(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>> {
    // Clients ask while a name is typed.
    app.limits.address(Class::Search, address)?;
    super::free_name(&app, &wanted.username)?;
    Ok(Json(json!({ "available": true })))
}
