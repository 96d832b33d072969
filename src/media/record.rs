//! What is stored about a media item. All of it is JSON behind a version tag; a field that is added
//! later needs a default.

use hearth_storage::{EntityKind, Family, Reader, Slot, record, schema::media::MediaKey, slot_of};
use serde::{Deserialize, Serialize};

use crate::{error::Error, id::MediaId};

/// A media item's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRecord {
    /// The local user who announced or uploaded it; none for media of other servers and pictures of previewed pages.
    pub uploader: Option<String>,
    /// When the record was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What there is.
    pub state: State,
    /// Who took it out of sight; it is then answered as if it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_by: Option<String>,
}

/// Whether the content is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Announced; to be uploaded before this time.
    Pending {
        /// In milliseconds since 1970.
        expires_ms: u64,
    },
    /// On disk.
    Stored(Content),
}

/// The content of a media item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// BLAKE3 of the bytes, in hexadecimal: also the file's name.
    pub hash: String,
    /// The length in bytes.
    pub size: u64,
    /// The media type as uploaded.
    pub content_type: String,
    /// The file name as uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// A row of a user's announced media ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingRow {
    pub expires_ms: u64,
}

/// A row that says that a media item uses a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReferenceRow {}

/// The kind under which all rows of this family are addressed.
pub(crate) const KIND: EntityKind = EntityKind::Media;

/// The entity that holds the references to a file. `+` cannot begin a server name, so it never meets
/// a media item's key; the same holds for `?` below.
pub(crate) fn file_entity(hash: &str) -> String {
    format!("+{hash}")
}

/// The entity that holds a user's announced media ids.
pub(crate) fn pending_entity(user: &str) -> String {
    format!("?{user}")
}

/// The key of an entity's own row.
pub(crate) fn own_key(entity: &str) -> Vec<u8> {
    key(slot_of(entity), entity)
}

/// The key of a row below an entity.
pub(crate) fn member_key(entity: &str, member: &str) -> Vec<u8> {
    key(slot_of(entity), &format!("{entity}/{member}"))
}

fn key(slot: Slot, name: &str) -> Vec<u8> {
    MediaKey {
        slot,
        name: name.into(),
    }
    .encode()
}

/// The record of a media item.
pub(crate) fn read(reader: &dyn Reader, media: &MediaId) -> Result<Option<MediaRecord>, Error> {
    match reader.get(Family::Media, &own_key(&media.key()))? {
        Some(bytes) => Ok(Some(record::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// Every row below an entity: the member's name and the value. What lies there is bounded: the
/// announced ids of a user by a limit, the references of a file by `limit`.
pub(crate) fn members(
    reader: &dyn Reader,
    entity: &str,
    limit: usize,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let start = member_key(entity, "");
    let end = hearth_storage::prefix_end(&start);
    let mut rows = Vec::new();
    reader.scan(Family::Media, &start, &end, false, &mut |key, value| {
        let member = String::from_utf8_lossy(&key[start.len()..]).into_owned();
        rows.push((member, value.to_vec()));
        rows.len() < limit
    })?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stored form; a change of it is a decision, since data in the field has it.
    #[test]
    fn stored_form() {
        let pending = MediaRecord {
            uploader: Some("@a:x".into()),
            created_ms: 1,
            state: State::Pending { expires_ms: 2 },
            quarantined_by: None,
        };
        let stored = MediaRecord {
            uploader: None,
            created_ms: 1,
            state: State::Stored(Content {
                hash: "00".into(),
                size: 3,
                content_type: "image/png".into(),
                file_name: Some("ü.png".into()),
            }),
            quarantined_by: Some("@admin:x".into()),
        };
        for (value, text) in [
            (
                pending,
                r#"{"uploader":"@a:x","created_ms":1,"state":{"pending":{"expires_ms":2}}}"#,
            ),
            (
                stored,
                r#"{"uploader":null,"created_ms":1,"state":{"stored":{"hash":"00","size":3,"content_type":"image/png","file_name":"ü.png"}},"quarantined_by":"@admin:x"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(
                record::decode::<MediaRecord>(&record::encode(&value)).unwrap(),
                value
            );
        }
    }
}
