//! Where answers differ from the specification's files and the files are wrong, or a proposal goes beyond them.

use super::schema::Violation;

/// A difference that is no fault. The reason stands before it.
struct Deviation {
    /// The operationId.
    operation: &'static str,
    /// A part of the path or query of the requests in which it may be; empty where it may be in all.
    asked: &'static str,
    /// Where it may be: the JSON pointer, with `*` for any one segment, or `**` at its end for any number of them.
    pointer: &'static str,
    /// How what is expected there begins.
    expected: &'static str,
}

const DEVIATIONS: &[Deviation] = &[
    // matrix-nio reads no list of devices in which what is not known is absent.
    Deviation {
        operation: "getDevices",
        asked: "",
        pointer: "/devices/*/*",
        expected: "string, not null",
    },
    Deviation {
        operation: "getDevices",
        asked: "",
        pointer: "/devices/*/last_seen_ts",
        expected: "integer, not null",
    },
    Deviation {
        operation: "getDevice",
        asked: "",
        pointer: "/*",
        expected: "string, not null",
    },
    Deviation {
        operation: "getDevice",
        asked: "",
        pointer: "/last_seen_ts",
        expected: "integer, not null",
    },
    // A member without a name or picture has null for it: clients have come to expect both (Complement does too).
    Deviation {
        operation: "getJoinedMembersByRoom",
        asked: "",
        pointer: "/joined/*/*",
        expected: "string, not null",
    },
    // Events lost their `origin` in version 1.3 of the specification; these three files have kept it.
    Deviation {
        operation: "sendJoinV2",
        asked: "",
        pointer: "",
        expected: "a member \"origin\"",
    },
    Deviation {
        operation: "sendLeaveV2",
        asked: "",
        pointer: "",
        expected: "a member \"origin\"",
    },
    Deviation {
        operation: "sendKnock",
        asked: "",
        pointer: "",
        expected: "a member \"origin\"",
    },
    Deviation {
        operation: "sendInviteV1",
        asked: "",
        pointer: "**",
        expected: "a member \"origin\"",
    },
    Deviation {
        operation: "sendInviteV2",
        asked: "",
        pointer: "/event",
        expected: "a member \"origin\"",
    },
    // A delayed event has no id yet (MSC4140).
    Deviation {
        operation: "sendMessage",
        asked: "org.matrix.msc4140.delay=",
        pointer: "",
        expected: "a member \"event_id\"",
    },
    Deviation {
        operation: "setRoomStateWithKey",
        asked: "org.matrix.msc4140.delay=",
        pointer: "",
        expected: "a member \"event_id\"",
    },
    // Without a TURN server the answer is an empty object, which clients read as that.
    Deviation {
        operation: "getTurnServer",
        asked: "",
        pointer: "",
        expected: "a member ",
    },
    // A new subscription of Web Push is still to be activated (MSC4174).
    Deviation {
        operation: "postPusher",
        asked: "",
        pointer: "",
        expected: "another status, as 201 is not described",
    },
    // The filter names the members that are left.
    Deviation {
        operation: "sync",
        asked: "event_fields",
        pointer: "/rooms/**",
        expected: "a member ",
    },
    // The old stream of events has in it what is no event of a room: typing, receipts, presence.
    Deviation {
        operation: "getEvents",
        asked: "",
        pointer: "/chunk/*",
        expected: "a member ",
    },
];

/// Whether a violation is known to be none.
pub(super) fn is_known(operation: &str, asked: &str, found: &Violation) -> bool {
    DEVIATIONS.iter().any(|one| {
        one.operation == operation
            && asked.contains(one.asked)
            && found.expected.starts_with(one.expected)
            && is_like(one.pointer, &found.pointer)
    })
}

fn is_like(known: &str, pointer: &str) -> bool {
    if let Some(begin) = known.strip_suffix("**") {
        return pointer.starts_with(begin);
    }
    let (known, pointer): (Vec<_>, Vec<_>) = (known.split('/').collect(), pointer.split('/').collect());
    known.len() == pointer.len()
        && known
            .iter()
            .zip(&pointer)
            .all(|(known, name)| known == name || *known == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_with_stars() {
        assert!(is_like("", ""));
        assert!(is_like("/a/*/c", "/a/b~1/c"));
        assert!(!is_like("/a/*", "/a/b/c"));
        assert!(!is_like("/a/*", "/b/c"));
        assert!(is_like("/a/**", "/a/b/c"));
        assert!(!is_like("/a/**", "/b"));
    }
}
