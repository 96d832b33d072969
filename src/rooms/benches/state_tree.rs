//! What a room's state map costs, by its size: run with `cargo bench -p hearth-rooms`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hearth_rooms::state_tree::{NewNodes, apply, build, diff, get};

/// Differences between the two states compared, as two branches of a busy room have them.
const DIFFERENCES: u32 = 10;

fn state_tree(c: &mut Criterion) {
    for size in [100u32, 10_000, 100_000] {
        let (root, mut nodes) = build((0..size).map(|key| (key, key * 9)));
        let changes: Vec<_> = (0..DIFFERENCES)
            .map(|n| (n * (size / DIFFERENCES), Some(n + 1)))
            .collect();
        let other = apply(&NewNodes::new(), root, &changes, &mut nodes).expect("the nodes are all in memory");
        // Steps through the keys so that no run of them shares a path.
        let mut key = 0u32;
        let mut next = move || {
            key = (key + 7_919) % size;
            key
        };

        c.bench_with_input(BenchmarkId::new("state_tree/get", size), &root, |b, root| {
            b.iter(|| get(&nodes, *root, black_box(next())));
        });
        c.bench_with_input(BenchmarkId::new("state_tree/apply", size), &root, |b, root| {
            b.iter(|| {
                let mut new = NewNodes::new();
                apply(&nodes, *root, &[(next(), Some(7_777_777))], &mut new).map(|root| (root, new))
            });
        });
        c.bench_with_input(BenchmarkId::new("state_tree/diff", size), &root, |b, root| {
            b.iter(|| {
                let mut seen = 0;
                diff(&nodes, *root, black_box(other), &mut |_, _, _| seen += 1).map(|()| seen)
            });
        });
    }
}

criterion_group!(benches, state_tree);
criterion_main!(benches);
