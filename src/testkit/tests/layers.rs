//! The layering of docs/architecture.md, checked on the manifests and the sources: which crate may use which, who
//! knows HTTP, who names RocksDB, who spawns tasks. Reads files only, so that it says which line is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every crate from the top of the house to its ground. A crate uses only what stands in a later row.
const LAYERS: &[&[&str]] = &[
    &["benches"],
    &["testkit"],
    &["server"],
    &["api"],
    &["sync"],
    &["push", "appservice", "media", "search"],
    &["federation"],
    &["rooms"],
    &["users"],
    &["cluster"],
    &["storage"],
    &["events"],
    &["core"],
    &["ruma-ext"],
];

/// The edges that exist. A new one is a change of architecture: it needs a sentence in docs/architecture.md first.
const EDGES: &[(&str, &str)] = &[
    ("benches", "testkit server rooms storage events core"),
    ("testkit", "server api storage core"),
    (
        "server",
        "api sync push appservice media search federation rooms users cluster storage events core",
    ),
    (
        "api",
        "sync appservice media search federation rooms users storage events core",
    ),
    ("federation", "rooms users cluster storage events core"),
    ("sync", "rooms users storage core"),
    ("push", "rooms users storage events core"),
    ("search", "rooms storage core"),
    ("appservice", "core"),
    ("media", "cluster storage core"),
    ("rooms", "users cluster storage events core"),
    ("users", "cluster storage events core"),
    ("cluster", "storage core"),
    ("storage", "core"),
    ("events", ""),
    ("core", ""),
];

/// Server-side HTTP frameworks, and who may know them.
const HTTP_FRAMEWORKS: &[&str] = &[
    "axum",
    "axum-server",
    "hyper",
    "hyper-util",
    "tower",
    "tower-http",
];
const KNOW_HTTP: &[&str] = &["api", "federation", "server", "testkit", "benches"];

struct Manifest {
    name: String,
    folder: PathBuf,
    dependencies: BTreeSet<String>,
    dev_dependencies: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the workspace's root")
        .to_owned()
}

/// Dependency names by table. Manifests here are plain: one dependency a line, or one table each.
fn parse(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut normal, mut dev) = (BTreeSet::new(), BTreeSet::new());
    let mut table = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.to_owned();
            for (prefix, set) in [("dependencies.", &mut normal), ("dev-dependencies.", &mut dev)] {
                if let Some(dependency) = name.strip_prefix(prefix) {
                    set.insert(dependency.to_owned());
                }
            }
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, _)) = line.split_once('=') else {
            continue;
        };
        let name = key
            .trim()
            .split('.')
            .next()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned();
        if table.ends_with("dev-dependencies") {
            dev.insert(name);
        } else if table.ends_with("dependencies") && !table.starts_with("workspace") {
            normal.insert(name);
        }
    }
    (normal, dev)
}

fn manifests() -> Vec<Manifest> {
    let root = root();
    let mut folders: Vec<PathBuf> = fs::read_dir(root.join("src"))
        .expect("src")
        .map(|entry| entry.expect("entry").path())
        .collect();
    folders.push(root.join("benches"));
    folders.push(root.join("ruma-ext"));
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        let Ok(text) = fs::read_to_string(folder.join("Cargo.toml")) else {
            continue;
        };
        let name = folder
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a UTF-8 name")
            .to_owned();
        let (dependencies, dev_dependencies) = parse(&text);
        found.push(Manifest {
            name,
            folder,
            dependencies,
            dev_dependencies,
        });
    }
    assert!(
        found.len() >= 10,
        "only {} crates found below {}",
        found.len(),
        root.display()
    );
    found
}

/// The names of our own crates among dependencies.
fn ours(dependencies: &BTreeSet<String>) -> impl Iterator<Item = &str> {
    dependencies.iter().filter_map(|name| {
        if name.starts_with("ruma-ext") {
            Some("ruma-ext")
        } else {
            name.strip_prefix("hearth-")
        }
    })
}

fn level(name: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&name))
}

/// Every Rust source of a crate, with its path for the message.
fn sources(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && let Ok(text) = fs::read_to_string(&path)
        {
            out.push((path, text));
        }
    }
}

/// Lines of code (not comments) that contain one of `needles`.
fn lines_with(folder: &Path, needles: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    sources(folder, &mut files);
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if needles.iter().any(|needle| code.contains(needle)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn edges_go_down_and_are_declared() {
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let name = manifest.name.as_str();
        let Some(own_level) = level(name) else {
            wrong.push(format!("{name} has no place in LAYERS"));
            continue;
        };
        let declared: BTreeSet<&str> = EDGES
            .iter()
            .filter(|(from, _)| *from == name)
            .flat_map(|(_, targets)| targets.split(' '))
            .filter(|target| !target.is_empty())
            .collect();
        let used: BTreeSet<&str> = ours(&manifest.dependencies).collect();
        for target in &used {
            if level(target).is_none_or(|target_level| target_level <= own_level) {
                wrong.push(format!("{name} -> {target} goes upward or sideways"));
            } else if !declared.contains(target) {
                wrong.push(format!("{name} -> {target} is not declared in EDGES"));
            }
        }
        // A list that allows more than there is would let an edge come back unseen.
        for target in declared.difference(&used) {
            wrong.push(format!(
                "{name} -> {target} is declared in EDGES and does not exist"
            ));
        }
        // Tests of a crate may use the test kit, and otherwise what lies below the crate.
        for target in ours(&manifest.dev_dependencies) {
            if target != "testkit" && level(target).is_none_or(|target_level| target_level <= own_level) {
                wrong.push(format!("{name} -> {target} (dev) goes upward or sideways"));
            }
        }
    }
    assert!(wrong.is_empty(), "layering:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_edge_knows_http_frameworks() {
    for manifest in manifests() {
        if KNOW_HTTP.contains(&manifest.name.as_str()) {
            continue;
        }
        let known: Vec<_> = HTTP_FRAMEWORKS
            .iter()
            .filter(|name| manifest.dependencies.contains(**name))
            .collect();
        assert!(
            known.is_empty(),
            "{} depends on {known:?}; only {KNOW_HTTP:?} may",
            manifest.name
        );
    }
}

#[test]
fn only_storage_names_rocksdb() {
    for manifest in manifests() {
        if manifest.name == "storage" {
            continue;
        }
        // The benchmarks measure RocksDB alone as a ceiling.
        if manifest.name != "benches" {
            assert!(
                !manifest.dependencies.contains("rocksdb"),
                "{} depends on rocksdb",
                manifest.name
            );
        }
        let lines = if manifest.name == "benches" {
            Vec::new()
        } else {
            lines_with(&manifest.folder, &["rocksdb::"])
        };
        let lines: Vec<_> = lines
            .into_iter()
            .filter(|line| !line.contains("layers.rs"))
            .collect();
        assert!(
            lines.is_empty(),
            "RocksDB outside of storage:\n{}",
            lines.join("\n")
        );
    }
}

#[test]
fn tasks_are_spawned_in_one_place() {
    let mut lines = Vec::new();
    for manifest in manifests() {
        if manifest.name == "benches" || manifest.name == "testkit" {
            continue;
        }
        lines.extend(lines_with(
            &manifest.folder,
            &["tokio::spawn(", "tokio::task::spawn(", "thread_rng("],
        ));
    }
    // In tests clippy watches: they say why they await what they spawned.
    lines.retain(|line| !line.contains("core/tasks.rs") && !line.contains("_tests/"));
    assert!(
        lines.is_empty(),
        "spawn by hearth_core::tasks::spawn:\n{}",
        lines.join("\n")
    );
}

/// A metric that is described and never recorded shows nothing, for ever, and nobody notices.
#[test]
fn every_metric_is_recorded() {
    let names = fs::read_to_string(root().join("src/core/metrics.rs")).expect("the names of metrics");
    let names = names.lines().filter_map(|line| {
        let name = line.strip_prefix("pub const ")?.strip_suffix(";")?;
        name.contains(": &str")
            .then(|| name.split(':').next().unwrap_or_default().to_owned())
    });
    let mut files = Vec::new();
    manifests()
        .iter()
        .for_each(|manifest| sources(&manifest.folder, &mut files));
    files.retain(|(path, _)| !path.ends_with("core/metrics.rs"));
    let all: String = files.into_iter().map(|(_, text)| text).collect();
    // Setting a series to zero at the start is not recording it.
    let (before, zeroed) = all
        .split_once("fn zero_what_may_not_have_happened() {")
        .expect("that function");
    let after = zeroed.split_once("\n}\n").expect("its end").1;
    let missing: Vec<String> = names
        .filter(|name| {
            let uses = |text: &str| {
                text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|word| word == name)
            };
            !uses(before) && !uses(after)
        })
        .collect();
    assert!(
        missing.is_empty(),
        "these metrics are named and never recorded: {missing:?}"
    );
}

#[test]
fn events_does_no_io() {
    for manifest in manifests().iter().filter(|manifest| manifest.name == "events") {
        for name in ["tokio", "reqwest", "rocksdb", "futures"] {
            assert!(
                !manifest.dependencies.contains(name),
                "events is pure, but depends on {name}"
            );
        }
    }
}

#[test]
fn manifests_are_parsed() {
    let text = "[dependencies]\nhearth-core.workspace = true\nruma = { version = \"1\" }\n\
                [dev-dependencies]\ntempfile = \"3\"\n[dependencies.rocksdb]\nversion = \"1\"\n[lints]\nworkspace = true\n";
    let (normal, dev) = parse(text);
    assert_eq!(
        normal.iter().map(String::as_str).collect::<Vec<_>>(),
        ["hearth-core", "rocksdb", "ruma"]
    );
    assert_eq!(dev.iter().map(String::as_str).collect::<Vec<_>>(), ["tempfile"]);
}
