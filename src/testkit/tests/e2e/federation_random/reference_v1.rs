//! State resolution of room version 1, step by step as the specification has it (rooms/v1, "State resolution"). Only
//! whether an event is allowed in a state is Ruma's to say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ruma::OwnedEventId;
use ruma::events::StateEventType;
use ruma::room_version_rules::AuthorizationRules;
use ruma::state_res::{StateMap, check_state_dependent_auth_rules};
use sha1::{Digest as _, Sha1};

use super::reference::Theirs;

type Events = HashMap<OwnedEventId, Arc<Theirs>>;
type Key = (StateEventType, String);

/// What some states resolve to.
pub fn resolve(
    rules: &AuthorizationRules,
    states: &[StateMap<OwnedEventId>],
    events: &Events,
) -> Result<StateMap<OwnedEventId>, String> {
    let mut values: BTreeMap<Key, BTreeSet<OwnedEventId>> = BTreeMap::new();
    for (key, id) in states.iter().flatten() {
        values.entry(key.clone()).or_default().insert(id.clone());
    }
    let (agreed, conflicting): (BTreeMap<_, _>, BTreeMap<_, _>) =
        values.into_iter().partition(|(_, ids)| ids.len() == 1);
    let agreed = agreed.into_iter();
    let mut resolved: StateMap<OwnedEventId> = agreed
        .flat_map(|(key, ids)| ids.into_iter().map(move |id| (key.clone(), id)))
        .collect();
    let mut conflicts = Vec::new();
    for (key, ids) in conflicting {
        let mut list = Vec::new();
        for id in ids {
            list.push(
                events
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| format!("no server has {id}"))?,
            );
        }
        list.sort_by_cached_key(|event| (event.pdu.depth(), Reverse(hash(event))));
        conflicts.push((key, list));
    }
    let allows = |state: &StateMap<OwnedEventId>, event: &Arc<Theirs>| {
        let fetch = |kind: &StateEventType, key: &str| {
            let id = state.get(&(kind.clone(), key.to_owned()))?;
            events.get(id).cloned()
        };
        check_state_dependent_auth_rules(rules, &**event, fetch).is_ok()
    };
    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let before = resolved.clone();
        for (key, list) in conflicts.iter().filter(|(key, _)| key.0.to_string() == kind) {
            let mut state = before.clone();
            for (number, event) in list.iter().enumerate() {
                if number > 0 && !allows(&state, event) {
                    break;
                }
                state.insert(key.clone(), event.pdu.event_id.clone());
                resolved.insert(key.clone(), event.pdu.event_id.clone());
            }
        }
        conflicts.retain(|(key, _)| key.0.to_string() != kind);
    }
    let before = resolved.clone();
    for (key, list) in conflicts {
        // Where none passes, the specification does not say which; one of them stands, the first.
        let passing = list.iter().rev().find(|event| allows(&before, event));
        let chosen = passing.or(list.first()).ok_or("a conflict of no events")?;
        resolved.insert(key, chosen.pdu.event_id.clone());
    }
    Ok(resolved)
}

fn hash(event: &Theirs) -> [u8; 20] {
    Sha1::digest(event.pdu.event_id.as_bytes()).into()
}
