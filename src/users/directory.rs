//! The user directory: a view in which users are found by the beginnings of the words of their names.
//!
//! Two kinds of rows: `user_search`, 0, `d`, user id → the document; `user_search`, 0, `w`, word, 0, user id → tag.
//! The rows are written by an outbox operation on this server's entity, so that profile changes stay one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use hearth_cluster::OutboxHandler;
use hearth_storage::{EntityKind, Family, Log, OutboxRow, Position, ShardId, record, slot_of};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::{self, op};
use crate::profile::{Profile, shown_name};
use crate::write::{Lanes, Tx};

const VIEW: &str = "user_search";

/// The value of a word's row: its tag, and nothing more.
const WORD_TAG: u8 = 2;

/// In place of the shard of a change that comes from no user's own.
const OF_MEMBERS: ShardId = ShardId(u16::MAX);

/// How many rows one word of a search reads at most: a word of one letter may begin a great many names.
const ROWS_PER_WORD_MAX: usize = 10_000;

/// Of how many users a search asks whether they may be shown: most are known only to others here.
const LOOKED_AT_MAX: usize = 1_000;

/// How many words of a name, or of a search, count.
const WORDS_MAX: usize = 16;

/// A user as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundUser {
    /// The user.
    pub user_id: OwnedUserId,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The avatar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResults {
    /// The users, best first.
    pub users: Vec<FoundUser>,
    /// Whether there are more.
    pub limited: bool,
}

/// How a user's entry in the directory changes: the payload of [`op::USER_SEARCH`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchUpdate {
    user_id: OwnedUserId,
    /// What to show; nothing takes the user out.
    document: Option<FoundUser>,
}

impl SearchUpdate {
    /// The entry for a profile; without one the user is taken out.
    pub fn new(user_id: &UserId, profile: Option<&Profile>) -> Self {
        let document = profile.map(|profile| FoundUser {
            user_id: user_id.to_owned(),
            display_name: profile.displayname().map(str::to_owned),
            avatar_url: profile.avatar_url().map(str::to_owned),
        });
        Self {
            user_id: user_id.to_owned(),
            document,
        }
    }

    /// The entry of a user of whom only this is known: a member of another server.
    pub fn of_member(user_id: &UserId, display_name: Option<&str>, avatar_url: Option<&str>) -> Self {
        let document = FoundUser {
            user_id: user_id.to_owned(),
            display_name: display_name.map(str::to_owned),
            avatar_url: avatar_url.map(str::to_owned),
        };
        Self {
            user_id: user_id.to_owned(),
            document: Some(document),
        }
    }

    /// The outbox row that brings this to the directory of this server.
    pub fn row(&self, server: &ServerName) -> OutboxRow {
        OutboxRow {
            target_kind: EntityKind::Server,
            target: server.to_string(),
            op: op::USER_SEARCH,
            payload: record::encode(self),
        }
    }
}

/// A stored document, with the source of its last change for idempotence.
#[derive(Serialize, Deserialize)]
struct Document {
    shown: Option<FoundUser>,
    shard: u16,
    position: Position,
}

/// The user directory.
pub struct Directory {
    log: Arc<Log>,
    lanes: Arc<Lanes>,
    server_name: OwnedServerName,
}

impl Directory {
    pub(crate) fn new(log: Arc<Log>, lanes: Arc<Lanes>, server_name: OwnedServerName) -> Self {
        Self {
            log,
            lanes,
            server_name,
        }
    }

    /// Users whose names contain words that begin with the words of `term`, as far as `visible` allows.
    pub fn search(
        &self,
        term: &str,
        limit: usize,
        visible: &dyn Fn(&UserId) -> bool,
    ) -> Result<SearchResults> {
        let local = self.server_name.as_str();
        let wanted = words(term);
        let (is_id, id) = match term.trim().strip_prefix('@') {
            Some(id) => (true, Some(id)),
            // Most people leave the sigil out; a name may have a colon, too.
            None => (false, Some(term.trim()).filter(|id| id.contains(':'))),
        };
        let mut candidates = match is_id {
            true => BTreeSet::new(),
            false => self.with_words(&wanted)?,
        };
        // A user id is looked for by its localpart, then compared.
        if let Some(id) = id {
            let localpart = words(id.split(':').next().unwrap_or_default());
            let prefix = format!("@{}", id.to_lowercase());
            let mut found = self.with_words(&localpart)?;
            found.retain(|id| id.to_lowercase().starts_with(&prefix));
            candidates.append(&mut found);
        }
        let mut matches = BTreeMap::new();
        for id in candidates {
            let Ok(user_id) = UserId::parse(&id) else { continue };
            // Whose whole word is meant stands before whose word only begins so; our own users before others.
            let exact = wanted
                .iter()
                .any(|word| user_id.localpart().to_lowercase() == *word);
            let foreign = user_id.server_name().as_str() != local;
            matches.insert((!exact, foreign, id), user_id);
        }
        let mut results = SearchResults::default();
        for (looked_at, user_id) in matches.into_values().enumerate() {
            if looked_at >= LOOKED_AT_MAX {
                results.limited = true;
                break;
            }
            if !visible(&user_id) {
                continue;
            }
            if results.users.len() >= limit {
                results.limited = true;
                break;
            }
            let value = self.log.engine().get(Family::View, &document_key(&user_id))?;
            let document: Option<Document> = value.as_deref().map(record::decode).transpose()?;
            results.users.extend(document.and_then(|document| document.shown));
        }
        Ok(results)
    }

    /// The users whose names have words that begin with each of these.
    fn with_words(&self, words: &[String]) -> Result<BTreeSet<String>> {
        let mut candidates: Option<BTreeSet<String>> = None;
        for word in words {
            let mut found = self.with_word(word)?;
            if let Some(before) = candidates {
                found.retain(|id| before.contains(id));
            }
            candidates = Some(found);
        }
        Ok(candidates.unwrap_or_default())
    }

    fn with_word(&self, word: &str) -> Result<BTreeSet<String>> {
        let prefix = keys::view(VIEW, &[b"w", word.as_bytes()].concat());
        let mut found = BTreeSet::new();
        self.log.engine().scan(
            Family::View,
            &prefix,
            &hearth_storage::prefix_end(&prefix),
            false,
            &mut |row, _| {
                let id = row
                    .rsplit(|byte| *byte == 0)
                    .next()
                    .and_then(|id| std::str::from_utf8(id).ok());
                found.extend(id.map(str::to_owned));
                found.len() < ROWS_PER_WORD_MAX
            },
        )?;
        Ok(found)
    }

    /// Takes in what is known of users of other servers, of whom nothing else writes.
    pub async fn put_all(&self, updates: Vec<SearchUpdate>) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        self.lanes
            .write(slot_of(self.server_name.as_str()), |tx| {
                let source = (OF_MEMBERS, tx.position());
                updates
                    .into_iter()
                    .try_for_each(|update| Self::put(tx, update, source))
            })
            .await
    }

    fn put(tx: &mut Tx<'_>, update: SearchUpdate, source: (ShardId, Position)) -> Result<()> {
        let key = document_key(&update.user_id);
        let before: Option<Document> = tx
            .get(Family::View, &key)?
            .as_deref()
            .map(record::decode)
            .transpose()?;
        let (shard, position) = source;
        if before
            .as_ref()
            .is_some_and(|before| before.shard == shard.0 && before.position >= position)
        {
            return Ok(());
        }
        let old = before
            .and_then(|document| document.shown)
            .map(|shown| words_of(&shown))
            .unwrap_or_default();
        let new = update.document.as_ref().map(words_of).unwrap_or_default();
        for word in old.difference(&new) {
            tx.delete(Family::View, word_key(word, &update.user_id));
        }
        for word in new.difference(&old) {
            tx.put(Family::View, word_key(word, &update.user_id), vec![WORD_TAG]);
        }
        let document = Document {
            shown: update.document,
            shard: shard.0,
            position,
        };
        tx.put(Family::View, key, record::encode(&document));
        Ok(())
    }
}

#[async_trait]
impl OutboxHandler for Directory {
    async fn apply(
        &self,
        target: &str,
        payload: &[u8],
        source: (ShardId, Position, u16),
    ) -> std::result::Result<(), hearth_storage::Error> {
        let update: SearchUpdate = record::decode(payload)?;
        let applied = self
            .lanes
            .write_anyway(slot_of(target), |tx| Self::put(tx, update, (source.0, source.1)))
            .await;
        applied.map_err(|error| match error {
            Error::Storage(error) => error,
            other => hearth_storage::Error::Apply(other.to_string()),
        })
    }
}

fn document_key(user_id: &UserId) -> Vec<u8> {
    keys::view(VIEW, &[b"d", user_id.as_bytes()].concat())
}

fn word_key(word: &str, user_id: &UserId) -> Vec<u8> {
    keys::view(VIEW, &[b"w", word.as_bytes(), &[0], user_id.as_bytes()].concat())
}

fn words_of(shown: &FoundUser) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = words(shown_name(&shown.user_id, shown.display_name.as_deref()))
        .into_iter()
        .collect();
    all.extend(words(shown.user_id.localpart()));
    all
}

/// The words of a text in lower case: runs of letters and digits.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(WORDS_MAX)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs() {
        assert_eq!(words("Alice  O'Hara-Smith"), ["alice", "o", "hara", "smith"]);
        assert_eq!(words("Ångström 2"), ["ångström", "2"]);
        assert!(words(" \0-_").is_empty());
    }
}
