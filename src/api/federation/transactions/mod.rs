//! What other servers send by themselves.

pub mod put_send;

use axum::routing::put;

use super::V1;
use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    Routes::new().at(&format!("{V1}/send/{{txnId}}"), put(put_send::put_send))
}
