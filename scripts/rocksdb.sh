#!/usr/bin/env bash
# Builds RocksDB's static library once per machine into the cache, where every profile and clone links it.
# The C++ takes 15-20 minutes on two cores; a second caller waits for the first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

if [ -f Cargo.lock ]; then
    locked=$(awk '/^name = "librocksdb-sys"/{getline; gsub(/"/,"",$3); sub(/\+.*/,"",$3); print $3}' Cargo.lock)
    if [ -n "$locked" ] && [ "$locked" != "$ROCKSDB_SYS_VERSION" ]; then
        echo "scripts/env.sh names librocksdb-sys $ROCKSDB_SYS_VERSION but Cargo.lock has $locked: change ROCKSDB_SYS_VERSION" >&2
        exit 1
    fi
fi

mkdir -p "$HEARTH_CACHE"
exec 9>"$HEARTH_CACHE/rocksdb.lock"
flock 9
[ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] && exit 0

echo "Building RocksDB's C++ library once for this machine (15 to 20 minutes on two cores) ..." >&2
build="$HEARTH_CACHE/rocksdb-build-$ROCKSDB_SYS_VERSION"
mkdir -p "$build/src"
: > "$build/src/lib.rs"
cat > "$build/Cargo.toml" <<TOML
[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
librocksdb-sys = { version = "=$ROCKSDB_SYS_VERSION", default-features = false, features = ["static", "bindgen-runtime", "lz4", "zstd"] }
[profile.release]
debug = false
TOML
flags=""
# SSE 4.2 and carry-less multiplication (every x86-64 since 2010) make RocksDB's checksums fast.
[ "$(uname -m)" = x86_64 ] && flags="-Ctarget-cpu=x86-64-v2 -Ctarget-feature=+pclmulqdq"
(
    cd "$build"
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC RUSTFLAGS="$flags" CARGO_TARGET_DIR="$build/target" \
        cargo build --release
)
library=$(find "$build/target/release/build" -name librocksdb.a | head -n 1)
[ -n "$library" ] || { echo "the build left no librocksdb.a below $build/target" >&2; exit 1; }
mkdir -p "$ROCKSDB_LIB_DIR"
cp "$library" "$ROCKSDB_LIB_DIR/librocksdb.a.part"
mv "$ROCKSDB_LIB_DIR/librocksdb.a.part" "$ROCKSDB_LIB_DIR/librocksdb.a"
rm -rf "$build"
