//! Loading, changing and storing a user's rules.

use hearth_core::error::MatrixError;
use hearth_events::push::default_ruleset;
use hearth_users::User;
use ruma::UserId;
use ruma::push::{AnyPushRuleRef, RuleKind, Ruleset};
use serde_json::{Value, json};

use crate::error::{ApiError, Result};

/// The content of `m.push_rules` of a user who never changed it. It is not stored, so that a new
/// default reaches everybody.
fn default_content(user: &UserId) -> Value {
    json!({ "global": default_ruleset(user) })
}

/// The user's rules.
pub(super) fn load(user: &User) -> Result<Ruleset> {
    Ok(ruleset(user.push_rules(default_content)?, user.id()))
}

/// Changes the user's rules by `change`.
pub(super) async fn change(
    user: &User,
    change: impl FnOnce(&mut Ruleset) -> Result<(), MatrixError> + Send,
) -> Result<()> {
    let changed = |content: &mut Value| {
        let mut rules = ruleset(content.take(), user.id());
        change(&mut rules)?;
        *content = json!({ "global": rules });
        Ok::<(), MatrixError>(())
    };
    Ok(user.update_push_rules(default_content, changed).await??)
}

/// The rules in a content of `m.push_rules`, with the defaults that it does not have yet.
fn ruleset(mut content: Value, user: &UserId) -> Ruleset {
    hearth_events::push::ruleset(content.get_mut("global").map(Value::take), user)
}

/// The kind of rule that a path names.
pub(super) fn kind(name: &str) -> Result<RuleKind, MatrixError> {
    match RuleKind::from(name) {
        kind @ (RuleKind::Override
        | RuleKind::Underride
        | RuleKind::Sender
        | RuleKind::Room
        | RuleKind::Content) => Ok(kind),
        // MSC4306: the kind has its future name in sets of rules, and Ruma's in paths.
        kind @ RuleKind::PostContent => Ok(kind),
        _ if name == "postcontent" => Ok(RuleKind::PostContent),
        _ => Err(MatrixError::invalid_param(format!(
            "There are no push rules of kind {name:?}"
        ))),
    }
}

/// The refusal where a path names a rule that does not exist.
pub(super) fn no_such_rule(rule_id: &str) -> MatrixError {
    MatrixError::not_found(format!("There is no push rule {rule_id:?} of this kind"))
}

/// One rule of the set.
pub(super) fn find<'a>(
    rules: &'a Ruleset,
    kind_name: &str,
    rule_id: &str,
) -> Result<AnyPushRuleRef<'a>, MatrixError> {
    // Where a kind is unknown there is no such rule either.
    kind(kind_name)
        .ok()
        .and_then(|kind| rules.get(kind, rule_id))
        .ok_or_else(|| no_such_rule(rule_id))
}

/// One rule as JSON.
pub(super) fn rule_json(rule: AnyPushRuleRef<'_>) -> Result<Value> {
    let json = match rule {
        AnyPushRuleRef::Override(rule)
        | AnyPushRuleRef::PostContent(rule)
        | AnyPushRuleRef::Underride(rule) => serde_json::to_value(rule),
        AnyPushRuleRef::Content(rule) => serde_json::to_value(rule),
        AnyPushRuleRef::Room(rule) => serde_json::to_value(rule),
        AnyPushRuleRef::Sender(rule) => serde_json::to_value(rule),
        _ => return Err(ApiError::internal(&"a push rule of a kind that we do not know")),
    };
    json.map_err(|error| ApiError::internal(&error))
}
