#!/usr/bin/env bash
# The test command: everything that must hold before a change is taken. CI runs exactly this.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    echo
    echo "== $*"
    "$@"
}

deploy/install-test-deps.sh
step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
step cargo nextest run --workspace --locked
step cargo test --doc --workspace --locked
