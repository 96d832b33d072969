#!/usr/bin/env bash
# Gathers anew what release builds are told of a server under load (release-env.sh): builds one that counts, drives it with the
# load program, and leaves what it counted in release.llvm*.profdata.gz, to be committed. Half an hour on two cores. Needs
# llvm-profdata of the compiler's LLVM: Debian's package llvm-22, or rustup's component llvm-tools.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
profdata=$(command -v "llvm-profdata-$llvm" || find "$(rustc --print sysroot)" -name llvm-profdata -type f | head -n 1)
[ -n "$profdata" ] || { echo "there is no llvm-profdata of LLVM $llvm here" >&2; exit 1; }

( . scripts/release-env.sh && cargo build --release --locked -p hearth-benches )
counting="$HEARTH_CACHE/counting"
# What runs during the build counts, too, and is not wanted.
LLVM_PROFILE_FILE=/dev/null CARGO_TARGET_DIR="$counting" CARGO_ENCODED_RUSTFLAGS=-Cprofile-generate \
    cargo build --release --locked -p hearth-server

counted=$(mktemp -d)
trap 'rm -rf "$counted"' EXIT
LLVM_PROFILE_FILE="$counted/%m-%p.profraw" HEARTH_BINARY="$counting/release/hearth" "$CARGO_TARGET_DIR/release/hearth-load" \
    --scenarios sends,latency,idle-sync,sliding,encryption --senders 16,64,512 --seconds 2
# Sparse: of a function that never ran the compiler is told nothing, instead of that it is cold.
"$profdata" merge --sparse -o "$counted/all.profdata" "$counted"/*.profraw
gzip -9 -n "$counted/all.profdata"
rm -f scripts/release.llvm*.profdata.gz
mv "$counted/all.profdata.gz" "scripts/release.llvm$llvm.profdata.gz"
