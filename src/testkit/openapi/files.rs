//! The specification's files in `tests/spec`, each read once, when it is first needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use parking_lot::Mutex;
use serde_json::Value;

/// What a member that is not there is.
static NOTHING: Value = Value::Null;

/// A part of a file, and the file's place in the specification's `data` folder: references are relative to that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) file: &'static str,
    pub(super) value: &'static Value,
}

impl Part {
    /// A member, or what it refers to; null where there is none.
    pub(super) fn get(self, name: &str) -> Self {
        let value = self.value.get(name).unwrap_or(&NOTHING);
        self.with(value).followed()
    }

    /// Another part of the same file.
    pub(super) fn with(self, value: &'static Value) -> Self {
        Self { value, ..self }
    }

    /// What a reference points to; the part itself where it is none.
    pub(super) fn followed(self) -> Self {
        match self.value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.referred(reference).followed(),
            None => self,
        }
    }

    /// What a reference in this file points to.
    pub(super) fn referred(self, reference: &str) -> Self {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let whole = match file.is_empty() {
            true => read(self.file),
            false => read(&joined(self.file, file)),
        };
        let found = whole.value.pointer(pointer);
        whole.with(found.unwrap_or_else(|| panic!("{} refers to {reference}, which is not there", self.file)))
    }

    pub(super) fn is_nothing(self) -> bool {
        self.value.is_null()
    }
}

/// A file by its place in the `data` folder, as `api/client-server/sync.yaml`.
pub(super) fn read(file: &str) -> Part {
    static READ: LazyLock<Mutex<BTreeMap<String, Part>>> = LazyLock::new(Mutex::default);
    let mut read = READ.lock();
    if let Some(found) = read.get(file) {
        return *found;
    }
    let text =
        fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("tests/spec lacks {file}: {error}"));
    let value: Value = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    // They are few, and every test of the process reads them.
    let part = Part {
        file: Box::leak(file.to_owned().into_boxed_str()),
        value: Box::leak(Box::new(value)),
    };
    read.insert(file.to_owned(), part);
    part
}

/// The files of an API.
pub(super) fn all(api: &str) -> Vec<Part> {
    let folder = format!("api/{api}");
    let entries =
        fs::read_dir(path(&folder)).unwrap_or_else(|error| panic!("tests/spec lacks {folder}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry of a folder")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
        .iter()
        .map(|name| read(&format!("{folder}/{name}")))
        .collect()
}

/// Where a file of `data` is kept.
fn path(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/spec");
    folder.join(file.strip_prefix("api/").unwrap_or(file))
}

/// A relative path as seen from a file.
fn joined(from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_relative_to_their_file() {
        let check = |from, to, expected| assert_eq!(joined(from, to), expected);
        let sync = "api/client-server/sync.yaml";
        check(
            sync,
            "definitions/event_batch.yaml",
            "api/client-server/definitions/event_batch.yaml",
        );
        check(
            sync,
            "../../event-schemas/schema/core-event-schema/event.yaml",
            "event-schemas/schema/core-event-schema/event.yaml",
        );
        check("a/b/c.yaml", "./d.yaml", "a/b/d.yaml");
    }
}
