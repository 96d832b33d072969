//! Tests against Ruma's implementation.
