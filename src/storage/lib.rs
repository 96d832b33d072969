//! Storage engines, the schema of every column family, the shard log and its feeds.
