//! GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions — Client-Server API, "Push rules: API".

use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// What one rule does.
pub async fn get_push_rule_actions(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(
        json!({ "actions": rules::find(&rules.set, &kind, &rule_id)?.actions }),
    ))
}
