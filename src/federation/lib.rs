//! Other homeservers: resolving their names, their keys, signed requests to them, and the queues in both directions.

pub mod client;

pub use client::FedRequest;
