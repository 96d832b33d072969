//! Metrics that are counted only when somebody asks: queues to other servers and from them, and rooms. Nothing on the way
//! of an event pays for them. What has a name (a server, a room) is among the first [`NAMED_MAX`](names::NAMED_MAX), and
//! a series ends when its subject is no longer among them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hearth_core::metrics::{self as names, Kind, NAMED_MAX};
use hearth_federation::Federation;
use hearth_federation::inbound::RoomStatus;
use hearth_federation::outbound::DestinationStatus;
use hearth_rooms::{Extremities, Rooms};

/// The rooms' part.
pub fn rooms(rooms: &Rooms, out: &mut String) {
    write_extremities(&rooms.extremities(names::EXTREMITY_BUCKETS, NAMED_MAX), out);
    let costs = rooms.resolution_costs(NAMED_MAX).into_iter();
    let costs = costs.map(|(room, took)| (label("room_id", room.as_str()), took.as_secs_f64()));
    gauge(names::STATE_RESOLUTION_ROOM, costs, out);
}

/// Federation's part.
pub fn federation(federation: &Federation, now_ms: u64, out: &mut String) {
    write_outbound(federation.outbound.status(), out);
    let held = federation.inbound.held_events();
    write_inbound(&federation.inbound.status(), held, now_ms, out);
}

fn write_extremities(found: &Extremities, out: &mut String) {
    let name = names::ROOM_EXTREMITIES;
    head(name, out);
    for (bound, rooms) in &found.buckets {
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {rooms}");
    }
    let Extremities { rooms, sum, .. } = found;
    let _ = writeln!(
        out,
        "{name}_bucket{{le=\"+Inf\"}} {rooms}\n{name}_sum {sum}\n{name}_count {rooms}\n"
    );
    let most = found.most.iter();
    let most = most.map(|(room, count)| (label("room_id", room.as_str()), *count as f64));
    gauge(names::ROOM_EXTREMITIES_MOST, most, out);
}

fn write_outbound(mut all: Vec<DestinationStatus>, out: &mut String) {
    let sum = |of: fn(&DestinationStatus) -> usize| all.iter().map(of).sum::<usize>() as f64;
    let kinds = [
        (label("kind", "pdu"), sum(|one| one.queued_pdus)),
        (label("kind", "edu"), sum(|one| one.queued_edus)),
    ];
    gauge(names::FEDERATION_QUEUE, kinds, out);
    let states = [
        (
            label("state", "waiting"),
            sum(|one| usize::from(one.waiting() > 0)),
        ),
        (
            label("state", "failing"),
            sum(|one| usize::from(one.failures > 0)),
        ),
    ];
    gauge(names::FEDERATION_DESTINATIONS, states, out);
    all.sort_by(|one, other| {
        let order = other.waiting().cmp(&one.waiting());
        order.then_with(|| one.server.cmp(&other.server))
    });
    let most = all.iter().take(NAMED_MAX).flat_map(|one| {
        let server = label("destination", one.server.as_str());
        [
            ("pdu", one.queued_pdus),
            ("edu", one.queued_edus),
            ("room_behind", one.rooms_behind),
        ]
        .map(|(kind, count)| (format!("{server},{}", label("kind", kind)), count as f64))
    });
    gauge(names::FEDERATION_DESTINATION_QUEUE, most, out);
    all.retain(|one| one.failures > 0);
    all.sort_by(|one, other| {
        let order = other.failures.cmp(&one.failures);
        order.then_with(|| one.server.cmp(&other.server))
    });
    let failing = all.iter().take(NAMED_MAX).map(|one| {
        let server = label("destination", one.server.as_str());
        let error = label("error", one.error_class.as_deref().unwrap_or_default());
        (format!("{server},{error}"), f64::from(one.failures))
    });
    gauge(names::FEDERATION_DESTINATION_FAILURES, failing, out);
}

fn write_inbound(rooms: &[RoomStatus], held: usize, now_ms: u64, out: &mut String) {
    let mut waiting = 0;
    let mut oldest: BTreeMap<&str, u64> = BTreeMap::new();
    for origin in rooms.iter().flat_map(|room| &room.origins) {
        waiting += origin.waiting;
        let at_ms = oldest.entry(origin.origin.as_str()).or_insert(u64::MAX);
        *at_ms = origin.oldest_ms.min(*at_ms);
    }
    gauge(
        names::FEDERATION_INBOUND_WAITING,
        [(String::new(), waiting as f64)],
        out,
    );
    gauge(
        names::FEDERATION_INBOUND_HELD,
        [(String::new(), held as f64)],
        out,
    );
    let quarantined = rooms.iter().filter(|room| room.is_quarantined()).count();
    gauge(
        names::QUARANTINED_ROOMS,
        [(String::new(), quarantined as f64)],
        out,
    );
    let mut oldest: Vec<_> = oldest.into_iter().collect();
    oldest.sort_by_key(|(origin, at_ms)| (*at_ms, *origin));
    let lags = oldest.into_iter().take(NAMED_MAX);
    let lags = lags.map(|(origin, at_ms)| {
        (
            label("origin", origin),
            now_ms.saturating_sub(at_ms) as f64 / 1000.0,
        )
    });
    gauge(names::FEDERATION_ORIGIN_LAG, lags, out);
}

/// One gauge: its series by their labels.
fn gauge(name: &str, series: impl IntoIterator<Item = (String, f64)>, out: &mut String) {
    head(name, out);
    for (labels, value) in series {
        let _ = match labels.as_str() {
            "" => writeln!(out, "{name} {value}"),
            labels => writeln!(out, "{name}{{{labels}}} {value}"),
        };
    }
    out.push('\n');
}

fn head(name: &str, out: &mut String) {
    let described = names::DESCRIPTIONS
        .iter()
        .find(|(described, ..)| *described == name);
    if let Some((_, kind, help)) = described {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// A label as Prometheus reads it: names of servers and rooms are what others chose.
fn label(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearth_federation::inbound::OriginStatus;
    use ruma::{OwnedRoomId, OwnedServerName};

    use super::*;

    fn server(at: usize) -> OwnedServerName {
        OwnedServerName::try_from(format!("s{at:03}.example")).expect("a name")
    }

    fn room(at: usize) -> OwnedRoomId {
        OwnedRoomId::try_from(format!("!r{at}:a")).expect("an id")
    }

    fn destination(at: usize, queued_pdus: usize, failures: u32) -> DestinationStatus {
        DestinationStatus {
            server: server(at),
            queued_pdus,
            queued_edus: 2,
            rooms_behind: 0,
            failures,
            failing_since_ms: None,
            tried_ms: None,
            pause_ms: 0,
            last_error: None,
            error_class: (failures > 0).then(|| "status_502".to_owned()),
        }
    }

    #[test]
    fn servers_are_named_within_a_bound() {
        let all = (0..300).map(|at| destination(at, at, u32::from(at == 7)));
        let mut text = String::new();
        write_outbound(all.collect(), &mut text);
        for line in [
            "federation_queue_waiting{kind=\"pdu\"} 44850",
            "federation_queue_waiting{kind=\"edu\"} 600",
            "federation_destinations{state=\"failing\"} 1",
            "federation_destination_queue_waiting{destination=\"s299.example\",kind=\"pdu\"} 299",
            "federation_destination_failures{destination=\"s007.example\",error=\"status_502\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert_eq!(text.matches("destination=").count(), 3 * NAMED_MAX + 1);
    }

    #[test]
    fn lag_is_that_of_the_oldest_event() {
        let origin = |at: usize, oldest_ms: u64, failures: u32| OriginStatus {
            origin: server(at),
            waiting: 3,
            oldest_ms,
            failures,
            paused: Duration::ZERO,
        };
        let rooms = [
            RoomStatus {
                room: room(1),
                origins: vec![origin(1, 5_000, 0), origin(2, 9_000, 1)],
            },
            RoomStatus {
                room: room(2),
                origins: vec![origin(1, 4_000, 0)],
            },
        ];
        let mut text = String::new();
        write_inbound(&rooms, 4, 10_500, &mut text);
        for line in [
            "federation_inbound_waiting_events 9",
            "federation_inbound_held_events 4",
            "quarantined_rooms 1",
            "federation_inbound_origin_lag_seconds{origin=\"s001.example\"} 6.5",
            "federation_inbound_origin_lag_seconds{origin=\"s002.example\"} 1.5",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in:\n{text}"
            );
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("room_id", "!a\"b\\c\n:d"), r#"room_id="!a\"b\\c\n:d""#);
    }
}
