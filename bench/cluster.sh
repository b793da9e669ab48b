#!/usr/bin/env bash
# What CLUSTER_ENABLED costs a node that is alone: two servers on one core, one with it and one without, loaded in turn by the same
# generator, so that a noisy machine is noisy for both. Redis shares the generator's core: where it shares the server's, as the
# kernel likes, its own time is measured. Prints each round's deliveries a second and processor time for each delivery,
# and the median of each with their ratio. Needs two cores, redis-server, util-linux, curl, jq.
#
#   bench/cluster.sh [rounds [seconds]]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4}
cargo build --release -p engine -p loadtest
bin=${CARGO_TARGET_DIR:-target}/release
export JWT_SECRET=figures-secret-of-at-least-32-bytes API_KEY=figures-api-key-16
export RUST_LOG=warn SERVER_HOST=127.0.0.1 SHARDS=1
export WEBSOCKET_MAX_CONNECTIONS=0 WEBSOCKET_HEARTBEAT_INTERVAL=300 WEBSOCKET_CONNECTION_TIMEOUT=900 CLUSTER_SESSION_TTL_SECONDS=600
port=${PORT:-18210}
scratch=$(mktemp -d)
stop() {
    # shellcheck disable=SC2046 # a list of numbers
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap stop EXIT

for cluster in false true; do
    own=$port
    [ $cluster = false ] || own=$((port + 1))
    mkdir "$scratch/redis-$cluster"
    taskset -c 1 redis-server --port $((own + 2)) --bind 127.0.0.1 --save '' --appendonly no --dir "$scratch/redis-$cluster" >/dev/null &
    until redis-cli -p $((own + 2)) ping >/dev/null 2>&1; do :; done
    REDIS_URL=redis://127.0.0.1:$((own + 2)) SERVER_PORT=$own CLUSTER_ENABLED=$cluster \
        taskset -c 0 "$bin/ara-notification-service" &
    echo "$!" >"$scratch/$cluster.pid"
    echo "$own" >"$scratch/$cluster.port"
    until curl -sf "http://127.0.0.1:$own/health/ready" >/dev/null; do kill -0 "$(cat "$scratch/$cluster.pid")"; done
done

# A node is alone when it has heard of nobody for three seconds.
sleep 4

median() { sort -n | awk '{ row[NR] = $1 } END { print row[int((NR + 1) / 2)] }'; }

compare() {
    local name=$1 round cluster what own
    shift
    echo "== $name"
    for ((round = 1; round <= rounds; round++)); do
        for cluster in false true; do
            own=$(cat "$scratch/$cluster.port")
            "$bin/ara-loadtest" run --target "127.0.0.1:$own" --redis-url "redis://127.0.0.1:$((own + 2))" --cpu 1 \
                --server-pid "$(cat "$scratch/$cluster.pid")" --rate 0 --seconds "$seconds" --verify scan \
                --json "$scratch/report.json" "$@" >"$scratch/report" || { cat "$scratch/report"; exit 1; }
            jq '.deliveries_per_second | round' "$scratch/report.json" >>"$scratch/$name.$cluster.rate"
            jq '1e9 * .server.cpu_seconds / .received_measured | round' "$scratch/report.json" >>"$scratch/$name.$cluster.ns"
        done
        echo "round $round: off $(tail -n 1 "$scratch/$name.false.rate")/s $(tail -n 1 "$scratch/$name.false.ns") ns," \
            "on $(tail -n 1 "$scratch/$name.true.rate")/s $(tail -n 1 "$scratch/$name.true.ns") ns"
    done
    for what in rate ns; do
        off=$(median <"$scratch/$name.false.$what") on=$(median <"$scratch/$name.true.$what")
        echo "median $what: off $off, on $on: $(awk -v a="$on" -v b="$off" 'BEGIN { printf "%.1f %%", 100 * a / b }')"
    done
}

compare "REST sends to 2,000 users" --clients 2000 --aim user --publishers 8 --pipeline 32
compare "channel, 1,000 subscribers" --clients 1000 --channels 1 --aim channel --publishers 4 --pipeline 16
compare "Redis publishes to 2,000 users" --clients 2000 --aim user --publish redis --pipeline 64
