//! DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId} — Client-Server API, "Push rules: API".

use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Removes a rule that the user made. The server's defaults can only be switched off.
pub async fn delete_push_rule(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let kind = rules::kind(&kind)?;
    rules::change(&auth.handle, |rules| {
        rules.remove(kind, &rule_id).map_err(rules::refused)
    })
    .await?;
    Ok(Json(json!({})))
}
