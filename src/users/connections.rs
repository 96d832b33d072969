//! Where the sync engine keeps what a connection of sliding sync has been sent. What is in the rows is the engine's
//! own; this is no change of the user that anybody is told of.

use hearth_storage::{EntityKey, Family};
use ruma::DeviceId;

use crate::error::Result;
use crate::keys;
use crate::user::User;
use crate::write::Tx;

/// The connections of one device that are kept; the one that was stored first by its id gives way.
const CONNECTIONS_PER_DEVICE_MAX: usize = 16;

/// A part of a connection: its number, and its bytes.
pub type ConnectionPart = (u8, Vec<u8>);

impl User {
    /// The stored parts of a connection, in the order of their numbers.
    pub fn connection_parts(&self, device: &str, connection: &str) -> Result<Vec<ConnectionPart>> {
        let start = keys::connection(self.key, device, connection, 0);
        let end = keys::connection(self.key, device, connection, u8::MAX);
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
    let heads: Vec<&[u8]> = rows
        .iter()
        .filter(|(row, _)| row.last() == Some(&0))
        .filter_map(|(row, _)| row.split_last().map(|(_, head)| head))
        .collect();
    if heads.len() < CONNECTIONS_PER_DEVICE_MAX {
        return Ok(());
    }
    let gone = heads[0].to_vec();
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
