#!/usr/bin/env bash
# The figures of the README and of release notes: the server on one core, the generator on another, and the raw-socket
# ceiling of the same run, so that a noisy machine is noisy for both. Needs two cores, redis-server, util-linux, curl;
# the section `stores` needs PostgreSQL 14 or newer below /usr/lib/postgresql, too.
#
#   bench/figures.sh [quick] [stores]
#
# quick: shorter phases, fewer messages. stores: only what keeping mail costs, in memory, in Redis and in PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=10 messages=100 only= failed=0
for word in "$@"; do
    case "$word" in
    quick) seconds=4 messages=20 ;;
    stores) only=stores ;;
    *) echo "usage: $0 [quick] [stores]" >&2; exit 2 ;;
    esac
done
packages=(-p engine -p loadtest)
[ "$only" = stores ] || packages+=(-p bench)
cargo build --release "${packages[@]}"
bin=${CARGO_TARGET_DIR:-target}/release
export JWT_SECRET=figures-secret-of-at-least-32-bytes API_KEY=figures-api-key-16
export RUST_LOG=warn SERVER_HOST=127.0.0.1 SERVER_PORT=${PORT:-18200} SHARDS=1
export WEBSOCKET_MAX_CONNECTIONS=0 WEBSOCKET_HEARTBEAT_INTERVAL=300 WEBSOCKET_CONNECTION_TIMEOUT=900
redis_port=${REDIS_PORT:-18201}
postgres_port=${POSTGRES_PORT:-18202}
export REDIS_URL=redis://127.0.0.1:$redis_port
export DATABASE_URL=postgres://postgres@127.0.0.1:$postgres_port/postgres?sslmode=disable
scratch=$(mktemp -d)
stop() {
    # shellcheck disable=SC2046 # a list of numbers
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap stop EXIT

redis=
start_redis() {
    mkdir -p "$scratch/redis"
    # Where a section measures the store, it shares the generator's core, so that the server's is its own.
    "${redis_on[@]}" redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$scratch/redis" "$@" \
        >/dev/null &
    redis=$!
    until redis-cli -p "$redis_port" ping >/dev/null 2>&1; do :; done
}
stop_redis() { kill "$redis"; wait "$redis" || true; rm -rf "$scratch/redis"; }

server=
start() {
    taskset -c 0 "$bin/ara-notification-service" &
    server=$!
    until "$bin/ara-notification-service" healthcheck >/dev/null 2>&1; do :; done
}
restart() { kill "$server"; wait "$server" || true; start; }
load() { "$bin/ara-loadtest" "$1" --target "127.0.0.1:$SERVER_PORT" --cpu 1 --server-pid "$server" "${@:2}"; }

live() {
    echo "== ceiling: raw sockets, one writer on core 0"
    "$bin/ara-bench" ceiling --seconds "$seconds"
    redis_on=(env)
    start_redis --appendonly no
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
    kill "$server"; wait "$server" || true
    stop_redis
}

# A cluster of our own with the settings PostgreSQL comes with; as root it runs as the user of Debian's package.
as_postgres=()
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
start_postgres() {
    local programs data=$scratch/postgres/data
    programs=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    mkdir "$scratch/postgres"
    chmod 755 "$scratch"
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$scratch/postgres"
    (cd "$scratch/postgres" && "${as_postgres[@]}" "$programs/initdb" -D "$data" \
        --username=postgres --auth=trust --encoding=UTF8 --no-locale >/dev/null)
    (cd "$scratch/postgres" && exec taskset -c 1 "${as_postgres[@]}" "$programs/postgres" -D "$data" -p "$postgres_port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= 2>/dev/null) &
    until "$programs/pg_isready" -q -h 127.0.0.1 -p "$postgres_port"; do :; done
}

# Both delivery classes that keep mail, by one backend: the figures of storing and of the replay.
kept() {
    local name=$1 ack
    export QUEUE_ENABLED=true QUEUE_BACKEND=$2 ACK_BACKEND=$2
    for ack in false true; do
        export ACK_ENABLED=$ack
        local until=--until-empty class="kept until written"
        [ "$ack" = false ] || until=--ack class="kept until acknowledged"
        echo "== $name: $messages messages for each of 1,000 users who are away, then all connect; $class"
        start
        until curl -s "http://127.0.0.1:$SERVER_PORT/health" | grep -q '"status":"healthy"'; do :; done
        # A run that failed says why; the others are still worth making.
        load replay --clients 1000 --messages "$messages" --publishers 8 --pipeline 32 --deadline 300 "$until" \
            --verify scan || failed=1
        kill "$server"; wait "$server" || true
    done
    unset QUEUE_ENABLED QUEUE_BACKEND ACK_BACKEND ACK_ENABLED
}

stores() {
    redis_on=(taskset -c 1)
    start_redis --appendonly no
    kept "memory" memory
    kept "Redis, appendonly no" redis
    stop_redis
    start_redis --appendonly yes --appendfsync everysec
    kept "Redis, appendfsync everysec" redis
    stop_redis
    start_redis --appendonly no
    start_postgres
    kept "PostgreSQL, fsync on" postgres
}

[ "$only" = stores ] || live
stores
exit "$failed"
