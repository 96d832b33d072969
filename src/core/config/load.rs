//! Loading: the file, the environment over it, the defaults under it; unknown keys with a hint.

use std::path::Path;

use confique::meta::{FieldKind, Meta};
use confique::{Config as Schema, Layer as _};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::Config;

type ConfigLayer = <Config as Schema>::Layer;
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a configuration cannot be used. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not TOML, or a value has a wrong type.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: String,
        /// What is wrong, with the line.
        message: String,
    },
    /// A key that does not exist.
    #[error("{path}, line {line}: unknown key {key:?}{}", did_you_mean(.hint))]
    UnknownKey {
        /// The file.
        path: String,
        /// The line.
        line: usize,
        /// The key, with its section.
        key: String,
        /// The key that was probably meant.
        hint: Option<String>,
    },
    /// An environment variable has a wrong value.
    #[error("environment variable {variable}: {message}")]
    Environment {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that do not make sense.
    #[error("{}", .problems.join("\n"))]
    Invalid {
        /// One sentence for each, beginning with the key.
        problems: Vec<String>,
    },
}

fn did_you_mean(hint: &Option<String>) -> String {
    hint.as_ref()
        .map(|hint| format!("; did you mean {hint:?}?"))
        .unwrap_or_default()
}

pub(super) fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let Some(path) = path else {
        return from_text("", "defaults", environment);
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: name.clone(),
        error,
    })?;
    from_text(&text, &name, environment)
}

pub(super) fn from_text(text: &str, name: &str, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let syntax = |message: String| ConfigError::Syntax {
        path: name.to_owned(),
        message,
    };
    let table = DeTable::parse(text).map_err(|error| syntax(error.to_string().trim_end().to_owned()))?;
    check_keys(table.get_ref(), &Config::META, "", text, name)?;
    let file: ConfigLayer =
        toml::from_str(text).map_err(|error| syntax(error.to_string().trim_end().to_owned()))?;
    let layer = environment_layer(environment)?
        .with_fallback(file)
        .with_fallback(ConfigLayer::default_values());
    let config = Config::from_layer(layer).map_err(|error| syntax(error.to_string()))?;
    let problems = super::validate::problems(&config);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Invalid { problems })
    }
}

/// Finds the first key that the schema does not have.
fn check_keys(
    table: &DeTable<'_>,
    meta: &Meta,
    section: &str,
    text: &str,
    name: &str,
) -> Result<(), ConfigError> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in keys {
        let written = key.get_ref().as_ref();
        match meta
            .fields
            .iter()
            .find(|field| field.name == written)
            .map(|field| field.kind)
        {
            None => {
                return Err(ConfigError::UnknownKey {
                    path: name.to_owned(),
                    line: text[..key.span().start].matches('\n').count() + 1,
                    key: format!("{section}{written}"),
                    hint: hint(written),
                });
            }
            Some(FieldKind::Nested { meta }) => {
                if let DeValue::Table(table) = value.get_ref() {
                    check_keys(table, meta, &format!("{section}{written}."), text, name)?;
                }
            }
            Some(FieldKind::Leaf { .. }) => {}
        }
    }
    Ok(())
}

/// The existing key that looks most like `written`, wherever it stands.
fn hint(written: &str) -> Option<String> {
    let mut best: Option<(f64, String)> = None;
    for path in leaf_paths(&Config::META, "") {
        let last = path.rsplit('.').next().unwrap_or(&path);
        let likeness = strsim::jaro_winkler(written, last).max(strsim::jaro_winkler(written, &path));
        if likeness > best.as_ref().map_or(0.8, |(likeness, _)| *likeness) {
            best = Some((likeness, path));
        }
    }
    best.map(|(_, path)| path)
}

/// All keys, with their sections.
pub(super) fn leaf_paths(meta: &Meta, section: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for field in meta.fields {
        match field.kind {
            FieldKind::Leaf { .. } => paths.push(format!("{section}{}", field.name)),
            FieldKind::Nested { meta } => {
                paths.extend(leaf_paths(meta, &format!("{section}{}.", field.name)))
            }
        }
    }
    paths
}

/// The environment variable of a key.
pub(super) fn variable_of(path: &str) -> String {
    format!("HEARTH_{}", path.replace('.', "_").to_ascii_uppercase())
}

/// Variables that are named as if they set a key, and the one that was probably meant. They are no errors: other programs
/// may have variables of the same prefix.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let known: Vec<String> = leaf_paths(&Config::META, "")
        .iter()
        .map(|path| variable_of(path))
        .collect();
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with("HEARTH_") && !known.contains(name))
        .map(|name| {
            let likeness = |other: &&String| strsim::jaro_winkler(&name, other);
            let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let hint = best.filter(|best| likeness(best) > 0.9).cloned();
            (name, hint)
        })
        .collect();
    unknown.sort();
    unknown
}

fn environment_layer(environment: Environment<'_>) -> Result<ConfigLayer, ConfigError> {
    let mut layer = ConfigLayer::empty();
    for path in leaf_paths(&Config::META, "") {
        let variable = variable_of(&path);
        let Some(text) = environment(&variable) else {
            continue;
        };
        let one =
            one_value(&path, &text).map_err(|message| ConfigError::Environment { variable, message })?;
        layer = layer.with_fallback(one);
    }
    Ok(layer)
}

/// A layer with one key. The text is taken as a text, else as TOML, else as a list with commas;
/// whichever fits the key's type.
fn one_value(path: &str, text: &str) -> Result<ConfigLayer, String> {
    let mut message = match layer_of(path, toml::Value::String(text.to_owned())) {
        Ok(layer) => return Ok(layer),
        Err(message) => message,
    };
    if let Ok(mut table) = toml::from_str::<toml::Table>(&format!("value = {text}"))
        && let Some(value) = table.remove("value")
    {
        match layer_of(path, value) {
            Ok(layer) => return Ok(layer),
            Err(better) => message = better,
        }
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let list = items.map(|item| toml::Value::String(item.to_owned())).collect();
    layer_of(path, toml::Value::Array(list)).map_err(|_| message)
}

fn layer_of(path: &str, value: toml::Value) -> Result<ConfigLayer, String> {
    let mut value = value;
    for key in path.rsplit('.') {
        value = toml::Value::Table(toml::Table::from_iter([(key.to_owned(), value)]));
    }
    ConfigLayer::deserialize(value).map_err(|error: toml::de::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Api, RegistrationMode};
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        from_text(text, "hearth.toml", &|_| None)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = parse("").expect("valid");
        assert_eq!(config.server_name, "localhost");
        assert_eq!(config.client_listen, "127.0.0.1:8008");
        assert_eq!(config.registration, RegistrationMode::Token);
        assert_eq!(config.max_upload_bytes, 50 << 20);
        assert_eq!(config.memory_limit, 512 << 20);
        assert_eq!(config.default_room_version, "12");
        assert_eq!(config.rate_limit.login.burst, 10);
        assert_eq!(config.all_listeners().len(), 1);
        Config::for_tests("test.example");
    }

    #[test]
    fn a_full_file() {
        let config = parse(
            r#"
            server_name = "example.org"
            max_upload_bytes = 1000
            registration = "open"
            registration_shared_secret = "hush"
            terms = [{ id = "p", version = "1", name = "Policy", url = "https://example.org/p" }]
            tls_certificate = "a.pem"
            tls_key = "b.pem"
            [[listeners]]
            address = "0.0.0.0:8448"
            apis = ["client", "federation"]
            tls = true
            [[listeners]]
            address = "127.0.0.1:9000"
            apis = ["metrics"]
            [rate_limit]
            login = { per_second = 1, burst = 2 }
            [well_known]
            server = "matrix.example.org:443"
            client = { "org.example.key" = { setting = true } }
            "#,
        )
        .expect("valid");
        let listeners = config.all_listeners();
        assert_eq!(listeners.len(), 3);
        assert_eq!(listeners[1].tls_key.as_deref(), Some(Path::new("b.pem")));
        assert_eq!(listeners[2].apis, [Api::Metrics]);
        assert_eq!(config.rate_limit.login.per_second, 1.0);
        assert_eq!(config.well_known.client["org.example.key"]["setting"], true);
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn unknown_keys_name_the_line_and_a_hint() {
        let cases = [
            ("server_nam = \"x\"", 1, "server_nam", Some("server_name")),
            (
                "\n\nregistation = \"open\"",
                3,
                "registation",
                Some("registration"),
            ),
            (
                "[rate_limit]\nlogn = 1",
                2,
                "rate_limit.logn",
                Some("rate_limit.login"),
            ),
            (
                "support_contacts = []",
                1,
                "support_contacts",
                Some("well_known.support_contacts"),
            ),
            ("zzz = 1", 1, "zzz", None),
        ];
        for (text, want_line, want_key, want_hint) in cases {
            match parse(text) {
                Err(ConfigError::UnknownKey { line, key, hint, .. }) => {
                    assert_eq!(
                        (line, key.as_str(), hint.as_deref()),
                        (want_line, want_key, want_hint),
                        "{text}"
                    );
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let message = parse("server_nam = \"x\"").expect_err("unknown").to_string();
        assert_eq!(
            message,
            "hearth.toml, line 1: unknown key \"server_nam\"; did you mean \"server_name\"?"
        );
    }

    #[test]
    fn unknown_variables_get_a_hint() {
        let names = [
            "HEARTH_SERVER_NAM",
            "HEARTH_SERVER_NAME",
            "HEARTH_RATE_LIMIT_SEND",
            "HEARTH_BINARY",
            "PATH",
        ];
        let found = unknown_variables(names.into_iter().map(str::to_owned));
        let hint = Some("HEARTH_SERVER_NAME".to_owned());
        assert_eq!(
            found,
            [
                ("HEARTH_BINARY".to_owned(), None),
                ("HEARTH_SERVER_NAM".to_owned(), hint)
            ]
        );
    }

    #[test]
    fn wrong_types_name_the_line() {
        for text in [
            "\nshards = \"many\"",
            "\nregistration = \"maybe\"",
            "\nmax_upload_bytes = \"5 apples\"",
            "\n= 3",
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains("line 2"), "{text}: {message}");
        }
        assert!(parse("[[listeners]]\naddress = \"a:1\"\napis = []\nadress = 1").is_err());
    }

    #[test]
    fn the_environment_wins() {
        let environment = |name: &str| {
            let value = match name {
                "HEARTH_SERVER_NAME" => "env.example",
                "HEARTH_SHARDS" => "4",
                "HEARTH_PRESENCE" => "false",
                "HEARTH_MEMORY_LIMIT" => "64 MiB",
                "HEARTH_MAX_REQUEST_BYTES" => "70000",
                "HEARTH_TRUSTED_KEY_SERVERS" => "a.example, b.example",
                "HEARTH_RATE_LIMIT_SEND" => "{ per_second = 2, burst = 3 }",
                "HEARTH_WELL_KNOWN_SERVER" => "m.example:443",
                "HEARTH_REGISTRATION_SHARED_SECRET" => "12345",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let config =
            from_text("server_name = \"file.example\"\nshards = 2", "f", &environment).expect("valid");
        assert_eq!(config.server_name, "env.example");
        assert_eq!(config.shards, 4);
        assert!(!config.presence);
        assert_eq!(config.memory_limit, 64 << 20);
        assert_eq!(config.max_request_bytes, 70_000);
        assert_eq!(config.trusted_key_servers, ["a.example", "b.example"]);
        assert_eq!(config.rate_limit.send.burst, 3);
        assert_eq!(config.well_known.server.as_deref(), Some("m.example:443"));
        assert_eq!(config.registration_shared_secret.expect("set").expose(), "12345");
    }

    #[test]
    fn a_bad_variable_is_named() {
        let environment = |name: &str| (name == "HEARTH_SHARDS").then(|| "many".to_owned());
        match from_text("", "f", &environment) {
            Err(ConfigError::Environment { variable, .. }) => assert_eq!(variable, "HEARTH_SHARDS"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Some(Path::new("/nonexistent/hearth.toml")), &|_| None).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/hearth.toml"));
    }
}
