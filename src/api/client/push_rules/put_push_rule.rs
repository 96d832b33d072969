//! PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId} — Client-Server API, "Push rules: API".

use hearth_core::error::MatrixError;
use hearth_events::push::{Kind, Rule, Ruleset};
use ruma::UserId;
use ruma::push::{Action, PushCondition};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query, or_default};

/// The most rules of one kind that a user may have: each is looked at for each event.
const RULES_PER_KIND_MAX: usize = 1_000;

/// The longest id: room and user ids are no longer.
const ID_MAX_BYTES: usize = hearth_core::limits::ID_MAX_BYTES;

/// Where the rule shall stand among the user's own rules of its kind.
#[derive(Deserialize)]
pub struct Place {
    before: Option<String>,
    after: Option<String>,
}

/// The request's body.
#[derive(Deserialize)]
pub struct Body {
    actions: Vec<Action>,
    #[serde(default, deserialize_with = "or_default")]
    conditions: Vec<PushCondition>,
    pattern: Option<String>,
}

/// Makes a rule, or changes one that the user made.
pub async fn put_push_rule(
    auth: Auth,
    Path((kind, rule_id)): Path<(String, String)>,
    Query(place): Query<Place>,
    Json(body): Json<Body>,
) -> Result<Json<Value>> {
    let kind = rules::kind(&kind)?;
    let rule = new_rule(kind, rule_id, body)?;
    rules::change(&auth.handle, |rules| insert(rules, kind, rule, &place)).await?;
    Ok(Json(json!({})))
}

fn insert(rules: &mut Ruleset, kind: Kind, rule: Rule, place: &Place) -> Result<(), MatrixError> {
    if rules.get(kind, &rule.rule_id).is_none() && rules.of(kind).len() >= RULES_PER_KIND_MAX {
        return Err(MatrixError::invalid_param(
            "You have too many push rules of this kind",
        ));
    }
    rules
        .insert(kind, rule, place.after.as_deref(), place.before.as_deref())
        .map_err(rules::refused)
}

fn new_rule(kind: Kind, rule_id: String, body: Body) -> Result<Rule, MatrixError> {
    check_actions(&body.actions)?;
    if rule_id.len() > ID_MAX_BYTES {
        return Err(MatrixError::invalid_param("A rule's id has at most 255 bytes"));
    }
    let mut rule = Rule::new(rule_id, body.actions);
    match kind {
        Kind::Override | Kind::Underride => rule.conditions = Some(body.conditions),
        Kind::PostContent => {
            return Err(MatrixError::invalid_param(
                "Rules of this kind are the server's alone",
            ));
        }
        Kind::Content => {
            let missing = || MatrixError::missing_param("A content rule needs the field `pattern`");
            rule.pattern = Some(body.pattern.ok_or_else(missing)?);
        }
        // NOTSPEC: clients of long standing name rooms by an alias; such a rule is kept, but no room has that id.
        Kind::Room if !rule.rule_id.starts_with(['!', '#']) => {
            return Err(MatrixError::invalid_param(
                "The id of a room rule must be a room id",
            ));
        }
        Kind::Sender if <&UserId>::try_from(rule.rule_id.as_str()).is_err() => {
            return Err(MatrixError::invalid_param(
                "The id of a sender rule must be a user id",
            ));
        }
        Kind::Room | Kind::Sender => {}
    }
    Ok(rule)
}

/// Refuses actions that this server knows nothing of, rather than keep a rule that does not do what it says. Those of
/// older versions of the specification are taken, and do nothing.
pub(super) fn check_actions(actions: &[Action]) -> Result<(), MatrixError> {
    for action in actions {
        let json = serde_json::to_value(action).unwrap_or_default();
        let known = matches!(action, Action::Notify | Action::SetTweak(_))
            || matches!(json.as_str(), Some("dont_notify" | "coalesce"));
        if !known {
            return Err(MatrixError::invalid_param(format!(
                "There is no push action {json}"
            )));
        }
    }
    Ok(())
}
