//! GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId} — Client-Server API, "Push rules: API".

use serde_json::Value;

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One rule.
pub async fn get_push_rule(auth: Auth, Path((kind, rule_id)): Path<(String, String)>) -> Result<Json<Value>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(rules::rule_json(rules::find(&rules, &kind, &rule_id)?)?))
}
