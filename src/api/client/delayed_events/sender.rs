//! Sends delayed events that are due.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{DELAYED_DEVICE, NewEvent, Txn};
use hearth_users::{DelayedEvent, DelayedSender};
use ruma::OwnedEventId;

use crate::app::App;
use crate::client::rooms::sending;
use crate::error::{ApiError, Result};
use crate::ratelimit::Class;

/// [`DelayedSender`] by the way that events of requests go.
pub struct Sender(Weak<App>);

impl Sender {
    /// A sender over the API, which it does not keep alive.
    pub fn new(app: &Arc<App>) -> Self {
        Self(Arc::downgrade(app))
    }
}

#[async_trait]
impl DelayedSender for Sender {
    async fn send(&self, event: &DelayedEvent) -> Result<OwnedEventId, Box<MatrixError>> {
        let stopping = || MatrixError::new(503, errcode::UNKNOWN, "The server is stopping");
        let app = self.0.upgrade().ok_or_else(|| Box::new(stopping()))?;
        send(&app, event).await.map_err(|error| match error {
            ApiError::Matrix(error) => error,
            ApiError::Interactive(_) => Box::new(MatrixError::forbidden("This needs a password")),
        })
    }
}

async fn send(app: &App, event: &DelayedEvent) -> Result<OwnedEventId> {
    let account = app.user(&event.user_id)?.account()?;
    let refused = [
        (account.deactivated, errcode::USER_DEACTIVATED),
        (account.locked, errcode::USER_LOCKED),
        (account.suspended, errcode::USER_SUSPENDED),
    ];
    if let Some((_, errcode)) = refused.iter().find(|(is, _)| *is) {
        let sentence = "The account may not send events any more";
        return Err(MatrixError::new(403, errcode, sentence).into());
    }
    if !app.is_admin(&event.user_id, &account) {
        app.limits.user(Class::Send, &event.user_id)?;
    }
    let new = NewEvent {
        sender: event.user_id.clone(),
        kind: event.kind.clone(),
        state_key: event.state_key.clone(),
        content: event.content.get().as_bytes().to_vec(),
        redacts: None,
        timestamp_ms: event.timestamp_ms,
    };
    // The same delayed event, tried again after a crash, is the same transaction.
    let txn = Txn {
        device: DELAYED_DEVICE.to_owned(),
        scope: "delayed".to_owned(),
        id: event.delay_id.clone(),
    };
    match event.state_key {
        Some(_) => sending::send_state(app, &event.room_id, new, Some(txn)).await,
        None => sending::send_message(app, &event.room_id, new, txn).await,
    }
}
