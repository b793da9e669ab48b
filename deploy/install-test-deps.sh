#!/usr/bin/env bash
# Installs what the tests need on a Debian machine that has only Rust: the servers and clients that the engine meets in
# the field. Quick and silent when all is there; asks apt only for what is missing. Works as root or with sudo.
#
#   deploy/install-test-deps.sh [--dry-run]
#
# --dry-run changes nothing and prints the commands instead.
set -euo pipefail

fail() {
    echo "install-test-deps: $*" >&2
    exit 1
}

run() {
    "$@"
}
case "$#:${1-}" in
0:) ;;
1:--dry-run)
    run() {
        echo "would run: $*"
    }
    ;;
*) fail "usage: $0 [--dry-run]" ;;
esac

# What each need looks like on the machine, and the Debian package that brings it.
missing=()
need_command() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2")
}
need_command redis-server redis-server
need_command redis-cli redis-tools
# psql alone may be only the client.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
need_command nginx nginx-light
need_command curl curl
need_command openssl openssl
need_command chromium chromium
need_command promtool prometheus
need_command cc build-essential
if command -v php >/dev/null 2>&1; then
    modules=$(php -m)
    grep -qx redis <<<"$modules" || missing+=(php-redis)
    grep -qx curl <<<"$modules" || missing+=(php-curl)
else
    missing+=(php-cli php-redis php-curl)
fi

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null 2>&1 ||
        fail "missing: ${missing[*]} (Debian package names), and there is no apt-get here to install them with"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail "missing: ${missing[*]}; run this as root, or install sudo"
        as_root=(sudo)
    fi
    echo "install-test-deps: missing: ${missing[*]}"
    run "${as_root[@]}" apt-get update -q || fail "apt-get update failed: is the network there?"
    run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}" || fail "apt-get could not install ${missing[*]}"
fi

command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install Rust first (https://rustup.rs)"
cargo fmt --version >/dev/null 2>&1 || run rustup component add rustfmt || fail "rustfmt is missing and could not be added"
cargo clippy --version >/dev/null 2>&1 || run rustup component add clippy || fail "clippy is missing and could not be added"

# crates.io has only the source. Unoptimised and without its self-updater the runner builds in a fraction of the time,
# and the tests do not feel the difference: it only starts them.
if ! cargo nextest --version >/dev/null 2>&1; then
    echo "install-test-deps: building cargo-nextest"
    run env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
        cargo install cargo-nextest --locked --no-default-features --features default-no-update ||
        fail "cargo install cargo-nextest failed"
fi
