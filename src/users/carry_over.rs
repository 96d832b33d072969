//! What of a user's account data follows a room to the one that replaces it.

use hearth_storage::EntityKey;
use ruma::RoomId;
use serde_json::{Map, Value};

use crate::data::{DIRECT, PUSH_RULES, TAG, put_if_it_fits, read_value};
use crate::error::Result;
use crate::write::Tx;

/// Carries the tags, the direct-chat mark and the push rules of a room over to the room that replaces it.
pub(crate) fn carry_over(tx: &mut Tx<'_>, key: EntityKey, old: &RoomId, new: &RoomId) -> Result<()> {
    if read_value(tx, key, Some(new), TAG)?.is_none()
        && let Some(tags) = read_value(tx, key, Some(old), TAG)?
    {
        put_if_it_fits(tx, key, Some(new), TAG, &tags)?;
    }
    if let Some(mut direct) = read_value(tx, key, None, DIRECT)?
        && add_direct(&mut direct, old, new)
    {
        put_if_it_fits(tx, key, None, DIRECT, &direct)?;
    }
    if let Some(mut rules) = read_value(tx, key, None, PUSH_RULES)?
        && add_rules(&mut rules, old, new)
    {
        put_if_it_fits(tx, key, None, PUSH_RULES, &rules)?;
    }
    Ok(())
}

fn add_direct(direct: &mut Value, old: &RoomId, new: &RoomId) -> bool {
    let mut changed = false;
    for rooms in direct
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(Value::as_array_mut)
    {
        let has = |id: &RoomId| rooms.iter().any(|room| room.as_str() == Some(id.as_str()));
        if has(old) && !has(new) {
            rooms.push(new.as_str().into());
            changed = true;
        }
    }
    changed
}

/// A room rule is named after its room; other rules name a room in an event_match condition on room_id.
fn add_rules(rules: &mut Value, old: &RoomId, new: &RoomId) -> bool {
    let Some(global) = rules.get_mut("global").and_then(Value::as_object_mut) else {
        return false;
    };
    let mut changed = false;
    for (kind, list) in global
        .iter_mut()
        .filter_map(|(kind, list)| Some((kind.as_str(), list.as_array_mut()?)))
    {
        let copies: Vec<Value> = list
            .iter()
            .filter_map(|rule| rule_for_new_room(kind, rule, old, new))
            .collect();
        for copy in copies {
            if !list.iter().any(|rule| rule.get("rule_id") == copy.get("rule_id")) {
                list.push(copy);
                changed = true;
            }
        }
    }
    changed
}

fn rule_for_new_room(kind: &str, rule: &Value, old: &RoomId, new: &RoomId) -> Option<Value> {
    let mut copy = rule.clone();
    let id = rule.get("rule_id")?.as_str()?;
    if kind == "room" {
        (id == old.as_str()).then_some(())?;
    } else {
        let conditions = copy.get_mut("conditions")?.as_array_mut()?;
        let mut names_room = false;
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            let on_room = condition.get("kind").and_then(Value::as_str) == Some("event_match")
                && condition.get("key").and_then(Value::as_str) == Some("room_id")
                && condition.get("pattern").and_then(Value::as_str) == Some(old.as_str());
            if on_room {
                condition.insert("pattern".to_owned(), new.as_str().into());
                names_room = true;
            }
        }
        names_room.then_some(())?;
    }
    let new_id = id.replace(old.as_str(), new.as_str());
    if new_id == id {
        return None;
    }
    copy.as_object_mut()?.insert("rule_id".to_owned(), new_id.into());
    Some(copy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_follow_a_room() {
        let (old, new) = (
            <&RoomId>::try_from("!old:a").unwrap(),
            <&RoomId>::try_from("!new").unwrap(),
        );
        let mut rules = json!({"global": {
            "room": [{"rule_id": "!old:a", "actions": []}, {"rule_id": "!x:a", "actions": []}],
            "override": [{"rule_id": "!old:a", "actions": [], "conditions": [
                {"kind": "event_match", "key": "room_id", "pattern": "!old:a"}]}],
            "content": [{"rule_id": "word", "pattern": "word", "actions": []}],
        }});
        assert!(add_rules(&mut rules, old, new));
        assert_eq!(rules["global"]["room"][2]["rule_id"], "!new");
        assert_eq!(rules["global"]["override"][1]["conditions"][0]["pattern"], "!new");
        assert_eq!(rules["global"]["content"].as_array().unwrap().len(), 1);
        assert!(!add_rules(&mut rules, old, new), "once is enough");
    }

    #[test]
    fn direct_chats_follow_a_room() {
        let (old, new) = (
            <&RoomId>::try_from("!old:a").unwrap(),
            <&RoomId>::try_from("!new").unwrap(),
        );
        let mut direct = json!({"@a:b": ["!old:a"], "@c:d": ["!x:a"], "odd": 1});
        assert!(add_direct(&mut direct, old, new));
        assert_eq!(
            direct,
            json!({"@a:b": ["!old:a", "!new"], "@c:d": ["!x:a"], "odd": 1})
        );
        assert!(!add_direct(&mut direct, old, new));
    }
}
