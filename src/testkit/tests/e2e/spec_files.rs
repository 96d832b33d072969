//! The endpoints that the specification's OpenAPI files describe (`tests/spec/`), with a dummy for every parameter and body.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hearth_testkit::encode;
use serde_json::{Map, Value, json};

/// How deep dummies follow a schema.
const DEPTH_MAX: usize = 6;

/// An endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The method, in capitals.
    pub(crate) method: String,
    /// The whole path, with its parameters in braces.
    pub(crate) path: String,
    /// The names of the parameters of the path, with a dummy for each.
    pub(crate) in_path: BTreeMap<String, Value>,
    /// The names of the parameters of the query, with a dummy for each.
    pub(crate) in_query: BTreeMap<String, Value>,
    /// A dummy of the JSON body, if there is one.
    pub(crate) body: Option<Value>,
}

impl Endpoint {
    /// The path with dummies, but for the parameters that `known` has.
    pub(crate) fn filled(&self, known: &dyn Fn(&str) -> Option<String>) -> String {
        let mut path = self.path.clone();
        for (name, dummy) in &self.in_path {
            let value = known(name).unwrap_or_else(|| text(dummy));
            path = path.replace(&format!("{{{name}}}"), &encode(&value));
        }
        let query: Vec<String> = self
            .in_query
            .iter()
            .map(|(name, dummy)| format!("{name}={}", encode(&known(name).unwrap_or_else(|| text(dummy)))))
            .collect();
        match query.is_empty() {
            true => path,
            false => format!("{path}?{}", query.join("&")),
        }
    }

    /// The line by which lists name it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.first().map(text).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// The folder with the files.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/spec")
}

/// All endpoints of one API.
pub(crate) fn endpoints(api: &str) -> Vec<Endpoint> {
    let mut files = Files::default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder().join(api))
        .expect("the specification's files")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let mut out = Vec::new();
    for file in paths {
        let document = files.read(&file);
        let base = document["servers"][0]["variables"]["basePath"]["default"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                if ["get", "put", "post", "delete"].contains(&method.as_str()) {
                    let place = Place {
                        file: &file,
                        document: &document,
                    };
                    // Where two endpoints have one path, a blank tells them apart in the files.
                    let path = format!("{base}{}", path.trim());
                    out.push(endpoint(
                        &mut files,
                        place,
                        method.to_uppercase(),
                        path,
                        operation,
                    ));
                }
            }
        }
    }
    out
}

fn endpoint(
    files: &mut Files,
    place: Place<'_>,
    method: String,
    path: String,
    operation: &Value,
) -> Endpoint {
    let mut endpoint = Endpoint {
        method,
        path,
        in_path: BTreeMap::new(),
        in_query: BTreeMap::new(),
        body: None,
    };
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (file, parameter) = files.resolve(place, parameter);
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let dummy = match parameter.get("example") {
            Some(example) => example.clone(),
            None => files.dummy(&file, &parameter["schema"], 0),
        };
        match parameter["in"].as_str() {
            Some("path") => drop(endpoint.in_path.insert(name, dummy)),
            Some("query") => drop(endpoint.in_query.insert(name, dummy)),
            _ => {}
        }
    }
    let (file, body) = files.resolve(place, &operation["requestBody"]);
    let schema = &body["content"]["application/json"]["schema"];
    if !schema.is_null() {
        endpoint.body = Some(files.dummy(&file, schema, 0));
    }
    endpoint
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    document: &'a Value,
}

/// The files that were read, by path.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, Value>);

impl Files {
    /// A file; one that is not among the data, as the event schemas, is empty.
    fn read(&mut self, path: &Path) -> Value {
        if let Some(found) = self.0.get(path) {
            return found.clone();
        }
        let document = match std::fs::read_to_string(path) {
            Ok(text) => {
                serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            }
            Err(_) => Value::Null,
        };
        self.0.insert(path.to_owned(), document.clone());
        document
    }

    /// What a reference points to, and in which file it stands; the value itself where it is none.
    fn resolve(&mut self, place: Place<'_>, value: &Value) -> (PathBuf, Value) {
        let Some(reference) = value["$ref"].as_str() else {
            return (place.file.to_owned(), value.clone());
        };
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let (file, document) = match file.is_empty() {
            true => (place.file.to_owned(), place.document.clone()),
            false => {
                let folder = place.file.parent().unwrap_or(Path::new(""));
                let path = folder.join(file);
                let document = self.read(&path);
                (path, document)
            }
        };
        let found = document.pointer(pointer).cloned().unwrap_or_default();
        (file, found)
    }

    /// A value that fits a schema, by its examples or its types.
    fn dummy(&mut self, file: &Path, schema: &Value, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        if schema.get("$ref").is_some() {
            let document = self.read(file);
            let place = Place {
                file,
                document: &document,
            };
            let (file, schema) = self.resolve(place, schema);
            return self.dummy(&file, &schema, depth + 1);
        }
        if let Some(example) = schema.get("example") {
            return self.example(file, example, depth + 1);
        }
        if let Some(one) = schema["enum"].get(0) {
            return one.clone();
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(first) = schema[choice].get(0) {
                return self.dummy(file, first, depth + 1);
            }
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().cloned().unwrap_or_default(),
            kind => kind.clone(),
        };
        match kind.as_str() {
            Some("string") => json!("dummy"),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([self.dummy(file, &schema["items"], depth + 1)]),
            _ => self.object(file, schema, depth),
        }
    }

    fn object(&mut self, file: &Path, schema: &Value, depth: usize) -> Value {
        let mut out = Map::new();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            if let Value::Object(members) = self.dummy(file, part, depth + 1) {
                out.extend(members);
            }
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let value = self.dummy(file, schema, depth + 1);
            out.insert(name.clone(), value);
        }
        Value::Object(out)
    }

    /// An example, with the references in it.
    fn example(&mut self, file: &Path, example: &Value, depth: usize) -> Value {
        if depth > 2 * DEPTH_MAX {
            return Value::Null;
        }
        match example {
            Value::Object(members) if members.contains_key("$ref") => {
                let document = self.read(file);
                let place = Place {
                    file,
                    document: &document,
                };
                let (file, found) = self.resolve(place, example);
                let mut found = self.example(&file, &found, depth + 1);
                if let Value::Object(found) = &mut found {
                    let more = members.iter().filter(|(name, _)| *name != "$ref");
                    found.extend(more.map(|(name, value)| (name.clone(), value.clone())));
                }
                found
            }
            Value::Object(members) => {
                let members = members.iter();
                Value::Object(
                    members
                        .map(|(name, value)| (name.clone(), self.example(file, value, depth + 1)))
                        .collect(),
                )
            }
            Value::Array(list) => list
                .iter()
                .map(|value| self.example(file, value, depth + 1))
                .collect(),
            other => other.clone(),
        }
    }
}

#[test]
fn the_files_describe_what_they_should() {
    let client = endpoints("client-server");
    let server = endpoints("server-server");
    assert!(client.len() > 150, "{}", client.len());
    assert!(server.len() > 30, "{}", server.len());
    let find = |all: &[Endpoint], name: &str| {
        let found = all.iter().find(|one| one.name() == name).cloned();
        found.unwrap_or_else(|| panic!("{name}"))
    };
    let search = find(&client, "POST /_matrix/client/v3/search");
    assert_eq!(search.in_query.keys().collect::<Vec<_>>(), ["next_batch"]);
    let body = search.body.expect("a body");
    assert_eq!(
        body["search_categories"]["room_events"]["search_term"],
        "martians and men"
    );
    let send = find(
        &client,
        "PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}",
    );
    let path = send.filled(&|name| (name == "roomId").then(|| "!r:x".to_owned()));
    assert!(
        path.starts_with("/_matrix/client/v3/rooms/%21r%3Ax/send/m.room.message/"),
        "{path}"
    );
    let transaction = find(&server, "PUT /_matrix/federation/v1/send/{txnId}");
    assert!(transaction.body.expect("a body").get("pdus").is_some());
}
