//! One part each, out of the configuration and the outside world; and what of the memory it gets.

use std::sync::Arc;

use hearth_cluster::Cluster;
use hearth_core::{Config, Shutdown};
use hearth_events::KeyPair;
use hearth_federation::Federation;
use hearth_media::{MediaSettings, MediaStore, PreviewPolicy, PreviewSettings, Previews};
use hearth_push::{Push, PushParts, Vapid};
use hearth_rooms::{Rooms, RoomsConfig};
use hearth_search::{Search, SearchParts};
use hearth_storage::{Log, LogOptions};
use hearth_users::{PasswordCost, Settings, Users};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, RoomVersionId, UserId};

use super::{Deps, create_private_folder, identity};
use crate::Error;

/// A part of the memory budget: RocksDB has half of it, the caches above share the rest, and a few percent are for what
/// the search index takes while it is written.
pub(super) fn share(config: &Config, percent: u64) -> u64 {
    config.memory_limit / 100 * percent
}

pub(super) fn build_users(
    config: &Config,
    deps: &Deps,
    log: &Arc<Log>,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
) -> Result<Arc<Users>, Error> {
    let mut settings = Settings::new(server_name.clone());
    settings.password_min_chars = config.session.password_min_chars;
    settings.password_cost = PasswordCost {
        memory_kib: u32::try_from(config.session.password_hash_memory / 1024).unwrap_or(u32::MAX),
        iterations: config.session.password_hash_passes,
        parallelism: 1,
    };
    settings.access_token_lifetime_ms = config.session.access_token_seconds * 1000;
    settings.cache_bytes = share(config, 10);
    settings.server_user = notices_user(config, server_name)?;
    settings.presence = config.presence;
    settings.displaynames = config.registration_displaynames;
    let (clock, random) = (deps.clock.clone(), deps.random.clone());
    Ok(Users::new(
        log.clone(),
        cluster.clone(),
        clock,
        random,
        deps.pool.clone(),
        settings,
    ))
}

/// The user that server notices come from, if the operator named one.
pub(super) fn notices_user(
    config: &Config,
    server_name: &OwnedServerName,
) -> Result<Option<OwnedUserId>, Error> {
    let localpart = config.server_notices.localpart.as_deref();
    let user = localpart.map(|localpart| UserId::parse(format!("@{localpart}:{server_name}")));
    user.transpose().map_err(|error| Error::Start {
        part: "server notices",
        reason: format!("server_notices.localpart: {error}"),
    })
}

pub(super) fn build_rooms(
    config: &Config,
    deps: &Deps,
    log: &Arc<Log>,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
    signing_key: Arc<KeyPair>,
) -> Result<Arc<Rooms>, Error> {
    let default_version =
        RoomVersionId::try_from(config.default_room_version.as_str()).map_err(|error| Error::Start {
            part: "rooms",
            reason: format!("default_room_version: {error}"),
        })?;
    let rooms = RoomsConfig {
        server_name: server_name.clone(),
        signing_key,
        default_version,
        event_cache_bytes: share(config, 14),
        node_cache_bytes: share(config, 12),
        loaded_rooms_bytes: share(config, 10),
        pool: deps.pool.clone(),
    };
    Ok(Rooms::new(
        log.clone(),
        cluster.clone(),
        deps.clock.clone(),
        deps.random.clone(),
        rooms,
    ))
}

pub(super) fn build_federation(
    config: &Config,
    deps: &Deps,
    (cluster, rooms, users, shutdown): (&Arc<Cluster>, &Arc<Rooms>, &Arc<Users>, &Shutdown),
    server_name: &OwnedServerName,
    signing_key: &Arc<KeyPair>,
) -> Result<Arc<Federation>, Error> {
    let trusted = config.trusted_key_servers.iter().map(|name| {
        OwnedServerName::try_from(name.as_str()).map_err(|error| Error::Start {
            part: "federation",
            reason: format!("trusted_key_servers: {error}"),
        })
    });
    Ok(Federation::new(hearth_federation::Parts {
        server_name: server_name.clone(),
        signing_key: signing_key.clone(),
        former_keys: identity::former_keys(config, &*deps.engine, signing_key)?,
        trusted_key_servers: trusted.collect::<Result<_, _>>()?,
        outbound: deps.outbound.clone(),
        cluster: cluster.clone(),
        clock: deps.clock.clone(),
        random: deps.random.clone(),
        rooms: rooms.clone(),
        users: users.clone(),
        shutdown: shutdown.clone(),
    }))
}

pub(super) fn open_push(
    deps: &Deps,
    users: &Arc<Users>,
    rooms: &Arc<Rooms>,
    vapid: Vapid,
    shutdown: &Shutdown,
) -> Result<Arc<Push>, Error> {
    let parts = PushParts {
        rooms: rooms.clone(),
        users: users.clone(),
        outbound: deps.outbound.clone(),
        clock: deps.clock.clone(),
        random: deps.random.clone(),
        vapid,
    };
    Push::new(parts, shutdown.clone()).map_err(|error| Error::Start {
        part: "push",
        reason: error.to_string(),
    })
}

pub(super) fn open_search(
    config: &Config,
    deps: &Deps,
    rooms: &Arc<Rooms>,
    shutdown: &Shutdown,
) -> Result<Option<Arc<Search>>, Error> {
    let failed = |error: hearth_search::Error| Error::Start {
        part: "search",
        reason: error.to_string(),
    };
    if !config.message_search.enabled {
        Search::switch_off(rooms).map_err(failed)?;
        return Ok(None);
    }
    if let Some(folder) = &deps.search_dir {
        create_private_folder(folder).map_err(|error| failed(error.into()))?;
    }
    let parts = SearchParts {
        rooms: rooms.clone(),
        pool: deps.pool.clone(),
        folder: deps.search_dir.clone(),
    };
    Search::open(parts, shutdown.clone()).map(Some).map_err(failed)
}

pub(super) fn open_media(
    config: &Config,
    deps: &Deps,
    cluster: &Arc<Cluster>,
    server_name: &OwnedServerName,
) -> Result<MediaStore, Error> {
    let directory = deps.media_dir.clone();
    let unusable = |error: std::io::Error| Error::Data {
        folder: directory.display().to_string(),
        reason: error.to_string(),
    };
    let settings = MediaSettings {
        directory: directory.clone(),
        server_name: server_name.clone(),
        max_upload_bytes: config.max_upload_bytes,
    };
    let (clock, random) = (deps.clock.clone(), deps.random.clone());
    create_private_folder(&directory)
        .and_then(|()| MediaStore::open(settings, cluster.clone(), clock, random, deps.pool.clone()))
        .map_err(unusable)
}

pub(super) fn build_previews(config: &Config, deps: &Deps, media: &MediaStore) -> Option<Previews> {
    let settings = &config.url_preview;
    settings.enabled.then(|| {
        let preview_settings = PreviewSettings {
            policy: PreviewPolicy {
                allow: settings.allow.clone(),
                deny: settings.deny.clone(),
            },
            kept_ms: settings.keep_seconds * 1000,
            cache_bytes: share(config, 1),
        };
        Previews::new(media.clone(), deps.preview_outbound.clone(), preview_settings)
    })
}

pub(super) fn open_log(
    config: &Config,
    deps: &Deps,
    shutdown: &Shutdown,
    fatal: &Arc<Mutex<Option<String>>>,
) -> Result<Arc<Log>, Error> {
    let options = LogOptions {
        shards_if_new: config.shards,
        disk_reserve_bytes: config.disk_reserve_bytes,
        mode: deps.writer,
    };
    let log = Log::open_with(deps.engine.clone(), options).map_err(|error| Error::Data {
        folder: config.data_dir.display().to_string(),
        reason: error.to_string(),
    })?;
    let (fatal, shutdown) = (fatal.clone(), shutdown.clone());
    log.on_fatal(Box::new(move |error| {
        tracing::error!(%error, "the data cannot be written, the server stops");
        *fatal.lock() = Some(error.to_string());
        shutdown.trigger();
    }));
    Ok(log)
}
