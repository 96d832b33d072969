//! What guests may call (client-server API, "Guest Access").

use hearth_core::error::{MatrixError, errcode};
use http::Method;

/// The methods and paths that are open to guests, without the prefix of the API and its version.
const OPEN: &[(Method, &str)] = &[
    // Reading rooms and their media.
    (Method::GET, "/rooms/{roomId}/state"),
    (Method::GET, "/rooms/{roomId}/state/{eventType}"),
    (Method::GET, "/rooms/{roomId}/state/{eventType}/"),
    (Method::GET, "/rooms/{roomId}/state/{eventType}/{stateKey}"),
    (Method::GET, "/rooms/{roomId}/context/{eventId}"),
    (Method::GET, "/rooms/{roomId}/event/{eventId}"),
    (Method::GET, "/rooms/{roomId}/messages"),
    (Method::GET, "/rooms/{roomId}/members"),
    (Method::GET, "/rooms/{roomId}/initialSync"),
    (Method::GET, "/sync"),
    (Method::GET, "/events"),
    (Method::GET, "/media/download/{serverName}/{mediaId}"),
    (Method::GET, "/media/download/{serverName}/{mediaId}/{fileName}"),
    (Method::GET, "/media/thumbnail/{serverName}/{mediaId}"),
    // Taking part.
    (Method::POST, "/rooms/{roomId}/join"),
    (Method::POST, "/rooms/{roomId}/leave"),
    (Method::PUT, "/rooms/{roomId}/send/{eventType}/{txnId}"),
    (Method::PUT, "/rooms/{roomId}/state/{eventType}"),
    (Method::PUT, "/rooms/{roomId}/state/{eventType}/"),
    (Method::PUT, "/rooms/{roomId}/state/{eventType}/{stateKey}"),
    (Method::PUT, "/sendToDevice/{eventType}/{txnId}"),
    // The own account; of the profile the display name alone.
    (Method::PUT, DISPLAY_NAME),
    (Method::DELETE, DISPLAY_NAME),
    (Method::GET, "/devices"),
    (Method::GET, "/devices/{deviceId}"),
    (Method::PUT, "/devices/{deviceId}"),
    (Method::GET, "/account/whoami"),
    // Encryption.
    (Method::POST, "/keys/upload"),
    (Method::POST, "/keys/query"),
    (Method::POST, "/keys/claim"),
    // NOTSPEC: what the list above makes no sense without. A room is joined by its alias as by its id; a sync has a filter, and
    // sliding sync is a sync; a guest may end the session, and ask what the server can do.
    (Method::POST, "/join/{roomIdOrAlias}"),
    (Method::POST, "/user/{userId}/filter"),
    (Method::GET, "/user/{userId}/filter/{filterId}"),
    (Method::POST, "/logout"),
    (Method::POST, "/logout/all"),
    (Method::GET, "/capabilities"),
    // MSC4140 opens delayed events to guests, for calls.
    (Method::GET, "/delayed_events"),
    (Method::GET, "/delayed_events/{delayId}"),
    (Method::POST, "/delayed_events/{delayId}"),
    (Method::POST, "/delayed_events/{delayId}/{action}"),
    (Method::PUT, "/rooms/{roomId}/delayed_event/{eventType}/{txnId}"),
];

/// The paths of sliding sync.
const SLIDING_SYNC: [&str; 2] = [
    "/_matrix/client/v4/sync",
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
];

/// The field of the profile is checked besides.
const DISPLAY_NAME: &str = "/profile/{userId}/{keyName}";

/// Refuses what is not open to guests. `route` is the path as the table of endpoints has it, `path` as it was asked for.
pub(super) fn check(method: &Method, route: &str, path: &str) -> Result<(), MatrixError> {
    let open = (*method == Method::POST && SLIDING_SYNC.contains(&route))
        || rest_of(route).is_some_and(|rest| {
            let names_display_name = rest != DISPLAY_NAME || path.ends_with("/displayname");
            let listed = |(open, at): &(Method, &str)| open == method && *at == rest;
            names_display_name && OPEN.iter().any(listed)
        });
    match open {
        true => Ok(()),
        false => Err(refusal("Guests may not do this; register an account")),
    }
}

/// M_GUEST_ACCESS_FORBIDDEN.
pub(crate) fn refusal(sentence: &str) -> MatrixError {
    MatrixError::new(403, errcode::GUEST_ACCESS_FORBIDDEN, sentence)
}

/// What follows the API's prefix and its version, or the name of an unstable feature.
fn rest_of(route: &str) -> Option<&str> {
    let rest = route.strip_prefix("/_matrix/client/")?;
    let (version, rest) = rest.split_once('/')?;
    let at = match version {
        "unstable" => rest.find('/')?,
        _ => return route.get(route.len() - rest.len() - 1..),
    };
    rest.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_may_call() {
        let check = |method: Method, route: &str, path: &str, expected: bool| {
            assert_eq!(
                super::check(&method, route, path).is_ok(),
                expected,
                "{method} {path}"
            );
        };
        let v3 = "/_matrix/client/v3";
        let send = "/rooms/{roomId}/send/{eventType}/{txnId}";
        check(Method::PUT, &format!("{v3}{send}"), "", true);
        check(Method::POST, &format!("{v3}{send}"), "", false);
        check(
            Method::GET,
            "/_matrix/client/r0/sync",
            "/_matrix/client/r0/sync",
            true,
        );
        check(Method::POST, "/_matrix/client/v4/sync", "", true);
        check(Method::POST, "/_matrix/client/v3/createRoom", "", false);
        check(
            Method::POST,
            "/_matrix/client/v3/rooms/{roomId}/invite",
            "",
            false,
        );
        let profile = format!("{v3}/profile/{{userId}}/{{keyName}}");
        check(
            Method::PUT,
            &profile,
            "/_matrix/client/v3/profile/@a:s/displayname",
            true,
        );
        check(
            Method::PUT,
            &profile,
            "/_matrix/client/v3/profile/@a:s/avatar_url",
            false,
        );
        check(
            Method::GET,
            &profile,
            "/_matrix/client/v3/profile/@a:s/displayname",
            false,
        );
        let delayed = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
        check(Method::GET, delayed, delayed, true);
        check(Method::GET, "/_synapse/admin/v1/rooms", "", false);
        check(Method::GET, "/_matrix/client", "", false);
    }
}
