//! Messages to devices from other servers: each once, into the inboxes of the local users.

use hearth_core::limits::{ID_MAX_BYTES, TO_DEVICE_CONTENT_MAX_BYTES};
use hearth_storage::{EntityKey, Family, prefix_end};
use hearth_users::ToDeviceBatch;
use ruma::{OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::server_rows::{kind, row};
use super::{Edus, Outcome, Refused, user_of};

/// The tag of a mark.
const TAG: u8 = 2;
/// So many message ids are kept of each server: it repeats only its last transaction.
const MESSAGE_IDS_MAX: usize = 5_000;
/// After so many messages the oldest ids of a server go.
const PRUNE_MESSAGES: u32 = 256;
/// The longest message id, which the specification limits to 32 characters.
const MESSAGE_ID_MAX_BYTES: usize = 256;

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
    message_id: String,
    messages: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
}

impl Edus {
    pub(super) async fn to_device(&self, origin: &ServerName, content: &Value) -> Outcome {
        let sender = user_of(origin, &content["sender"])?;
        let message: Content =
            serde_json::from_str(&content.to_string()).map_err(|_| Refused::Because("it is malformed"))?;
        if message.message_id.len() > MESSAGE_ID_MAX_BYTES {
            return Err(Refused::Because("its id is too long"));
        }
        // As for clients of this server: it is stored with each message.
        if message.kind.is_empty() || message.kind.len() > ID_MAX_BYTES {
            return Err(Refused::Because("its type is empty or too long"));
        }
        let hash = blake3::hash(message.message_id.as_bytes());
        let id = &hash.as_bytes()[..16];
        if let Some(server) = self.rows.key(origin)?
            && self
                .rows
                .engine()
                .get(Family::RemoteUser, &row(server, kind::MESSAGE_ID, id))?
                .is_some()
        {
            return Ok(());
        }
        let mut batches = Vec::new();
        for (user, messages) in message.messages {
            let Ok(user) = OwnedUserId::try_from(user) else {
                continue;
            };
            let mut messages = messages;
            messages.retain(|_, content| is_content(content));
            if self.users.is_local(&user) && !messages.is_empty() {
                let batch = ToDeviceBatch {
                    sender: sender.to_owned(),
                    kind: message.kind.clone(),
                    messages,
                };
                batches.push(batch.row(&user));
            }
        }
        let old = match self.to_device_count.fetch_add(1, Ordering::Relaxed) % PRUNE_MESSAGES {
            0 => self.old_messages(origin)?,
            _ => Vec::new(),
        };
        self.rows
            .write(origin, |server, position, record| {
                let mark = [&[TAG], position.to_be_bytes().as_slice()].concat();
                let by_id = row(server, kind::MESSAGE_ID, id);
                let by_position = row(server, kind::MESSAGE, &position.to_be_bytes());
                record.batch.put(Family::RemoteUser, by_id, mark);
                record
                    .batch
                    .put(Family::RemoteUser, by_position, [&[TAG], id].concat());
                for key in old {
                    record.batch.delete(Family::RemoteUser, key);
                }
                record.outbox.extend(batches);
            })
            .await?;
        Ok(())
    }

    /// The rows of the message ids that are more than are kept.
    fn old_messages(&self, origin: &ServerName) -> Result<Vec<Vec<u8>>, hearth_rooms::Error> {
        let Some(server) = self.rows.key(origin)? else {
            return Ok(Vec::new());
        };
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let start = row(server, kind::MESSAGE, &[]);
        let end = prefix_end(&start);
        let engine = self.rows.engine();
        engine.scan(Family::RemoteUser, &start, &end, false, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            true
        })?;
        let count = found.len().saturating_sub(MESSAGE_IDS_MAX);
        let old = found.into_iter().take(count);
        Ok(old
            .flat_map(|(key, value)| rows_of(server, key, &value))
            .collect())
    }
}

/// Whether the content of a message is one that a client of this server could send.
fn is_content(content: &RawValue) -> bool {
    content.get().starts_with('{') && content.get().len() <= TO_DEVICE_CONTENT_MAX_BYTES
}

/// Both rows of a message id.
fn rows_of(server: EntityKey, by_position: Vec<u8>, value: &[u8]) -> Vec<Vec<u8>> {
    let mut rows = vec![by_position];
    if let [TAG, id @ ..] = value {
        rows.push(row(server, kind::MESSAGE_ID, id));
    }
    rows
}
