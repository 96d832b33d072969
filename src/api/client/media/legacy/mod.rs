//! The deprecated download endpoints below `/_matrix/media`.
//!
//! They answer everybody if `unauthenticated_media` is set. Otherwise they answer whoever sends an
//! access token, and nobody else: the specification lets a server say 404 M_NOT_FOUND there.

pub mod get_download;
pub mod get_download_named;
pub mod get_thumbnail;

use hearth_core::error::MatrixError;

use crate::app::App;
use crate::error::Result;
use crate::extract::{Address, OptionalAuth};
use crate::ratelimit::Class;

/// Whether this request may see media here; counts it.
fn admit(app: &App, auth: &OptionalAuth, address: Address) -> Result<()> {
    match &auth.0 {
        Some(auth) => auth.count(app, Class::Media)?,
        None if app.config.unauthenticated_media => app.limits.address(Class::Media, address.0)?,
        None => {
            let sentence = "This server gives media only to its users, at /_matrix/client/v1/media";
            return Err(MatrixError::not_found(sentence).into());
        }
    }
    Ok(())
}
