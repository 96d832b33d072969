//! GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions — MSC4308, "Companion endpoint for
//! backpaginating thread subscription changes".

use hearth_core::error::MatrixError;
use hearth_sync::ThreadsPage;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::extract::{Auth, Json, Query};

/// The query.
#[derive(Deserialize)]
pub struct Options {
    dir: String,
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
}

/// A page of the newest changes of the user's subscriptions, or of those before.
pub async fn get_subscriptions(
    auth: Auth,
    Query(options): Query<Options>,
) -> Result<Json<Map<String, Value>>> {
    if options.dir != "b" {
        return Err(MatrixError::invalid_param("dir must be b").into());
    }
    if options.limit == Some(0) {
        return Err(MatrixError::invalid_param("limit must be more than 0").into());
    }
    let page = ThreadsPage::backwards(
        &auth.handle,
        options.from.as_deref(),
        options.to.as_deref(),
        options.limit,
    )?;
    let mut answer = page.to_json();
    if let Some(before) = page.before {
        answer.insert("end".to_owned(), before.to_string().into());
    }
    Ok(Json(answer))
}
