//! The content repository.

pub mod get_config;
pub mod get_download;
pub mod get_download_named;
pub mod get_preview_url;
pub mod get_thumbnail;
pub mod legacy;
pub mod post_create;
pub mod post_upload;
pub mod put_upload;
pub(crate) mod serve;

use axum::routing::{get, post, put};

use crate::routes::Routes;

/// The versions under which the endpoints outside `/_matrix/client` answer: today's and those that
/// old clients call.
const VERSIONS: [&str; 3] = ["v3", "r0", "v1"];

/// The endpoints of this section.
pub fn routes() -> Routes {
    let named = "/{serverName}/{mediaId}/{fileName}";
    let routes = Routes::new()
        .v1("/media/config", get(get_config::get_config))
        .v1("/media/preview_url", get(get_preview_url::get_preview_url))
        .v1(
            "/media/download/{serverName}/{mediaId}",
            get(get_download::get_download),
        )
        .v1(
            &format!("/media/download{named}"),
            get(get_download_named::get_download_named),
        )
        .v1(
            "/media/thumbnail/{serverName}/{mediaId}",
            get(get_thumbnail::get_thumbnail),
        )
        .at("/_matrix/media/v1/create", post(post_create::post_create));
    VERSIONS.iter().fold(routes, |routes, version| {
        let at = |path: &str| format!("/_matrix/media/{version}{path}");
        routes
            .at(&at("/upload"), post(post_upload::post_upload))
            .at(&at("/upload/{serverName}/{mediaId}"), put(put_upload::put_upload))
            .at(&at("/config"), get(get_config::get_config))
            .at(&at("/preview_url"), get(get_preview_url::get_preview_url))
            .at(
                &at("/download/{serverName}/{mediaId}"),
                get(legacy::get_download::get_download),
            )
            .at(
                &at(&format!("/download{named}")),
                get(legacy::get_download_named::get_download_named),
            )
            .at(
                &at("/thumbnail/{serverName}/{mediaId}"),
                get(legacy::get_thumbnail::get_thumbnail),
            )
    })
}
