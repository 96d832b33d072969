//! GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled — Client-Server API, "Push rules: API".

use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// Whether one rule is in force.
pub async fn get_push_rule_enabled(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(
        json!({ "enabled": rules::find(&rules.set, &kind, &rule_id)?.enabled }),
    ))
}
