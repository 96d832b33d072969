//! The authorization rules for `m.room.power_levels`.

use std::collections::BTreeMap;

use crate::auth::denied;
use crate::{AuthInput, CreateInfo, Denied, Power, PowerField, PowerLevels, Rules};

pub(crate) fn check_power_levels(
    rules: &Rules,
    event: &AuthInput<'_>,
    create: &CreateInfo,
    current: Option<&PowerLevels>,
    power: Power,
) -> Result<(), Denied> {
    let new = PowerLevels::parse(rules, event.content).map_err(|error| Denied(format!("{error}.")))?;
    if create.privileged_creators
        && let Some(creator) = create
            .creators
            .iter()
            .find(|creator| new.users.contains_key(*creator))
    {
        return denied(format!(
            "{creator} created the room, has infinite power and cannot be given a power level."
        ));
    }
    let Some(current) = current else { return Ok(()) };
    let too_high = |what: &str, level: i64| {
        denied(format!(
            "You need power level {level} to change the power level of {what}, you have {power}."
        ))
    };
    for field in PowerField::ALL {
        if current.stated(field) == new.stated(field) {
            continue;
        }
        let highest = current.field(field).max(new.field(field));
        if !power.reaches(highest) {
            return too_high(&format!("`{}`", field.name()), highest);
        }
    }
    let maps = [
        ("`events`", &current.events, &new.events),
        ("`notifications`", &current.notifications, &new.notifications),
    ];
    let checked = if rules.authorization.limit_notifications_power_levels {
        2
    } else {
        1
    };
    for (name, current, new) in &maps[..checked] {
        for key in changed(current, new) {
            let highest = current.get(key).max(new.get(key)).copied().unwrap_or(i64::MIN);
            if !power.reaches(highest) {
                return too_high(&format!("{key} in {name}"), highest);
            }
        }
    }
    for user in changed(&current.users, &new.users) {
        let (before, after) = (current.users.get(user).copied(), new.users.get(user).copied());
        // One may give power up, but not take it from an equal.
        if user != event.sender
            && let Some(before) = before.filter(|before| Power::Level(*before) >= power)
        {
            return denied(format!(
                "{user} has power level {before}; you have {power} and can only change the power level of users below you."
            ));
        }
        if let Some(after) = after.filter(|after| !power.reaches(*after)) {
            return denied(format!(
                "You cannot give {user} the power level {after}, you have {power}."
            ));
        }
    }
    Ok(())
}

/// The keys whose values differ.
fn changed<'a, K: Ord>(
    current: &'a BTreeMap<K, i64>,
    new: &'a BTreeMap<K, i64>,
) -> impl Iterator<Item = &'a K> {
    let altered = current
        .iter()
        .filter(|(key, level)| new.get(*key) != Some(*level))
        .map(|(key, _)| key);
    altered.chain(new.keys().filter(|key| !current.contains_key(*key)))
}
