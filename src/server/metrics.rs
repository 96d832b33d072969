//! The Prometheus recorder of the process and what `/metrics` shows.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use hearth_core::metrics::{self as names, Kind};
use hearth_core::{Clock, Shutdown, VERSION, tasks};
use hearth_rooms::Changed;
use metrics::Counter;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Histograms keep every value until they are folded into buckets, so this is done often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once for the process: the servers of one process (tests) share it.
pub fn install(clock: &dyn Clock) {
    RECORDER.get_or_init(|| {
        let group_sizes: Vec<f64> = (0..=12).map(|power| f64::from(1u32 << power)).collect();
        let builder = PrometheusBuilder::new()
            .set_buckets(names::LATENCY_BUCKETS_SECONDS)
            .and_then(|b| {
                b.set_buckets_for_metric(Matcher::Full(names::LOG_GROUP_SIZE.to_owned()), &group_sizes)
            })
            .expect("the bucket lists are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Somebody else's recorder (a bench) may be there already; ours then shows nothing.
        let _ = metrics::set_global_recorder(recorder);
        for (name, kind, help) in names::DESCRIPTIONS.iter().copied() {
            match kind {
                Kind::Counter => metrics::describe_counter!(name, help),
                Kind::Gauge => metrics::describe_gauge!(name, help),
                Kind::Histogram => metrics::describe_histogram!(name, help),
            }
        }
        zero_what_may_not_have_happened();
        metrics::gauge!(names::BUILD_INFO, "version" => VERSION).set(1.0);
        metrics::gauge!(names::PROCESS_START).set((clock.now_ms() / 1000) as f64);
        handle
    });
}

/// A series that appears only with its first event looks like a missing one until then.
fn zero_what_may_not_have_happened() {
    for chat_type in ["direct", "group"] {
        metrics::counter!(names::MESSAGES_SENT, "chat_type" => chat_type).absolute(0);
    }
    metrics::counter!(names::EVENTS_COMMITTED).absolute(0);
    for gauge in [
        names::SYNC_CONNECTIONS,
        names::HTTP_CONNECTIONS,
        names::STORAGE_BYTES,
    ] {
        metrics::gauge!(gauge).set(0.0);
    }
    // Naming a histogram is enough for it to be shown, with a count of 0.
    let _ = metrics::histogram!(names::MESSAGE_LATENCY);
}

/// Folds histograms until the server stops.
pub fn start_upkeep(shutdown: Shutdown) {
    let upkeep = async move {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(UPKEEP_EVERY) => {}
            }
            if let Some(recorder) = RECORDER.get() {
                recorder.run_upkeep();
            }
        }
    };
    tasks::spawn("metrics upkeep", upkeep);
}

/// The counters that move with every message, found once: the log's writer counts, and what it does all wait for.
struct Counters {
    events: Counter,
    direct: Counter,
    group: Counter,
}

static COUNTERS: LazyLock<Counters> = LazyLock::new(|| {
    let messages = |chat_type| metrics::counter!(names::MESSAGES_SENT, "chat_type" => chat_type);
    Counters {
        events: metrics::counter!(names::EVENTS_COMMITTED),
        direct: messages("direct"),
        group: messages("group"),
    }
});

/// Counts what a room's change added: events of all kinds, and messages by the size of the chat.
pub fn count_events(change: &Changed<'_>) {
    if change.added.is_empty() {
        return;
    }
    COUNTERS.events.increment(change.added.len() as u64);
    let is_message = |kind: &str| matches!(kind, "m.room.message" | "m.room.encrypted" | "m.sticker");
    let sent = change
        .added
        .iter()
        .filter(|event| is_message(event.pdu.kind()))
        .count() as u64;
    if sent > 0 {
        // The server does not know which rooms a client shows as direct; two people are one in practice.
        let view = change.room.view();
        let counter = match view.joined + view.invited {
            0..=2 => &COUNTERS.direct,
            _ => &COUNTERS.group,
        };
        counter.increment(sent);
    }
}

/// The text of `/metrics`.
pub fn render(storage_bytes: Option<u64>) -> String {
    if let Some(bytes) = storage_bytes {
        metrics::gauge!(names::STORAGE_BYTES).set(bytes as f64);
    }
    if let Some(memory) = resident_bytes() {
        metrics::gauge!(names::PROCESS_MEMORY).set(memory as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        metrics::gauge!(names::PROCESS_CPU).set(seconds);
    }
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Resident memory, where the system has /proc.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processor time of all threads so far, where the system has /proc.
pub fn cpu_seconds() -> Option<f64> {
    /// The kernel shows times to programs in hundredths of a second on every platform we know.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_metrics_are_there_from_the_start() {
        install(&hearth_core::clock::ManualClock::new(0));
        let text = render(Some(1234));
        for name in [
            "messages_sent_total{chat_type=\"group\"}",
            "message_latency_seconds",
            "active_sync_connections",
            "storage_bytes 1234",
            "hearth_build_info{version=",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }

    /// Reads the sources: a name that nothing uses is a promise that `/metrics` does not keep.
    #[test]
    fn every_metric_is_recorded_and_described() {
        fn read(folder: &std::path::Path, out: &mut String) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    read(&path, out);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    out.push_str(&std::fs::read_to_string(&path).expect("a source"));
                }
            }
        }
        let sources = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let list = std::fs::read_to_string(sources.join("core/metrics.rs")).expect("the list");
        let mut rest = String::new();
        for folder in std::fs::read_dir(sources).expect("a folder") {
            let path = folder.expect("an entry").path();
            if path.is_dir() && !path.ends_with("core") {
                read(&path, &mut rest);
            }
        }
        // The one place of that crate where anything is recorded.
        rest.push_str(&std::fs::read_to_string(sources.join("core/tasks.rs")).expect("a source"));
        let mut count = 0;
        for line in list.lines().filter(|line| line.contains(": &str = \"")) {
            let constant = line.split_whitespace().nth(2).unwrap_or_default();
            let constant = constant.trim_end_matches(':');
            assert!(
                list.matches(&format!("{constant},")).count() > 0,
                "{constant} is not described"
            );
            let uses: Vec<_> = rest
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| *word == constant)
                .collect();
            assert!(!uses.is_empty(), "{constant} is never recorded");
            count += 1;
        }
        assert_eq!(count, names::DESCRIPTIONS.len());
    }

    #[test]
    fn the_process_is_measured() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
