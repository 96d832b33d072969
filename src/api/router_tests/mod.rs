//! The whole router over the in-memory engine.

mod accounts;
mod admin;
mod appservices;
mod cross_signing;
mod discovery;
mod edge;
mod fallback;
mod federation;
mod federation_events;
mod federation_memberships;
mod large;
mod malformed;
mod media;
mod old_clients;
mod previews;
mod registration;
mod settings;
mod shared;
mod upgrades;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hearth_appservice::Registrations;
use hearth_cluster::Cluster;
use hearth_core::clock::ManualClock;
use hearth_core::config::Api;
use hearth_core::http::{NoOutbound, SharedOutbound};
use hearth_core::random::SeededRandom;
use hearth_core::{Config, Pool, Shutdown};
use hearth_events::KeyPair;
use hearth_federation::Federation;
use hearth_media::{MediaSettings, MediaStore, PreviewPolicy, PreviewSettings, Previews};
use hearth_rooms::{Rooms, RoomsConfig};
use hearth_search::{Search, SearchParts};
use hearth_storage::{Log, MemoryEngine};
use hearth_sync::SyncEngine;
use hearth_users::{NewAccount, Settings, Users};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use ruma::{OwnedServerName, RoomVersionId, UserId};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::app::{App, Parts};
use crate::client::rooms::Links;
use crate::edge::PeerAddress;

/// A server in memory, and a client.
struct Server {
    app: Arc<App>,
    router: Router,
    clock: Arc<ManualClock>,
    _media_folder: tempfile::TempDir,
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The status and errcode.
    fn refusal(&self) -> (u16, String) {
        let errcode = self.json()["errcode"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), errcode)
    }

    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    #[track_caller]
    fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!(self.refusal(), (status, errcode.to_owned()), "{}", self.json());
        self.json()
    }
}

impl Server {
    fn new() -> Self {
        Self::with(|_| {}, Registrations::default())
    }

    fn with(configure: impl FnOnce(&mut Config), appservices: Registrations) -> Self {
        Self::reaching(configure, appservices, Arc::new(NoOutbound))
    }

    fn reaching(
        configure: impl FnOnce(&mut Config),
        appservices: Registrations,
        outbound: SharedOutbound,
    ) -> Self {
        let mut config = Config::for_tests("hs1");
        configure(&mut config);
        let server_name: OwnedServerName = "hs1".try_into().expect("a server name");
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let random = Arc::new(SeededRandom::new(7));
        let log = Log::open(Arc::new(MemoryEngine::new()), 4).expect("an empty log opens");
        let cluster = Cluster::new(log.clone());
        let settings = Settings::for_tests(server_name.clone());
        let users = Users::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            random.clone(),
            Pool::inline(),
            settings,
        );
        let signing_key = Arc::new(KeyPair::from_seed([7; 32], "test").expect("a key"));
        let rooms_config = RoomsConfig {
            server_name: server_name.clone(),
            signing_key: signing_key.clone(),
            default_version: RoomVersionId::V12,
            event_cache_bytes: 1 << 20,
            node_cache_bytes: 1 << 20,
            loaded_rooms_bytes: 1 << 20,
            pool: hearth_core::Pool::inline(),
        };
        let rooms = Rooms::new(log, cluster.clone(), clock.clone(), random.clone(), rooms_config);
        let federation = Federation::new(hearth_federation::Parts {
            server_name: server_name.clone(),
            signing_key,
            former_keys: Vec::new(),
            trusted_key_servers: Vec::new(),
            outbound: outbound.clone(),
            cluster: cluster.clone(),
            clock: clock.clone(),
            random: random.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            shutdown: Shutdown::new(),
        });
        rooms.set_remote(federation.remote.clone());
        let (sync_clock, sync_random) = (clock.clone(), random.clone());
        let sync = SyncEngine::new(
            rooms.clone(),
            users.clone(),
            sync_clock,
            sync_random,
            Shutdown::new(),
        );
        let media_folder = tempfile::tempdir().expect("a temporary folder");
        let media = MediaStore::open(
            MediaSettings {
                directory: media_folder.path().to_owned(),
                server_name: server_name.clone(),
                max_upload_bytes: config.max_upload_bytes,
            },
            cluster.clone(),
            clock.clone(),
            random.clone(),
            Pool::inline(),
        );
        cluster.start().expect("the cluster starts");
        let media = media.expect("the media folder opens");
        let previews = config.url_preview.enabled.then(|| {
            let settings = PreviewSettings {
                policy: PreviewPolicy::default(),
                kept_ms: 60_000,
                cache_bytes: 1 << 20,
            };
            Previews::new(media.clone(), outbound.clone(), settings)
        });
        let parts = SearchParts {
            rooms: rooms.clone(),
            pool: Pool::inline(),
            folder: None,
        };
        let search = Search::open(parts, Shutdown::new()).expect("the search index opens");
        let app = App::new(Parts {
            config: Arc::new(config),
            server_name,
            clock: clock.clone(),
            random,
            appservices: Arc::new(appservices),
            appservice_outbound: outbound,
            federation,
            media,
            previews,
            web_push_key: "key".to_owned(),
            search: Some(search),
            room_links: Arc::new(Links::new(rooms.clone(), users.clone())),
            users,
            rooms,
            sync,
        });
        Self {
            router: crate::router(app.clone(), &[Api::Client, Api::Federation]),
            app,
            clock,
            _media_folder: media_folder,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// A request without a body if `body` is null.
    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = request.body(body).expect("a request");
        let peer = "192.0.2.1".parse().expect("an address");
        request.extensions_mut().insert(PeerAddress(peer));
        self.send(request).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, Some(token), Value::Null).await
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("POST", path, Some(token), body).await
    }

    async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(token), body).await
    }

    /// Makes an account with the password `sup3rs3cret`, logs in, and gives the access token.
    async fn user(&self, name: &str, device: &str) -> String {
        let id = UserId::parse(format!("@{name}:hs1")).expect("a user id");
        let new = NewAccount {
            password: Some(PASSWORD.into()),
            admin: name.starts_with("admin"),
            ..NewAccount::default()
        };
        if self.app.users.get(&id).expect("a look-up").is_none() {
            self.app.users.create(&id, new).await.expect("a new account");
        }
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": PASSWORD,
            "device_id": device,
        });
        let answer = self
            .call("POST", "/_matrix/client/v3/login", None, body)
            .await
            .ok();
        answer["access_token"]
            .as_str()
            .expect("an access token")
            .to_owned()
    }
}

const PASSWORD: &str = "sup3rs3cret";
const V3: &str = "/_matrix/client/v3";

/// The `auth` of a request that a password confirms.
fn password_auth(user: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": PASSWORD,
    })
}
