//! Names of all metrics. Durations are in seconds and sizes in bytes, as Prometheus wants them.

/// Counter by `chat_type` (`direct` for rooms of up to two people, else `group`): messages that became durable.
pub const MESSAGES_SENT: &str = "messages_sent_total";
/// Histogram: from the arrival of a send to its delivery on a waiting sync.
pub const MESSAGE_LATENCY: &str = "message_latency_seconds";
/// Gauge: syncs that wait now.
pub const SYNC_CONNECTIONS: &str = "active_sync_connections";
/// Gauge: bytes of the data directory's storage engine.
pub const STORAGE_BYTES: &str = "storage_bytes";
/// Histogram by `route`, `method` and `status`: time from the request's head to the answer's head.
pub const REQUEST_LATENCY: &str = "http_request_duration_seconds";
/// Gauge: open inbound connections.
pub const HTTP_CONNECTIONS: &str = "http_connections";
/// Counter by `class`: requests refused by a rate limit.
pub const RATE_LIMITED: &str = "rate_limited_total";
/// Histogram: operations grouped into one synced write of the log.
pub const LOG_GROUP_SIZE: &str = "log_group_operations";
/// Histogram: time of one synced write of the log.
pub const LOG_WRITE: &str = "log_write_seconds";
/// Gauge: rows of the outbox that wait for delivery.
pub const OUTBOX_WAITING: &str = "outbox_waiting_rows";
/// Counter: events committed.
pub const EVENTS_COMMITTED: &str = "events_committed_total";
/// Counter by `outcome`: outbound requests.
pub const OUTBOUND_REQUESTS: &str = "outbound_requests_total";
/// How long state resolutions took.
pub const STATE_RESOLUTION_SECONDS: &str = "state_resolution_seconds";
/// Counter by `outcome` (`success`, `status` for a refusal, `transport`, `resting` for a server that was not asked because
/// it did not answer a moment ago): signed requests to other servers.
pub const FEDERATION_REQUESTS: &str = "federation_requests_total";
/// Counter by `outcome`: transactions sent to other servers, each attempt.
pub const FEDERATION_TRANSACTIONS_SENT: &str = "federation_transactions_sent_total";
/// Counter by `source` (`server`, `notary`) and `outcome` (`success`, `failure`): fetches of other servers' keys.
pub const KEY_FETCHES: &str = "federation_key_fetches_total";
/// Gauge by `kind` (`pdu`, `edu`): what waits for other servers, in all.
pub const FEDERATION_QUEUE: &str = "federation_queue_waiting";
/// Gauge by `state` (`waiting`, `failing`): servers for which something waits, and those that did not take it.
pub const FEDERATION_DESTINATIONS: &str = "federation_destinations";
/// Gauge by `destination` and `kind`, for the servers for which most waits.
pub const FEDERATION_DESTINATION_QUEUE: &str = "federation_destination_queue_waiting";
/// Gauge by `destination` and `error` (a class, such as `status_502`): failures in a row, for the servers with most of them.
pub const FEDERATION_DESTINATION_FAILURES: &str = "federation_destination_failures";
/// Gauge: events of other servers that wait to be judged.
pub const FEDERATION_INBOUND_WAITING: &str = "federation_inbound_waiting_events";
/// Gauge: events of other servers that are held back, for want of the keys of the servers that signed them.
pub const FEDERATION_INBOUND_HELD: &str = "federation_inbound_held_events";
/// Histogram: from the arrival of another server's event until its room has judged it.
pub const FEDERATION_INBOUND_LAG: &str = "federation_inbound_lag_seconds";
/// Gauge by `origin`: the age of the oldest event that waits, for the servers whose events wait longest.
pub const FEDERATION_ORIGIN_LAG: &str = "federation_inbound_origin_lag_seconds";
/// Gauge: rooms some of whose events are put off because they failed.
pub const QUARANTINED_ROOMS: &str = "quarantined_rooms";
/// Gauge by `room_id`: what resolving its states took so far, for the rooms where it took most.
pub const STATE_RESOLUTION_ROOM: &str = "state_resolution_room_seconds";
/// Histogram over the rooms in memory, made when it is asked for: how many forward extremities they have.
pub const ROOM_EXTREMITIES: &str = "room_forward_extremities";
/// Gauge by `room_id`: forward extremities of the rooms that have most of them.
pub const ROOM_EXTREMITIES_MOST: &str = "room_forward_extremities_most";
/// Counter by `task`: panics of work that nobody waits for.
pub const TASK_PANICS: &str = "task_panics_total";
/// Counter by `task`: stored rows that cannot be read, and what they are about, which work for all passed over.
pub const TASK_SKIPPED: &str = "task_skipped_total";
/// Gauge with the label `version`, always 1.
pub const BUILD_INFO: &str = "hearth_build_info";
/// Gauge: Unix time at which the process started.
pub const PROCESS_START: &str = "process_start_time_seconds";
/// Gauge: bytes of memory the process has resident.
pub const PROCESS_MEMORY: &str = "process_resident_memory_bytes";
/// Gauge: processor time of the process so far.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";

/// The bounds of all latency histograms, in seconds: from a cache hit to a long request.
pub const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// So many servers or rooms are named by a metric that names them: those that matter most.
pub const NAMED_MAX: usize = 20;

/// The bounds of [`ROOM_EXTREMITIES`].
pub const EXTREMITY_BUCKETS: &[usize] = &[1, 2, 3, 5, 10, 20, 50, 100];

/// What each metric is: (name, kind, help). The exporter and the tests read it.
pub const DESCRIPTIONS: &[(&str, Kind, &str)] = &[
    (MESSAGES_SENT, Kind::Counter, "Durable messages, by chat_type."),
    (
        MESSAGE_LATENCY,
        Kind::Histogram,
        "Seconds from the arrival of a send to its delivery on a waiting sync.",
    ),
    (SYNC_CONNECTIONS, Kind::Gauge, "Syncs that wait now."),
    (STORAGE_BYTES, Kind::Gauge, "Bytes of the storage engine on disk."),
    (
        REQUEST_LATENCY,
        Kind::Histogram,
        "Seconds from a request's head to its answer's head, by route, method, status.",
    ),
    (HTTP_CONNECTIONS, Kind::Gauge, "Open inbound connections."),
    (
        RATE_LIMITED,
        Kind::Counter,
        "Requests refused by a rate limit, by class.",
    ),
    (
        LOG_GROUP_SIZE,
        Kind::Histogram,
        "Operations grouped into one synced write of the log.",
    ),
    (
        STATE_RESOLUTION_SECONDS,
        Kind::Histogram,
        "Seconds of one resolution of the state of several forward extremities.",
    ),
    (
        LOG_WRITE,
        Kind::Histogram,
        "Seconds of one synced write of the log.",
    ),
    (OUTBOX_WAITING, Kind::Gauge, "Outbox rows that wait for delivery."),
    (EVENTS_COMMITTED, Kind::Counter, "Events committed."),
    (
        OUTBOUND_REQUESTS,
        Kind::Counter,
        "Requests to other machines, by outcome.",
    ),
    (
        FEDERATION_TRANSACTIONS_SENT,
        Kind::Counter,
        "Transactions sent to other servers, by outcome.",
    ),
    (
        FEDERATION_REQUESTS,
        Kind::Counter,
        "Requests to other Matrix servers, by outcome.",
    ),
    (
        KEY_FETCHES,
        Kind::Counter,
        "Fetches of other servers' keys, by source and outcome.",
    ),
    (
        FEDERATION_QUEUE,
        Kind::Gauge,
        "What waits for other servers, by kind.",
    ),
    (
        FEDERATION_DESTINATIONS,
        Kind::Gauge,
        "Servers for which something waits, and those that fail, by state.",
    ),
    (
        FEDERATION_DESTINATION_QUEUE,
        Kind::Gauge,
        "What waits for the servers for which most waits, by destination and kind.",
    ),
    (
        FEDERATION_DESTINATION_FAILURES,
        Kind::Gauge,
        "Failures in a row of the servers with most of them, by destination and last error.",
    ),
    (
        FEDERATION_INBOUND_WAITING,
        Kind::Gauge,
        "Events of other servers that wait to be judged.",
    ),
    (
        FEDERATION_INBOUND_HELD,
        Kind::Gauge,
        "Events of other servers that are held back until the keys of who signed them can be had.",
    ),
    (
        FEDERATION_INBOUND_LAG,
        Kind::Histogram,
        "Seconds from the arrival of another server's event until it is judged.",
    ),
    (
        FEDERATION_ORIGIN_LAG,
        Kind::Gauge,
        "Age in seconds of the oldest waiting event, for the servers whose events wait longest, by origin.",
    ),
    (
        QUARANTINED_ROOMS,
        Kind::Gauge,
        "Rooms some of whose events are put off because they failed.",
    ),
    (
        STATE_RESOLUTION_ROOM,
        Kind::Gauge,
        "Seconds that resolving states took in the rooms where it took most, by room_id.",
    ),
    (
        ROOM_EXTREMITIES,
        Kind::Histogram,
        "Forward extremities of the rooms in memory.",
    ),
    (
        ROOM_EXTREMITIES_MOST,
        Kind::Gauge,
        "Forward extremities of the rooms that have most of them, by room_id.",
    ),
    (
        TASK_PANICS,
        Kind::Counter,
        "Panics of background tasks, by task; each is in the log.",
    ),
    (
        TASK_SKIPPED,
        Kind::Counter,
        "What background tasks passed over because a stored row cannot be read, by task; each is in the log.",
    ),
    (BUILD_INFO, Kind::Gauge, "Always 1; the label says the version."),
    (
        PROCESS_START,
        Kind::Gauge,
        "Unix time at which the process started.",
    ),
    (PROCESS_MEMORY, Kind::Gauge, "Resident memory of the process."),
    (PROCESS_CPU, Kind::Gauge, "Processor time of the process so far."),
];

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}
