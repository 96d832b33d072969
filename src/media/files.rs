//! The media folder on disk.
//!
//! ```text
//! media/incoming/<random>.part         an upload in progress; removed at start
//! media/incoming/<hash>.<random>.note  a file whose record may be missing; see `effects`
//! media/content/<hh>/<hash>            a file, named by its BLAKE3 hash
//! media/thumbnails/<hh>/<hash>-…       thumbnails of it, a cache
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
};

use bytes::Bytes;
use futures::Stream;
use hearth_core::random::{Random, alphanumeric};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use crate::range::ByteRange;

/// The bytes of a file or a body, in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How much is read from disk at once, in bytes: large enough that the disk is busy, small enough
/// that many slow downloads take little memory.
const READ_PIECE_BYTES: usize = 64 * 1024;

/// How many notes one pass of the sweep reads: a crash leaves one for each upload in progress.
const NOTES_MAX: usize = 10_000;

/// The largest note, in bytes; it holds one media name.
const NOTE_MAX_BYTES: u64 = 4096;

/// The media folder.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

/// A remark on disk that a file may lie there without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub path: PathBuf,
    pub hash: String,
    /// The key of the media item that was about to use the file, or used it last.
    pub media: String,
}

impl Files {
    /// Opens the folder, makes what is missing, and removes uploads that a crash cut off.
    pub fn open(root: &Path) -> io::Result<Self> {
        let files = Self {
            root: root.to_owned(),
        };
        for name in ["incoming", "content", "thumbnails"] {
            fs::create_dir_all(root.join(name))?;
        }
        sync_folder(root)?;
        for entry in fs::read_dir(files.incoming())? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "part") {
                fs::remove_file(path)?;
            }
        }
        Ok(files)
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Where a file of this hash lies. The hash is 64 hexadecimal digits, which `Finished` and the
    /// records guarantee.
    pub fn content_path(&self, hash: &str) -> PathBuf {
        self.root.join("content").join(&hash[..2]).join(hash)
    }

    /// Where thumbnails of a file lie, all with names that begin with its hash.
    pub fn thumbnail_folder(&self, hash: &str) -> PathBuf {
        self.root.join("thumbnails").join(&hash[..2])
    }

    /// Begins an upload.
    pub async fn begin(&self, random: &dyn Random) -> io::Result<Incoming> {
        let path = self.incoming().join(format!("{}.part", alphanumeric(random, 24)));
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .await?;
        Ok(Incoming {
            file,
            hasher: Box::default(),
            size: 0,
            part: Part { path },
        })
    }

    /// Puts a finished upload in its place and makes the name durable. The caller holds the lock of
    /// the hash and has written a note.
    pub fn place(&self, finished: Finished) -> io::Result<()> {
        let path = self.content_path(&finished.hash);
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.root.join("content"))?;
        }
        // The same bytes may be there already. Another length would mean a damaged file: replace it.
        let present = fs::metadata(&path).is_ok_and(|there| there.len() == finished.size);
        if !present {
            fs::rename(&finished.part.path, &path)?;
        }
        sync_folder(folder)
    }

    /// Notes that a file of this hash may be left without a record.
    pub fn write_note(&self, hash: &str, media: &str, random: &dyn Random) -> io::Result<Note> {
        let path = self
            .incoming()
            .join(format!("{hash}.{}.note", alphanumeric(random, 16)));
        // Not synced: after a power loss the worst is a file that nobody uses, never a missing one.
        fs::write(&path, media)?;
        Ok(Note {
            path,
            hash: hash.to_owned(),
            media: media.to_owned(),
        })
    }

    /// The notes there are, of one hash or of all.
    pub fn notes(&self, hash: Option<&str>) -> io::Result<Vec<Note>> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(self.incoming())? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let Some(noted) = name.strip_suffix(".note").and_then(|name| name.get(..64)) else {
                continue;
            };
            if !is_hash(noted) || hash.is_some_and(|hash| hash != noted) {
                continue;
            }
            let noted = noted.to_owned();
            // What cannot be read names no media item; the note then only points to the file.
            let readable = fs::metadata(&path).is_ok_and(|there| there.len() <= NOTE_MAX_BYTES);
            let media = if readable {
                fs::read_to_string(&path).unwrap_or_default()
            } else {
                String::new()
            };
            notes.push(Note {
                path,
                hash: noted,
                media,
            });
            if notes.len() == NOTES_MAX {
                break;
            }
        }
        notes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(notes)
    }

    /// Removes a note; one that is gone already is fine.
    pub fn remove_note(&self, note: &Note) {
        remove(&note.path);
    }

    /// Removes a file and its thumbnails.
    pub fn remove_content(&self, hash: &str) -> io::Result<()> {
        remove(&self.content_path(hash));
        let folder = self.thumbnail_folder(hash);
        if folder.is_dir() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                if name.is_some_and(|name| name.starts_with(hash)) {
                    remove(&path);
                }
            }
        }
        Ok(())
    }

    /// Writes a thumbnail. A reader sees all of it or nothing.
    pub fn write_thumbnail(&self, path: &Path, bytes: &[u8], random: &dyn Random) -> io::Result<()> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let part = Part {
            path: self.incoming().join(format!("{}.part", alphanumeric(random, 24))),
        };
        let mut file = fs::File::create(&part.path)?;
        io::Write::write_all(&mut file, bytes)?;
        // Synced, because a power loss could otherwise leave the name with no bytes behind it.
        file.sync_data()?;
        fs::rename(&part.path, path)
    }

    /// Reads a file, or a part of it.
    pub async fn read(&self, path: &Path, range: Option<ByteRange>) -> io::Result<ByteStream> {
        let mut file = tokio::fs::File::open(path).await?;
        let Some(range) = range else {
            return Ok(Box::pin(ReaderStream::with_capacity(file, READ_PIECE_BYTES)));
        };
        file.seek(io::SeekFrom::Start(range.first)).await?;
        Ok(Box::pin(ReaderStream::with_capacity(
            file.take(range.length()),
            READ_PIECE_BYTES,
        )))
    }
}

/// Whether a text is a hash as it stands in file names.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An upload in progress. Dropped before its end, it leaves nothing.
pub(crate) struct Incoming {
    file: tokio::fs::File,
    hasher: Box<blake3::Hasher>,
    size: u64,
    part: Part,
}

/// An upload whose bytes are on disk, not yet in its place.
#[derive(Debug)]
pub(crate) struct Finished {
    pub hash: String,
    pub size: u64,
    part: Part,
}

impl Incoming {
    /// How many bytes came so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a piece.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hasher.update(piece);
        self.size += piece.len() as u64;
        self.file.write_all(piece).await
    }

    /// Ends the upload and waits until its bytes are on disk.
    pub async fn finish(mut self) -> io::Result<Finished> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let hash = self.hasher.finalize().to_hex().to_string();
        Ok(Finished {
            hash,
            size: self.size,
            part: self.part,
        })
    }
}

/// A temporary file, removed when it is dropped unless it was renamed.
#[derive(Debug)]
struct Part {
    path: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a media file");
        }
        _ => {}
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use hearth_core::random::SeededRandom;

    async fn collect(stream: ByteStream) -> Vec<u8> {
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn a_file_is_placed_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (files, random) = (Files::open(folder.path()).unwrap(), SeededRandom::new(1));
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let mut incoming = files.begin(&random).await.unwrap();
        for piece in bytes.chunks(7_000) {
            incoming.write(piece).await.unwrap();
        }
        assert_eq!(incoming.size(), 200_000);
        let finished = incoming.finish().await.unwrap();
        let hash = finished.hash.clone();
        assert!(is_hash(&hash));
        files.place(finished).unwrap();
        let path = files.content_path(&hash);
        assert_eq!(collect(files.read(&path, None).await.unwrap()).await, bytes);
        let range = ByteRange {
            first: 65_000,
            last: 150_000,
        };
        let part = collect(files.read(&path, Some(range)).await.unwrap()).await;
        assert_eq!(part, &bytes[65_000..=150_000]);

        let thumbnail = files.thumbnail_folder(&hash).join(format!("{hash}-1x1-crop.png"));
        files.write_thumbnail(&thumbnail, b"x", &random).unwrap();
        files.remove_content(&hash).unwrap();
        assert!(!path.exists() && !thumbnail.exists());
        assert_eq!(fs::read_dir(files.incoming()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_cut_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (files, random) = (Files::open(folder.path()).unwrap(), SeededRandom::new(1));
        let mut incoming = files.begin(&random).await.unwrap();
        incoming.write(b"half").await.unwrap();
        drop(incoming);
        assert_eq!(fs::read_dir(files.incoming()).unwrap().count(), 0);
        fs::write(files.incoming().join("left.part"), "by a crash").unwrap();
        Files::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(files.incoming()).unwrap().count(), 0);
    }

    #[test]
    fn notes() {
        let folder = tempfile::tempdir().unwrap();
        let (files, random) = (Files::open(folder.path()).unwrap(), SeededRandom::new(1));
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let note = files.write_note(&a, "x/1", &random).unwrap();
        files.write_note(&b, "x/2", &random).unwrap();
        fs::write(files.incoming().join("other.note"), "x").unwrap();
        fs::write(files.incoming().join("ü".repeat(70)), "x").unwrap();
        assert_eq!(files.notes(Some(&a)).unwrap(), std::slice::from_ref(&note));
        assert_eq!(files.notes(None).unwrap().len(), 2);
        files.remove_note(&note);
        files.remove_note(&note);
        assert!(files.notes(Some(&a)).unwrap().is_empty());
    }
}
