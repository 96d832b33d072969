//! Push rules (client-server API, "Push Rules"): the rules of a user, and which of them an event meets.
//!
//! Types and defaults are Ruma's. Conditions are ours: they must stay quick and small whatever a stranger writes into an
//! event.

use ruma::push::{
    Action, EventMatchConditionData, HighlightTweakValue, PushCondition, ScalarJsonValue, SoundTweakValue,
    Tweak,
};
use ruma::{RoomId, UserId, uint};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::notification::names_too_many;

mod ruleset;
mod words;

pub use ruleset::{ChangeError, Kind, Rule, Ruleset};
use words::{Budget, matches_words};

/// The default rule for messages that name the user by id and have no `m.mentions`.
const CONTAINS_USER_NAME: &str = ".m.rule.contains_user_name";

/// So much work one event may be for the rules of one user, in steps of some nanoseconds: the longest text can be looked
/// through for sixty words, a usual one for thousands. What all rules of a user come to beyond it is not asked: the event then
/// meets none. All users wait for one another here, and rules are written by users, as texts are.
const WORK_MAX: usize = 4 << 20;

/// A rule, and a condition, is so much work at the least.
const RULE_WORK: usize = 16;
/// A look into the room's state.
const STATE_WORK: usize = 1 << 10;

/// The push rules of a user who has changed none.
///
/// They are the specification's, the rules for polls (MSC3930) and for thread subscriptions (MSC4306), and one of those that the specification dropped in
/// v1.17. NOTSPEC: `.m.rule.contains_user_name` stays, for the user's whole id, because bots and bridges that know
/// nothing of `m.mentions` still name people in the text; where an event has `m.mentions`, the rule does not apply.
pub fn default_ruleset(user: &UserId) -> Ruleset {
    let of_ruma = serde_json::to_value(ruma::push::Ruleset::server_default(user));
    let mut rules = Ruleset::read(of_ruma.unwrap_or_default());
    let sound = || Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
    let poll = |name: &str, kind: &str, one_to_one: bool, actions: Vec<Action>| {
        let is_type =
            EventMatchConditionData::new("type".to_owned(), format!("org.matrix.msc3381.poll.{kind}"));
        let mut conditions = Vec::new();
        if one_to_one {
            conditions.push(PushCondition::RoomMemberCount(
                ruma::push::RoomMemberCountConditionData::new(uint!(2).into()),
            ));
        }
        conditions.push(PushCondition::EventMatch(is_type));
        Rule {
            default: true,
            conditions: Some(conditions),
            ..Rule::new(format!(".org.matrix.msc3930.rule.{name}"), actions)
        }
    };
    // NOTSPEC: MSC4306 has these rules in force for everybody. Clients that know nothing of subscriptions would then leave
    // their users without any notification of threads, so they come in force with a user's first subscription.
    for rule in rules.of_mut(Kind::PostContent) {
        rule.enabled = false;
    }
    rules
        .of_mut(Kind::Override)
        .push(poll("poll_response", "response", false, Vec::new()));
    for (name, kind, one_to_one) in [
        ("poll_start_one_to_one", "start", true),
        ("poll_start", "start", false),
        ("poll_end_one_to_one", "end", true),
        ("poll_end", "end", false),
    ] {
        let mut actions = vec![Action::Notify];
        actions.extend(one_to_one.then(sound));
        rules
            .of_mut(Kind::Underride)
            .push(poll(name, kind, one_to_one, actions));
    }
    let highlight = Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes));
    rules.of_mut(Kind::Content).push(Rule {
        default: true,
        pattern: Some(user.to_string()),
        ..Rule::new(CONTAINS_USER_NAME, vec![Action::Notify, sound(), highlight])
    });
    rules
}

/// The rules that the `global` member of an `m.push_rules` content has, with the defaults that it lacks. What cannot
/// be read counts as not written.
pub fn ruleset(global: Option<Value>, user: &UserId) -> Ruleset {
    let stored = Ruleset::read(global.unwrap_or_default());
    stored.with_defaults(default_ruleset(user))
}

/// Whether a whole text fits a glob pattern, without regard to case (appendices, "Glob-style matching").
pub fn glob(pattern: &str, text: &str) -> bool {
    glob_within(pattern, text, &Budget::new(WORK_MAX))
}

fn glob_within(pattern: &str, text: &str, budget: &Budget) -> bool {
    budget.pay(text.len() + pattern.len())
        && words::fits_whole(&text.to_lowercase(), &pattern.to_lowercase(), budget)
}

/// What an event means to a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The user is notified.
    pub notify: bool,
    /// And the notification is highlighted.
    pub highlight: bool,
}

impl Outcome {
    /// What actions come to. A highlight without a notification is none.
    pub fn of(actions: &[Action]) -> Self {
        let notify = actions.iter().any(Action::should_notify);
        Self {
            notify,
            highlight: notify && actions.iter().any(Action::is_highlight),
        }
    }
}

/// What conditions ask of the room at the time of an event.
pub trait Surroundings {
    /// The room.
    fn room_id(&self) -> &str;
    /// How many members are joined.
    fn members(&self) -> u64;
    /// The user's display name in the room.
    fn display_name(&self) -> Option<String>;
    /// Whether the event's sender has the power to notify in this way (`room`).
    fn sender_may_notify(&self, key: &str) -> bool;
    /// Whether the user is subscribed to the event's thread; none where it is in no thread.
    fn thread_subscribed(&self) -> Option<bool>;
}

/// A room that the user is not in and that may not be here, as of an invitation: nothing is known of it but its id.
pub struct UnknownRoom<'a>(pub &'a RoomId);

impl Surroundings for UnknownRoom<'_> {
    fn room_id(&self) -> &str {
        self.0.as_str()
    }

    fn members(&self) -> u64 {
        0
    }

    fn display_name(&self) -> Option<String> {
        None
    }

    fn sender_may_notify(&self, _: &str) -> bool {
        false
    }

    fn thread_subscribed(&self) -> Option<bool> {
        None
    }
}

/// An event, read for push rules.
pub struct PushEvent {
    json: Value,
    /// The text, in lower case.
    body: Option<String>,
}

impl PushEvent {
    /// Reads an event's JSON; none where it is no JSON.
    pub fn new(json: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(json).ok()?;
        let body = json.pointer("/content/body").and_then(Value::as_str);
        let body = body.map(str::to_lowercase);
        Some(Self { json, body })
    }

    fn sender(&self) -> &str {
        self.json
            .get("sender")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn has_mentions(&self) -> bool {
        self.json.pointer("/content/m.mentions").is_some()
    }

    /// The property that a path names (appendices, "Dot-separated property paths").
    fn property(&self, path: &str) -> Option<&Value> {
        let mut at = &self.json;
        let mut rest = Some(path);
        while let Some(path) = rest {
            let (name, behind) = first_name(path);
            at = at.as_object()?.get(&name)?;
            rest = behind;
        }
        Some(at)
    }
}

/// The first name of a path, and what follows its dot. A backslash keeps the next dot or backslash as it is.
fn first_name(path: &str) -> (String, Option<&str>) {
    let mut name = String::new();
    let mut chars = path.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '.' => return (name, path.get(at + 1..)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('.' | '\\'))) => name.push(escaped),
                Some((_, other)) => name.extend(['\\', other]),
                None => name.push('\\'),
            },
            other => name.push(other),
        }
    }
    (name, None)
}

/// Whether a value is the one that a condition names.
fn is_value(wanted: &ScalarJsonValue, found: &Value) -> bool {
    match wanted {
        ScalarJsonValue::Null => found.is_null(),
        ScalarJsonValue::Bool(wanted) => found.as_bool() == Some(*wanted),
        ScalarJsonValue::Integer(wanted) => found.as_i64() == Some(i64::from(*wanted)),
        ScalarJsonValue::String(wanted) => found.as_str() == Some(wanted),
    }
}

/// A user's rules, ready to be asked.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The rules.
    pub set: Ruleset,
    /// Whether they come to the same as the defaults for every event that does not name the user.
    is_default: bool,
    /// Whether a rule asks for subscriptions to threads.
    asks_threads: bool,
    /// Rooms that have a rule of their own; in all others these rules count for nothing.
    rooms: std::collections::BTreeSet<String>,
}

impl Rules {
    /// The rules in a content of `m.push_rules`; the defaults where there is none.
    pub fn of_content(content: Option<&RawValue>, user: &UserId) -> Self {
        let content: Option<Value> = content.and_then(|content| serde_json::from_str(content.get()).ok());
        let global = content.and_then(|mut content| content.get_mut("global").map(Value::take));
        Self::new(ruleset(global, user), user)
    }

    /// These rules.
    pub fn new(set: Ruleset, user: &UserId) -> Self {
        let mut general = set.clone();
        let mut rooms = std::collections::BTreeSet::new();
        for rule in std::mem::take(general.of_mut(Kind::Room)) {
            rooms.insert(rule.rule_id);
        }
        general.of_mut(Kind::Override).retain(|rule| match room_of(rule) {
            Some(room) => {
                rooms.insert(room.to_owned());
                false
            }
            None => true,
        });
        let is_default = same_outcomes(&general, &default_ruleset(user));
        let asks_threads = set.iter().any(|(_, rule)| asks_threads(rule));
        Self {
            set,
            is_default,
            asks_threads,
            rooms,
        }
    }

    /// Whether, in this room, the rules come to the same as the defaults for every event that does not name the user.
    pub fn is_default_in(&self, room: &str) -> bool {
        self.is_default && !self.rooms.contains(room)
    }

    /// Whether what an event means depends on subscriptions to threads.
    pub fn asks_threads(&self) -> bool {
        self.asks_threads
    }

    /// The actions of the first rule that an event meets. A user's own events meet none.
    pub fn actions(&self, user: &UserId, event: &PushEvent, room: &dyn Surroundings) -> &[Action] {
        if event.sender() == user.as_str() {
            return &[];
        }
        let asked = Asked {
            event,
            room,
            budget: Budget::new(WORK_MAX),
        };
        let mut rules = self.set.iter();
        let met = rules.find(|(kind, rule)| asked.meets(*kind, rule));
        met.map_or(&[], |(_, rule)| &rule.actions)
    }

    /// What an event means to the user.
    pub fn outcome(&self, user: &UserId, event: &PushEvent, room: &dyn Surroundings) -> Outcome {
        Outcome::of(self.actions(user, event, room))
    }
}

/// Whether a rule that is in force has a condition on the subscription to a thread.
fn asks_threads(rule: &Rule) -> bool {
    let asks = |condition: &PushCondition| matches!(condition, PushCondition::ThreadSubscription(_));
    rule.enabled && rule.conditions().iter().any(asks)
}

/// The one room that a rule is about, by a condition on `room_id`.
fn room_of(rule: &Rule) -> Option<&str> {
    rule.conditions().iter().find_map(|condition| match condition {
        PushCondition::EventMatch(data) if data.key == "room_id" && !data.pattern.contains(['*', '?']) => {
            Some(data.pattern.as_str())
        }
        _ => None,
    })
}

/// Whether two sets have the same rules, in force alike, that notify and highlight alike; sounds may differ.
fn same_outcomes(one: &Ruleset, other: &Ruleset) -> bool {
    let mut others = other.iter();
    let alike = one.iter().all(|(kind, rule)| {
        others.next().is_some_and(|(other_kind, other)| {
            kind == other_kind
                && rule.rule_id == other.rule_id
                && rule.enabled == other.enabled
                && Outcome::of(&rule.actions) == Outcome::of(&other.actions)
        })
    });
    alike && others.next().is_none()
}

/// One event asked about for one user.
struct Asked<'a> {
    event: &'a PushEvent,
    room: &'a dyn Surroundings,
    budget: Budget,
}

impl Asked<'_> {
    fn meets(&self, kind: Kind, rule: &Rule) -> bool {
        if !rule.enabled || !self.budget.pay(RULE_WORK) {
            return false;
        }
        let pattern = rule.pattern.as_deref().unwrap_or_default();
        match kind {
            Kind::Override | Kind::PostContent | Kind::Underride => {
                rule.conditions().iter().all(|condition| self.applies(condition))
            }
            Kind::Content if rule.default && rule.rule_id == CONTAINS_USER_NAME => {
                !self.event.has_mentions()
                    && self
                        .event
                        .body
                        .as_deref()
                        .is_some_and(|body| !names_too_many(body) && self.has(body, pattern))
            }
            Kind::Content => self.body_has(pattern),
            Kind::Room => rule.rule_id == self.room.room_id(),
            Kind::Sender => rule.rule_id == self.event.sender(),
        }
    }

    fn body_has(&self, pattern: &str) -> bool {
        self.event
            .body
            .as_deref()
            .is_some_and(|body| self.has(body, pattern))
    }

    fn has(&self, body: &str, pattern: &str) -> bool {
        matches_words(body, pattern, &self.budget)
    }

    #[expect(deprecated, reason = "rules that users have made still ask for display names")]
    fn applies(&self, condition: &PushCondition) -> bool {
        if !self.budget.pay(RULE_WORK) {
            return false;
        }
        match condition {
            PushCondition::EventMatch(data) => self.matches(data),
            PushCondition::EventPropertyIs(data) => {
                let found = self.event.property(&data.key);
                found.is_some_and(|found| is_value(&data.value, found))
            }
            PushCondition::EventPropertyContains(data) => {
                let found = self.event.property(&data.key).and_then(Value::as_array);
                found.is_some_and(|found| {
                    self.budget.pay(found.len()) && found.iter().any(|one| is_value(&data.value, one))
                })
            }
            PushCondition::ContainsDisplayName => {
                if !self.budget.pay(STATE_WORK) {
                    return false;
                }
                let name = self.room.display_name().filter(|name| !name.is_empty());
                name.is_some_and(|name| {
                    self.event
                        .body
                        .as_deref()
                        .is_some_and(|body| words::has_words(body, &name.to_lowercase(), &self.budget))
                })
            }
            PushCondition::RoomMemberCount(data) => {
                let members = ruma::UInt::new(self.room.members());
                members.is_some_and(|members| std::ops::RangeBounds::contains(&data.is, &members))
            }
            PushCondition::SenderNotificationPermission(data) => {
                self.budget.pay(STATE_WORK) && self.room.sender_may_notify(data.key.as_ref())
            }
            PushCondition::ThreadSubscription(data) => self.room.thread_subscribed() == Some(data.subscribed),
            // What is not known meets no event.
            _ => false,
        }
    }

    fn matches(&self, condition: &EventMatchConditionData) -> bool {
        match condition.key.as_str() {
            "content.body" => self.body_has(&condition.pattern),
            "room_id" => glob_within(&condition.pattern, self.room.room_id(), &self.budget),
            key => {
                if !self.budget.pay(key.len()) {
                    return false;
                }
                let text = self.event.property(key).and_then(Value::as_str);
                text.is_some_and(|text| glob_within(&condition.pattern, text, &self.budget))
            }
        }
    }
}

#[cfg(test)]
mod tests;
