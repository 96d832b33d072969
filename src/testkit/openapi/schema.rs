//! JSON against a schema: the part of JSON Schema that the specification's files use.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Map, Value};

use super::files::Part;

/// More violations than this in one body say nothing new.
const VIOLATIONS_MAX: usize = 20;

/// Where a body differs from its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// The JSON pointer in the body.
    pub(super) pointer: String,
    /// What was expected there.
    pub(super) expected: String,
}

impl Violation {
    /// One that concerns all of a body.
    pub(super) fn of_whole(expected: String) -> Self {
        let pointer = String::new();
        Self { pointer, expected }
    }

    /// The same, seen from around a part with a name.
    pub(super) fn inside(mut self, name: &str) -> Self {
        self.pointer.insert_str(0, name);
        self
    }
}

/// Every difference of a value from its schema.
pub(super) fn violations(schema: Part, value: &Value) -> Vec<Violation> {
    let mut check = Check::default();
    check.value(schema, value);
    check.found
}

#[derive(Default)]
struct Check {
    pointer: String,
    found: Vec<Violation>,
}

impl Check {
    fn expected(&mut self, expected: String) {
        if self.found.len() < VIOLATIONS_MAX {
            let pointer = self.pointer.clone();
            self.found.push(Violation { pointer, expected });
        }
    }

    /// Goes down to a member or an item.
    fn below(&mut self, name: &str, schema: Part, value: &Value) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        self.value(schema, value);
        self.pointer.truncate(length);
    }

    fn value(&mut self, schema: Part, value: &Value) {
        let Value::Object(rules) = schema.value else {
            // `true` and an empty schema allow everything.
            if schema.value == &Value::Bool(false) {
                self.expected("nothing at all".to_owned());
            }
            return;
        };
        if let Some(reference) = rules.get("$ref").and_then(Value::as_str) {
            self.value(schema.referred(reference), value);
        }
        for part in list(rules, "allOf") {
            self.value(schema.with(part), value);
        }
        // Alternatives overlap in the files, so `oneOf` is no more than `anyOf`.
        for choice in ["anyOf", "oneOf"] {
            self.one_of(schema, list(rules, choice), value);
        }
        if !self.kind(rules, value) {
            return;
        }
        if let Some(allowed) = rules.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            self.expected(format!("one of {allowed:?}, not {value}"));
        }
        match value {
            Value::String(text) => self.text(rules, text),
            Value::Array(items) => self.items(schema, rules, items),
            Value::Object(members) => self.members(schema, rules, members),
            _ => {}
        }
    }

    /// Whether the type is right: the other rules of a schema are for its own type.
    fn kind(&mut self, rules: &Map<String, Value>, value: &Value) -> bool {
        let kinds = match rules.get("type") {
            None => return true,
            Some(Value::Array(kinds)) => &kinds[..],
            Some(kind) => std::slice::from_ref(kind),
        };
        let is_right = kinds.iter().any(|kind| match kind.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            // Matrix JSON knows no fractions: 1.0 is no integer.
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("null") => value.is_null(),
            _ => panic!("a schema has the type {kind}"),
        });
        if !is_right {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).collect();
            self.expected(format!("{}, not {}", kinds.join(" or "), short(value)));
        }
        is_right
    }

    fn one_of<'a>(
        &mut self,
        schema: Part,
        choices: impl Iterator<Item = &'static Value> + 'a,
        value: &Value,
    ) {
        // What is of another type altogether is further away than what lacks some members.
        let mut closest: Option<(bool, Vec<Violation>)> = None;
        let other_type = format!(", not {}", short(value));
        for choice in choices {
            let mut tried = Self {
                pointer: self.pointer.clone(),
                found: Vec::new(),
            };
            tried.value(schema.with(choice), value);
            if tried.found.is_empty() {
                return;
            }
            let is_other =
                |one: &Violation| one.pointer == self.pointer && one.expected.ends_with(&other_type);
            let distance = (tried.found.iter().any(is_other), tried.found.len());
            if closest
                .as_ref()
                .is_none_or(|(is_other, found)| distance < (*is_other, found.len()))
            {
                closest = Some((distance.0, tried.found));
            }
        }
        self.found
            .extend(closest.into_iter().flat_map(|(_, found)| found));
    }

    fn text(&mut self, rules: &Map<String, Value>, text: &str) {
        if let Some(pattern) = rules.get("pattern").and_then(Value::as_str)
            && !regex(pattern).is_match(text)
        {
            self.expected(format!("a string like {pattern}, not {text:?}"));
        }
        if let Some(format) = rules.get("format").and_then(Value::as_str)
            && !has_format(format, text)
        {
            self.expected(format!("a string of the format {format}, not {text:?}"));
        }
    }

    fn items(&mut self, schema: Part, rules: &'static Map<String, Value>, items: &[Value]) {
        self.count(rules, "Items", items.len());
        if let Some(rule) = rules.get("items") {
            for (at, item) in items.iter().enumerate() {
                self.below(&at.to_string(), schema.with(rule), item);
            }
        }
    }

    fn members(&mut self, schema: Part, rules: &'static Map<String, Value>, members: &Map<String, Value>) {
        self.count(rules, "Properties", members.len());
        for name in list(rules, "required").filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.expected(format!("a member {name:?}"));
            }
        }
        let properties = rules.get("properties").and_then(Value::as_object);
        let patterns = rules.get("patternProperties").and_then(Value::as_object);
        let others = rules.get("additionalProperties");
        for (name, value) in members {
            let mut is_described = false;
            if let Some(rule) = properties.and_then(|properties| properties.get(name)) {
                is_described = true;
                self.below(name, schema.with(rule), value);
            }
            for (pattern, rule) in patterns.into_iter().flatten() {
                if regex(pattern).is_match(name) {
                    is_described = true;
                    self.below(name, schema.with(rule), value);
                    self.name_of(rule, name);
                }
            }
            match others {
                Some(Value::Bool(false)) if !is_described => {
                    self.expected(format!("no member {name:?}"));
                }
                Some(rule) if !is_described => self.below(name, schema.with(rule), value),
                _ => {}
            }
        }
    }

    /// The name of a member that a pattern describes.
    fn name_of(&mut self, rule: &Value, name: &str) {
        if let Some(format) = rule.get("x-pattern-format").and_then(Value::as_str)
            && !has_format(format, name)
        {
            self.expected(format!("a name of the format {format}, not {name:?}"));
        }
    }

    fn count(&mut self, rules: &Map<String, Value>, what: &str, count: usize) {
        let limit = |which: &str| rules.get(&format!("{which}{what}")).and_then(Value::as_u64);
        let is_few = limit("min").is_some_and(|min| (count as u64) < min);
        let is_many = limit("max").is_some_and(|max| (count as u64) > max);
        if is_few || is_many {
            self.expected(format!("another number of {}, not {count}", what.to_lowercase()));
        }
    }
}

/// The parts of a rule that is a list.
fn list(rules: &'static Map<String, Value>, name: &str) -> impl Iterator<Item = &'static Value> + use<> {
    rules.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

fn regex(pattern: &str) -> Regex {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    if let Some(found) = known.get(pattern) {
        return found.clone();
    }
    let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    known.insert(pattern.to_owned(), regex.clone());
    regex
}

/// The formats of the specification's strings ("Identifier Grammar" in the appendices), as far as a server must keep to
/// them: of old room versions and from other servers there are ids that are no more than a sigil and bytes.
fn has_format(format: &str, text: &str) -> bool {
    let with_server = |sigil: char| {
        let rest = text.strip_prefix(sigil);
        rest.and_then(|rest| rest.split_once(':'))
            .is_some_and(|(_, server)| !server.is_empty())
    };
    let is_base64 = |more: [char; 2]| {
        text.chars()
            .all(|char| char.is_ascii_alphanumeric() || more.contains(&char))
    };
    match format {
        "mx-user-id" => with_server('@') && text.len() <= 255,
        "mx-room-alias" => with_server('#') && text.len() <= 255,
        "mx-room-id" => text.starts_with('!') && text.len() <= 255,
        "mx-event-id" => text.starts_with('$') && text.len() <= 255,
        "mx-server-name" => !text.is_empty() && !text.contains(['/', ' ', '@']),
        "mx-mxc-uri" => text.strip_prefix("mxc://").is_some_and(|rest| rest.contains('/')),
        "mx-unpadded-base64" => is_base64(['+', '/']),
        "mx-urlsafe-unpadded-base64" => is_base64(['-', '_']),
        "uri" => text.contains(':'),
        "email" => text.contains('@'),
        // Those of numbers.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: Value, expected: &[(&str, &str)]) {
        let schema = Part {
            file: "test",
            value: Box::leak(Box::new(schema)),
        };
        let found = violations(schema, &value);
        let found: Vec<_> = found.iter().map(|one| (&*one.pointer, &*one.expected)).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn types_and_required_members() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "type": "integer" }, "b": { "type": ["string", "null"], "pattern": "^x" } },
            "required": ["a"],
        });
        check(schema.clone(), json!({ "a": 1, "b": null, "more": 1.5 }), &[]);
        check(schema.clone(), json!([]), &[("", "object, not []")]);
        check(
            schema,
            json!({ "b": "y" }),
            &[("", "a member \"a\""), ("/b", "a string like ^x, not \"y\"")],
        );
        check(
            json!({ "type": "integer" }),
            json!(1.0),
            &[("", "integer, not 1.0")],
        );
        check(
            json!({ "type": "string" }),
            Value::Null,
            &[("", "string, not null")],
        );
    }

    #[test]
    fn lists_and_maps() {
        let schema = json!({ "type": "array", "items": { "enum": ["a"] }, "maxItems": 2 });
        check(schema.clone(), json!(["a", "a"]), &[]);
        check(
            schema,
            json!(["a", "b", "a"]),
            &[
                ("", "another number of items, not 3"),
                ("/1", "one of [String(\"a\")], not \"b\""),
            ],
        );
        let schema = json!({
            "patternProperties": { "^@": { "type": "string", "x-pattern-format": "mx-user-id" } },
            "additionalProperties": { "type": "integer" },
        });
        check(schema.clone(), json!({ "@a:b": "", "c": 1 }), &[]);
        check(
            schema,
            json!({ "@a": "", "c/d": "" }),
            &[
                ("", "a name of the format mx-user-id, not \"@a\""),
                ("/c~1d", "integer, not \"\""),
            ],
        );
        check(
            json!({ "properties": { "a": true }, "additionalProperties": false }),
            json!({ "a": 1, "b": 2 }),
            &[("", "no member \"b\"")],
        );
    }

    #[test]
    fn alternatives() {
        let schema = json!({
            "allOf": [{ "required": ["a"] }],
            "oneOf": [{ "required": ["b", "c"] }, { "required": ["d"] }],
        });
        check(schema.clone(), json!({ "a": 1, "b": 1, "c": 1, "d": 1 }), &[]);
        check(schema, json!({ "a": 1 }), &[("", "a member \"d\"")]);
        let schema = json!({ "anyOf": [{ "type": "integer" }, { "type": "object", "required": ["a"] }] });
        check(schema, json!({}), &[("", "a member \"a\"")]);
    }
}
