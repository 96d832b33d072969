//! A set of push rules as it is stored, shown and changed.

use ruma::UserId;
use ruma::push::{Action, PushCondition};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::default_ruleset;

/// The one default rule that comes before the user's own.
const MASTER: &str = ".m.rule.master";

/// A kind of push rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `override`
    Override,
    /// `content`
    Content,
    /// `postcontent` (MSC4306)
    PostContent,
    /// `room`
    Room,
    /// `sender`
    Sender,
    /// `underride`
    Underride,
}

impl Kind {
    /// All kinds, in the order in which they are asked.
    pub const ALL: [Self; 6] = [
        Self::Override,
        Self::Content,
        Self::PostContent,
        Self::Room,
        Self::Sender,
        Self::Underride,
    ];

    /// The specification's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Content => "content",
            Self::PostContent => "postcontent",
            Self::Room => "room",
            Self::Sender => "sender",
            Self::Underride => "underride",
        }
    }

    /// Reads the word in a path; `postcontent` also goes by the name that it has while the proposal is open.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "io.element.msc4306.postcontent" => Some(Self::PostContent),
            _ => Self::ALL.into_iter().find(|kind| kind.word() == word),
        }
    }

    /// Whether rules of this kind have conditions.
    pub fn has_conditions(self) -> bool {
        matches!(self, Self::Override | Self::PostContent | Self::Underride)
    }
}

/// A push rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its id, of which there is one in each kind.
    pub rule_id: String,
    /// Whether it is one of the server's.
    #[serde(default)]
    pub default: bool,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What it does.
    pub actions: Vec<Action>,
    /// What must hold, in rules of the kinds that have conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<PushCondition>>,
    /// The words that are looked for, in rules of kind `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

fn yes() -> bool {
    true
}

impl Rule {
    /// A rule of a user.
    pub fn new(rule_id: impl Into<String>, actions: Vec<Action>) -> Self {
        Self {
            rule_id: rule_id.into(),
            default: false,
            enabled: true,
            actions,
            conditions: None,
            pattern: None,
        }
    }

    /// The conditions; none in a rule without.
    pub fn conditions(&self) -> &[PushCondition] {
        self.conditions.as_deref().unwrap_or_default()
    }

    /// Whether the user has left a default rule as it is.
    fn is_as(&self, default: &Self) -> bool {
        let actions = |rule: &Self| serde_json::to_value(&rule.actions).unwrap_or_default();
        self.enabled == default.enabled && actions(self) == actions(default)
    }
}

/// Why a set of rules is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such rule.
    #[error("There is no such push rule")]
    NoSuchRule,
    /// The rule next to which the new one shall stand is not there.
    #[error("The rule that `before` or `after` names does not exist")]
    NoSuchNeighbor,
    /// The id begins with a dot.
    #[error("Ids that begin with a dot are the server's own")]
    ServersId,
    /// The id has a character that no id has, or none at all.
    #[error("A rule's id is not empty and has no slashes")]
    BadId,
    /// A user's rule has no place among the server's.
    #[error("A rule can stand before and after rules of your own only")]
    ServersNeighbor,
    /// The places contradict each other.
    #[error("`before` names a rule that comes before the one that `after` names")]
    NoPlaceBetween,
    /// One of the server's rules cannot be removed or replaced.
    #[error("The server's own rules can be switched off, but not removed")]
    ServersRule,
}

/// The push rules of a user.
#[derive(Clone, Debug, Default)]
pub struct Ruleset([Vec<Rule>; Kind::ALL.len()]);

impl Serialize for Ruleset {
    /// Each kind has its list, also an empty one, but for the kind that most clients do not know.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lists = Kind::ALL.into_iter().map(|kind| (kind, self.of(kind)));
        let shown = lists.filter(|(kind, rules)| *kind != Kind::PostContent || !rules.is_empty());
        serializer.collect_map(shown.map(|(kind, rules)| (kind.word(), rules)))
    }
}

impl Ruleset {
    /// The rules in the `global` member of an `m.push_rules` content. A rule that cannot be read counts as not written.
    pub fn read(mut global: Value) -> Self {
        let mut set = Self::default();
        for kind in Kind::ALL {
            let Some(Value::Array(rules)) = global.get_mut(kind.word()).map(Value::take) else {
                continue;
            };
            let readable = rules
                .into_iter()
                .filter_map(|rule| serde_json::from_value(rule).ok());
            for rule in readable {
                let rule: Rule = rule;
                if set.get(kind, &rule.rule_id).is_none() {
                    set.of_mut(kind).push(rule);
                }
            }
        }
        set
    }

    /// The same with these default rules in place of those that it has, which stay switched and do what the user
    /// wanted. The user's own rules come first, behind the master rule.
    pub fn with_defaults(mut self, mut defaults: Self) -> Self {
        for kind in Kind::ALL {
            let mut fresh = std::mem::take(defaults.of_mut(kind));
            let (stored, own): (Vec<Rule>, Vec<Rule>) = std::mem::take(self.of_mut(kind))
                .into_iter()
                .partition(|rule| rule.default);
            for rule in &mut fresh {
                if let Some(stored) = stored.iter().find(|stored| stored.rule_id == rule.rule_id) {
                    rule.enabled = stored.enabled;
                    rule.actions = stored.actions.clone();
                }
            }
            let masters = fresh.iter().take_while(|rule| rule.rule_id == MASTER).count();
            let behind = fresh.split_off(masters);
            *self.of_mut(kind) = fresh.into_iter().chain(own).chain(behind).collect();
        }
        self
    }

    /// The content of `m.push_rules` that is stored: the user's own rules, and the default ones that were changed, so
    /// that a default of a later version reaches everybody who has left the old one alone.
    pub fn to_stored(&self, user: &UserId) -> Value {
        let defaults = default_ruleset(user);
        let mut global = Map::new();
        for kind in Kind::ALL {
            let is_stored = |rule: &&Rule| {
                let default = defaults.get(kind, &rule.rule_id).filter(|_| rule.default);
                default.is_none_or(|default| !rule.is_as(default))
            };
            let rules: Vec<&Rule> = self.of(kind).iter().filter(is_stored).collect();
            if !rules.is_empty() {
                let rules = serde_json::to_value(rules).unwrap_or_default();
                global.insert(kind.word().to_owned(), rules);
            }
        }
        serde_json::json!({ "global": global })
    }

    /// The rules of a kind, in their order.
    pub fn of(&self, kind: Kind) -> &[Rule] {
        &self.0[kind as usize]
    }

    pub(super) fn of_mut(&mut self, kind: Kind) -> &mut Vec<Rule> {
        &mut self.0[kind as usize]
    }

    /// All rules, in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Rule)> {
        let lists = Kind::ALL.into_iter().zip(&self.0);
        lists.flat_map(|(kind, rules)| rules.iter().map(move |rule| (kind, rule)))
    }

    /// One rule.
    pub fn get(&self, kind: Kind, rule_id: &str) -> Option<&Rule> {
        self.of(kind).iter().find(|rule| rule.rule_id == rule_id)
    }

    /// One rule, to be switched or given other actions.
    pub fn get_mut(&mut self, kind: Kind, rule_id: &str) -> Result<&mut Rule, ChangeError> {
        let found = self.of_mut(kind).iter_mut().find(|rule| rule.rule_id == rule_id);
        found.ok_or(ChangeError::NoSuchRule)
    }

    /// Puts the rules for subscriptions to threads (MSC4306) in force.
    pub fn follow_subscriptions(&mut self) {
        for rule in self.of_mut(Kind::PostContent) {
            rule.enabled = true;
        }
    }

    /// Puts in a rule of the user's, in place of the one that had its id, which stays switched as it was. It stands right
    /// before or behind the rules that are named; else where it stood, and a new one before all others.
    pub fn insert(
        &mut self,
        kind: Kind,
        mut rule: Rule,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<(), ChangeError> {
        if rule.rule_id.starts_with('.') {
            return Err(ChangeError::ServersId);
        }
        if rule.rule_id.is_empty() || rule.rule_id.contains(['/', '\\']) {
            return Err(ChangeError::BadId);
        }
        let neighbors = [after, before].into_iter().flatten();
        if neighbors.clone().any(|id| id.starts_with('.')) {
            return Err(ChangeError::ServersNeighbor);
        }
        if neighbors.into_iter().any(|id| self.get(kind, id).is_none()) {
            return Err(ChangeError::NoSuchNeighbor);
        }
        let rules = self.of_mut(kind);
        let old = rules.iter().position(|known| known.rule_id == rule.rule_id);
        // A rule that shall stand beside itself stays where it is.
        let after = after.filter(|id| *id != rule.rule_id);
        let before = before.filter(|id| *id != rule.rule_id);
        let place_of = |id: &str| {
            let others = rules.iter().filter(|known| known.rule_id != rule.rule_id);
            others.into_iter().position(|known| known.rule_id == id)
        };
        let after = after.and_then(place_of).map(|at| at + 1);
        let before = before.and_then(place_of);
        if let (Some(after), Some(before)) = (after, before)
            && before < after
        {
            return Err(ChangeError::NoPlaceBetween);
        }
        let first = rules.iter().take_while(|known| known.rule_id == MASTER).count();
        let place = before.or(after).or(old).unwrap_or(first);
        if let Some(old) = old {
            rule.enabled = rules.remove(old).enabled;
        }
        rules.insert(place, rule);
        Ok(())
    }

    /// Takes out a rule of the user's.
    pub fn remove(&mut self, kind: Kind, rule_id: &str) -> Result<(), ChangeError> {
        if self.get_mut(kind, rule_id)?.default {
            return Err(ChangeError::ServersRule);
        }
        self.of_mut(kind).retain(|rule| rule.rule_id != rule_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    fn ids(set: &Ruleset, kind: Kind) -> Vec<&str> {
        set.of(kind).iter().map(|rule| rule.rule_id.as_str()).collect()
    }

    fn set(kind: Kind, ids: &[&str]) -> Ruleset {
        let mut set = Ruleset::default();
        *set.of_mut(kind) = ids.iter().map(|id| Rule::new(*id, Vec::new())).collect();
        set
    }

    #[test]
    fn rules_stand_where_they_are_put() {
        use ChangeError::{BadId, NoPlaceBetween, NoSuchNeighbor, ServersId, ServersNeighbor};
        for kind in Kind::ALL {
            for (id, after, before, expected) in [
                ("new", None, None, Ok("new a b c")),
                ("new", Some("c"), None, Ok("a b c new")),
                ("new", Some("a"), None, Ok("a new b c")),
                ("new", None, Some("a"), Ok("new a b c")),
                ("new", None, Some("c"), Ok("a b new c")),
                ("new", Some("a"), Some("c"), Ok("a b new c")),
                ("new", Some("b"), Some("b"), Err(NoPlaceBetween)),
                ("new", Some("c"), Some("a"), Err(NoPlaceBetween)),
                // One that is there stays there, or moves to where it shall stand, also to the end.
                ("a", None, None, Ok("a b c")),
                ("a", Some("c"), None, Ok("b c a")),
                ("a", Some("b"), None, Ok("b a c")),
                ("a", None, Some("c"), Ok("b a c")),
                ("c", Some("a"), None, Ok("a c b")),
                ("c", None, Some("a"), Ok("c a b")),
                ("b", Some("b"), None, Ok("a b c")),
                ("new", Some("x"), None, Err(NoSuchNeighbor)),
                ("new", None, Some("x"), Err(NoSuchNeighbor)),
                ("new", None, Some(".m.rule.master"), Err(ServersNeighbor)),
                (".new", None, None, Err(ServersId)),
                ("", None, None, Err(BadId)),
                ("a/b", None, None, Err(BadId)),
                ("a\\b", None, None, Err(BadId)),
            ] {
                let mut rules = set(kind, &["a", "b", "c"]);
                let outcome = rules.insert(kind, Rule::new(id, Vec::new()), after, before);
                let outcome = outcome.map(|()| ids(&rules, kind).join(" "));
                assert_eq!(
                    outcome,
                    expected.map(str::to_owned),
                    "{kind:?} {id} {after:?} {before:?}"
                );
            }
        }
    }

    #[test]
    fn own_rules_stand_between_the_master_and_the_defaults() {
        let user = user_id!("@ann:s");
        let mut rules = set(Kind::Override, &["old"]).with_defaults(default_ruleset(user));
        rules
            .insert(Kind::Override, Rule::new("new", Vec::new()), None, None)
            .unwrap();
        assert_eq!(ids(&rules, Kind::Override)[..3], [MASTER, "new", "old"]);
        assert_eq!(ids(&rules, Kind::Override)[3], ".m.rule.suppress_notices");
        assert_eq!(
            rules.remove(Kind::Override, MASTER),
            Err(ChangeError::ServersRule)
        );
        assert_eq!(rules.remove(Kind::Override, "none"), Err(ChangeError::NoSuchRule));
        rules.remove(Kind::Override, "old").unwrap();
        assert_eq!(ids(&rules, Kind::Override)[1], "new");
    }

    #[test]
    fn what_is_stored_is_what_was_changed() {
        let user = user_id!("@ann:s");
        let mut rules = default_ruleset(user);
        assert_eq!(rules.to_stored(user), json!({ "global": {} }));
        rules.get_mut(Kind::Override, MASTER).unwrap().enabled = true;
        rules
            .get_mut(Kind::Underride, ".m.rule.call")
            .unwrap()
            .actions
            .clear();
        let room = Rule::new("!r:s", Vec::new());
        rules.insert(Kind::Room, room, None, None).unwrap();
        let stored = rules.to_stored(user)["global"].take();
        let of = |kind: &str| stored[kind].as_array().map_or(0, Vec::len);
        assert_eq!(
            (of("override"), of("underride"), of("room"), of("content")),
            (1, 1, 1, 0)
        );
        let again = Ruleset::read(stored).with_defaults(default_ruleset(user));
        let json = |rules: &Ruleset| serde_json::to_value(rules).unwrap();
        assert_eq!(json(&again), json(&rules));
        // What an older version stored had all rules in it.
        let all = Ruleset::read(json(&rules)).with_defaults(default_ruleset(user));
        assert_eq!(json(&all), json(&rules));
    }

    #[test]
    fn every_kind_is_shown_and_one_bad_rule_spoils_no_other() {
        let shown = serde_json::to_value(Ruleset::default()).unwrap();
        assert_eq!(
            shown,
            json!({ "override": [], "content": [], "room": [], "sender": [], "underride": [] })
        );
        let tweak = json!({ "set_tweak": "org.example.light", "value": { "color": [1, null] } });
        let rules = Ruleset::read(json!({
            "room": [{ "rule_id": 7 }, { "rule_id": "!r:s", "actions": ["notify", tweak] }, { "rule_id": "!r:s", "actions": [] }],
            "sender": 5,
        }));
        assert_eq!(ids(&rules, Kind::Room), ["!r:s"]);
        assert_eq!(
            serde_json::to_value(rules.of(Kind::Room)).unwrap(),
            json!([{ "rule_id": "!r:s", "default": false, "enabled": true, "actions": ["notify", tweak] }])
        );
    }
}
