//! Which batches of a shard still have effects to be applied, and who waits for them.

use std::collections::HashMap;

use hearth_core::metrics as names;
use hearth_storage::Position;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The open effects of one source shard.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<Position, Open>,
    stopped: bool,
}

struct Open {
    rows: usize,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Ledger {
    /// A batch has so many rows to be applied.
    pub(crate) fn expect(&self, position: Position, rows: usize) {
        let mut state = self.0.lock();
        if !state.stopped {
            state
                .open
                .entry(position)
                .or_insert(Open {
                    rows: 0,
                    waiters: Vec::new(),
                })
                .rows += rows;
            metrics::gauge!(names::OUTBOX_WAITING).increment(rows as f64);
        }
    }

    /// One of them is applied.
    pub(crate) fn applied(&self, position: Position) {
        let mut state = self.0.lock();
        let Some(open) = state.open.get_mut(&position) else {
            return;
        };
        open.rows -= 1;
        metrics::gauge!(names::OUTBOX_WAITING).decrement(1.0);
        if open.rows > 0 {
            return;
        }
        let waiters = state
            .open
            .remove(&position)
            .map(|open| open.waiters)
            .unwrap_or_default();
        drop(state);
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }

    /// Waits until all of a batch's rows are applied, or until nothing more will be.
    pub(crate) async fn wait(&self, position: Position) {
        let receiver = {
            let mut state = self.0.lock();
            let Some(open) = state.open.get_mut(&position) else {
                return;
            };
            let (sender, receiver) = oneshot::channel();
            open.waiters.push(sender);
            receiver
        };
        // An error says that the ledger was stopped.
        let _ = receiver.await;
    }

    /// Nothing more will be applied: waiters are let go.
    pub(crate) fn stop(&self) {
        self.0.lock().stopped = true;
        self.forget();
    }

    /// Forgets what is open, as it is to be counted anew; waiters are let go.
    pub(crate) fn forget(&self) {
        let open = std::mem::take(&mut self.0.lock().open);
        let waiting: usize = open.values().map(|open| open.rows).sum();
        metrics::gauge!(names::OUTBOX_WAITING).decrement(waiting as f64);
    }
}
