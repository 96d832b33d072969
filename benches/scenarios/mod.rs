//! One file a scenario. Each starts a server of its own on an empty folder.

pub mod disk;
pub mod encryption;
pub mod fanout;
pub mod growth;
pub mod idle_sync;
pub mod initial;
pub mod latency;
pub mod polls;
pub mod push_rules;
pub mod remote;
pub mod resolve;
pub mod sends;
pub mod sliding;
pub mod start;
