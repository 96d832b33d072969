//! What other servers are told of local users' devices and keys (server-server API, "Device Management").

use std::sync::Arc;

use hearth_rooms::Error;
use hearth_users::{User, Users};
use ruma::{DeviceId, UserId};
use serde_json::{Map, Value, json};

/// The EDUs that tell a server what it does not know since change `sent`, at most `limit` of them; the number that it
/// knows then, and whether that is all.
pub(crate) fn edus(
    users: &Arc<Users>,
    user_id: &UserId,
    sent: u64,
    limit: usize,
) -> Result<(Vec<Value>, u64, bool), Error> {
    let Some(user) = users.get(user_id).map_err(internal)? else {
        return Ok((Vec::new(), sent, true));
    };
    let changes = user.device_list_changes(sent).map_err(internal)?;
    let mut edus = Vec::new();
    if changes.keys {
        edus.extend(signing_keys(&user)?);
    }
    let mut previous = sent;
    let mut devices = changes.devices;
    if !changes.is_complete {
        // What is missing makes the server fetch the whole list, at whichever change it sees the gap.
        devices = devices.split_off(devices.len().saturating_sub(1));
        previous = devices.last().map_or(sent, |(number, _)| number - 1);
    }
    let count = devices.len();
    let mut told = 0;
    for (number, device) in devices.into_iter().take(limit.saturating_sub(edus.len())) {
        edus.push(update(&user, &device, number, previous)?);
        previous = number;
        told += 1;
    }
    let is_all = told == count;
    let knows = if is_all {
        changes.stream.max(sent)
    } else {
        previous
    };
    Ok((edus, knows, is_all))
}

/// An `m.device_list_update`.
fn update(user: &User, device: &DeviceId, number: u64, previous: u64) -> Result<Value, Error> {
    let mut content = json!({
        "user_id": user.id(),
        "device_id": device,
        "stream_id": number,
        "prev_id": if previous == 0 { Vec::new() } else { vec![previous] },
    });
    let found = user.device_keys(&[device.to_owned()]).map_err(internal)?.pop();
    match found {
        Some(mut found) => {
            let unsigned: Option<Value> = found.keys.remove("unsigned");
            let name = unsigned.as_ref().and_then(|all| all.get("device_display_name"));
            if let Some(name) = name {
                content["device_display_name"] = name.clone();
            }
            content["keys"] = Value::Object(found.keys);
        }
        // A device without keys has only its name.
        None => match user.device(device).map_err(internal)? {
            Some(device) => {
                if let Some(name) = device.display_name {
                    content["device_display_name"] = name.into();
                }
            }
            None => content["deleted"] = true.into(),
        },
    }
    Ok(json!({ "edu_type": "m.device_list_update", "content": content }))
}

/// An `m.signing_key_update`.
fn signing_keys(user: &User) -> Result<Option<Value>, Error> {
    let keys = user.cross_signing_keys_for(None).map_err(internal)?;
    let mut content = Map::new();
    content.insert("user_id".to_owned(), user.id().as_str().into());
    for (name, key) in [
        ("master_key", keys.master),
        ("self_signing_key", keys.self_signing),
    ] {
        if let Some(key) = key {
            content.insert(name.to_owned(), Value::Object(key));
        }
    }
    let has_keys = content.len() > 1;
    Ok(has_keys.then(|| json!({ "edu_type": "m.signing_key_update", "content": content })))
}

fn internal(error: hearth_users::Error) -> Error {
    match error {
        hearth_users::Error::Storage(error) => Error::Storage(error),
        other => Error::Invalid(other.to_string()),
    }
}
