//! Messages to devices of users of other servers, on their way out: from the senders' outboxes into the
//! destination's rows, where they wait until the server has acknowledged them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_cluster::{Cluster, OutboxHandler, Source};
use hearth_storage::record;
use hearth_users::RemoteToDevice;
use ruma::ServerName;
use serde_json::json;

use super::Outbound;

struct Handler(Weak<Outbound>);

pub(super) fn register(outbound: &Arc<Outbound>, cluster: &Cluster) {
    let handler = Arc::new(Handler(Arc::downgrade(outbound)));
    cluster.register(hearth_users::op::REMOTE_TO_DEVICE, handler);
}

#[async_trait]
impl OutboxHandler for Handler {
    async fn apply(&self, target: &str, payload: &[u8], source: Source) -> Result<(), hearth_storage::Error> {
        let Some(outbound) = self.0.upgrade() else {
            return Err(hearth_storage::Error::Stopped);
        };
        let Ok(server) = ServerName::parse(target) else {
            return Ok(());
        };
        let message: RemoteToDevice = record::decode(payload)?;
        outbound.store_to_device(&server, &message, source).await
    }
}

impl Outbound {
    async fn store_to_device(
        self: &Arc<Self>,
        server: &ServerName,
        message: &RemoteToDevice,
        source: Source,
    ) -> Result<(), hearth_storage::Error> {
        let failed = |error: hearth_rooms::Error| match error {
            hearth_rooms::Error::Storage(error) => error,
            // What is damaged stays so.
            hearth_rooms::Error::Damaged(what) => hearth_storage::Error::Corrupt(what),
            other => hearth_storage::Error::Apply(other.to_string()),
        };
        if self.rows.is_applied(server, source).map_err(failed)? {
            return Ok(());
        }
        let destination = self.destination(server).map_err(failed)?;
        // JSON that no value can hold, such as a number without end, must not come back from the outbox for ever.
        let Ok(messages) = serde_json::to_value(&message.messages) else {
            tracing::warn!(%server, "messages to devices that cannot be read are dropped");
            return Ok(());
        };
        let content = json!({
            "sender": message.sender,
            "type": message.kind,
            "message_id": message.message_id,
            "messages": messages,
        });
        let stored = record::encode(&content);
        let size = stored.len();
        let is_full = destination.is_full_of_to_device(size);
        if is_full {
            tracing::warn!(%server, "too many messages to devices wait for a server; a new one is dropped");
        }
        let position = self
            .rows
            .write(server, |changes| {
                if !is_full {
                    changes.put_to_device(stored);
                }
                changes.put_applied(source);
            })
            .await
            .map_err(failed)?;
        if !is_full {
            destination.to_device_stored(position, size);
            self.run(&destination);
        }
        Ok(())
    }
}
