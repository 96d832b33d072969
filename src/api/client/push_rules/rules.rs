//! Loading, changing and storing a user's rules.

use std::sync::Arc;

use hearth_core::error::MatrixError;
use hearth_events::push::{ChangeError, Kind, Rule, Rules, Ruleset};
use hearth_users::User;
use serde_json::{Value, json};

use crate::error::Result;

/// The user's rules.
pub(super) fn load(user: &User) -> Result<Arc<Rules>> {
    Ok(user.rules()?)
}

/// Changes the user's rules by `change`.
pub(super) async fn change(
    user: &User,
    change: impl FnOnce(&mut Ruleset) -> Result<(), MatrixError> + Send,
) -> Result<()> {
    let changed = |content: &mut Value| {
        let stored = content.get_mut("global").map(Value::take);
        let mut rules = hearth_events::push::ruleset(stored, user.id());
        change(&mut rules)?;
        *content = rules.to_stored(user.id());
        Ok::<(), MatrixError>(())
    };
    // The defaults are not stored, so that a new one reaches everybody.
    Ok(user
        .update_push_rules(|_| json!({ "global": {} }), changed)
        .await??)
}

/// The kind of rule that a path names.
pub(super) fn kind(name: &str) -> Result<Kind, MatrixError> {
    let unknown = || MatrixError::invalid_param(format!("There are no push rules of kind {name:?}"));
    Kind::from_word(name).ok_or_else(unknown)
}

/// The refusal of a change.
pub(super) fn refused(error: ChangeError) -> MatrixError {
    match error {
        ChangeError::NoSuchRule => MatrixError::not_found(error.to_string()),
        // Not found is what a rule itself is, and not the one that it is to stand beside.
        ChangeError::NoSuchNeighbor => MatrixError::unknown(error.to_string()),
        error => MatrixError::invalid_param(error.to_string()),
    }
}

/// One rule of the set. Where a kind is unknown there is no such rule either.
pub(super) fn find<'a>(rules: &'a Ruleset, kind_name: &str, rule_id: &str) -> Result<&'a Rule, MatrixError> {
    Kind::from_word(kind_name)
        .and_then(|kind| rules.get(kind, rule_id))
        .ok_or_else(|| refused(ChangeError::NoSuchRule))
}
