//! GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId} — Client-Server API, "Push rules: API".

use hearth_events::push::Rule;

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// One rule.
pub async fn get_push_rule(auth: Auth, Path((kind, rule_id)): Path<(String, String)>) -> Result<Json<Rule>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(rules::find(&rules.set, &kind, &rule_id)?.clone()))
}
