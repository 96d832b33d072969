//! Profiles: the display name, the avatar, and any other fields (spec: client-server API, "Profiles").

use hearth_core::limits;
use hearth_storage::{Family, record};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::account::account_of;
use crate::change::Change;
use crate::directory::SearchUpdate;
use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::user::User;

/// A user's profile: a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Profile(Map<String, Value>);

/// How a profile field changed, so that membership events can follow.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileChange {
    /// The field.
    pub key: String,
    /// What it was.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
    /// The whole profile after the change.
    pub profile: Profile,
}

impl ProfileChange {
    /// Whether there is a change at all.
    pub fn is_change(&self) -> bool {
        self.old != self.new
    }

    /// Whether membership events carry this field. That holds also where it is set to what it was: a try before may not have
    /// reached all rooms.
    pub fn concerns_members(&self) -> bool {
        matches!(self.key.as_str(), "displayname" | "avatar_url")
    }
}

impl Profile {
    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// One field.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The display name.
    pub fn displayname(&self) -> Option<&str> {
        self.get("displayname").and_then(Value::as_str)
    }

    /// The avatar's mxc URI.
    pub fn avatar_url(&self) -> Option<&str> {
        self.get("avatar_url").and_then(Value::as_str)
    }

    /// Sets a field after checking its name, its type, and the size of the whole.
    pub(crate) fn set(&mut self, key: &str, value: Value) -> Result<()> {
        check_key(key)?;
        check_value(key, &value)?;
        self.0.insert(key.to_owned(), value);
        // The limit of the specification is one for the canonical JSON of the whole profile.
        let bytes = serde_json::to_vec(&self.0).map_err(|error| Error::Internal(error.to_string()))?;
        if bytes.len() > limits::PROFILE_MAX_BYTES {
            return Err(Error::ProfileTooLarge);
        }
        Ok(())
    }
}

/// Refuses names of profile fields that break the grammar of common namespaced identifiers.
pub fn check_key(key: &str) -> Result<()> {
    if key.len() > limits::PROFILE_KEY_MAX_BYTES {
        return Err(Error::KeyTooLarge);
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !key.starts_with(|c: char| c.is_ascii_lowercase()) || !key.bytes().all(allowed) {
        return Err(Error::InvalidParam(
            "The name of a profile field has a-z, 0-9, and -_. and begins with a letter",
        ));
    }
    Ok(())
}

fn check_value(key: &str, value: &Value) -> Result<()> {
    match key {
        "displayname" => match value {
            Value::String(name) if name.len() > limits::DISPLAY_NAME_MAX_BYTES => {
                Err(Error::TooLarge("The display name is longer than 256 bytes"))
            }
            Value::String(_) => Ok(()),
            _ => Err(Error::InvalidParam("displayname must be a string")),
        },
        // Its form is left to clients, which long have set URLs of other kinds.
        "avatar_url" => match value {
            Value::String(url) if url.len() > limits::AVATAR_URL_MAX_BYTES => {
                Err(Error::TooLarge("The avatar's URL is longer than 1,000 bytes"))
            }
            Value::String(_) => Ok(()),
            _ => Err(Error::InvalidParam("avatar_url must be a string")),
        },
        "m.tz" if !value.is_string() => Err(Error::InvalidParam("m.tz must be a string")),
        _ => Ok(()),
    }
}

impl User {
    /// Sets a field of the profile.
    pub async fn set_profile_field(&self, key: &str, value: Value) -> Result<ProfileChange> {
        // Where a client sends null or an empty text for a name or a picture it means "none": nobody is to be shown a name
        // without letters, or asked for a picture without an address. Other fields keep their null.
        let is_name = matches!(key, "displayname" | "avatar_url");
        let says_none = value.is_null() || value.as_str() == Some("");
        let new = Some(value).filter(|_| !(is_name && says_none));
        self.change_profile(key, new).await
    }

    /// Takes a field out of the profile.
    pub async fn delete_profile_field(&self, key: &str) -> Result<ProfileChange> {
        self.change_profile(key, None).await
    }

    async fn change_profile(&self, key: &str, new: Option<Value>) -> Result<ProfileChange> {
        check_key(key)?;
        let server_name = &self.users.settings.server_name;
        self.write(|tx| {
            let row = keys::user(self.key, field::PROFILE, "");
            let mut profile: Profile = tx
                .get(Family::User, &row)?
                .as_deref()
                .map(record::decode)
                .transpose()?
                .unwrap_or_default();
            let old = profile.get(key).cloned();
            if old != new {
                match new.clone() {
                    Some(value) => profile.set(key, value)?,
                    None => {
                        profile.0.remove(key);
                    }
                }
                tx.put(Family::User, row, record::encode(&profile));
                tx.changed(Change::Profile)?;
                // Guests are not to be found.
                if matches!(key, "displayname" | "avatar_url") && !account_of(tx, self.key)?.guest {
                    tx.outbox(SearchUpdate::new(&self.id, Some(&profile)).row(server_name));
                }
            }
            Ok(ProfileChange {
                key: key.to_owned(),
                old,
                new,
                profile,
            })
        })
        .await
    }
}

/// What the user directory shows of a user without a profile of ours.
pub(crate) fn shown_name<'a>(id: &'a UserId, displayname: Option<&'a str>) -> &'a str {
    displayname
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| id.localpart())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_names() {
        for good in ["displayname", "m.tz", "org.example.a-b_c", "x"] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "1a", "Abc", "a b", "a/b", "ä"] {
            assert!(matches!(check_key(bad), Err(Error::InvalidParam(_))), "{bad}");
        }
        assert!(matches!(check_key(&"a".repeat(256)), Err(Error::KeyTooLarge)));
    }

    #[test]
    fn values_and_size() {
        let mut profile = Profile::default();
        profile.set("avatar_url", json!("mxc://a/b")).unwrap();
        profile.set("org.example.x", json!({"any": [1, null]})).unwrap();
        assert!(profile.set("avatar_url", json!(7)).is_err());
        assert!(profile.set("displayname", json!(3)).is_err());
        assert!(profile.set("m.tz", json!(null)).is_err());
        let large = json!("x".repeat(limits::PROFILE_MAX_BYTES));
        assert!(matches!(
            profile.set("org.example.y", large),
            Err(Error::ProfileTooLarge)
        ));
    }
}
