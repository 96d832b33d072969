//! GET /_matrix/client/v3/pushrules/ and /pushrules/global/ — Client-Server API, "Push rules: API".

use ruma::push::Ruleset;
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json};

/// All rules, under the only scope that there is.
pub async fn get_push_rules(auth: Auth) -> Result<Json<Value>> {
    let rules = rules::load(&auth.handle)?;
    Ok(Json(json!({ "global": rules })))
}

/// The rules of the scope `global`.
pub async fn get_global_push_rules(auth: Auth) -> Result<Json<Ruleset>> {
    Ok(Json(rules::load(&auth.handle)?))
}
