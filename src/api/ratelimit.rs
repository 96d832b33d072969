//! Rate limits: how often a user or an address may call which class of endpoint.
//!
//! Each class has one limiter keyed by user and one keyed by address. A limiter follows the
//! injected clock, so tests and simulations decide how time passes.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use hearth_core::SharedClock;
use hearth_core::config::{Config, RateLimit, RateLimits as Settings};
use hearth_core::error::MatrixError;
use hearth_core::metrics::RATE_LIMITED;
use ruma::{OwnedUserId, UserId};

/// After this many checks a limiter forgets the keys that are back at a full allowance; it bounds
/// the memory that passing users and addresses take.
const CHECKS_BETWEEN_CLEANINGS: u32 = 4096;

/// A class of endpoints that share an allowance; the settings are in `[rate_limit]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Checking a password or a login token.
    Login,
    /// Creating accounts, and guessing at tokens that let people do so.
    Registration,
    /// Sending events.
    Send,
    /// Joining and knocking.
    Join,
    /// Inviting.
    Invite,
    /// Creating and upgrading rooms.
    CreateRoom,
    /// Uploads, downloads and thumbnails.
    Media,
    /// Previews of web pages.
    UrlPreview,
    /// Searching in directories, and asking whether a name is free.
    Search,
    /// Reports to the administrators.
    Report,
    /// Requests that change something.
    Write,
    /// Requests that only read.
    Read,
}

impl Class {
    const ALL: [Class; 12] = [
        Class::Login,
        Class::Registration,
        Class::Send,
        Class::Join,
        Class::Invite,
        Class::CreateRoom,
        Class::Media,
        Class::UrlPreview,
        Class::Search,
        Class::Report,
        Class::Write,
        Class::Read,
    ];

    /// The setting, and the name in the metric.
    fn setting(self, settings: &Settings) -> (RateLimit, &'static str) {
        match self {
            Class::Login => (settings.login, "login"),
            Class::Registration => (settings.registration, "registration"),
            Class::Send => (settings.send, "send"),
            Class::Join => (settings.join, "join"),
            Class::Invite => (settings.invite, "invite"),
            Class::CreateRoom => (settings.create_room, "create_room"),
            Class::Media => (settings.media, "media"),
            Class::UrlPreview => (settings.url_preview, "url_preview"),
            Class::Search => (settings.search, "search"),
            Class::Report => (settings.report, "report"),
            Class::Write => (settings.write, "write"),
            Class::Read => (settings.read, "read"),
        }
    }
}

#[derive(Clone)]
struct LimiterClock(SharedClock);

impl Clock for LimiterClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms())
    }
}

/// A `governor` limiter on our clock.
struct Limiter<K: std::hash::Hash + Eq + Clone> {
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, LimiterClock, NoOpMiddleware<Duration>>,
    clock: LimiterClock,
    class: &'static str,
    checks: AtomicU32,
}

impl<K: std::hash::Hash + Eq + Clone> Limiter<K> {
    fn new(class: Class, settings: &Settings, clock: &LimiterClock) -> Self {
        let (limit, name) = class.setting(settings);
        // A rate of nothing would never give an allowance back; once in a day stands for it.
        let period = Duration::from_secs_f64(1.0 / limit.per_second.clamp(1.0 / 86_400.0, 1e6));
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN));
        Self {
            limiter: RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone()),
            clock: clock.clone(),
            class: name,
            checks: AtomicU32::new(0),
        }
    }

    fn check(&self, key: &K) -> Result<(), MatrixError> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_BETWEEN_CLEANINGS
            == CHECKS_BETWEEN_CLEANINGS - 1
        {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|not_until| {
            metrics::counter!(RATE_LIMITED, "class" => self.class).increment(1);
            let wait = not_until.wait_time_from(self.clock.now());
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            MatrixError::limit_exceeded(ms)
        })
    }
}

/// The limits of the server, or none if the operator switched them off.
pub struct RateLimits {
    classes: Option<Vec<(Limiter<OwnedUserId>, Limiter<IpAddr>)>>,
}

impl RateLimits {
    /// Makes the limiters that the configuration asks for.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let clock = LimiterClock(clock);
        let limiters = |class: &Class| {
            let settings = &config.rate_limit;
            (
                Limiter::new(*class, settings, &clock),
                Limiter::new(*class, settings, &clock),
            )
        };
        Self {
            classes: config
                .rate_limits
                .then(|| Class::ALL.iter().map(limiters).collect()),
        }
    }

    /// Whether limits hold at all.
    pub fn on(&self) -> bool {
        self.classes.is_some()
    }

    /// Counts one call by a user, or one try at an account; M_LIMIT_EXCEEDED if that is too many.
    pub fn user(&self, class: Class, user: &UserId) -> Result<(), MatrixError> {
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        classes[class as usize].0.check(&user.to_owned())
    }

    /// Counts one call from an address; without a known address there is nothing to count.
    pub fn address(&self, class: Class, address: Option<IpAddr>) -> Result<(), MatrixError> {
        let (Some(classes), Some(address)) = (&self.classes, address) else {
            return Ok(());
        };
        classes[class as usize].1.check(&network_of(address))
    }
}

/// One customer commonly has a whole IPv6 /64, so that is what counts as one address.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_core::clock::ManualClock;
    use ruma::user_id;

    use super::*;

    fn limits(clock: &Arc<ManualClock>, on: bool) -> RateLimits {
        let mut config = Config::for_tests("x");
        config.rate_limits = on;
        config.rate_limit.login = RateLimit {
            per_second: 0.5,
            burst: 20,
        };
        RateLimits::new(&config, clock.clone())
    }

    #[test]
    fn an_allowance_runs_out_and_comes_back() {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let limits = limits(&clock, true);
        let (alice, bob) = (user_id!("@alice:x"), user_id!("@bob:x"));
        for _ in 0..20 {
            limits.user(Class::Login, alice).expect("within the allowance");
        }
        let refused = limits
            .user(Class::Login, alice)
            .expect_err("beyond the allowance");
        assert_eq!(refused.status, 429);
        let wait_ms = refused.retry_after_ms.expect("a time to wait");
        assert!((1..=2_000).contains(&wait_ms), "{wait_ms}");
        limits
            .user(Class::Login, bob)
            .expect("another user has an allowance of his own");
        limits
            .user(Class::Send, alice)
            .expect("another class has an allowance of its own");
        clock.advance(wait_ms);
        limits.user(Class::Login, alice).expect("after the wait");
    }

    #[test]
    fn switched_off_means_no_limit() {
        let limits = limits(&Arc::new(ManualClock::new(0)), false);
        for _ in 0..10_000 {
            limits.user(Class::Login, user_id!("@alice:x")).expect("no limit");
        }
    }

    #[test]
    fn networks() {
        let check = |address: &str, network: &str| {
            let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(network_of(parse(address)), parse(network));
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
