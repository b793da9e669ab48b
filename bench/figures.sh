#!/usr/bin/env bash
# The figures of the README and of release notes: the server on one core, the generator on another, and the raw-socket
# ceiling of the same run, so that a noisy machine is noisy for both. Needs two cores, redis-server, util-linux.
#
#   bench/figures.sh [quick]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=10
[ "${1:-}" = quick ] && seconds=4
cargo build --release -p engine -p loadtest -p bench
bin=target/release
export JWT_SECRET=figures-secret-of-at-least-32-bytes API_KEY=figures-api-key-16
export RUST_LOG=warn SERVER_HOST=127.0.0.1 SERVER_PORT=${PORT:-18200} SHARDS=1
export WEBSOCKET_MAX_CONNECTIONS=0 WEBSOCKET_HEARTBEAT_INTERVAL=300 WEBSOCKET_CONNECTION_TIMEOUT=900
redis_port=${REDIS_PORT:-18201}
export REDIS_URL=redis://127.0.0.1:$redis_port
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; }
trap stop EXIT

redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null & pids+=($!)
until redis-cli -p "$redis_port" ping >/dev/null 2>&1; do :; done

server=
start() {
    taskset -c 0 "$bin/ara-notification-service" & server=$!
    pids+=("$server")
    until "$bin/ara-notification-service" healthcheck >/dev/null 2>&1; do :; done
}
restart() { kill "$server"; wait "$server" || true; start; }
load() { "$bin/ara-loadtest" "$1" --target "127.0.0.1:$SERVER_PORT" --cpu 1 --server-pid "$server" "${@:2}"; }

echo "== ceiling: raw sockets, one writer on core 0"
"$bin/ara-bench" ceiling --seconds "$seconds"
start
for clients in 1000 10000; do
    echo "== fan-out: one channel, $clients WebSocket subscribers, flat out"
    load run --clients "$clients" --channels 1 --aim channel --rate 0 --publishers 4 --pipeline 16 --seconds "$seconds" --verify scan
    restart
done
echo "== REST sends to 2,000 users, flat out"
load run --clients 2000 --aim user --rate 0 --publishers 8 --pipeline 32 --seconds "$seconds" --verify scan
restart
echo "== Redis publishes to 2,000 users, flat out"
load run --clients 2000 --aim user --publish redis --redis-url "$REDIS_URL" --rate 0 --pipeline 64 --seconds "$seconds" --verify scan
restart
echo "== REST sends to 2,000 users at 2,000 a second: latency"
load run --clients 2000 --aim user --rate 2000 --publishers 4 --seconds "$seconds" --verify scan
restart
echo "== connects and memory: 15,000 idle WebSocket connections with one subscription each"
load idle --clients 15000 --channels 100 --hold 3
