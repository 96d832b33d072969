//! What every engine must do: one suite, run against each.

use std::sync::Arc;

use crate::{
    Batch, Engine, Error, Family, Log, MemoryEngine, Reader, Record, RocksEngine, RocksOptions, ShardId,
};

/// Runs a check on a fresh engine of each sort.
fn each(check: impl Fn(Arc<dyn Engine>)) {
    check(Arc::new(MemoryEngine::new()));
    let folder = tempfile::tempdir().unwrap();
    check(Arc::new(open(&folder)));
}

fn open(folder: &tempfile::TempDir) -> RocksEngine {
    RocksEngine::open(
        folder.path(),
        RocksOptions {
            memory_limit_bytes: 32 << 20,
        },
    )
    .unwrap()
}

fn rows(
    reader: &dyn Reader,
    family: Family,
    start: &[u8],
    end: &[u8],
    reverse: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    };
    reader.scan(family, start, end, reverse, visit).unwrap();
    rows
}

fn keys(reader: &dyn Reader, start: &[u8], end: &[u8], reverse: bool) -> String {
    let rows = rows(reader, Family::View, start, end, reverse);
    rows.into_iter()
        .map(|(key, _)| String::from_utf8(key).unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

fn puts(keys: &[&str]) -> Batch {
    let mut batch = Batch::new();
    for key in keys {
        batch.put(Family::View, *key, format!("value of {key}"));
    }
    batch
}

#[test]
fn reads_find_what_was_written() {
    each(|engine| {
        assert_eq!(engine.get(Family::View, b"a"), Ok(None));
        engine.write(&puts(&["a", "c"]), true).unwrap();
        engine.write(&puts(&["b"]), false).unwrap();
        assert_eq!(engine.get(Family::View, b"a"), Ok(Some(b"value of a".to_vec())));
        assert_eq!(engine.get(Family::Room, b"a"), Ok(None), "families are apart");
        let found = engine
            .multi_get(Family::View, &[b"c".to_vec(), b"x".to_vec(), b"b".to_vec()])
            .unwrap();
        assert_eq!(
            found,
            [Some(b"value of c".to_vec()), None, Some(b"value of b".to_vec())]
        );
        assert_eq!(engine.multi_get(Family::View, &[]), Ok(vec![]));
    });
}

#[test]
fn scans_keep_order_and_bounds() {
    each(|engine| {
        engine.write(&puts(&["a", "b", "ba", "c", "d"]), true).unwrap();
        let cases: [(&str, &str, bool, &str); 7] = [
            ("b", "d", false, "b ba c"),
            ("b", "d", true, "c ba b"),
            ("", "z", false, "a b ba c d"),
            ("", "z", true, "d c ba b a"),
            ("b", "b", false, ""),
            ("d", "b", true, ""),
            ("bb", "bz", false, ""),
        ];
        for (start, end, reverse, expected) in cases {
            assert_eq!(
                keys(&*engine, start.as_bytes(), end.as_bytes(), reverse),
                expected,
                "{start}..{end}"
            );
        }
        let mut seen = 0;
        engine
            .scan(Family::View, b"", b"z", false, &mut |_, _| {
                seen += 1;
                seen < 2
            })
            .unwrap();
        assert_eq!(seen, 2, "a visitor stops the scan");
    });
}

#[test]
fn a_batch_applies_in_order() {
    each(|engine| {
        engine.write(&puts(&["a", "b", "c", "d"]), true).unwrap();
        let mut batch = Batch::new();
        batch.delete_range(Family::View, "b", "d");
        batch.put(Family::View, "c", "again");
        batch.put(Family::View, "e", "e");
        batch.delete(Family::View, "e");
        batch.delete(Family::View, "never there");
        batch.delete_range(Family::View, "z", "a");
        batch.put(Family::Room, "r", "r");
        engine.write(&batch, true).unwrap();
        assert_eq!(keys(&*engine, b"", b"z", false), "a c d");
        assert_eq!(engine.get(Family::View, b"c"), Ok(Some(b"again".to_vec())));
        assert_eq!(engine.get(Family::Room, b"r"), Ok(Some(b"r".to_vec())));
        engine.write(&Batch::new(), true).unwrap();
    });
}

#[test]
fn of_rows_written_again_in_a_batch_the_last_counts() {
    // The heads of rooms, because engines may leave out what a later row of a batch replaces.
    each(|engine| {
        let mut batch = Batch::new();
        batch.put(Family::Room, "twice", "1");
        batch.put(Family::Room, "then deleted", "1");
        batch.put(Family::Room, "deleted between", "1");
        batch.put(Family::Room, "other", "1");
        batch.put(Family::View, "twice", "1");
        batch.delete(Family::Room, "deleted between");
        batch.put(Family::Room, "deleted between", "2");
        batch.put(Family::Room, "twice", "2");
        batch.put(Family::Room, "then deleted", "2");
        batch.delete(Family::Room, "then deleted");
        engine.write(&batch, true).unwrap();
        for (family, key, value) in [
            (Family::Room, "twice", Some("2")),
            (Family::Room, "then deleted", None),
            (Family::Room, "deleted between", Some("2")),
            (Family::Room, "other", Some("1")),
            (Family::View, "twice", Some("1")),
        ] {
            let value = value.map(|value| value.as_bytes().to_vec());
            assert_eq!(engine.get(family, key.as_bytes()), Ok(value), "{key}");
        }
    });
}

#[test]
fn a_snapshot_does_not_change() {
    each(|engine| {
        engine.write(&puts(&["a", "b"]), true).unwrap();
        let snapshot = engine.snapshot();
        let mut batch = puts(&["c"]);
        batch.delete(Family::View, "a");
        engine.write(&batch, true).unwrap();
        assert_eq!(keys(&*snapshot, b"", b"z", false), "a b");
        assert_eq!(keys(&*snapshot, b"", b"z", true), "b a");
        assert_eq!(snapshot.get(Family::View, b"c"), Ok(None));
        assert_eq!(
            snapshot.multi_get(Family::View, &[b"a".to_vec(), b"c".to_vec()]),
            Ok(vec![Some(b"value of a".to_vec()), None])
        );
        assert_eq!(keys(&*engine, b"", b"z", false), "b c");
    });
}

#[test]
fn a_visitor_may_read() {
    each(|engine| {
        engine.write(&puts(&["a", "b"]), true).unwrap();
        let mut found = 0;
        engine
            .scan(Family::View, b"", b"z", false, &mut |key, value| {
                found += usize::from(engine.get(Family::View, key).unwrap().as_deref() == Some(value));
                true
            })
            .unwrap();
        assert_eq!(found, 2);
    });
}

#[test]
fn upkeep_changes_no_data() {
    each(|engine| {
        engine.write(&puts(&["a", "b"]), true).unwrap();
        engine.flush().unwrap();
        engine.compact(Family::View, b"a", b"z").unwrap();
        assert_eq!(keys(&*engine, b"", b"z", false), "a b");
        assert!(engine.usage_bytes() > 0);
        let _ = engine.free_bytes();
    });
}

#[test]
fn all_bytes_may_be_in_keys_and_values() {
    each(|engine| {
        let mut batch = Batch::new();
        let keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte, 0, 255 - byte]).collect();
        for key in &keys {
            batch.put(Family::RoomEvent, key.clone(), key.clone());
        }
        batch.put(Family::RoomEvent, [7], []);
        engine.write(&batch, true).unwrap();
        let found = rows(&*engine, Family::RoomEvent, &[], &[255, 255, 255, 255], false);
        assert_eq!(found.len(), 257);
        assert!(found.is_sorted());
        assert_eq!(
            engine.get(Family::RoomEvent, &[7]),
            Ok(Some(vec![])),
            "an empty value is not an absent one"
        );
    });
}

#[test]
fn rocksdb_keeps_data_and_refuses_what_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).write(&puts(&["a"]), true).unwrap();
    {
        let engine = open(&folder);
        assert_eq!(keys(&engine, b"", b"z", false), "a");
        assert!(engine.free_bytes().is_some_and(|bytes| bytes > 0));
        let second = RocksEngine::open(folder.path(), RocksOptions::default());
        assert!(
            matches!(second, Err(Error::Engine(_))),
            "two processes cannot share a folder"
        );
    }
    let options = rocksdb::Options::default();
    let all = rocksdb::DB::list_cf(&options, folder.path()).unwrap();
    let mut newer = rocksdb::DB::open_cf(&options, folder.path(), &all).unwrap();
    newer.create_cf("of_the_future", &options).unwrap();
    drop(newer);
    let Err(Error::Schema(message)) = RocksEngine::open(folder.path(), RocksOptions::default()) else {
        panic!("it must be refused")
    };
    assert!(message.contains("of_the_future"), "{message}");
}

#[test]
fn a_log_on_rocksdb_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let commit = |log: &Arc<Log>, key: &str| {
        let ticket = log.reserve(ShardId(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ticket.submit(Record::of(puts(&[key])))).unwrap()
    };
    for round in 1..=3 {
        let log = Log::open(Arc::new(open(&folder)), 2).unwrap();
        assert_eq!(log.published(ShardId(1)), round - 1);
        assert_eq!(commit(&log, &format!("key {round}")), round);
        log.close();
        assert_eq!(
            log.reserve(ShardId(1)).submit(Record::default()).position(),
            round + 1
        );
    }
    assert_eq!(rows(&open(&folder), Family::View, b"", b"z", false).len(), 3);
}

/// What an idle store costs, and how fast it opens. The figures depend on the machine, so they are only
/// printed: `cargo test -p hearth-storage --release -- --ignored --nocapture open_time`.
#[test]
#[ignore = "a measurement"]
fn open_time() {
    let folder = tempfile::tempdir().unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap_or_default()
            .to_owned()
    };
    println!("before: {}", resident());
    for round in 0..4 {
        let start = std::time::Instant::now();
        let engine = Arc::new(open(&folder));
        let opened = start.elapsed();
        let _log = Log::open(engine.clone(), 16).unwrap();
        println!(
            "round {round}: engine {opened:?}, log {:?}, {}",
            start.elapsed(),
            resident()
        );
        let mut batch = Batch::new();
        for family in Family::ALL.iter().filter(|family| **family != Family::Cursor) {
            batch.put(*family, [1; 20], [round; 200]);
        }
        engine.write(&batch, true).unwrap();
        println!("  after a write to every family: {}", resident());
        if round % 2 == 0 {
            let start = std::time::Instant::now();
            engine.flush().unwrap();
            println!("  flush {:?}", start.elapsed());
        }
    }
}
