//! Accounts, sessions, devices, profiles, account data, filters, room lists, presence.
