# Sourced, after env.sh, before what is built in the release profile: the compiler is told what a server under load was seen to
# do (release.llvm*.profdata.gz, gathered by profile.sh), which saves it a tenth of a send. Functions that have changed since
# are built as without it. Where the compiler is too old to read the profile, or has flags of the user's own, nothing is told.
_packed=$(echo scripts/release.llvm*.profdata.gz)
# An older compiler than the one whose format it has cannot read it, and would refuse to build.
_format=${_packed#*.llvm} _format=${_format%%.*}
_llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if [ "${_llvm:-0}" -ge "$_format" ] && [ -z "${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}" ]; then
    # The name goes by the content, so that another profile makes another build, and all clones on a machine share one.
    _profile="$HEARTH_CACHE/release-$(cksum < "$_packed" | tr ' ' '-').profdata"
    if [ ! -f "$_profile" ]; then
        mkdir -p "$HEARTH_CACHE"
        gzip -dc "$_packed" > "$_profile.$$"
        mv "$_profile.$$" "$_profile"
    fi
    export CARGO_ENCODED_RUSTFLAGS="-Cprofile-use=$_profile"$'\x1f'"-Cllvm-args=-no-pgo-warn-mismatch"
fi
