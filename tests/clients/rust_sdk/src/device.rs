//! A running device: a client, its sync service and its timelines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, StreamExt};
use matrix_sdk::{Client, ThreadingSupport};
use matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use matrix_sdk::ruma::api::client::account::register::v3 as register;
use matrix_sdk::ruma::api::client::uiaa::{AuthData, Dummy};
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId, UserId};
use matrix_sdk_ui::room_list_service::filters::new_filter_non_left;
use matrix_sdk_ui::sync_service::{State, SyncService};
use matrix_sdk_ui::timeline::{EventTimelineItem, RoomExt, Timeline, TimelineFocus};
use tokio::sync::Mutex;

const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// After so many looks a timeline is made anew. On a busy machine one of matrix-sdk-ui 0.18 now and then keeps showing an event
/// without its key, or a message without its reaction, that the client has got long since; a new one shows them.
const LOOKS_MAX: u32 = 100;

/// Waits until `check` finds something.
pub async fn until<T>(what: &str, check: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(LIMIT, what, check).await
}

/// Waits so long until `check` finds something.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let found = tokio::time::timeout(limit, async {
        loop {
            if let Some(found) = check().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    found.await.with_context(|| format!("never saw {what}"))?
}

/// A running device.
pub struct Device {
    /// The client.
    pub client: Client,
    sync: SyncService,
    timelines: Mutex<BTreeMap<OwnedRoomId, Followed>>,
}

/// A timeline, and how often it was looked at.
struct Followed {
    timeline: Arc<Timeline>,
    looks: u32,
}

fn password_of(name: &str) -> String {
    format!("{name}-long-password")
}

impl Device {
    async fn client(url: &str) -> Result<Client> {
        let settings = EncryptionSettings {
            auto_enable_cross_signing: true,
            backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            auto_enable_backups: true,
        };
        Ok(Client::builder()
            .homeserver_url(url)
            .with_encryption_settings(settings)
            // Threads follow the sync, and so do the subscriptions to them (MSC4306, MSC4308).
            .with_threading_support(ThreadingSupport::Enabled {
                with_subscriptions: true,
            })
            .build()
            .await?)
    }

    async fn start(client: Client) -> Result<Self> {
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        // Offline, it waits until the server is there again.
        let sync = SyncService::builder(client.clone())
            .with_offline_mode()
            .build()
            .await?;
        sync.start().await;
        let device = Self {
            client,
            sync,
            timelines: Mutex::default(),
        };
        until("the sync service running", async || {
            match device.sync.state().get() {
                State::Running => Ok(Some(())),
                State::Error(error) => bail!("the sync service ended: {error}"),
                _ => Ok(None),
            }
        })
        .await?;
        Ok(device)
    }

    /// Makes an account and its first device.
    pub async fn register(url: &str, name: &str) -> Result<Self> {
        let client = Self::client(url).await?;
        let mut request = register::Request::new();
        request.username = Some(name.to_owned());
        request.password = Some(password_of(name));
        let stages = client.matrix_auth().register(request.clone()).await;
        let error = stages
            .err()
            .context("registration went through without a stage")?;
        let session = error
            .as_uiaa_response()
            .context("not a list of stages")?
            .session
            .clone();
        let mut dummy = Dummy::new();
        dummy.session = session;
        request.auth = Some(AuthData::Dummy(dummy));
        client.matrix_auth().register(request).await?;
        Self::start(client).await
    }

    /// Logs another device in.
    pub async fn login(url: &str, name: &str) -> Result<Self> {
        let client = Self::client(url).await?;
        client
            .matrix_auth()
            .login_username(name, &password_of(name))
            .send()
            .await?;
        Self::start(client).await
    }

    /// Stops, and ends the session.
    pub async fn log_out(self) -> Result<()> {
        self.sync.stop().await;
        self.client.logout().await?;
        Ok(())
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        self.client.user_id().expect("a device is logged in")
    }

    /// Takes the secrets out of secret storage, and with them the backup.
    pub async fn recover(&self, key: &str) -> Result<()> {
        self.client.encryption().recovery().recover(key).await?;
        let backups = self.client.encryption().backups();
        until("the backup", async || {
            Ok(backups.are_enabled().await.then_some(()))
        })
        .await?;
        let status = self
            .client
            .encryption()
            .cross_signing_status()
            .await
            .context("no cross-signing")?;
        ensure!(status.is_complete(), "{status:?}");
        Ok(())
    }

    /// The names of the rooms in the room list.
    pub async fn room_names(&self) -> Result<Vec<String>> {
        let list = self.sync.room_list_service().all_rooms().await?;
        let (stream, controller) = list.entries_with_dynamic_adapters(50);
        controller.set_filter(Box::new(new_filter_non_left()));
        let mut stream = std::pin::pin!(stream);
        let mut entries = matrix_sdk_ui::eyeball_im::Vector::new();
        while let Some(Some(changes)) = stream.next().now_or_never() {
            for change in changes {
                change.apply(&mut entries);
            }
        }
        Ok(entries
            .iter()
            .filter_map(|room| room.cached_display_name())
            .map(|name| name.to_string())
            .collect())
    }

    /// The timeline of a room.
    pub async fn timeline(&self, room: &OwnedRoomId) -> Result<Arc<Timeline>> {
        let mut timelines = self.timelines.lock().await;
        if let Some(followed) = timelines.get(room) {
            return Ok(followed.timeline.clone());
        }
        let found = until("the room", async || Ok(self.client.get_room(room))).await?;
        self.sync.room_list_service().subscribe_to_rooms(&[room]).await;
        let timeline = Arc::new(found.timeline().await?);
        let followed = Followed {
            timeline: timeline.clone(),
            looks: 0,
        };
        timelines.insert(room.clone(), followed);
        Ok(timeline)
    }

    /// The timeline of a thread.
    pub async fn thread(&self, room: &OwnedRoomId, root: OwnedEventId) -> Result<Timeline> {
        let found = self.client.get_room(room).context("the room")?;
        let focus = TimelineFocus::Thread { root_event_id: root };
        Ok(found.timeline_builder().with_focus(focus).build().await?)
    }

    /// Sends a text.
    pub async fn say(&self, room: &OwnedRoomId, text: &str) -> Result<()> {
        let content = RoomMessageEventContent::text_plain(text);
        self.timeline(room).await?.send(content.into()).await?;
        Ok(())
    }

    /// What a timeline shows, read back to its start; fails where something cannot be decrypted after a while.
    async fn items(&self, room: &OwnedRoomId) -> Result<Vec<EventTimelineItem>> {
        let timeline = self.timeline(room).await?;
        self.note_look(room).await;
        while !timeline.paginate_backwards(20).await? {}
        let items = timeline.items().await;
        Ok(items.iter().filter_map(|item| item.as_event().cloned()).collect())
    }

    async fn note_look(&self, room: &OwnedRoomId) {
        let mut timelines = self.timelines.lock().await;
        let looks = timelines.get_mut(room).map(|followed| {
            followed.looks += 1;
            followed.looks
        });
        if looks.is_some_and(|looks| looks >= LOOKS_MAX) {
            timelines.remove(room);
        }
    }

    /// The texts of a room.
    pub async fn texts(&self, room: &OwnedRoomId) -> Result<Vec<String>> {
        let items = self.items(room).await?;
        let texts = items.iter().filter_map(|item| item.content().as_message());
        Ok(texts.map(|message| message.body().to_owned()).collect())
    }

    /// Waits until a text is shown that came from the server, and everything shown is decrypted.
    pub async fn read(&self, room: &OwnedRoomId, text: &str) -> Result<EventTimelineItem> {
        let mut unreadable = 0;
        let found = until(text, async || {
            let items = self.items(room).await?;
            unreadable = items
                .iter()
                .filter(|item| item.content().is_unable_to_decrypt())
                .count();
            let is_it = |item: &&EventTimelineItem| {
                item.event_id().is_some()
                    && item
                        .content()
                        .as_message()
                        .is_some_and(|message| message.body() == text)
            };
            Ok(items.iter().find(is_it).filter(|_| unreadable == 0).cloned())
        })
        .await;
        match found {
            Err(error) if unreadable > 0 => {
                bail!("{}: {unreadable} messages are not readable: {error}", self.user())
            }
            other => other,
        }
    }
}

/// Waits until a thread shows a text that came from the server.
pub async fn read_in_thread(thread: &Timeline, text: &str) -> Result<()> {
    until(text, async || {
        while !thread.paginate_backwards(20).await? {}
        let items = thread.items().await;
        let is_it = |item: &EventTimelineItem| {
            item.event_id().is_some()
                && item
                    .content()
                    .as_message()
                    .is_some_and(|message| message.body() == text)
        };
        let found = items.iter().filter_map(|item| item.as_event()).any(is_it);
        Ok(found.then_some(()))
    })
    .await
}
