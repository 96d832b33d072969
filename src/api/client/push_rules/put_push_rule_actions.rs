//! PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions — Client-Server API, "Push rules: API".

use ruma::push::Action;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    actions: Vec<Action>,
}

/// Changes what one rule does; also one of the server's defaults.
pub async fn put_push_rule_actions(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let kind = rules::kind(&kind)?;
    super::put_push_rule::check_actions(&body.actions)?;
    rules::change(&auth.handle, |rules| {
        rules.get_mut(kind, &rule_id).map_err(rules::refused)?.actions = body.actions;
        Ok(())
    })
    .await?;
    Ok(Json(json!({})))
}
