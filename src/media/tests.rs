//! The store on the memory engine and a temporary folder.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hearth_cluster::Cluster;
use hearth_core::{
    clock::ManualClock,
    limits::{MEDIA_PENDING_LIFETIME, MEDIA_PENDING_PER_USER_MAX},
    random::{SeededRandom, SharedRandom},
    tasks::{Pool, spawn},
};
use hearth_storage::{Family, Log, MemoryEngine};
use parking_lot::Mutex;
use ruma::{UserId, server_name, user_id};

use crate::{
    ByteRange, ByteStream, Description, Error, MediaId, MediaSettings, MediaStore, Method, RemoteContent,
    RemoteMedia, ThumbnailRequest,
    record::{file_entity, members, pending_entity},
    store::REMOTE_OF_SERVER_MAX,
};

const MAX_BYTES: u64 = 1_000_000;

pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: MediaStore,
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

pub(crate) fn bench(shards: u16) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_000_000));
    let log = Log::open(Arc::new(MemoryEngine::new()), shards).unwrap();
    let store = open(folder.path(), log, clock.clone());
    Bench { folder, clock, store }
}

fn open(folder: &Path, log: Arc<Log>, clock: Arc<ManualClock>) -> MediaStore {
    open_with(folder, log, clock, Pool::new(2))
}

fn open_with(folder: &Path, log: Arc<Log>, clock: Arc<ManualClock>, pool: Pool) -> MediaStore {
    let cluster = Cluster::new(log);
    let settings = MediaSettings {
        directory: folder.to_owned(),
        server_name: server_name!("example.org").to_owned(),
        max_upload_bytes: MAX_BYTES,
    };
    let random: SharedRandom = Arc::new(SeededRandom::new(1));
    let store = MediaStore::open(settings, cluster.clone(), clock, random, pool).unwrap();
    cluster.start().unwrap();
    store
}

fn body(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes
        .chunks(1000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

fn png(name: &str) -> Description {
    Description {
        content_type: Some("image/png".into()),
        file_name: Some(name.into()),
    }
}

async fn collect(stream: ByteStream) -> Vec<u8> {
    stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

impl Bench {
    pub(crate) async fn bytes_of(&self, media: &MediaId) -> Result<Vec<u8>, Error> {
        let content = self.store.find(media, Duration::ZERO, true).await?;
        Ok(collect(self.store.read(&content, None).await?).await)
    }

    pub(crate) fn files(&self) -> usize {
        let content = std::fs::read_dir(self.folder.path().join("content")).unwrap();
        content
            .map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count())
            .sum()
    }

    pub(crate) fn incoming(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("incoming"))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn an_upload_comes_back_as_it_was() {
    for shards in [1, 16] {
        let bench = bench(shards);
        let bytes: Vec<u8> = (0..50_000_u32).map(|number| (number % 251) as u8).collect();
        let media = bench
            .store
            .upload(alice(), png("ü.png"), body(&bytes))
            .await
            .unwrap();
        assert_eq!(media.server(), server_name!("example.org"));
        let content = bench.store.find(&media, Duration::ZERO, false).await.unwrap();
        assert_eq!(
            (content.size, content.content_type.as_str()),
            (50_000, "image/png")
        );
        assert_eq!(content.file_name.as_deref(), Some("ü.png"));
        assert_eq!(bench.bytes_of(&media).await.unwrap(), bytes);
        let range = ByteRange { first: 10, last: 19 };
        let part = bench.store.read(&content, Some(range)).await.unwrap();
        assert_eq!(collect(part).await, &bytes[10..20]);
        assert_eq!(bench.incoming(), 0);
    }
}

#[tokio::test]
async fn odd_uploads() {
    let bench = bench(16);
    let empty = bench
        .store
        .upload(alice(), Description::default(), body(b""))
        .await
        .unwrap();
    assert_eq!(bench.bytes_of(&empty).await.unwrap(), b"");
    let large = vec![0; MAX_BYTES as usize + 1];
    let refused = bench.store.upload(alice(), png("x"), body(&large)).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    let broken: ByteStream =
        stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]).boxed();
    let refused = bench.store.upload(alice(), png("x"), broken).await;
    assert!(matches!(refused, Err(Error::Interrupted)));
    let refused = bench
        .store
        .upload(alice(), png(&"x".repeat(2000)), body(b"x"))
        .await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    for odd in ["", "te\u{0}xt", "ü/x"] {
        let description = Description {
            content_type: Some(odd.into()),
            file_name: None,
        };
        let media = bench
            .store
            .upload(alice(), description, body(b"x"))
            .await
            .unwrap();
        let content = bench.store.find(&media, Duration::ZERO, true).await.unwrap();
        assert_eq!(content.content_type, "application/octet-stream");
    }
    assert_eq!(bench.incoming(), 0);
}

#[tokio::test]
async fn equal_files_are_kept_once_and_go_with_the_last() {
    let bench = bench(16);
    let first = bench
        .store
        .upload(alice(), png("a"), body(b"same"))
        .await
        .unwrap();
    let second = bench
        .store
        .upload(alice(), png("b"), body(b"same"))
        .await
        .unwrap();
    assert_ne!(first, second);
    assert_eq!(bench.files(), 1);
    assert!(bench.store.delete(&first).await.unwrap());
    assert!(!bench.store.delete(&first).await.unwrap());
    assert!(matches!(bench.bytes_of(&first).await, Err(Error::NotFound)));
    assert_eq!(bench.bytes_of(&second).await.unwrap(), b"same");
    bench.store.sweep().await.unwrap();
    assert_eq!(bench.files(), 1);
    assert!(bench.store.delete(&second).await.unwrap());
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.files(), bench.incoming()), (0, 0));
    let again = bench
        .store
        .upload(alice(), png("a"), body(b"same"))
        .await
        .unwrap();
    assert_eq!(bench.bytes_of(&again).await.unwrap(), b"same");
}

#[tokio::test]
async fn quarantined_media_does_not_exist() {
    let bench = bench(16);
    let media = bench.store.upload(alice(), png("a"), body(b"bad")).await.unwrap();
    assert!(
        bench
            .store
            .quarantine(&media, Some(user_id!("@admin:example.org")))
            .await
            .unwrap()
    );
    assert!(matches!(bench.bytes_of(&media).await, Err(Error::NotFound)));
    assert!(
        bench
            .store
            .record(&media)
            .unwrap()
            .unwrap()
            .quarantined_by
            .is_some()
    );
    assert!(bench.store.quarantine(&media, None).await.unwrap());
    assert_eq!(bench.bytes_of(&media).await.unwrap(), b"bad");
}

#[tokio::test]
async fn an_announced_file_is_awaited_and_uploaded_once() {
    let bench = bench(16);
    let (media, expires_ms) = bench.store.create(alice()).await.unwrap();
    assert_eq!(expires_ms, 1_000_000 + MEDIA_PENDING_LIFETIME.as_millis() as u64);
    let missing = bench.store.find(&media, Duration::from_millis(20), true).await;
    assert!(matches!(missing, Err(Error::NotYetUploaded)));
    let bob = user_id!("@bob:example.org");
    let refused = bench.store.upload_to(bob, &media, png("a"), body(b"x")).await;
    assert!(matches!(refused, Err(Error::NotOwner)));

    let (store, wanted) = (bench.store.clone(), media.clone());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    spawn("waiter", async move {
        let _ = sender.send(store.find(&wanted, Duration::from_secs(30), true).await);
    });
    tokio::task::yield_now().await;
    bench
        .store
        .upload_to(alice(), &media, png("a"), body(b"late"))
        .await
        .unwrap();
    let content = receiver.await.unwrap().unwrap();
    assert_eq!(content.size, 4);
    assert_eq!(bench.bytes_of(&media).await.unwrap(), b"late");
    let refused = bench.store.upload_to(alice(), &media, png("a"), body(b"")).await;
    assert!(matches!(refused, Err(Error::AlreadyUploaded)));
    let engine = bench.store.inner.cluster.log().engine();
    assert!(
        members(&**engine, &pending_entity(alice().as_str()), 10)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn announced_ids_expire_and_are_limited() {
    let bench = bench(16);
    let (old, _) = bench.store.create(alice()).await.unwrap();
    for _ in 1..MEDIA_PENDING_PER_USER_MAX {
        bench.store.create(alice()).await.unwrap();
    }
    let refused = bench.store.create(alice()).await.unwrap_err();
    let lifetime_ms = MEDIA_PENDING_LIFETIME.as_millis() as u64;
    assert!(matches!(refused, Error::PendingLimit { retry_after_ms } if retry_after_ms == lifetime_ms));
    bench.store.create(user_id!("@bob:example.org")).await.unwrap();
    bench.clock.advance(lifetime_ms);
    let late = bench.store.upload_to(alice(), &old, png("a"), body(b"x")).await;
    assert!(matches!(late, Err(Error::NotFound)));
    assert!(matches!(bench.bytes_of(&old).await, Err(Error::NotFound)));
    bench.store.create(alice()).await.unwrap();
    assert!(
        bench.store.record(&old).unwrap().is_none(),
        "expired ids leave nothing"
    );
}

#[tokio::test]
async fn a_crash_between_file_and_record_leaves_nothing_after_the_sweep() {
    let bench = bench(16);
    let kept = bench
        .store
        .upload(alice(), png("a"), body(b"kept"))
        .await
        .unwrap();
    let kept_hash = bench.store.find(&kept, Duration::ZERO, true).await.unwrap().hash;
    let inner = &bench.store.inner;
    // As if the process had ended right after the file was placed.
    let mut incoming = inner.files.begin(&*inner.random).await.unwrap();
    incoming.write(b"lost").await.unwrap();
    let finished = incoming.finish().await.unwrap();
    inner
        .files
        .write_note(&finished.hash, "example.org/lost", &*inner.random)
        .unwrap();
    inner.files.place(finished).unwrap();
    // And as if another had ended after the commit, before its note was removed.
    inner
        .files
        .write_note(&kept_hash, &kept.key(), &*inner.random)
        .unwrap();
    assert_eq!(bench.files(), 2);
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.files(), bench.incoming()), (1, 0));
    assert_eq!(bench.bytes_of(&kept).await.unwrap(), b"kept");
}

#[tokio::test]
async fn a_file_whose_reference_is_on_its_way_stays() {
    let bench = bench(16);
    let media = bench
        .store
        .upload(alice(), png("a"), body(b"kept"))
        .await
        .unwrap();
    let hash = bench.store.find(&media, Duration::ZERO, true).await.unwrap().hash;
    let inner = &bench.store.inner;
    // As after a crash between the commit and the delivery of its outbox row.
    let mut batch = hearth_storage::Batch::new();
    let reference = crate::record::member_key(&file_entity(&hash), &media.key());
    batch.delete(Family::Media, reference);
    inner
        .commit(&file_entity(&hash), batch, Vec::new())
        .await
        .unwrap();
    inner
        .files
        .write_note(&hash, &media.key(), &*inner.random)
        .unwrap();
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.files(), bench.incoming()), (1, 1));
}

#[tokio::test]
async fn many_uploads_of_the_same_bytes_and_deletions_at_once() {
    let bench = bench(1);
    let mut tasks = Vec::new();
    for number in 0..40_u8 {
        let store = bench.store.clone();
        tasks.push(spawn("upload", async move {
            let media = store
                .upload(alice(), png("a"), body(&[number % 2]))
                .await
                .unwrap();
            if number % 4 < 2 {
                store.delete(&media).await.unwrap();
            } else {
                let content = store.find(&media, Duration::ZERO, true).await.unwrap();
                assert_eq!(
                    collect(store.read(&content, None).await.unwrap()).await,
                    [number % 2]
                );
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .unwrap()
            .unwrap();
    }
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.files(), bench.incoming()), (2, 0));
}

struct Elsewhere {
    asked: Mutex<Vec<String>>,
    bytes: Vec<u8>,
}

#[async_trait]
impl RemoteMedia for Elsewhere {
    async fn fetch(&self, media: &MediaId, _: Duration) -> Result<RemoteContent, Error> {
        self.asked.lock().push(media.key());
        if media.id() == "missing" {
            return Err(Error::NotFound);
        }
        Ok(RemoteContent {
            content_type: Some("text/plain".into()),
            file_name: Some("a.txt".into()),
            body: body(&self.bytes),
        })
    }
}

#[tokio::test]
async fn remote_media_is_fetched_once() {
    let bench = bench(16);
    let media = MediaId::new("elsewhere.org", "abc").unwrap();
    assert!(matches!(bench.bytes_of(&media).await, Err(Error::NotFound)));
    let remote = Arc::new(Elsewhere {
        asked: Mutex::default(),
        bytes: b"far".to_vec(),
    });
    bench.store.set_remote(remote.clone());
    let only_here = bench.store.find(&media, Duration::ZERO, false).await;
    assert!(matches!(only_here, Err(Error::NotFound)));
    let (one, two) = tokio::join!(bench.bytes_of(&media), bench.bytes_of(&media));
    assert_eq!((one.unwrap(), two.unwrap()), (b"far".to_vec(), b"far".to_vec()));
    assert_eq!(remote.asked.lock().len(), 1);
    let missing = MediaId::new("elsewhere.org", "missing").unwrap();
    assert!(matches!(bench.bytes_of(&missing).await, Err(Error::NotFound)));
    assert!(bench.store.find(&media, Duration::ZERO, false).await.is_ok());
}

#[tokio::test]
async fn remote_media_has_a_limit() {
    let bench = bench(16);
    let bytes = vec![0; MAX_BYTES as usize + 1];
    bench.store.set_remote(Arc::new(Elsewhere {
        asked: Mutex::default(),
        bytes,
    }));
    let media = MediaId::new("elsewhere.org", "abc").unwrap();
    assert!(matches!(
        bench.bytes_of(&media).await,
        Err(Error::RemoteTooLarge { .. })
    ));
}

#[tokio::test]
async fn thumbnails_are_made_once_and_shared() {
    let bench = bench(16);
    let picture = image::DynamicImage::new_rgb8(400, 300);
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let bytes = bytes.into_inner();
    let media = bench.store.upload(alice(), png("a"), body(&bytes)).await.unwrap();
    let request = |width, height| ThumbnailRequest {
        width,
        height,
        method: Method::Scale,
        animated: false,
    };
    let thumbnail = async |width, height| {
        bench
            .store
            .thumbnail(&media, request(width, height), Duration::ZERO, true)
            .await
    };
    let made = thumbnail(90, 90).await.unwrap();
    let (content_type, size) = (made.content_type, made.size);
    let fresh = collect(made.body).await;
    let kept = thumbnail(96, 96).await.unwrap();
    assert_eq!((kept.content_type, kept.size), (content_type, size));
    assert_eq!(collect(kept.body).await, fresh);
    assert_eq!(image::load_from_memory(&fresh).unwrap().width(), 96);
    let original = thumbnail(400, 300).await.unwrap();
    assert_eq!(collect(original.body).await, bytes);
    assert!(matches!(thumbnail(0, 5).await, Err(Error::Invalid(_))));
    let text = bench
        .store
        .upload(alice(), png("a"), body(b"no picture"))
        .await
        .unwrap();
    let refused = bench
        .store
        .thumbnail(&text, request(32, 32), Duration::ZERO, true)
        .await;
    assert!(matches!(refused, Err(Error::NotAnImage)));
}

#[tokio::test]
async fn pictures_and_other_work_do_not_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(Arc::new(MemoryEngine::new()), 4).unwrap();
    let pool = Pool::new(1);
    let store = open_with(
        folder.path(),
        log,
        Arc::new(ManualClock::new(1_000_000)),
        pool.clone(),
    );
    let picture = image::DynamicImage::new_rgb8(400, 300);
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let media = store
        .upload(alice(), png("a"), body(&bytes.into_inner()))
        .await
        .unwrap();
    // Somebody's password is hashed in the only place there is.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let hashing = spawn("hashing", async move {
        let section = move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
        };
        pool.run(section).await;
    });
    has_begun.await.unwrap();
    let request = ThumbnailRequest {
        width: 32,
        height: 32,
        method: Method::Scale,
        animated: false,
    };
    let made = store.thumbnail(&media, request, Duration::ZERO, true);
    let made = tokio::time::timeout(Duration::from_secs(30), made).await;
    release.send(()).unwrap();
    hashing.await.unwrap();
    assert!(made.expect("in time").is_ok());
}

/// A server that says how many files are on their way.
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl RemoteMedia for Counting {
    async fn fetch(&self, _: &MediaId, _: Duration) -> Result<RemoteContent, Error> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(RemoteContent {
            content_type: None,
            file_name: None,
            body: Box::pin(futures::stream::empty()),
        })
    }
}

#[tokio::test]
async fn so_many_files_of_a_server_come_at_once() {
    let bench = bench(16);
    let counting = Arc::new(Counting {
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    bench.store.set_remote(counting.clone());
    let media: Vec<_> = (0..3 * REMOTE_OF_SERVER_MAX)
        .map(|number| MediaId::new("elsewhere.org", &number.to_string()).expect("an id"))
        .collect();
    let found = futures::future::join_all(media.iter().map(|media| bench.bytes_of(media))).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(counting.most.load(Ordering::SeqCst), REMOTE_OF_SERVER_MAX);
}
