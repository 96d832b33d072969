//! Application services: registrations, namespaces, ping.
