//! Checks of values that the types cannot make.

use std::net::{IpAddr, Ipv6Addr};

use super::types::RateLimit;
use super::{Config, ListenerConfig};

/// A server name is at most this long, so that `@x:name` stays within 255 bytes.
const SERVER_NAME_MAX_BYTES: usize = 230;
/// The length of 32 bytes in unpadded base64.
const ED25519_BASE64_CHARS: usize = 43;
/// The specification's limit of a user id.
const USER_ID_MAX_BYTES: usize = crate::limits::ID_MAX_BYTES;

/// Everything that is wrong, one sentence each, beginning with the key.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    names(config, &mut out);
    listeners(config, &mut out);
    numbers(config, &mut out);
    urls(config, &mut out);
    out
}

fn names(config: &Config, out: &mut Vec<String>) {
    if !is_valid_server_name(&config.server_name) {
        out.push(format!(
            "server_name: {:?} is not a server name like example.org or example.org:8448",
            config.server_name
        ));
    }
    for name in &config.trusted_key_servers {
        if !is_valid_server_name(name) {
            out.push(format!("trusted_key_servers: {name:?} is not a server name"));
        }
    }
    for former in &config.old_verify_keys {
        let version = former.id.strip_prefix("ed25519:").unwrap_or_default();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if version.is_empty() || !version.bytes().all(word) {
            out.push(format!(
                "old_verify_keys: {:?} is not the id of a key, like ed25519:a_1",
                former.id
            ));
        }
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        if former.key.len() != ED25519_BASE64_CHARS || !former.key.bytes().all(base64) {
            out.push(format!(
                "old_verify_keys: the key of {:?} is not a public ed25519 key in unpadded base64",
                former.id
            ));
        }
    }
    for admin in &config.admins {
        let local = admin.strip_prefix('@').and_then(|rest| rest.split_once(':'));
        if local.is_none_or(|(localpart, server)| localpart.is_empty() || server != config.server_name) {
            out.push(format!(
                "admins: {admin:?} is not a full user id of this server, like @admin:{}",
                config.server_name
            ));
        }
    }
    if let Some(server) = &config.well_known.server
        && !is_valid_server_name(server)
    {
        out.push(format!(
            "well_known.server: {server:?} is not a server name with an optional port"
        ));
    }
    server_notices(config, out);
    turn(config, out);
    preview_hosts(config, out);
    let versions = 1..=12;
    if !versions
        .clone()
        .any(|version| version.to_string() == config.default_room_version)
    {
        out.push(format!(
            "default_room_version: {:?} is not one of \"1\" to \"12\"",
            config.default_room_version
        ));
    }
    for contact in &config.well_known.support_contacts {
        if contact.matrix_id.is_none() && contact.email_address.is_none() {
            out.push(
                "well_known.support_contacts: a contact needs a matrix_id or an email_address".to_owned(),
            );
        }
    }
    if config
        .registration_shared_secret
        .as_ref()
        .is_some_and(|secret| secret.expose().is_empty())
    {
        out.push("registration_shared_secret: it is empty".to_owned());
    }
    if config
        .registration_tokens
        .iter()
        .any(|token| !is_registration_token(token.expose()))
    {
        out.push("registration_tokens: a token has 1 to 64 characters of A-Z a-z 0-9 . _ ~ -".to_owned());
    }
}

fn preview_hosts(config: &Config, out: &mut Vec<String>) {
    let lists = [
        ("allow", &config.url_preview.allow),
        ("deny", &config.url_preview.deny),
    ];
    for (key, list) in lists {
        for host in list
            .iter()
            .filter(|host| !is_host_name(host) && host.parse::<IpAddr>().is_err())
        {
            out.push(format!(
                "url_preview.{key}: {host:?} is not a host name like example.org"
            ));
        }
    }
}

fn server_notices(config: &Config, out: &mut Vec<String>) {
    let notices = &config.server_notices;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._=-/+".contains(&b);
    let most = USER_ID_MAX_BYTES.saturating_sub(config.server_name.len() + "@:".len());
    let is_name = |name: &str| (1..=most).contains(&name.len()) && name.bytes().all(allowed);
    if let Some(localpart) = notices.localpart.as_deref().filter(|name| !is_name(name)) {
        out.push(format!(
            "server_notices.localpart: {localpart:?} is not the local part of a user id, such as \"notices\""
        ));
    }
    if let Some(avatar) = notices
        .avatar_url
        .as_deref()
        .filter(|url| !url.starts_with("mxc://"))
    {
        out.push(format!(
            "server_notices.avatar_url: {avatar:?} does not begin with mxc://"
        ));
    }
}

fn turn(config: &Config, out: &mut Vec<String>) {
    let turn = &config.turn;
    for uri in &turn.uris {
        let host = uri.strip_prefix("turn:").or_else(|| uri.strip_prefix("turns:"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/'))
            || uri.contains(char::is_whitespace)
        {
            out.push(format!(
                "turn.uris: {uri:?} is not an address like turn:turn.example.org?transport=udp"
            ));
        }
    }
    let is_secret = turn.shared_secret.is_some();
    let is_fixed = turn.username.is_some() && turn.password.is_some();
    if !turn.uris.is_empty() && !is_secret && !is_fixed {
        out.push(
            "turn.shared_secret: it is needed with turn.uris, or turn.username and turn.password are"
                .to_owned(),
        );
    }
}

fn is_registration_token(token: &str) -> bool {
    (1..=64).contains(&token.len())
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
}

fn listeners(config: &Config, out: &mut Vec<String>) {
    if config.tls_certificate.is_some() != config.tls_key.is_some() {
        out.push("tls_certificate: tls_certificate and tls_key must be set together".to_owned());
    }
    if config.federation_listen.is_some() && config.tls_certificate.is_none() {
        out.push("federation_listen: it needs tls_certificate and tls_key".to_owned());
    }
    let all = config.all_listeners();
    for (i, listener) in all.iter().enumerate() {
        let key = match i {
            0 => "client_listen",
            1 if config.federation_listen.is_some() => "federation_listen",
            _ => "listeners",
        };
        listener_problem(key, listener, out);
        let fixed_port = !listener.address.ends_with(":0");
        if fixed_port && all[..i].iter().any(|other| other.address == listener.address) {
            out.push(format!("{key}: {} is listened on twice", listener.address));
        }
    }
}

fn listener_problem(key: &str, listener: &ListenerConfig, out: &mut Vec<String>) {
    if !is_listen_address(&listener.address) {
        out.push(format!(
            "{key}: {:?} is not an address with a port, like 127.0.0.1:8008",
            listener.address
        ));
    }
    if listener.apis.is_empty() {
        out.push(format!(
            "{key}: {} serves nothing; list its apis",
            listener.address
        ));
    }
    if listener.tls_certificate.is_some() != listener.tls_key.is_some() {
        out.push(format!(
            "{key}: {} needs tls_certificate and tls_key together",
            listener.address
        ));
    }
    if key == "listeners" && listener.tls && listener.tls_certificate.is_none() {
        out.push(format!(
            "{key}: {} has tls = true but no tls_certificate and tls_key",
            listener.address
        ));
    }
}

fn is_listen_address(text: &str) -> bool {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    is_host_name(host) && port.parse::<u16>().is_ok()
}

fn numbers(config: &Config, out: &mut Vec<String>) {
    let mut within = |key: &str, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            out.push(format!("{key}: {value} is not between {least} and {most}"));
        }
    };
    within("shards", config.shards.into(), 1, 1024);
    within("max_connections", config.max_connections as u64, 1, 1_000_000);
    within("max_upload_bytes", config.max_upload_bytes, 1, 1 << 40);
    // A whole event of 64 kB must fit, with room for createRoom's initial state.
    within("max_request_bytes", config.max_request_bytes, 65_536, 256 << 20);
    within("memory_limit", config.memory_limit, 16 << 20, 1 << 44);
    within(
        "session.access_token_seconds",
        config.session.access_token_seconds,
        1,
        10 * 365 * 86_400,
    );
    within(
        "url_preview.keep_seconds",
        config.url_preview.keep_seconds,
        0,
        365 * 86_400,
    );
    within("turn.ttl_seconds", config.turn.ttl_seconds, 60, 365 * 86_400);
    within(
        "session.password_min_chars",
        config.session.password_min_chars as u64,
        1,
        64,
    );
    within(
        "session.password_hash_memory",
        config.session.password_hash_memory,
        64 << 10,
        4 << 30,
    );
    within(
        "session.password_hash_passes",
        config.session.password_hash_passes.into(),
        1,
        100,
    );
    let experimental = &config.experimental;
    within(
        "experimental.delayed_events_per_user",
        experimental.delayed_events_per_user as u64,
        0,
        10_000,
    );
    within(
        "experimental.delayed_events_max_seconds",
        experimental.delayed_events_max_seconds,
        1,
        366 * 86_400,
    );
    let limits = &config.rate_limit;
    for (key, limit) in [
        ("login", limits.login),
        ("registration", limits.registration),
        ("send", limits.send),
        ("join", limits.join),
        ("invite", limits.invite),
        ("inviting_server", limits.inviting_server),
        ("invited_user", limits.invited_user),
        ("create_room", limits.create_room),
        ("media", limits.media),
        ("url_preview", limits.url_preview),
        ("search", limits.search),
        ("report", limits.report),
        ("write", limits.write),
        ("read", limits.read),
    ] {
        if let Some(problem) = rate_problem(limit) {
            out.push(format!("rate_limit.{key}: {problem}"));
        }
    }
}

fn rate_problem(limit: RateLimit) -> Option<&'static str> {
    if !(limit.per_second > 0.0 && limit.per_second <= 1e6) {
        return Some("per_second must be above 0 and at most 1000000; rate_limits = false turns limits off");
    }
    (limit.burst == 0).then_some("burst must be at least 1")
}

fn urls(config: &Config, out: &mut Vec<String>) {
    let mut check = |key: &str, url: &str| {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let fits = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if !fits || url.contains(char::is_whitespace) {
            out.push(format!(
                "{key}: {url:?} is not a URL that begins with https:// or http://"
            ));
        }
    };
    if let Some(url) = &config.public_base_url {
        check("public_base_url", url);
    }
    if let Some(url) = &config.well_known.support_page {
        check("well_known.support_page", url);
    }
    for policy in &config.terms {
        check("terms", &policy.url);
    }
}

/// The grammar of server names: a DNS name or an address, with an optional port.
pub fn is_valid_server_name(name: &str) -> bool {
    if name.len() > SERVER_NAME_MAX_BYTES {
        return false;
    }
    let (host, port) = if let Some(rest) = name.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<Ipv6Addr>().is_err() {
            return false;
        }
        match port.strip_prefix(':') {
            Some(port) => ("", Some(port)),
            None if port.is_empty() => ("", None),
            None => return false,
        }
    } else {
        match name.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (name, None),
        }
    };
    let port_fits = port.is_none_or(|port| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    });
    port_fits && (name.starts_with('[') || is_host_name(host))
}

fn is_host_name(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) {
        return true;
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::super::load::{ConfigError, from_text};
    use super::*;

    #[test]
    fn server_names() {
        let cases = [
            ("example.org", true),
            ("localhost", true),
            ("example.org:8448", true),
            ("1.2.3.4", true),
            ("1.2.3.4:80", true),
            ("[::1]", true),
            ("[2001:db8::1]:8448", true),
            ("EXAMPLE.org", true),
            ("", false),
            ("exa mple.org", false),
            ("example.org:", false),
            ("example.org:99999", false),
            ("example.org:+1", false),
            ("https://example.org", false),
            ("example.org/path", false),
            ("under_score.org", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[example.org]", false),
            ("::1", false),
        ];
        for (name, valid) in cases {
            assert_eq!(is_valid_server_name(name), valid, "{name:?}");
        }
        assert!(!is_valid_server_name(&"a".repeat(231)));
    }

    #[test]
    fn problems_begin_with_their_key() {
        let cases = [
            ("server_name = \"not a name\"", "server_name"),
            ("client_listen = \"8008\"", "client_listen"),
            ("client_listen = \"127.0.0.1:808080\"", "client_listen"),
            ("tls_certificate = \"a.pem\"", "tls_certificate"),
            ("federation_listen = \"0.0.0.0:8448\"", "federation_listen"),
            (
                "listeners = [{ address = \"0.0.0.0:1\", apis = [] }]",
                "listeners",
            ),
            (
                "listeners = [{ address = \"0.0.0.0:1\", apis = [\"client\"], tls = true }]",
                "listeners",
            ),
            (
                "listeners = [{ address = \"0.0.0.0:1\", apis = [\"client\"], tls_key = \"k\" }]",
                "listeners",
            ),
            (
                "listeners = [{ address = \"127.0.0.1:8008\", apis = [\"client\"] }]",
                "listeners",
            ),
            ("shards = 0", "shards"),
            ("shards = 1025", "shards"),
            ("memory_limit = 1", "memory_limit"),
            ("max_request_bytes = 10", "max_request_bytes"),
            ("default_room_version = \"13\"", "default_room_version"),
            ("default_room_version = \"01\"", "default_room_version"),
            ("public_base_url = \"example.org\"", "public_base_url"),
            ("admins = [\"admin\"]", "admins"),
            ("admins = [\"@admin:elsewhere.org\"]", "admins"),
            ("trusted_key_servers = [\"a b\"]", "trusted_key_servers"),
            (
                "old_verify_keys = [{ id = \"a_1\", key = \"Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw\", expired_ts = 1 }]",
                "old_verify_keys",
            ),
            (
                "old_verify_keys = [{ id = \"ed25519:a_1\", key = \"Noi6\", expired_ts = 1 }]",
                "old_verify_keys",
            ),
            ("registration_shared_secret = \"\"", "registration_shared_secret"),
            ("registration_tokens = [\"not good\"]", "registration_tokens"),
            (
                "rate_limit.send = { per_second = 0, burst = 1 }",
                "rate_limit.send",
            ),
            (
                "rate_limit.send = { per_second = 1, burst = 0 }",
                "rate_limit.send",
            ),
            ("well_known.server = \"https://x\"", "well_known.server"),
            (
                "well_known.support_contacts = [{ role = \"m.role.admin\" }]",
                "well_known.support_contacts",
            ),
            (
                "server_notices.localpart = \"Not a name\"",
                "server_notices.localpart",
            ),
            ("url_preview.deny = [\"https://example.org\"]", "url_preview.deny"),
            (
                "url_preview.keep_seconds = 99999999999",
                "url_preview.keep_seconds",
            ),
            ("server_notices.localpart = \"\"", "server_notices.localpart"),
            ("turn.uris = [\"turn:turn.example.org\"]", "turn.shared_secret"),
            (
                "turn = { uris = [\"https://turn.example.org\"], shared_secret = \"s\" }",
                "turn.uris",
            ),
            ("turn.ttl_seconds = 1", "turn.ttl_seconds"),
            (
                "server_notices.avatar_url = \"https://x\"",
                "server_notices.avatar_url",
            ),
            (
                "terms = [{ id = \"a\", version = \"1\", name = \"A\", url = \"x\" }]",
                "terms",
            ),
        ];
        for (text, key) in cases {
            match from_text(text, "f", &|_| None) {
                Err(ConfigError::Invalid { problems }) => {
                    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
                    assert!(
                        problems[0].starts_with(&format!("{key}: ")),
                        "{text}: {problems:?}"
                    );
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
