//! Test support: in-process server, client model, room builder, checkers, simulated network.

pub mod client_model;
