//! GET /_matrix/client/v3/pushrules/ and /pushrules/global/ — Client-Server API, "Push rules: API".

use hearth_events::push::{Rule, Ruleset};
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path};

/// All rules, under the only scope that there is.
pub async fn get_push_rules(auth: Auth) -> Result<Json<Value>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(json!({ "global": rules.set })))
}

/// The rules of the scope `global`.
pub async fn get_global_push_rules(auth: Auth) -> Result<Json<Ruleset>> {
    Ok(Json(rules::load(&auth.handle)?.set.clone()))
}

/// GET /_matrix/client/v3/pushrules/global/{kind}/: the rules of one kind. Clients of long standing ask for them.
pub async fn get_push_rules_of_kind(auth: Auth, Path(kind): Path<String>) -> Result<Json<Vec<Rule>>> {
    let kind = rules::kind(&kind)?;
    Ok(Json(rules::load(&auth.handle)?.set.of(kind).to_vec()))
}
