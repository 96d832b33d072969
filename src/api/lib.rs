//! HTTP: endpoints, extractors, and the one place that maps errors to Matrix error codes.
