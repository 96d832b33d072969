//! How far a shard's feed is done: a position is, when every server that it concerns has acknowledged it or has a
//! durable row for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_storage::{Feed, Position, ShardId};
use parking_lot::Mutex;

/// The duty's name in the feed.
pub(crate) use hearth_rooms::FEDERATION_DUTY as DUTY;
/// The cursor is moved on when it is this far behind, or when nothing is open.
const CURSOR_STEP_POSITIONS: Position = 32;

/// The open positions of one shard.
pub(crate) struct Tracker {
    feed: Feed,
    shard: ShardId,
    state: Mutex<State>,
}

struct State {
    /// Positions by how many servers still concern them.
    open: BTreeMap<Position, usize>,
    /// Everything up to here was handed over.
    read: Position,
    /// The cursor as it was last set.
    cursor: Position,
}

/// One server's share of a position. It must be settled: one that is only dropped leaves the position open, so that a
/// later start of the process does it again.
#[derive(Clone)]
pub(crate) struct Share {
    tracker: Arc<Tracker>,
    position: Position,
}

impl Tracker {
    pub(crate) fn new(feed: Feed, shard: ShardId) -> Arc<Self> {
        let cursor = feed.cursor(DUTY, shard);
        Arc::new(Self {
            feed,
            shard,
            state: Mutex::new(State {
                open: BTreeMap::new(),
                read: cursor,
                cursor,
            }),
        })
    }

    /// Up to where the feed was read.
    pub(crate) fn read(&self) -> Position {
        self.state.lock().read
    }

    /// A position concerns one more server.
    pub(crate) fn share(self: &Arc<Self>, position: Position) -> Share {
        *self.state.lock().open.entry(position).or_default() += 1;
        Share {
            tracker: self.clone(),
            position,
        }
    }

    /// All shares of a position were handed out.
    pub(crate) fn passed(&self, position: Position) {
        self.state.lock().read = position;
    }

    /// Moves the cursor up to where everything is done.
    pub(crate) fn advance(&self) {
        let mut state = self.state.lock();
        let done = match state.open.first_key_value() {
            Some((first, _)) => (first - 1).min(state.read),
            None => state.read,
        };
        let far = done >= state.cursor + CURSOR_STEP_POSITIONS;
        if done > state.cursor && (far || state.open.is_empty()) {
            state.cursor = done;
            self.feed.set_cursor(DUTY, self.shard, done);
        }
    }
}

impl Share {
    /// The server has it, or a durable row says that it must get it.
    pub(crate) fn settle(self) {
        {
            let mut state = self.tracker.state.lock();
            if let Some(left) = state.open.get_mut(&self.position) {
                *left -= 1;
                if *left == 0 {
                    state.open.remove(&self.position);
                }
            }
        }
        self.tracker.advance();
    }
}
