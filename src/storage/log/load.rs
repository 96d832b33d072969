//! Whether this process keeps the machine busy.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// So long a time is looked at: shorter ones say little.
const WINDOW: Duration = Duration::from_millis(5);
/// The part of all processors that counts as all: other processes want some.
const BUSY: f64 = 0.75;

/// How much of the processors this process uses, looked at now and then.
pub(super) struct Load {
    processors: f64,
    /// The time, and the processor time of the process, when it was last looked at.
    last: Option<(Instant, Duration)>,
    is_busy: bool,
}

impl Default for Load {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Load {
            processors: processors as f64,
            last: None,
            is_busy: false,
        }
    }
}

impl Load {
    /// Whether nearly all processors have run this process lately.
    pub(super) fn is_busy(&mut self) -> bool {
        let now = Instant::now();
        if self.last.is_some_and(|(then, _)| now - then < WINDOW) {
            return self.is_busy;
        }
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32);
        if let Some((then, before)) = self.last.replace((now, used)) {
            let part = used.saturating_sub(before).as_secs_f64() / (now - then).as_secs_f64();
            // After a pause nothing is known of now.
            self.is_busy = now - then < WINDOW * 10 && part > self.processors * BUSY;
        }
        self.is_busy
    }
}
