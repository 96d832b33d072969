//! Compiled namespaces.

use regex::{Regex, RegexBuilder};

use crate::file::{NamespaceFile, NamespacesFile};

/// How much memory one compiled pattern may take, in bytes: registrations are written by the
/// operator, so this only catches mistakes such as `.{1000}{1000}`.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// One namespace: a pattern, and whether nobody else may create what it matches.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Whether nobody else may create what matches.
    pub exclusive: bool,
    pattern: Regex,
}

impl Namespace {
    /// Compiles a namespace. The pattern is anchored at the start only, because that is what
    /// registration files in the field are written for: `@_irc_` covers every user id that begins so.
    pub fn compile(file: &NamespaceFile) -> Result<Self, regex::Error> {
        // Compiled alone first, so that the closing bracket below cannot repair or escape a bad one.
        RegexBuilder::new(&file.regex)
            .size_limit(MAX_PATTERN_BYTES)
            .build()?;
        let pattern = RegexBuilder::new(&format!("^(?:{})", file.regex))
            .size_limit(MAX_PATTERN_BYTES)
            .build()?;
        Ok(Self {
            exclusive: file.exclusive,
            pattern,
        })
    }

    /// Whether the id belongs to this namespace.
    pub fn matches(&self, id: &str) -> bool {
        self.pattern.is_match(id)
    }
}

/// The namespaces of one application service.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// User ids.
    pub users: Vec<Namespace>,
    /// Room aliases.
    pub aliases: Vec<Namespace>,
    /// Room ids.
    pub rooms: Vec<Namespace>,
}

impl Namespaces {
    /// Compiles all patterns of a registration file; the error names the pattern.
    pub fn compile(file: &NamespacesFile) -> Result<Self, (String, regex::Error)> {
        Ok(Self {
            users: compile_list(file.users.as_deref())?,
            aliases: compile_list(file.aliases.as_deref())?,
            rooms: compile_list(file.rooms.as_deref())?,
        })
    }
}

fn compile_list(list: Option<&[NamespaceFile]>) -> Result<Vec<Namespace>, (String, regex::Error)> {
    let mut compiled = Vec::new();
    for file in list.unwrap_or_default() {
        let namespace = Namespace::compile(file).map_err(|error| (file.regex.clone(), error))?;
        compiled.push(namespace);
    }
    Ok(compiled)
}

/// Whether any namespace of the list matches.
pub(crate) fn any(list: &[Namespace], id: &str) -> bool {
    list.iter().any(|namespace| namespace.matches(id))
}

/// Whether any exclusive namespace of the list matches.
pub(crate) fn any_exclusive(list: &[Namespace], id: &str) -> bool {
    list.iter()
        .any(|namespace| namespace.exclusive && namespace.matches(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn namespace(regex: &str) -> Result<Namespace, regex::Error> {
        Namespace::compile(&NamespaceFile {
            exclusive: true,
            regex: regex.to_owned(),
        })
    }

    #[test]
    fn patterns_match_from_the_start() {
        for (pattern, id, expected) in [
            ("@_irc_.*", "@_irc_bob:example.org", true),
            ("@_irc_", "@_irc_bob:example.org", true),
            ("_irc_", "@_irc_bob:example.org", false),
            ("^@wa_.*:example\\.org$", "@wa_1:example.org", true),
            ("^@wa_.*:example\\.org$", "@wa_1:example.org.evil", false),
            ("@a:x|@b:x", "@b:x", true),
            ("@a:x|@b:x", "z@b:x", false),
            ("", "@anyone:x", true),
        ] {
            assert_eq!(
                namespace(pattern).unwrap().matches(id),
                expected,
                "{pattern} {id}"
            );
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["(", ")|(?:", "[a-", "(?!x)", "a{1000}{1000}{1000}"] {
            assert!(namespace(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in ".{0,40}", id in ".{0,40}") {
            if let Ok(namespace) = namespace(&pattern) {
                namespace.matches(&id);
            }
        }
    }
}
