//! State resolution over a room: the keys on which states differ come from the trees, all else is asked for singly.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use hearth_events::{Conflict, EventNo, Pdu, ResolveEvent, ResolveSource, SourceError};
use hearth_storage::Family;
use smallvec::SmallVec;

use crate::{
    Error, Event, Flags, Room, keys,
    state_tree::{self, NewNodes, NodeId},
};

impl Room {
    /// The state that some states come to: the empty one for none, one that all agree on, or what they resolve to. `nodes`
    /// are those of the states that are not stored; they are stored where a resolution must read them, and get those that
    /// it makes.
    pub(crate) async fn state_of_roots(
        &self,
        mut roots: Vec<NodeId>,
        nodes: &mut NewNodes,
    ) -> Result<NodeId, Error> {
        roots.sort_unstable_by_key(|root| root.0);
        roots.dedup();
        match roots.as_slice() {
            [] => Ok(NodeId::EMPTY),
            [one] => Ok(*one),
            _ => {
                self.store_nodes(std::mem::take(nodes)).await?;
                let (root, made) = self.resolve(roots).await?;
                nodes.absorb(made);
                Ok(root)
            }
        }
    }

    /// The state that several states resolve to. All of them are stored.
    pub(crate) async fn resolve(&self, roots: Vec<NodeId>) -> Result<(NodeId, NewNodes), Error> {
        let room = self.clone();
        let pool = self.0.rooms.pool.clone();
        pool.run(move || room.resolve_now(&roots)).await
    }

    fn resolve_now(&self, roots: &[NodeId]) -> Result<(NodeId, NewNodes), Error> {
        let started = std::time::Instant::now();
        let Some(first) = roots.first().copied() else {
            return Ok((NodeId::EMPTY, NewNodes::default()));
        };
        let store = self.nodes();
        let mut differing = BTreeSet::new();
        for other in &roots[1..] {
            state_tree::diff(&store, first, *other, &mut |key, _, _| {
                differing.insert(key);
            })?;
        }
        let wanted: Vec<u32> = differing.into_iter().collect();
        let mut values: BTreeMap<u32, SmallVec<[Option<EventNo>; 4]>> = BTreeMap::new();
        for root in roots {
            for (key, value) in wanted.iter().zip(state_tree::get_many(&store, *root, &wanted)?) {
                values.entry(*key).or_default().push(value);
            }
        }
        let conflicts: Vec<Conflict> = values
            .into_iter()
            .map(|(key, values)| Conflict { key, values })
            .collect();
        let source = Source {
            room: self,
            root: first,
        };
        let resolved = hearth_events::resolve(self.rules(), roots.len(), &conflicts, &source)
            .map_err(|error| Error::BadEvent(format!("the state cannot be resolved: {error}")))?;
        let mut changes = resolved.keys;
        for short in resolved.more {
            let event = self.event(short)?.ok_or(Error::Damaged("event"))?;
            let state_key = event.pdu.state_key().unwrap_or_default();
            let key = self.state_key_short(event.pdu.kind(), state_key)?;
            changes.push((key.ok_or(Error::Damaged("state key"))?, Some(short)));
        }
        let mut nodes = NewNodes::default();
        let root = state_tree::apply(&store, first, &changes, &mut nodes)?;
        let took = started.elapsed();
        metrics::histogram!(hearth_core::metrics::STATE_RESOLUTION_SECONDS).record(took.as_secs_f64());
        self.0.rooms.costs.add(self.id(), took);
        tracing::debug!(room = %self.id(), states = roots.len(), conflicts = conflicts.len(), ?took, "state resolved");
        Ok((root, nodes))
    }
}

struct Source<'a> {
    room: &'a Room,
    root: NodeId,
}

struct Read(Arc<Event>);

impl ResolveEvent for Read {
    fn pdu(&self) -> &Pdu {
        &self.0.pdu
    }

    fn auth(&self) -> &[EventNo] {
        &self.0.header.auth
    }

    fn rejected(&self) -> bool {
        self.0.header.flags.has(Flags::REJECTED)
    }
}

impl Source<'_> {
    fn read(&self, no: EventNo) -> Result<Arc<Event>, SourceError> {
        self.room
            .event(no)?
            .ok_or_else(|| Box::new(Error::Damaged("event")) as SourceError)
    }

    fn value(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, Error> {
        match self.room.state_key_short(kind, state_key)? {
            Some(key) => self.room.state_short_at(self.root, key),
            None => Ok(None),
        }
    }
}

impl ResolveSource for Source<'_> {
    fn event(&self, no: EventNo) -> Result<Arc<dyn ResolveEvent>, SourceError> {
        Ok(Arc::new(Read(self.read(no)?)))
    }

    fn create(&self) -> Result<EventNo, SourceError> {
        let create = self.value("m.room.create", "")?;
        create.ok_or_else(|| Box::new(Error::Damaged("create event")) as SourceError)
    }

    fn unconflicted(&self, kind: &str, state_key: &str) -> Result<Option<EventNo>, SourceError> {
        Ok(self.value(kind, state_key)?)
    }

    fn is_unconflicted(&self, no: EventNo) -> Result<bool, SourceError> {
        let event = self.read(no)?;
        let Some(state_key) = event.pdu.state_key() else {
            return Ok(false);
        };
        Ok(self.value(event.pdu.kind(), state_key)? == Some(no))
    }

    fn cited_by(
        &self,
        no: EventNo,
        visit: &mut dyn FnMut(EventNo) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let (start, end, skip) = keys::all_citing(self.room.0.key, no);
        self.room.reader().scan(
            Family::RoomIndex,
            &start,
            &end,
            true,
            &mut |key, _| match keys::read_u32(&key[skip..], "citation") {
                Ok(citing) => visit(citing).is_continue(),
                Err(_) => true,
            },
        )?;
        Ok(())
    }

    fn numbers_ascend(&self) -> bool {
        true
    }
}
