//! Which operation of the specification's files a request is for.

use std::sync::LazyLock;

use super::files::{self, Part};

/// The APIs whose files are kept.
const APIS: &[&str] = &[
    "client-server",
    "server-server",
    "push-gateway",
    "application-service",
];

/// An operation: a method of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) part: Part,
}

impl Operation {
    /// The name that the specification gives it.
    pub(super) fn id(&self) -> &'static str {
        self.part
            .get("operationId")
            .value
            .as_str()
            .unwrap_or("an operation without a name")
    }

    /// What is said of answers with a status, if anything.
    pub(super) fn response(&self, status: u16) -> Option<Part> {
        let response = self.part.get("responses").get(&status.to_string());
        (!response.is_nothing()).then_some(response)
    }
}

/// The schema of the JSON in a response or a request.
pub(super) fn json_schema(described: Part) -> Option<Part> {
    let json = described.get("content").get("application/json");
    let schema = json.value.get("schema")?;
    Some(json.with(schema))
}

/// A path of a file.
struct Template {
    /// The segments, with those of the API's prefix.
    segments: Vec<String>,
    /// The operations, by their methods in small letters.
    methods: Part,
}

/// The paths of all files.
static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let files = APIS.iter().flat_map(|api| files::all(api));
    files.flat_map(templates).collect()
});

fn templates(file: Part) -> Vec<Template> {
    let base = &file.value["servers"][0]["variables"]["basePath"]["default"];
    let base = base.as_str().unwrap_or_default();
    let paths = file.value["paths"].as_object().into_iter().flatten();
    paths
        .map(|(path, methods)| Template {
            // Where two operations have one path, a blank tells them apart in the files.
            segments: format!("{base}{}", path.trim())
                .split('/')
                .map(str::to_owned)
                .collect(),
            methods: file.with(methods),
        })
        .collect()
}

impl Template {
    /// How many segments are the template's own words; nothing where the path is another.
    fn likeness(&self, segments: &[&str]) -> Option<usize> {
        if self.segments.len() != segments.len() {
            return None;
        }
        let mut alike = 0;
        for (own, segment) in self.segments.iter().zip(segments) {
            if own == segment {
                alike += 1;
            } else if !own.starts_with('{') {
                return None;
            }
        }
        Some(alike)
    }
}

/// The operations that a request may be for. There is more than one where the body tells them apart.
pub(super) fn find(method: &str, path: &str) -> Vec<Operation> {
    // The older prefix is another name of the newer one, and the last slash may be left out.
    let path = path.replacen("/_matrix/client/r0/", "/_matrix/client/v3/", 1);
    let found = find_exactly(method, &path);
    match found.is_empty() {
        true => find_exactly(method, &format!("{path}/")),
        false => found,
    }
}

fn find_exactly(method: &str, path: &str) -> Vec<Operation> {
    let segments: Vec<&str> = path.split('/').collect();
    let method = method.to_lowercase();
    let mut best = 0;
    let mut found = Vec::new();
    for template in TEMPLATES.iter() {
        let Some(likeness) = template.likeness(&segments) else {
            continue;
        };
        let part = template.methods.get(&method);
        if part.is_nothing() || likeness < best {
            continue;
        }
        if likeness > best {
            found.clear();
            best = likeness;
        }
        found.push(Operation { part });
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn requests_find_their_operations() {
        let check = |method, path, expected: &[&str]| {
            let found = find(method, path);
            let ids: Vec<_> = found.iter().map(Operation::id).collect();
            assert_eq!(ids, expected, "{method} {path}");
        };
        check("GET", "/_matrix/client/v3/sync", &["sync"]);
        check("GET", "/_matrix/client/r0/sync", &["sync"]);
        check("PATCH", "/_matrix/client/v3/sync", &[]);
        check(
            "GET",
            "/_matrix/client/v3/rooms/!a/state/m.room.name",
            &["getRoomStateWithKey"],
        );
        check(
            "GET",
            "/_matrix/client/v3/rooms/!a/state/m.room.name/",
            &["getRoomStateWithKey"],
        );
        check(
            "POST",
            "/_matrix/client/v3/rooms/!a/invite",
            &["inviteUser", "inviteBy3PID"],
        );
        check(
            "GET",
            "/_matrix/federation/v1/query/directory",
            &["queryRoomDirectory"],
        );
        check("GET", "/_matrix/federation/v1/query/other", &["queryInfo"]);
        check("GET", "/_matrix/key/v2/server", &["getServerKey"]);
        check("GET", "/.well-known/matrix/client", &["getWellknown"]);
        check("POST", "/_matrix/push/v1/notify", &["notify"]);
    }

    /// All that answers and requests can refer to is kept.
    #[test]
    fn every_reference_leads_somewhere() {
        fn follow(part: Part, seen: &mut BTreeSet<*const Value>) {
            if !seen.insert(std::ptr::from_ref(part.value)) {
                return;
            }
            match part.value {
                Value::Object(members) => {
                    if let Some(reference) = part.value.get("$ref").and_then(Value::as_str) {
                        follow(part.referred(reference), seen);
                    }
                    // Examples refer to examples, which are not kept.
                    let described = members.iter().filter(|(name, _)| !name.starts_with("example"));
                    described.for_each(|(_, member)| follow(part.with(member), seen));
                }
                Value::Array(items) => items.iter().for_each(|item| follow(part.with(item), seen)),
                _ => {}
            }
        }
        let mut seen = BTreeSet::new();
        TEMPLATES
            .iter()
            .for_each(|template| follow(template.methods, &mut seen));
        assert!(seen.len() > 10_000, "{}", seen.len());
    }
}
