//! A state that becomes the current one as a whole, as that of a large room which is joined: its flat rows are written bit
//! by bit into the family that nobody reads ([`crate::head::Flat`]), and a small batch makes them the ones that are read.

use hearth_storage::{Batch, Record};

use crate::{
    Error, Membership, Room,
    event::Short,
    head::{Flat, StateEntry},
    keys,
    state_tree::{self, NewNodes, NodeId},
};

/// A state of which more entries than this differ from the current one is laid out first. So many rows are about 300 KiB.
pub(crate) const CHANGED_AT_ONCE_MAX: usize = 4_096;

/// So many rows are written with one batch.
const ROWS_AT_ONCE: usize = 4_096;

/// A state that is to be laid out before it can become the current one.
pub(crate) struct Layout {
    pub(crate) root: NodeId,
    /// Nodes of it that may not be stored yet.
    pub(crate) nodes: NewNodes,
    /// The event in it that is not stored yet: the operation that makes the state the current one writes its row.
    pub(crate) unstored: Option<Short>,
}

/// What stands in the family that nobody reads: the rows of a state, but for that of an event that was not stored.
#[derive(Clone, Copy)]
pub(crate) struct LaidOut {
    pub(crate) root: NodeId,
    pub(crate) flat: Flat,
    pub(crate) unstored: Option<Short>,
}

/// Holds what was laid out; when it is dropped, that counts no more.
pub(crate) struct Laid<'a> {
    room: &'a Room,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Laid<'_> {
    fn drop(&mut self) {
        *self.room.0.laid.lock() = None;
    }
}

impl Laid<'_> {
    /// Removes the rows that were the current state before, after those that were laid out have become it.
    pub(crate) async fn settle(self) -> Result<(), Error> {
        let flat = self.room.0.view.read().flat;
        self.room.remove_flat(flat.other()).await
    }
}

impl Room {
    /// Writes the flat rows of a state where nobody reads them. Nobody else lays out a state of the room until what is given
    /// is dropped.
    pub(crate) async fn lay_out(&self, layout: Layout) -> Result<Laid<'_>, Error> {
        let turn = self.0.laying.lock().await;
        self.store_nodes(layout.nodes).await?;
        // From here on everybody reads by the view that is the newest now, and all of the state can be read.
        self.settle().await?;
        let flat = self.0.head.lock().record.flat.other();
        // What a layout left that did not come to its end.
        self.remove_flat(flat).await?;
        let mut shorts = Vec::new();
        state_tree::iter(&self.nodes(), layout.root, &mut |_, short| shorts.push(short))?;
        shorts.retain(|short| Some(*short) != layout.unstored);
        for some in shorts.chunks(ROWS_AT_ONCE) {
            let (room, some) = (self.clone(), some.to_vec());
            let section = move || room.flat_rows(flat, &some);
            let batch = self.0.rooms.pool.run(section).await?;
            self.commit_rows(batch).await?;
        }
        *self.0.laid.lock() = Some(LaidOut {
            root: layout.root,
            flat,
            unstored: layout.unstored,
        });
        Ok(Laid {
            room: self,
            _turn: turn,
        })
    }

    fn flat_rows(&self, flat: Flat, shorts: &[Short]) -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let events = self.events(shorts)?;
        if events.len() != shorts.len() {
            return Err(Error::Damaged("state entry"));
        }
        for event in events {
            let (kind, state_key) = (event.pdu.kind(), event.pdu.state_key().unwrap_or_default());
            let membership = match kind {
                "m.room.member" => Membership::of_content(event.pdu.content()),
                _ => Membership::None,
            };
            let entry = StateEntry {
                short: event.short,
                membership,
            };
            let row = keys::state(self.0.key, kind, state_key);
            batch.put(flat.family(), row, keys::state_value(entry));
        }
        Ok(batch)
    }

    async fn remove_flat(&self, flat: Flat) -> Result<(), Error> {
        let (start, end) = keys::entity_range(self.0.key);
        let mut batch = Batch::new();
        batch.delete_range(flat.family(), start, end);
        self.commit_rows(batch).await
    }

    async fn commit_rows(&self, batch: Batch) -> Result<(), Error> {
        self.check_open()?;
        let cluster = &self.0.rooms.cluster;
        cluster.commit(self.0.key.slot, |_| Record::of(batch)).await?;
        Ok(())
    }
}
