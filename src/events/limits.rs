//! Sizes that the specification sets for events.

/// The whole event with its signatures, in canonical JSON (client-server API, "Size limits").
pub const EVENT_MAX_BYTES: usize = 65_536;
/// Each of sender, room id, type, event id and state key (the same section).
pub const FIELD_MAX_BYTES: usize = 255;
/// A state key that begins with its owner's user id (MSC3757).
pub const OWNED_STATE_KEY_MAX_BYTES: usize = 511;
/// Previous events of one event (room versions, "Event format").
pub const PREV_EVENTS_MAX: usize = 20;
/// Authorization events of one event (room versions, "Event format").
pub const AUTH_EVENTS_MAX: usize = 10;
/// How deep arrays and objects may be nested: as deep as the JSON reader goes, so that whatever is stored can be read again.
pub const JSON_DEPTH_MAX: usize = 127;
/// The most digits of an integer where canonical JSON bounds none (room versions before 6): what is beyond floating-point numbers
/// common JSON readers, and ours, cannot hold, and nobody could read what has it.
pub const LAX_INTEGER_DIGITS_MAX: usize = 308;
/// The largest fraction, for the same reason.
pub const LAX_FRACTION_MAX: f64 = 1e308;
/// The largest integer of canonical JSON, 2^53 - 1.
pub const INTEGER_MAX: i64 = 9_007_199_254_740_991;
