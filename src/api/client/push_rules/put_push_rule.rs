//! PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId} — Client-Server API, "Push rules: API".

use hearth_core::error::MatrixError;
use ruma::push::{
    Action, InsertPushRuleError, NewConditionalPushRule, NewPatternedPushRule, NewPushRule,
    NewSimplePushRule, PushCondition, RuleKind, Ruleset,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rules;
use crate::error::Result;
use crate::extract::{Auth, Json, Path, Query};

/// The most rules of one kind that a user may have: each is looked at for each event.
const RULES_PER_KIND_MAX: usize = 1_000;

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
    #[serde(default)]
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
    let rule = new_rule(&rules::kind(&kind)?, rule_id, body)?;
    rules::change(&auth.handle, |rules| insert(rules, rule, &place)).await?;
    Ok(Json(json!({})))
}

fn insert(rules: &mut Ruleset, rule: NewPushRule, place: &Place) -> Result<(), MatrixError> {
    let of_kind = rules.iter().filter(|known| {
        let kind = rule.kind();
        rules.get(kind, known.rule_id()).is_some()
    });
    if of_kind.count() >= RULES_PER_KIND_MAX {
        return Err(MatrixError::invalid_param(
            "You have too many push rules of this kind",
        ));
    }
    rules
        .insert(rule, place.after.as_deref(), place.before.as_deref())
        .map_err(|error| match error {
            InsertPushRuleError::UnknownRuleId => MatrixError::not_found(error.to_string()),
            error => MatrixError::invalid_param(error.to_string()),
        })
}

fn new_rule(kind: &RuleKind, rule_id: String, body: Body) -> Result<NewPushRule, MatrixError> {
    let Body {
        actions,
        conditions,
        pattern,
    } = body;
    Ok(match kind {
        RuleKind::Override => {
            NewPushRule::Override(NewConditionalPushRule::new(rule_id, conditions, actions))
        }
        RuleKind::Underride => {
            NewPushRule::Underride(NewConditionalPushRule::new(rule_id, conditions, actions))
        }
        RuleKind::Content => {
            let pattern = pattern
                .ok_or_else(|| MatrixError::missing_param("A content rule needs the field `pattern`"))?;
            NewPushRule::Content(NewPatternedPushRule::new(rule_id, pattern, actions))
        }
        RuleKind::Room => {
            let room = rule_id
                .as_str()
                .try_into()
                .map_err(|_| MatrixError::invalid_param("The id of a room rule must be a room id"))?;
            NewPushRule::Room(NewSimplePushRule::new(room, actions))
        }
        RuleKind::Sender => {
            let sender = rule_id
                .as_str()
                .try_into()
                .map_err(|_| MatrixError::invalid_param("The id of a sender rule must be a user id"))?;
            NewPushRule::Sender(NewSimplePushRule::new(sender, actions))
        }
        _ => return Err(MatrixError::invalid_param("There are no push rules of this kind")),
    })
}
