//! PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled — Client-Server API, "Push rules: API".

use serde::Deserialize;
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    enabled: bool,
}

/// Switches one rule on or off; also one of the server's defaults.
pub async fn put_push_rule_enabled(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let kind = rules::kind(&kind)?;
    rules::change(&auth.handle, |rules| {
        rules.get_mut(kind, &rule_id).map_err(rules::refused)?.enabled = body.enabled;
        Ok(())
    })
    .await?;
    Ok(Json(json!({})))
}
