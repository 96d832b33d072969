//! The media repository: upload, download, thumbnails, on local disk.
