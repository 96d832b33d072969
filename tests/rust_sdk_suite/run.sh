#!/usr/bin/env bash
# Runs matrix-rust-sdk's own integration tests against $HEARTH_BINARY and says what changed; see README.md.
# Arguments go to the test program, such as the name of a test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
: "${RUST_SDK_DIR:?set RUST_SDK_DIR to a checkout of matrix-rust-sdk}"
address=127.0.0.1:8228 # where the tests look for it, with the name that they expect
folder=$(mktemp -d)
cat > "$folder/hearth.toml" <<TOML
server_name = "matrix-sdk.rs"
data_dir = "$folder/data"
client_listen = "$address"
registration = "open"
rate_limits = false
TOML

# A debug build of it is large; what is debugged is the server.
(cd "$RUST_SDK_DIR" && CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 \
    cargo test --no-run -p matrix-sdk-integration-testing --lib)

"$HEARTH_BINARY" --config "$folder/hearth.toml" > "$folder/hearth.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    if curl -sf "http://$address/_matrix/client/versions" > "$folder/versions"; then break; fi
    sleep 0.1
done

# One test of theirs can hang: `timeout` ends the run, and what came to an end before counts.
(cd "$RUST_SDK_DIR" && RUST_LOG=off CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 HOMESERVER_DOMAIN=matrix-sdk.rs \
    timeout 900 cargo test -p matrix-sdk-integration-testing --lib -- "$@") 2>&1 | tee "$folder/out" || true
sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' "$folder/out" | sort > "$folder/passed"
echo "passed: $(wc -l < "$folder/passed"); failed: $(grep -c '^test .* \.\.\. FAILED$' "$folder/out" || true)"
if [ $# -eq 0 ]; then
    echo "of $here/results.txt not passed this time:"
    comm -23 <(sort "$here/results.txt") "$folder/passed"
fi
