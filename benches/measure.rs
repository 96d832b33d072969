//! What processes use, as the kernel counts it, and the arithmetic of measurements.

use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::Result;

/// The kernel counts `/proc/stat` in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The processor time of a process so far, to the nanosecond, with that of its threads that have ended.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    Ok(Duration::from(clock_getcpuclockid(pid)?.now()?))
}

/// The memory of a process that is in RAM.
pub fn resident_bytes(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kilobytes * 1024.0)
}

/// The processor time of everything on the machine so far.
fn machine_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u32> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let busy = fields
        .iter()
        .take(8)
        .enumerate()
        .filter(|(at, _)| ![3, 4].contains(at));
    Ok(TICK * busy.map(|(_, ticks)| *ticks).sum::<u32>())
}

/// What a server, its client and the rest of the machine used in a window.
pub struct Usage {
    /// How long it was.
    pub wall: Duration,
    /// Processor time of the server.
    pub server: Duration,
    /// Processor time of this program.
    pub client: Duration,
    /// Processors that everything else kept busy.
    pub others: f64,
}

/// Measures a window.
pub struct Meter {
    pid: u32,
    start: Instant,
    server: Duration,
    client: Duration,
    machine: Duration,
}

impl Meter {
    /// Starts a window for a server's process.
    pub fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            server: process_cpu(pid)?,
            client: process_cpu(std::process::id())?,
            machine: machine_cpu()?,
            start: Instant::now(),
        })
    }

    /// Ends it.
    pub fn stop(self) -> Result<Usage> {
        let wall = self.start.elapsed();
        let server = process_cpu(self.pid)?.saturating_sub(self.server);
        let client = process_cpu(std::process::id())?.saturating_sub(self.client);
        let machine = machine_cpu()?.saturating_sub(self.machine);
        let others = machine.saturating_sub(server + client).as_secs_f64() / wall.as_secs_f64();
        Ok(Usage {
            wall,
            server,
            client,
            others,
        })
    }
}

/// Microseconds for each of `count`.
pub fn micros_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// The value below which a part of the values lies.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// The middle value.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(median(&mut values), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(process_cpu(pid).unwrap() > Duration::ZERO);
        assert!(resident_bytes(pid).unwrap() > 0.0);
    }
}
