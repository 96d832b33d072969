//! Account data as `/sync` sends it: with the push rules that a user has without ever setting any.

use hearth_users::{AccountData, PUSH_RULES, User};
use ruma::{UserId, push::Ruleset};
use serde_json::{Value, json, value::RawValue};

use crate::{Error, view::DataEvent};

/// All global account data of a user, the push rules always among it.
pub(crate) fn all_global(user: &User) -> Result<Vec<DataEvent>, Error> {
    let stored = user.now().all_account_data(None)?;
    let has_rules = stored.iter().any(|data| data.kind == PUSH_RULES);
    let mut out: Vec<DataEvent> = stored.into_iter().map(|data| event(user, data)).collect();
    if !has_rules {
        let content = serde_json::value::to_raw_value(&push_rules(None, user.id()))?;
        out.push(DataEvent {
            kind: PUSH_RULES.to_owned(),
            content,
        });
    }
    Ok(out)
}

/// All account data of a room.
pub(crate) fn all_of_room(user: &User, room: &ruma::RoomId) -> Result<Vec<DataEvent>, Error> {
    Ok(user
        .now()
        .all_account_data(Some(room))?
        .into_iter()
        .map(|data| event(user, data))
        .collect())
}

/// One account data event.
pub(crate) fn event(user: &User, data: AccountData) -> DataEvent {
    let content = match data.kind.as_str() {
        PUSH_RULES => with_defaults(&data.content, user.id()).unwrap_or(data.content),
        _ => data.content,
    };
    DataEvent {
        kind: data.kind,
        content,
    }
}

fn with_defaults(content: &RawValue, user: &UserId) -> Option<Box<RawValue>> {
    let content: Value = serde_json::from_str(content.get()).ok()?;
    serde_json::value::to_raw_value(&push_rules(content.get("global").cloned(), user)).ok()
}

/// The content of `m.push_rules`: the stored rules and the defaults that they lack.
fn push_rules(stored: Option<Value>, user: &UserId) -> Value {
    let stored: Option<Ruleset> = stored.and_then(|global| serde_json::from_value(global).ok());
    let rules = match stored {
        Some(mut rules) => {
            rules.update_with_server_default(Ruleset::server_default(user));
            rules
        }
        None => Ruleset::server_default(user),
    };
    json!({ "global": rules })
}
