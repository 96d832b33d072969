use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};

use crate::json::{get, members, string};
use crate::limits::INTEGER_MAX;
use crate::{CreateInfo, Error, Rules};

/// The power of a user. Creators of rooms from version 12 on have more than any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// A power level.
    Level(i64),
    /// More than any level.
    Infinite,
}

impl Power {
    /// Whether it is at least `level`.
    pub fn reaches(self, level: i64) -> bool {
        self >= Power::Level(level)
    }

    /// The level as a number; the largest integer of JSON for infinite power.
    pub fn as_level(self) -> i64 {
        match self {
            Power::Level(level) => level,
            Power::Infinite => INTEGER_MAX,
        }
    }
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Power::Level(level) => write!(f, "{level}"),
            Power::Infinite => f.write_str("infinite"),
        }
    }
}

/// A field of `m.room.power_levels` that is one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerField {
    /// `users_default`: the level of a user who is not listed.
    UsersDefault,
    /// `events_default`: what sending a message of an unlisted type needs.
    EventsDefault,
    /// `state_default`: what sending a state event of an unlisted type needs.
    StateDefault,
    /// `ban`.
    Ban,
    /// `redact`: what redacting the events of others needs.
    Redact,
    /// `kick`.
    Kick,
    /// `invite`.
    Invite,
}

impl PowerField {
    /// All of them, in the order of the authorization rules.
    pub const ALL: [PowerField; 7] = [
        PowerField::UsersDefault,
        PowerField::EventsDefault,
        PowerField::StateDefault,
        PowerField::Ban,
        PowerField::Redact,
        PowerField::Kick,
        PowerField::Invite,
    ];

    /// The field's name in the content.
    pub fn name(self) -> &'static str {
        match self {
            PowerField::UsersDefault => "users_default",
            PowerField::EventsDefault => "events_default",
            PowerField::StateDefault => "state_default",
            PowerField::Ban => "ban",
            PowerField::Redact => "redact",
            PowerField::Kick => "kick",
            PowerField::Invite => "invite",
        }
    }

    /// The level where the content has none.
    pub fn default_level(self) -> i64 {
        match self {
            PowerField::UsersDefault | PowerField::EventsDefault | PowerField::Invite => 0,
            PowerField::StateDefault | PowerField::Ban | PowerField::Redact | PowerField::Kick => 50,
        }
    }
}

/// The level a notification needs where the content has none.
const NOTIFICATION_DEFAULT: i64 = 50;
/// The level of the creator in a room without power levels.
const CREATOR_DEFAULT: i64 = 100;

/// The content of an `m.room.power_levels` event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerLevels {
    fields: [Option<i64>; 7],
    /// The levels of the users who are listed.
    pub users: BTreeMap<OwnedUserId, i64>,
    /// What sending an event of a listed type needs.
    pub events: BTreeMap<String, i64>,
    /// What notifying others needs, by kind of notification.
    pub notifications: BTreeMap<String, i64>,
}

impl PowerLevels {
    /// Reads the content of a power levels event as its room version reads it.
    pub fn parse(rules: &Rules, content: &[u8]) -> Result<PowerLevels, Error> {
        let whole = rules.authorization.integer_power_levels;
        let mut levels = PowerLevels::default();
        for (slot, field) in levels.fields.iter_mut().zip(PowerField::ALL) {
            if let Some(value) = get(content, field.name()) {
                *slot = Some(level(value, whole).ok_or_else(|| not_a_level(field.name(), whole))?);
            }
        }
        levels.events = level_map(content, "events", whole)?.into_iter().collect();
        levels.notifications = level_map(content, "notifications", whole)?.into_iter().collect();
        for (user, level) in level_map(content, "users", whole)? {
            let user = UserId::parse(&user)
                .map_err(|_| Error::Format(format!("{user:?} in `users` is not a user id")))?;
            levels.users.insert(user, level);
        }
        Ok(levels)
    }

    /// The level as it stands in the content.
    pub fn stated(&self, field: PowerField) -> Option<i64> {
        PowerField::ALL
            .iter()
            .position(|other| *other == field)
            .and_then(|index| self.fields[index])
    }

    /// The level, or its default.
    pub fn field(&self, field: PowerField) -> i64 {
        self.stated(field).unwrap_or(field.default_level())
    }

    /// The power of a user in a room with these power levels and this create event.
    pub fn for_user(&self, user: &UserId, create: &CreateInfo) -> Power {
        PowerView::new(create, Some(self)).user(user)
    }

    /// What sending an event of this type needs.
    pub fn needed_for(&self, kind: &str, is_state: bool) -> i64 {
        let default = if is_state {
            PowerField::StateDefault
        } else {
            PowerField::EventsDefault
        };
        self.events
            .get(kind)
            .copied()
            .unwrap_or_else(|| self.field(default))
    }

    /// What a notification of this kind (`room`) needs.
    pub fn notification(&self, kind: &str) -> i64 {
        self.notifications
            .get(kind)
            .copied()
            .unwrap_or(NOTIFICATION_DEFAULT)
    }
}

/// Who may do what: the create event and the power levels, which a room may lack, together.
#[derive(Clone, Copy, Debug)]
pub struct PowerView<'a> {
    create: &'a CreateInfo,
    levels: Option<&'a PowerLevels>,
}

impl<'a> PowerView<'a> {
    /// Joins the two.
    pub fn new(create: &'a CreateInfo, levels: Option<&'a PowerLevels>) -> PowerView<'a> {
        PowerView { create, levels }
    }

    /// The power of a user.
    pub fn user(&self, user: &UserId) -> Power {
        let is_creator = || self.create.creators.iter().any(|creator| creator == user);
        if self.create.privileged_creators && is_creator() {
            return Power::Infinite;
        }
        Power::Level(match self.levels {
            Some(levels) => levels
                .users
                .get(user)
                .copied()
                .unwrap_or_else(|| levels.field(PowerField::UsersDefault)),
            None if is_creator() => CREATOR_DEFAULT,
            None => PowerField::UsersDefault.default_level(),
        })
    }

    /// The users whose power is of their own: creators, and those who are listed.
    pub fn named(&self) -> impl Iterator<Item = &'a UserId> + use<'a> {
        let listed = self.levels.into_iter().flat_map(|levels| levels.users.keys());
        let creators = self.create.creators.iter();
        creators.chain(listed).map(|user| &**user)
    }

    /// The power of all other users.
    pub fn of_others(&self) -> Power {
        Power::Level(self.field(PowerField::UsersDefault))
    }

    /// What this field demands.
    pub fn field(&self, field: PowerField) -> i64 {
        self.levels
            .map_or(field.default_level(), |levels| levels.field(field))
    }

    /// What sending an event of this type needs.
    pub fn needed_for(&self, kind: &str, is_state: bool) -> i64 {
        let default = if is_state {
            PowerField::StateDefault
        } else {
            PowerField::EventsDefault
        };
        self.levels.map_or(default.default_level(), |levels| {
            levels.needed_for(kind, is_state)
        })
    }

    /// What a notification of this kind (`room`) needs.
    pub fn notification(&self, kind: &str) -> i64 {
        self.levels
            .map_or(NOTIFICATION_DEFAULT, |levels| levels.notification(kind))
    }
}

fn not_a_level(name: &str, whole: bool) -> Error {
    let what = if whole {
        "an integer"
    } else {
        "an integer or a string that is one"
    };
    Error::Format(format!("the power level `{name}` is not {what}"))
}

fn level_map(content: &[u8], name: &str, whole: bool) -> Result<Vec<(String, i64)>, Error> {
    let Some(map) = get(content, name) else {
        return Ok(Vec::new());
    };
    if !map.starts_with(b"{") {
        return Err(Error::Format(format!(
            "`{name}` of the power levels is not an object"
        )));
    }
    let mut found = Vec::new();
    for member in members(map) {
        // The walk gives keys without their quotes.
        let quoted = [b"\"", member.key, b"\""].concat();
        let key = string(&quoted)
            .ok_or_else(|| Error::Format(format!("`{name}` has a key that cannot be read")))?
            .into_owned();
        let level = level(member.value, whole).ok_or_else(|| not_a_level(&format!("{name}.{key}"), whole))?;
        found.push((key, level));
    }
    Ok(found)
}

/// A level: an integer, and in room versions before 10 also a fraction, which is cut, or a string that is an integer.
fn level(value: &[u8], whole: bool) -> Option<i64> {
    let in_range = |level: &i64| (-INTEGER_MAX..=INTEGER_MAX).contains(level);
    let text = std::str::from_utf8(value).ok()?;
    if let Ok(level) = text.parse::<i64>() {
        return Some(level).filter(in_range);
    }
    if whole {
        return None;
    }
    if text.starts_with('"') {
        return string(value)?.trim().parse().ok().filter(in_range);
    }
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let fraction = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())?
        .trunc();
    Some(fraction as i64).filter(in_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_old_and_new_versions() {
        for (value, old, new) in [
            ("50", Some(50), Some(50)),
            ("-1", Some(-1), Some(-1)),
            ("9007199254740992", None, None),
            (r#""50""#, Some(50), None),
            (r#""  +00050 ""#, Some(50), None),
            (r#"" -100\n""#, Some(-100), None),
            (r#""5.5""#, None, None),
            (r#""+-5""#, None, None),
            (r#""""#, None, None),
            ("50.57", Some(50), None),
            ("-0.9", Some(0), None),
            ("5.114698E4", Some(51146), None),
            ("1e400", None, None),
            ("true", None, None),
            ("null", None, None),
            ("[1]", None, None),
        ] {
            assert_eq!(level(value.as_bytes(), false), old, "{value}");
            assert_eq!(level(value.as_bytes(), true), new, "{value}");
        }
    }

    #[test]
    fn defaults_and_stated_levels() {
        let rules = &Rules::all()[9];
        let content = br#"{"events":{"m.room.name":70},"state_default":60,"users":{"@a:b":80},"users_default":5,"notifications":{"room":20}}"#;
        let levels = PowerLevels::parse(rules, content).unwrap();
        assert_eq!(
            (
                levels.needed_for("m.room.name", true),
                levels.needed_for("x", true),
                levels.needed_for("x", false)
            ),
            (70, 60, 0)
        );
        assert_eq!(
            (
                levels.field(PowerField::Ban),
                levels.field(PowerField::Invite),
                levels.notification("room")
            ),
            (50, 0, 20)
        );
        assert!(PowerLevels::parse(rules, br#"{"users":{"nobody":1}}"#).is_err());
        assert!(PowerLevels::parse(rules, br#"{"users":[]}"#).is_err());
        assert!(PowerLevels::parse(rules, br#"{"ban":null}"#).is_err());
        assert!(Power::Infinite > Power::Level(INTEGER_MAX));
    }
}
