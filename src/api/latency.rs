//! The latency metric by route, method and class of status. Finding a series by its labels means to copy and hash them,
//! which for most requests is more work than the rest of the edge: so the series that were used are kept at hand.

use std::sync::OnceLock;
use std::time::Duration;

use dashmap::DashMap;
use hearth_core::metrics::REQUEST_LATENCY;
use http::{Method, StatusCode};
use metrics::Histogram;

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "other"];
/// Single statuses would multiply the series; the class says what an operator looks for.
const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

type Series = [[OnceLock<Histogram>; STATUSES.len()]; METHODS.len()];

/// The series of all routes that were asked. The routes come from the endpoint tables, so there is a bound to them.
#[derive(Default)]
pub struct Latencies(DashMap<String, Box<Series>>);

impl Latencies {
    /// Records one answer.
    pub fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let (method, status) = (method_index(method), status_index(status));
        let record = |series: &Series| {
            let labels = || {
                let (method, status) = (METHODS[method], STATUSES[status]);
                let route = route.to_owned();
                metrics::histogram!(REQUEST_LATENCY, "route" => route, "method" => method, "status" => status)
            };
            series[method][status]
                .get_or_init(labels)
                .record(took.as_secs_f64());
        };
        match self.0.get(route) {
            Some(series) => record(&series),
            None => record(&self.0.entry(route.to_owned()).or_default()),
        }
    }
}

fn status_index(status: StatusCode) -> usize {
    match status.as_u16() {
        0..300 => 0,
        300..400 => 1,
        400..500 => 2,
        _ => 3,
    }
}

/// The methods come from outside, so only the known ones become label values.
fn method_index(method: &Method) -> usize {
    let known = METHODS.iter().position(|known| *known == method.as_str());
    known.unwrap_or(METHODS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let method = |name: &[u8]| METHODS[method_index(&Method::from_bytes(name).expect("a method"))];
        assert_eq!(
            [method(b"PUT"), method(b"PATCH"), method(b"other")],
            ["PUT", "other", "other"]
        );
        let status = |code| STATUSES[status_index(StatusCode::from_u16(code).expect("a status"))];
        assert_eq!(
            [100, 200, 302, 404, 500, 999].map(status),
            ["2xx", "2xx", "3xx", "4xx", "5xx", "5xx"]
        );
    }
}
