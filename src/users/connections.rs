//! Where the sync engine keeps what a connection of sliding sync has been sent. What is in the rows is the engine's
//! own; this is no change of the user that anybody is told of.

use std::collections::BTreeMap;

use hearth_storage::{EntityKey, Family};
use ruma::DeviceId;

use crate::error::Result;
use crate::keys;
use crate::user::User;
use crate::write::Tx;

/// The connections of one device that are kept; the one that was stored longest ago gives way.
const CONNECTIONS_PER_DEVICE_MAX: usize = 16;

/// The part that says when a connection was last stored: a tag, and milliseconds in eight bytes. The engine's own parts
/// are below.
const STORED_PART: u8 = 254;
/// The tag of that part.
const STORED_V1: u8 = 1;

/// A part of a connection: its number, and its bytes.
pub type ConnectionPart = (u8, Vec<u8>);

impl User {
    /// The stored parts of a connection, in the order of their numbers.
    pub fn connection_parts(&self, device: &str, connection: &str) -> Result<Vec<ConnectionPart>> {
        let start = keys::connection(self.key, device, connection, 0);
        let end = keys::connection(self.key, device, connection, STORED_PART);
        let mut found = Vec::new();
        self.users
            .log
            .engine()
            .scan(Family::SyncConnection, &start, &end, false, &mut |row, value| {
                found.extend(row.last().map(|part| (*part, value.to_vec())));
                true
            })?;
        Ok(found)
    }

    /// Stores some parts of a connection over what they were. Nobody is woken.
    pub async fn put_connection_parts(
        &self,
        device: &str,
        connection: &str,
        parts: Vec<ConnectionPart>,
    ) -> Result<()> {
        let lanes = self.users.lanes.clone();
        let now = self.users.now_ms();
        lanes
            .write_anyway(self.key.slot, |tx| {
                // A device that is gone must leave nothing behind.
                let known = device.is_empty()
                    || tx
                        .get(Family::UserDevice, &keys::device(self.key, device))?
                        .is_some();
                if !known {
                    return Ok(());
                }
                make_room(tx, self.key, device, connection)?;
                tx.put(
                    Family::SyncConnection,
                    keys::connection(self.key, device, connection, STORED_PART),
                    [&[STORED_V1], now.to_be_bytes().as_slice()].concat(),
                );
                for (part, value) in parts {
                    tx.put(
                        Family::SyncConnection,
                        keys::connection(self.key, device, connection, part),
                        value,
                    );
                }
                Ok(())
            })
            .await
    }
}

/// Removes a connection where there are too many for another one.
fn make_room(tx: &mut Tx<'_>, key: EntityKey, device: &str, connection: &str) -> Result<()> {
    if tx
        .get(
            Family::SyncConnection,
            &keys::connection(key, device, connection, 0),
        )?
        .is_some()
    {
        return Ok(());
    }
    let rows = tx.scan(Family::SyncConnection, &keys::connections_of(key, device))?;
    // A connection whose time is not there was stored before times were, or before they had a tag.
    let mut stored: BTreeMap<&[u8], u64> = BTreeMap::new();
    for (row, value) in &rows {
        let Some((part, connection)) = row.split_last() else {
            continue;
        };
        let at = stored.entry(connection).or_default();
        if *part == STORED_PART
            && let Some((&STORED_V1, ms)) = value.split_first()
            && let Ok(ms) = ms.try_into()
        {
            *at = u64::from_be_bytes(ms);
        }
    }
    if stored.len() < CONNECTIONS_PER_DEVICE_MAX {
        return Ok(());
    }
    let oldest = stored.iter().min_by_key(|(_, at)| **at);
    let Some(gone) = oldest.map(|(connection, _)| connection.to_vec()) else {
        return Ok(());
    };
    for (row, _) in rows.iter().filter(|(row, _)| row.starts_with(&gone)) {
        tx.delete(Family::SyncConnection, row.clone());
    }
    Ok(())
}

/// Removes all connections of a device.
pub(crate) fn remove_device(tx: &mut Tx<'_>, key: EntityKey, device: &DeviceId) -> Result<()> {
    for (row, _) in tx.scan(
        Family::SyncConnection,
        &keys::connections_of(key, device.as_str()),
    )? {
        tx.delete(Family::SyncConnection, row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::World;

    #[tokio::test]
    async fn the_connection_that_was_stored_longest_ago_gives_way() {
        let world = World::new();
        let alice = world.alice().await;
        let put = async |connection: &str| {
            world.clock.advance(1);
            let parts = vec![(0, vec![1]), (7, vec![2])];
            alice.put_connection_parts("", connection, parts).await.unwrap();
        };
        let has = |connection: &str| {
            let parts = alice.connection_parts("", connection).unwrap();
            assert!(
                parts.is_empty() || parts == [(0, vec![1]), (7, vec![2])],
                "{parts:?}"
            );
            !parts.is_empty()
        };
        put("a").await;
        for number in 1..CONNECTIONS_PER_DEVICE_MAX {
            put(&format!("c{number:02}")).await;
        }
        put("a").await;
        put("d").await;
        assert!(has("a") && has("d") && !has("c01") && has("c02"));
        put("e").await;
        assert!(has("a") && has("e") && !has("c02"));
    }
}
