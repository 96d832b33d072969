//! A network of servers in one process, on paused time: every message takes its time, some get lost, some arrive
//! twice, and some links are cut. All of it is drawn from one seed in the order in which requests are made, so that a
//! single-threaded runtime takes the same course each time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hearth_core::SharedClock;
use hearth_core::clock::TokioClock;
use hearth_core::http::{
    Destination, Outbound, OutboundRequest, OutboundResponse, SharedOutbound, TransportError,
};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tower::ServiceExt;

use crate::openapi;

/// What goes wrong on the way.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How long a message takes one way, in milliseconds.
    pub delay_ms: Range<u64>,
    /// Of a hundred requests, how many never arrive.
    pub lost_requests: u32,
    /// Of a hundred replies, how many never arrive, though the request did its work.
    pub lost_replies: u32,
    /// Of a hundred requests, how many arrive a second time, later.
    pub repeats: u32,
    /// Of a hundred messages, how many take up to half a minute, so that others overtake them.
    pub slow: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_ms: 1..20,
            lost_requests: 0,
            lost_replies: 0,
            repeats: 0,
            slow: 0,
        }
    }
}

/// How long a slow message takes, in milliseconds.
const SLOW_MS: Range<u64> = 1_000..30_000;

/// The network. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork(Arc<Mutex<State>>);

/// A machine of the network.
#[derive(Clone)]
struct Host {
    router: Router,
    /// Whether it is the server under test, whose answers are to be right, and no stand-in of a test.
    is_own: bool,
}

struct State {
    random: ChaCha8Rng,
    hosts: BTreeMap<String, Host>,
    faults: Faults,
    cut: BTreeSet<(String, String)>,
    /// Who panics where it makes a request whose path begins so, and how often still.
    panics: Vec<(String, String, usize)>,
    trace: Vec<String>,
    /// How often each server crashed: what an earlier life of it sends or answers reaches nobody.
    lives: BTreeMap<String, u64>,
    /// The time that all servers go by, also those that are started later.
    clock: Option<SharedClock>,
}

/// What was drawn for one request.
struct Course {
    number: usize,
    there: Duration,
    back: Duration,
    request_lost: bool,
    reply_lost: bool,
    again_after: Option<Duration>,
}

impl SimNetwork {
    /// An empty network.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: ChaCha8Rng::seed_from_u64(seed),
            hosts: BTreeMap::new(),
            faults: Faults::default(),
            cut: BTreeSet::new(),
            panics: Vec::new(),
            trace: Vec::new(),
            lives: BTreeMap::new(),
            clock: None,
        })))
    }

    /// The simulation's clock, which begins at `start_ms` when it is first asked for.
    pub fn clock(&self, start_ms: u64) -> SharedClock {
        let mut state = self.0.lock();
        let clock = state
            .clock
            .get_or_insert_with(|| Arc::new(TokioClock::new(start_ms)));
        clock.clone()
    }

    /// Adds a host that stands in for a server, a push gateway or the like.
    pub fn add(&self, name: &str, router: Router) {
        let host = Host {
            router,
            is_own: false,
        };
        self.0.lock().hosts.insert(name.to_owned(), host);
    }

    /// Adds a server, or replaces it after a restart.
    pub(crate) fn add_server(&self, name: &str, router: Router) {
        let host = Host { router, is_own: true };
        self.0.lock().hosts.insert(name.to_owned(), host);
    }

    /// Takes a server away, as if its machine were off.
    pub fn remove(&self, name: &str) {
        self.0.lock().hosts.remove(name);
    }

    /// Ends a server's life: it answers nothing any more, and nothing comes from it. [`add`](Self::add) and a new
    /// [`link`](Self::link) are its next one.
    pub fn crash(&self, name: &str) {
        let mut state = self.0.lock();
        state.hosts.remove(name);
        *state.lives.entry(name.to_owned()).or_default() += 1;
    }

    fn life(&self, name: &str) -> u64 {
        self.0.lock().lives.get(name).copied().unwrap_or(0)
    }

    /// The outbound side of a server.
    pub fn link(&self, from: &str) -> SharedOutbound {
        Arc::new(Link {
            network: self.clone(),
            from: from.to_owned(),
            life: self.life(from),
        })
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Cuts two servers off from each other.
    pub fn partition(&self, one: &str, other: &str) {
        self.0.lock().cut.insert(pair(one, other));
    }

    /// Joins two servers again.
    pub fn heal(&self, one: &str, other: &str) {
        self.0.lock().cut.remove(&pair(one, other));
    }

    /// Makes a server panic, the next `times` times, where it makes a request whose path begins so: as a fault in its code
    /// would.
    pub fn panic_at(&self, from: &str, path: &str, times: usize) {
        let planned = (from.to_owned(), path.to_owned(), times);
        self.0.lock().panics.push(planned);
    }

    /// Whether all panics that were planned have happened.
    pub fn has_panicked(&self) -> bool {
        self.0.lock().panics.iter().all(|(_, _, left)| *left == 0)
    }

    fn is_to_panic(&self, from: &str, path: &str) -> bool {
        let mut state = self.0.lock();
        let planned = state
            .panics
            .iter_mut()
            .find(|(of, begin, left)| of == from && path.starts_with(begin.as_str()) && *left > 0);
        planned.map(|(_, _, left)| *left -= 1).is_some()
    }

    /// What happened so far, a line a step. Two runs of a seed have the same.
    pub fn trace(&self) -> Vec<String> {
        self.0.lock().trace.clone()
    }

    fn draw(&self, from: &str, to: &str, request: &OutboundRequest) -> Course {
        let mut state = self.0.lock();
        let faults = state.faults.clone();
        let number = state.trace.len();
        let line = format!(
            "{number}: {from} asks {to} {} {}",
            request.method, request.path_and_query
        );
        state.trace.push(line);
        let random = &mut state.random;
        let mut time = || {
            let is_slow = faults.slow > 0 && random.random_range(0..100) < faults.slow;
            let range = if is_slow { SLOW_MS } else { faults.delay_ms.clone() };
            match range.is_empty() {
                true => Duration::ZERO,
                false => Duration::from_millis(random.random_range(range)),
            }
        };
        let (there, back, later) = (time(), time(), time());
        let mut chance = |percent: u32| random.random_range(0..100) < percent;
        let request_lost = chance(faults.lost_requests);
        let reply_lost = chance(faults.lost_replies);
        let repeats = chance(faults.repeats);
        Course {
            number,
            there,
            back,
            request_lost,
            reply_lost,
            again_after: repeats.then_some(later),
        }
    }

    fn note(&self, number: usize, what: &str) {
        self.0.lock().trace.push(format!("{number}: {what}"));
    }

    /// Whether a server under test has this name, and no stand-in of a test.
    fn is_own(&self, name: &str) -> bool {
        self.0.lock().hosts.get(name).is_some_and(|host| host.is_own)
    }

    fn is_cut(&self, one: &str, other: &str) -> bool {
        self.0.lock().cut.contains(&pair(one, other))
    }

    /// The answer of a server to a request that arrives now.
    async fn deliver(&self, to: &str, request: &OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let unreachable = |why: String| TransportError::Unreachable(why);
        let host = self.0.lock().hosts.get(to).cloned();
        let host = host.ok_or_else(|| unreachable(format!("there is no server {to}")))?;
        let life = self.life(to);
        let mut inbound = Request::builder()
            .method(request.method.clone())
            .uri(&request.path_and_query)
            .body(Body::from(request.body.clone()))
            .map_err(|error| unreachable(error.to_string()))?;
        *inbound.headers_mut() = request.headers.clone();
        let response = host
            .router
            .oneshot(inbound)
            .await
            .unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let body: Bytes = body
            .collect()
            .await
            .map_err(|error| unreachable(error.to_string()))?
            .to_bytes();
        if self.life(to) != life {
            return Err(unreachable(format!("{to} crashed")));
        }
        if host.is_own {
            let (method, path) = (request.method.as_str(), &request.path_and_query);
            let status = parts.status.as_u16();
            openapi::note(openapi::wrong_answer(method, path, status, &parts.headers, &body));
        }
        if body.len() > request.max_response_bytes {
            return Err(TransportError::TooLarge);
        }
        Ok(OutboundResponse {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    async fn carry(
        &self,
        from: &str,
        to: &str,
        request: OutboundRequest,
    ) -> Result<OutboundResponse, TransportError> {
        if self.is_own(from) {
            let (method, path) = (request.method.as_str(), &request.path_and_query);
            openapi::note(openapi::wrong_request(method, path, &request.body));
        }
        let course = self.draw(from, to, &request);
        tokio::time::sleep(course.there).await;
        if course.request_lost || self.is_cut(from, to) {
            self.note(course.number, "the request is lost");
            return never().await;
        }
        if let Some(later) = course.again_after {
            let (network, to, request) = (self.clone(), to.to_owned(), request.clone());
            hearth_core::tasks::spawn("repeated request", async move {
                tokio::time::sleep(later).await;
                network.note(course.number, "the request arrives again");
                drop(network.deliver(&to, &request).await);
            });
        }
        // The work goes on where the one who asked gives up.
        let (network, name) = (self.clone(), to.to_owned());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        hearth_core::tasks::spawn("simulated request", async move {
            drop(sender.send(network.deliver(&name, &request).await));
        });
        let answer = receiver
            .await
            .map_err(|_| TransportError::Unreachable("the server stopped".to_owned()))?;
        tokio::time::sleep(course.back).await;
        if course.reply_lost || self.is_cut(from, to) {
            self.note(course.number, "the reply is lost");
            return never().await;
        }
        let outcome = match &answer {
            Ok(answer) => format!("the reply is {}", answer.status.as_u16()),
            Err(error) => format!("there is no reply: {error}"),
        };
        self.note(course.number, &outcome);
        answer
    }
}

/// Who waits for this waits until the time of the request runs out.
async fn never() -> Result<OutboundResponse, TransportError> {
    std::future::pending().await
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (one, other) = if one <= other { (one, other) } else { (other, one) };
    (one.to_owned(), other.to_owned())
}

/// One server's way out.
struct Link {
    network: SimNetwork,
    from: String,
    life: u64,
}

impl Link {
    /// Whether the server crashed since.
    fn is_over(&self) -> bool {
        self.network.life(&self.from) != self.life
    }
}

#[async_trait]
impl Outbound for Link {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let to = match &request.destination {
            Destination::Server(name) => name.clone(),
            Destination::Url(url) => url
                .split_once("://")
                .map_or(url.as_str(), |(_, rest)| rest)
                .to_owned(),
        };
        if self.is_over() {
            return Err(TransportError::Unreachable(format!("{} crashed", self.from)));
        }
        let panics = self.network.is_to_panic(&self.from, &request.path_and_query);
        assert!(!panics, "on purpose");
        let timeout = request.timeout;
        let carried = self.network.carry(&self.from, &to, request);
        let outcome = match tokio::time::timeout(timeout, carried).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Timeout),
        };
        match self.is_over() {
            true => Err(TransportError::Unreachable(format!("{} crashed", self.from))),
            false => outcome,
        }
    }
}
