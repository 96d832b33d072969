#!/usr/bin/env bash
# Prepares a fresh machine for a build: compilers, libclang (RocksDB's bindings are generated with it) and
# RocksDB's library in the cache. Installs with apt where it may, else says what is missing. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'hearth setup: %s\n' "$*" >&2; }

missing=()
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' && return 0
    # Not libclang-cpp, which is another library.
    compgen -G '/usr/lib/llvm*/lib/libclang.so*' >/dev/null || compgen -G '/usr/lib/llvm*/lib/libclang-[0-9]*.so*' >/dev/null
}
need cc gcc
need c++ g++
need make make
need curl curl
need flock util-linux
need python3 python3
has_libclang || missing+=(libclang-dev)

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        say "this machine lacks: ${missing[*]} (names of Debian's packages). Install them, for example with"
        say "    sudo apt-get install ${missing[*]}"
        exit 1
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    say "no cargo: install Rust 1.90 or later (https://rustup.rs), then try again"
    exit 1
fi

if [ ! -f "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
    say "RocksDB's library is not in $HEARTH_CACHE yet. It is built once per machine: 15 to 20 minutes on two"
    say "cores. Afterwards every build, test, lint and clone on this machine links it."
    started=$SECONDS
    # A sign of life each minute, since cargo says nothing while the C++ compiles.
    ( while sleep 60; do say "still building RocksDB ($(( (SECONDS - started) / 60 )) min)"; done ) &
    ticker=$!
    trap 'kill "$ticker" 2>/dev/null || true' EXIT
    scripts/rocksdb.sh
    say "RocksDB is ready after $(( (SECONDS - started) / 60 )) min"
else
    scripts/rocksdb.sh
fi
