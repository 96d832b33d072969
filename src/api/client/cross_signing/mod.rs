//! Cross-signing keys, and signatures on keys.

pub mod post_device_signing_upload;
pub mod post_signatures_upload;

use axum::routing::post;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let keys = post(post_device_signing_upload::post_device_signing_upload);
    let signatures = post(post_signatures_upload::post_signatures_upload);
    Routes::new()
        .v3("/keys/device_signing/upload", keys.clone())
        .v3("/keys/signatures/upload", signatures.clone())
        .once_unstable("/keys/device_signing/upload", keys)
        .once_unstable("/keys/signatures/upload", signatures)
}
