//! Paths below /_matrix/client/v3/pushrules/ that name no rules — Client-Server API, "Push rules: API".

use hearth_core::error::{MatrixError, errcode};
use serde_json::Value;

use crate::error::Result;
use crate::extract::{Auth, Json};

/// Refuses a scope, a kind or a property of rules that there is not.
///
/// NOTSPEC: with 400, as for other wrong parameters; clients of long standing do not take it for a server without push rules.
pub async fn no_such_place(_auth: Auth) -> Result<Json<Value>> {
    let sentence = "There are no push rules, or properties of them, at this path";
    Err(MatrixError::new(400, errcode::UNRECOGNIZED, sentence).into())
}
