//! The server-server API. Each module is a section of it, with a table of its endpoints.

pub mod keys;

use crate::routes::Routes;

/// All endpoints of the server-server API.
pub fn routes() -> Routes {
    [keys::routes()].into_iter().fold(Routes::new(), Routes::merge)
}
