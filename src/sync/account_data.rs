//! Account data as `/sync` sends it: with the push rules that a user has without ever setting any.

use std::collections::BTreeMap;

use hearth_users::{AccountData, PUSH_RULES, User};
use ruma::OwnedRoomId;
use serde_json::{json, value::RawValue};

use crate::{Error, view::DataEvent};

/// All global account data of a user, the push rules always among it.
pub(crate) fn all_global(user: &User) -> Result<Vec<DataEvent>, Error> {
    let stored = user.now().all_account_data(None)?;
    let has_rules = stored.iter().any(|data| data.kind == PUSH_RULES);
    let mut out = Vec::with_capacity(stored.len() + 1);
    for data in stored {
        out.push(event(user, data)?);
    }
    if !has_rules {
        let content = push_rules(user)?;
        out.push(DataEvent {
            kind: PUSH_RULES.to_owned(),
            content,
        });
    }
    Ok(out)
}

/// The account data of all rooms.
pub(crate) fn all_of_rooms(user: &User) -> Result<BTreeMap<OwnedRoomId, Vec<DataEvent>>, Error> {
    let mut out: BTreeMap<OwnedRoomId, Vec<DataEvent>> = BTreeMap::new();
    for (room, data) in user.now().account_data_of_rooms()? {
        out.entry(room).or_default().push(event(user, data)?);
    }
    Ok(out)
}

/// All account data of a room.
pub(crate) fn all_of_room(user: &User, room: &ruma::RoomId) -> Result<Vec<DataEvent>, Error> {
    let stored = user.now().all_account_data(Some(room))?;
    stored.into_iter().map(|data| event(user, data)).collect()
}

/// One account data event. The push rules are told with the defaults that the user never changed.
pub(crate) fn event(user: &User, data: AccountData) -> Result<DataEvent, Error> {
    let content = match data.kind.as_str() {
        PUSH_RULES => push_rules(user)?,
        _ => data.content,
    };
    Ok(DataEvent {
        kind: data.kind,
        content,
    })
}

/// The content of `m.push_rules`.
fn push_rules(user: &User) -> Result<Box<RawValue>, Error> {
    Ok(serde_json::value::to_raw_value(
        &json!({ "global": user.rules()?.set }),
    )?)
}
