//! The sync engine: notifier, tokens, what a user may see since a token, and its renderings.
