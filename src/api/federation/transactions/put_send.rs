//! PUT /_matrix/federation/v1/send/{txnId} — Server-Server API, "Transactions".

use std::sync::Arc;

use axum::extract::State;
use hearth_core::error::MatrixError;
use hearth_core::limits;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Json, Path};
use crate::federation::origin::SignedTransaction;

/// Takes events and other messages of another server in. The answer comes when everything is stored.
pub async fn put_send(
    State(app): State<Arc<App>>,
    Path(txn): Path<String>,
    SignedTransaction(origin, body): SignedTransaction,
) -> Result<Json<Value>> {
    if txn.len() > limits::TXN_ID_MAX_BYTES {
        return Err(MatrixError::invalid_param("The transaction id is too long").into());
    }
    app.federation.client.seen(&origin);
    let answer = app.federation.inbound.transaction(&origin, &txn, &body).await?;
    Ok(Json(answer))
}
