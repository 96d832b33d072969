//! What the work on one event costs.

fn main() {}
