//! The shard map, routing an operation to its entity's shard, and outbox delivery.
