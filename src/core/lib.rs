//! Configuration, errors, clock, random source, outbound HTTP trait, task supervision, limits and metric names.
