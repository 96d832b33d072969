//! The client-server API. Each module is a section of it, with a table of its endpoints.

pub mod account;
pub mod account_data;
pub mod appservice;
pub mod cross_signing;
pub mod dehydrated_device;
pub mod delayed_events;
pub mod devices;
pub mod directory;
pub mod fallback;
pub mod filters;
pub mod keys;
pub(crate) mod large;
pub mod media;
pub mod mutual_rooms;
pub mod notifications;
pub mod openid;
pub mod presence;
pub mod profile;
pub mod push;
pub mod push_rules;
pub mod registration;
pub mod reports;
pub mod room_keys;
pub mod rooms;
pub mod search;
pub mod server;
pub mod session;
pub mod sliding_sync;
pub mod sync;
pub mod threads;
pub mod threepids;
pub mod to_device;
pub mod uia;
pub mod user_directory;
pub mod users_admin;

use crate::routes::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    [
        account::routes(),
        account_data::routes(),
        appservice::routes(),
        cross_signing::routes(),
        dehydrated_device::routes(),
        delayed_events::routes(),
        devices::routes(),
        fallback::routes(),
        filters::routes(),
        keys::routes(),
        media::routes(),
        mutual_rooms::routes(),
        notifications::routes(),
        openid::routes(),
        presence::routes(),
        profile::routes(),
        push::routes(),
        push_rules::routes(),
        registration::routes(),
        reports::routes(),
        server::routes(),
        directory::routes(),
        room_keys::routes(),
        rooms::routes(),
        search::routes(),
        sliding_sync::routes(),
        sync::routes(),
        threads::routes(),
        session::routes(),
        threepids::routes(),
        to_device::routes(),
        user_directory::routes(),
        users_admin::routes(),
    ]
    .into_iter()
    .fold(Routes::new(), Routes::merge)
}
