//! The media repository: upload, download and thumbnails, on local disk; and previews of web pages.
//!
//! The bytes of a file lie under `data_dir/media`, named by their hash, so that equal files are kept
//! once. A media item's record (who uploaded it, its type and name, the hash) is its entity's row in
//! the `media` family. A file is placed and synced before its record is committed; a crash between
//! the two leaves a note that [`MediaStore::sweep`] finds at the next start.
//!
//! **Invariant:** a committed record's file is on disk. A file goes only after the last reference to
//! it, and only through `Inner::settle`.

mod disposition;
mod effects;
mod error;
mod files;
mod id;
mod locks;
mod preview;
mod range;
mod record;
mod remote;
mod store;
mod thumbnail;
mod upload;

pub use disposition::{Disposition, content_disposition, disposition_for, file_name_of, is_inline_type};
pub use effects::MEDIA_OUTBOX_OP;
pub use error::Error;
pub use files::ByteStream;
pub use id::MediaId;
pub use preview::{Policy as PreviewPolicy, Preview, PreviewSettings, Previews};
pub use range::{ByteRange, RangeOutcome, parse_range};
pub use record::{Content, MediaRecord, State};
pub use remote::{RemoteContent, RemoteMedia};
pub use store::{MediaSettings, MediaStore};
pub use thumbnail::{Method, Thumbnail, ThumbnailRequest};
pub use upload::Description;

#[cfg(test)]
mod tests;
