//! A user's push rules as the events of rooms are asked about them: read once, kept until they change.

use std::sync::Arc;

use hearth_events::push::Rules;
use hearth_storage::{EntityKey, Family, Position};
use serde_json::value::RawValue;

use crate::data::{self, PUSH_RULES};
use crate::error::Result;
use crate::keys;
use crate::user::User;

/// Whose rules are kept in memory: those who are active. A set takes some 10 kB.
const CACHED_USERS_MAX: usize = 2_000;

/// Rules by user, with the position at which they were set; 0 where they never were.
pub(crate) struct RulesCache(quick_cache::sync::Cache<EntityKey, (Position, Arc<Rules>)>);

impl Default for RulesCache {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(CACHED_USERS_MAX))
    }
}

impl User {
    /// The user's push rules, with the defaults.
    pub fn rules(&self) -> Result<Arc<Rules>> {
        let stored = self
            .users
            .log
            .engine()
            .get(Family::UserData, &keys::data(self.key, "", PUSH_RULES))?;
        let stored = stored.as_deref().and_then(data::decode);
        let position = stored.map_or(0, |(position, _)| position);
        let cache = &self.users.push_rules.0;
        if let Some((known, rules)) = cache.get(&self.key)
            && known == position
        {
            return Ok(rules);
        }
        // No text is what was deleted.
        let content = stored.and_then(|(_, text)| serde_json::from_str::<&RawValue>(text).ok());
        let rules = Arc::new(Rules::of_content(content, &self.id));
        cache.insert(self.key, (position, rules.clone()));
        Ok(rules)
    }
}
