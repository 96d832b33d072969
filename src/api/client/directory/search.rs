//! What is looked for in the directory: clients and other servers ask in the same words.

use hearth_core::error::MatrixError;
use hearth_rooms::DirectoryEntry;
use serde::Deserialize;

use super::since;
use crate::extract::or_default;

/// The body of `POST /publicRooms`.
#[derive(Default, Deserialize)]
pub struct Search {
    limit: Option<u64>,
    since: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    filter: Filter,
    #[serde(default, deserialize_with = "or_default")]
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

impl Search {
    /// As the directory is asked.
    pub fn entry(self) -> Result<DirectoryEntry, MatrixError> {
        if self.include_all_networks && self.third_party_instance_id.is_some() {
            let sentence = "third_party_instance_id and include_all_networks exclude each other";
            return Err(MatrixError::invalid_param(sentence));
        }
        Ok(DirectoryEntry {
            search: self.filter.generic_search_term,
            room_types: self.filter.room_types,
            network: self.third_party_instance_id,
            all_networks: self.include_all_networks,
            limit: self
                .limit
                .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            since: since(self.since.as_deref())?,
        })
    }
}
