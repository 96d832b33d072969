//! Rate limits: how often a user, an address or another server may call which class of endpoint.
//!
//! Each class has one limiter keyed by user, one keyed by address and one keyed by server. A limiter follows the
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
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

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
    /// Invitations that another server brings.
    InvitingServer,
    /// Invitations of one user of this server that another server brings.
    InvitedUser,
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
    const ALL: [Class; 14] = [
        Class::Login,
        Class::Registration,
        Class::Send,
        Class::Join,
        Class::Invite,
        Class::InvitingServer,
        Class::InvitedUser,
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
            Class::InvitingServer => (settings.inviting_server, "inviting_server"),
            Class::InvitedUser => (settings.invited_user, "invited_user"),
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

/// The limiters of a class.
struct Limiters {
    users: Limiter<OwnedUserId>,
    addresses: Limiter<IpAddr>,
    servers: Limiter<(OwnedServerName, Option<OwnedUserId>)>,
}

/// The limits of the server, or none if the operator switched them off.
pub struct RateLimits {
    classes: Option<Vec<Limiters>>,
}

impl RateLimits {
    /// Makes the limiters that the configuration asks for.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let clock = LimiterClock(clock);
        let limiters = |class: &Class| {
            let settings = &config.rate_limit;
            Limiters {
                users: Limiter::new(*class, settings, &clock),
                addresses: Limiter::new(*class, settings, &clock),
                servers: Limiter::new(*class, settings, &clock),
            }
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
        classes[class as usize].users.check(&user.to_owned())
    }

    /// Counts one call by another server.
    pub fn server(&self, class: Class, server: &ServerName) -> Result<(), MatrixError> {
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        classes[class as usize].servers.check(&(server.to_owned(), None))
    }

    /// Counts what another server brings for a user of this one. Each server has an allowance of its own for the user, so
    /// that none can keep out what others bring.
    pub fn server_for(&self, class: Class, server: &ServerName, user: &UserId) -> Result<(), MatrixError> {
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        let key = (server.to_owned(), Some(user.to_owned()));
        classes[class as usize].servers.check(&key)
    }

    /// Counts one call from an address; without a known address there is nothing to count.
    pub fn address(&self, class: Class, address: Option<IpAddr>) -> Result<(), MatrixError> {
        let (Some(classes), Some(address)) = (&self.classes, address) else {
            return Ok(());
        };
        classes[class as usize].addresses.check(&network_of(address))
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
    use ruma::{server_name, user_id};

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
    fn servers_have_allowances_of_their_own() {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let limits = limits(&clock, true);
        let burst = Config::for_tests("x").rate_limit.inviting_server.burst;
        let (one, other) = (server_name!("one"), server_name!("other"));
        for _ in 0..burst {
            limits
                .server(Class::InvitingServer, one)
                .expect("within the allowance");
        }
        let refused = limits
            .server(Class::InvitingServer, one)
            .expect_err("beyond the allowance");
        assert_eq!(refused.status, 429);
        limits
            .server(Class::InvitingServer, other)
            .expect("another server");
        limits.server(Class::InvitedUser, one).expect("another class");
        let (alice, bob) = (user_id!("@alice:x"), user_id!("@bob:x"));
        let of_user = |server, user| limits.server_for(Class::InvitedUser, server, user);
        for _ in 0..Config::for_tests("x").rate_limit.invited_user.burst {
            of_user(one, alice).expect("within the allowance");
        }
        assert_eq!(of_user(one, alice).expect_err("too many").status, 429);
        of_user(one, bob).expect("another user");
        of_user(other, alice).expect("no server uses up what another one may");
        clock.advance(refused.retry_after_ms.expect("a time to wait"));
        limits.server(Class::InvitingServer, one).expect("after the wait");
    }

    #[test]
    fn every_class_has_its_place() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at, "{class:?}");
        }
    }

    #[test]
    fn switched_off_means_no_limit() {
        let limits = limits(&Arc::new(ManualClock::new(0)), false);
        for _ in 0..10_000 {
            limits.user(Class::Login, user_id!("@alice:x")).expect("no limit");
            limits
                .server(Class::InvitingServer, server_name!("x"))
                .expect("no limit");
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
