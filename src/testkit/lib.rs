//! Test support: in-process server, client model, room builder, checkers, simulated network.
//!
//! [`TestServer`] is a whole server in this process without sockets, [`TestProcess`] the real binary on RocksDB. A
//! [`Client`] speaks to either; a [`Follower`] is a client that keeps to `/sync` and is compared with a fresh one.
//! [`SimNetwork`] stands between several servers on paused time. What a server answers to any of them is compared with the
//! specification ([`openapi`]).

pub mod client;
pub mod client_model;
pub mod follower;
pub mod http;
pub mod openapi;
pub mod process;
pub mod room_builder;
pub mod server;
pub mod sim_network;
pub mod sliding_follower;

pub use client::Client;
pub use client_model::ClientModel;
pub use follower::Follower;
pub use http::{Answer, Endpoint, encode};
pub use process::TestProcess;
pub use room_builder::RoomBuilder;
pub use server::TestServer;
pub use sim_network::{Faults, SimNetwork};
pub use sliding_follower::{SlidingFollower, SlidingWire, WantedState, Window};

/// The prefix of the stable client API.
pub const V3: &str = "/_matrix/client/v3";

/// The password of every account that the kit makes.
pub const PASSWORD: &str = "correct horse battery staple";
