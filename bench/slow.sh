#!/usr/bin/env bash
# What slow consumers cost the others: a saturated broadcast to 2,000 subscribers of whom a fifth stop reading, against the
# same with the 1,600 alone, in turns, so that a noisy machine is noisy for both. The server on one core, the generator on
# another. Needs two cores that nobody else uses, util-linux, curl, awk.
#
#   bench/slow.sh [rounds] [bytes of a message]
#
# The measured phase begins when the sockets of the slow ones are full: until then they are like any other (WARM_UP seconds;
# the column waiting_mib shows that it was long enough). Prints a line for each run and the medians. Fails when the median of the p99 of those who read is more than a fifth higher
# beside the slow ones, when a message was lost or a publish refused, or when the server's memory grew by more than the bound
# of its outboxes (SERVER_OUTBOX_MEMORY_MB) beside what the 1,600 alone cost.
# BIN: where the binaries are; without it they are built.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} size=${2:-8000} seconds=${SECONDS_EACH:-6} warm_up=${WARM_UP:-15}
if [ -z "${BIN:-}" ]; then
    cargo build --release -p engine -p loadtest
    BIN=${CARGO_TARGET_DIR:-target}/release
fi
export JWT_SECRET=figures-secret-of-at-least-32-bytes API_KEY=figures-api-key-16
export RUST_LOG=warn SERVER_HOST=127.0.0.1 SERVER_PORT=${PORT:-18210} SHARDS=1 REDIS_URL=redis://127.0.0.1:1
export WEBSOCKET_MAX_CONNECTIONS=0 SERVER_OUTBOX_MEMORY_MB=${SERVER_OUTBOX_MEMORY_MB:-64}
scratch=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap stop EXIT

# p99 and longest answer in milliseconds, deliveries a second, peak MiB, closed, lost, refused, the server's CPU for a million
# deliveries to those who read, and what waits in outboxes in the middle, shared frames counted for each.
run() {
    local name=$1 report=$scratch/report
    taskset -c 0 "$BIN/ara-notification-service" >>"$scratch/log" 2>&1 &
    server=$!
    until "$BIN/ara-notification-service" healthcheck >/dev/null 2>&1; do
        kill -0 "$server" || { cat "$scratch/log" >&2; exit 1; }
    done
    # In the middle of the measured phase; connecting takes a moment.
    (sleep $((warm_up + seconds / 2 + 1)); curl -s "http://127.0.0.1:$SERVER_PORT/metrics" >"$scratch/metrics") &
    local look=$!
    "$BIN/ara-loadtest" run --target "127.0.0.1:$SERVER_PORT" --cpu 1 --server-pid "$server" --aim broadcast --rate 0 \
        --publishers 4 --pipeline 16 --size "$size" --seconds "$seconds" --warm-up "$warm_up" --verify scan "${@:2}" >"$report" || {
        cat "$report" >&2
        exit 1
    }
    wait "$look"
    local peak waiting
    waiting=$(awk '/^ara_shard_outbox_bytes/ { sum += $2 } END { printf "%.0f", sum / 1048576 }' "$scratch/metrics")
    peak=$(awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$server/status")
    kill "$server"
    wait "$server" || true
    server=
    awk -v name="$name" -v peak="$peak" -v waiting="$waiting" '
        function after(word,   i) { for (i = 1; i < NF; i++) if ($i == word) return $(i + 1) }
        /^  latency /          { p99 = after("p99") }
        /^  publish answered / { answer = after("max") }
        /^  deliveries\/s /    { rate = $2 }
        /^  lost /             { lost = $2 }
        /^  refused /          { refused = $2 }
        /^  server CPU per 1M/ { cpu = $6 }
        /^  slow clients /     { closed = $4 }
        END { print name, p99, answer, rate, peak, closed + 0, lost, refused, cpu, waiting }' "$report" | tee -a "$scratch/runs"
}

echo "run p99_ms answer_max_ms deliveries/s peak_mib closed lost refused cpu_s/1M waiting_mib"
for _ in $(seq "$rounds"); do
    run alone --clients 1600
    run beside --clients 2000 --slow-percent 20
done
median() { awk -v name="$1" -v field="$2" '$1 == name { print $field }' "$scratch/runs" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
most() { awk -v name="$1" -v field="$2" '$1 == name && $field + 0 > most { most = $field + 0 } END { print most + 0 }' "$scratch/runs"; }
echo "medians: p99 $(median alone 2) ms alone, $(median beside 2) ms beside the slow ones;" \
    "longest answer to a publisher $(median alone 3) and $(median beside 3) ms;" \
    "CPU $(median alone 9) and $(median beside 9) s for 1M deliveries;" \
    "deliveries/s $(median alone 4) and $(median beside 4); peak memory $(most alone 5) and $(most beside 5) MiB"
awk -v alone="$(median alone 2)" -v beside="$(median beside 2)" -v lost="$(most alone 7) $(most beside 7)" \
    -v refused="$(most alone 8) $(most beside 8)" -v grown="$(most beside 5)" -v base="$(most alone 5)" \
    -v bound="$SERVER_OUTBOX_MEMORY_MB" 'BEGIN {
        if (beside > 1.2 * alone) { print "FAILED: p99 moved by more than a fifth"; bad = 1 }
        if (lost != "0 0") { print "FAILED: lost " lost; bad = 1 }
        if (refused != "0 0") { print "FAILED: refused " refused; bad = 1 }
        if (grown > base + bound) { print "FAILED: memory above the bound"; bad = 1 }
        exit bad
    }'
