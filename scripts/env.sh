# Sourced by the Makefile, .ci/run and by hand (`. scripts/env.sh`): where build products that
# outlive a checkout are kept. Nothing depends on them being there.
HEARTH_CACHE="${HEARTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hearth}"
# Bump together with the `rocksdb` dependency in Cargo.toml; scripts/rocksdb.sh checks it against Cargo.lock.
ROCKSDB_SYS_VERSION="0.19.0"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HEARTH_CACHE/target}"
export ROCKSDB_LIB_DIR="$HEARTH_CACHE/rocksdb-$ROCKSDB_SYS_VERSION"
export ROCKSDB_STATIC=1
export HEARTH_CACHE ROCKSDB_SYS_VERSION
