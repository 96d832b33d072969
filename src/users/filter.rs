//! Filters that clients store. A filter's id is a hash of its content, so the same filter has the same id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_core::limits;
use hearth_storage::Family;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::keys::{self, field};
use crate::user::User;

impl User {
    /// Stores a filter and gives its id.
    pub async fn put_filter(&self, filter: &Value) -> Result<String> {
        if !filter.is_object() {
            return Err(Error::InvalidParam("A filter must be an object"));
        }
        let mut text = String::new();
        write_sorted(filter, &mut text);
        if text.len() > limits::FILTER_MAX_BYTES {
            return Err(Error::TooLarge("The filter is larger than 16 KiB"));
        }
        let id = URL_SAFE_NO_PAD.encode(&blake3::hash(text.as_bytes()).as_bytes()[..9]);
        let row = keys::user(self.key, field::FILTER, &id);
        self.write(|tx| {
            if tx.get(Family::User, &row)?.is_some() {
                return Ok(());
            }
            let all = keys::user(self.key, field::FILTER, "");
            let count = tx
                .first_keys(Family::User, &all, limits::FILTERS_PER_USER_MAX)?
                .len();
            if count >= limits::FILTERS_PER_USER_MAX {
                return Err(Error::TooMany("Too many filters"));
            }
            tx.put(
                Family::User,
                row,
                [&[hearth_storage::record::JSON_V1], text.as_bytes()].concat(),
            );
            Ok(())
        })
        .await?;
        Ok(id)
    }

    /// A stored filter.
    pub fn filter(&self, id: &str) -> Result<Option<Value>> {
        let row = keys::user(self.key, field::FILTER, id);
        let value = self.users.log.engine().get(Family::User, &row)?;
        Ok(value.as_deref().map(hearth_storage::record::decode).transpose()?)
    }
}

/// Writes JSON with the keys of objects in order, whatever order the map type keeps.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_of_keys_does_not_matter() {
        let text = |value: &Value| {
            let mut out = String::new();
            write_sorted(value, &mut out);
            out
        };
        let value = json!({"b": [1, {"z": null, "a": "\"\n"}], "a": {}});
        assert_eq!(text(&value), r#"{"a":{},"b":[1,{"a":"\"\n","z":null}]}"#);
        assert_eq!(serde_json::from_str::<Value>(&text(&value)).unwrap(), value);
    }
}
