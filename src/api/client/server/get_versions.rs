//! GET /_matrix/client/versions — Client-Server API, "API Versions".

use serde_json::{Value, json};

use crate::extract::Json;

/// The specification versions whose clients find what they call.
const VERSIONS: [&str; 20] = [
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Unstable features that work here under their unstable names; a flag leaves this list when no
/// client asks for it any more.
const UNSTABLE_FEATURES: [&str; 20] = [
    // Cross-signing, which Element Web still looks for by this name: without it no keys are made when people register,
    // and none can be verified.
    "org.matrix.e2e_cross_signing",
    // Presence `busy`.
    "org.matrix.msc3026.busy_presence",
    // Account data is deleted by DELETE, or by writing an empty object.
    "org.matrix.msc3391",
    // Dehydrated devices.
    "org.matrix.msc3814",
    // Searches of the public directory by room type, under the name by which Element Web looks for them when it asks for
    // rooms or for spaces only.
    "org.matrix.msc3827.stable",
    // Filters of `/messages` by relation.
    "org.matrix.msc3874",
    // Pushers that other devices switch off and on.
    "org.matrix.msc3881",
    // Settings of a device for its notifications, which go with it.
    "org.matrix.msc3890",
    // Relations of relations.
    "org.matrix.msc3981",
    // Delayed events.
    "org.matrix.msc4140",
    // Lists of who may invite.
    "org.matrix.msc4155",
    // Web Push.
    "org.matrix.msc4174",
    // The state after a timeline, in `/sync`.
    "org.matrix.msc4222",
    // Thread subscriptions, with their extension of sliding sync (MSC4308).
    "org.matrix.msc4306",
    // Users who take no invitations, under both names.
    "org.matrix.msc4380",
    "org.matrix.msc4380.stable",
    // Sliding sync (MSC4186) under its unstable path.
    "org.matrix.simplified_msc3575",
    // Rooms shared with another user, under both names.
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    // Profile fields of any name, as a flag that clients older than v1.16 look for.
    "uk.tcpip.msc4133.stable",
];

/// Lists what this server speaks. No authentication: clients ask before they log in.
pub async fn get_versions() -> Json<Value> {
    let unstable: serde_json::Map<String, Value> = UNSTABLE_FEATURES
        .iter()
        .map(|name| ((*name).to_owned(), true.into()))
        .collect();
    Json(json!({ "versions": VERSIONS, "unstable_features": unstable }))
}
