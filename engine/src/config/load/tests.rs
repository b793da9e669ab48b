use super::*;
use crate::config::SourceFile;

const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");

fn load(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    load_sources(&Sources::from_environment(pairs.iter().copied()))
}

fn load_sources(sources: &Sources) -> Result<Loaded, Vec<String>> {
    Settings::load(sources).map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

/// The settings of a good environment, beside a good secret.
fn good(pairs: &[(&str, &str)]) -> Settings {
    load(&[&[SECRET], pairs].concat()).expect("a good environment").settings
}

/// The problems of a bad one.
fn bad(pairs: &[(&str, &str)]) -> Vec<String> {
    load(&[&[SECRET], pairs].concat()).expect_err("a bad environment")
}

fn warnings(pairs: &[(&str, &str)]) -> Vec<String> {
    load(&[&[SECRET], pairs].concat()).unwrap().warnings.into_iter().map(|warning| warning.0).collect()
}

#[test]
fn a_secret_is_all_it_takes() {
    let settings = good(&[]);
    assert_eq!(settings.server.host, "0.0.0.0");
    assert_eq!(settings.server.port, 8081);
    assert_eq!(settings.run_mode, RunMode { name: "development".to_owned(), production: false });
    assert_eq!(settings.log.filter, "info");
    assert_eq!(settings.shards, 1);
    assert_eq!(settings.server.trusted_proxies.len(), 6);
    assert_eq!(settings.redis.url.expose(), "redis://localhost:6379");
    assert_eq!(settings.redis.channels, ["notification:user:*", "notification:broadcast", "notification:channel:*"]);
    assert_eq!(settings.redis.breaker_failure_threshold, 5);
    assert_eq!(settings.redis.backoff_max_delay_ms, 30_000);
    assert_eq!(settings.websocket.heartbeat_interval_seconds, 30);
    assert_eq!(settings.websocket.connection_timeout_seconds, 120);
    assert_eq!(settings.websocket.connections_max, 10_000);
    assert_eq!(settings.websocket.connections_per_user_max, 5);
    assert_eq!(settings.websocket.subscriptions_max, 50);
    assert_eq!(settings.queue.message_ttl_seconds, 3600);
    assert_eq!(settings.queue.size_per_user_max, 100);
    assert_eq!(settings.ack.timeout_seconds, 30);
    assert_eq!(settings.rate_limit.http_burst_size, 200);
    assert_eq!(settings.tenant.default_limits.connections_max, 1000);
    assert_eq!(settings.cluster.routing_channel, "ara:cluster:route");
    assert_eq!(settings.cluster.server_id, None);
    assert_eq!(settings.database.pool_size, 10);
    assert_eq!(settings.otel.sampling_ratio, 1.0);
    assert!(!settings.queue.enabled && !settings.ack.enabled && !settings.cluster.enabled);
}

#[test]
fn the_guides_complete_compose_example_starts() {
    let settings = good(&[
        ("RUST_LOG", "info"),
        ("RUN_MODE", "production"),
        ("SERVER_HOST", "0.0.0.0"),
        ("SERVER_PORT", "8081"),
        ("API_KEY", ""),
        ("REDIS_URL", "redis://redis:6379"),
        ("REDIS_CHANNELS", "notification:user:*,notification:broadcast,notification:channel:*"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "30"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "120"),
        ("WEBSOCKET_MAX_CONNECTIONS", "10000"),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "5"),
        ("QUEUE_ENABLED", "true"),
        ("QUEUE_BACKEND", "redis"),
        ("QUEUE_MAX_SIZE_PER_USER", "100"),
        ("QUEUE_MESSAGE_TTL_SECONDS", "3600"),
        ("ACK_ENABLED", "true"),
        ("ACK_BACKEND", "redis"),
        ("ACK_TIMEOUT_SECONDS", "30"),
        ("RATELIMIT_ENABLED", "true"),
        ("RATELIMIT_HTTP_REQUESTS_PER_SECOND", "100"),
        ("TENANT_ENABLED", "false"),
        ("CLUSTER_ENABLED", "false"),
        ("OTEL_ENABLED", "false"),
    ]);
    assert!(settings.run_mode.production);
    assert!(settings.api_key.is_none());
    assert!(settings.redis_is_required());
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = load(&[
        ("SERVER_PORT", "0"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "soon"),
        ("REDIS_URL", "http://user:hunter2@redis"),
        ("QUEUE_BACKEND", "etcd"),
        ("RUST_LOG", "engine=loud"),
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let text = problems.join("\n");
    for part in [
        r#"SERVER_PORT="0": must be a whole number from 1 to 65535"#,
        r#"WEBSOCKET_HEARTBEAT_INTERVAL="soon""#,
        r#"REDIS_URL="http://user:***@redis""#,
        r#"QUEUE_BACKEND="etcd": must be one of memory, redis, postgres"#,
        r#"RUST_LOG="engine=loud""#,
        "JWT_SECRET: is required",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("hunter2"));
}

#[test]
fn settings_must_agree_with_each_other() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("WEBSOCKET_HEARTBEAT_INTERVAL", "120")], "WEBSOCKET_CONNECTION_TIMEOUT=\"120\": must be greater"),
        (&[("CLUSTER_ENABLED", "1"), ("CLUSTER_SESSION_TTL_SECONDS", "30")], "CLUSTER_SESSION_TTL_SECONDS=\"30\""),
        (&[("REDIS_BACKOFF_INITIAL_DELAY_MS", "30001")], "REDIS_BACKOFF_MAX_DELAY_MS=\"30000\""),
        (&[("REDIS_CHANNELS", ",")], "REDIS_CHANNELS=\"0\": must name 1 to"),
        (&[("QUEUE_ENABLED", "yes"), ("QUEUE_MESSAGE_TTL_SECONDS", "0")], "QUEUE_MESSAGE_TTL_SECONDS=\"0\""),
        (&[("ACK_ENABLED", "on"), ("ACK_TIMEOUT_SECONDS", "0")], "ACK_TIMEOUT_SECONDS=\"0\""),
        (&[("RATELIMIT_ENABLED", "TRUE"), ("RATELIMIT_HTTP_BURST_SIZE", "0")], "RATELIMIT_HTTP_BURST_SIZE=\"0\""),
    ];
    for (pairs, expected) in rows {
        let problems = bad(pairs);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{pairs:?}: {problems:?}");
    }
    good(&[("CLUSTER_SESSION_TTL_SECONDS", "30"), ("ACK_TIMEOUT_SECONDS", "0"), ("QUEUE_MESSAGE_TTL_SECONDS", "0")]);
}

#[test]
fn production_is_told_by_either_name_in_any_case() {
    for (name, production) in [("production", true), ("PROD", true), ("Production", true), ("staging", false)] {
        assert_eq!(good(&[("RUN_MODE", name)]).run_mode.production, production, "{name}");
    }
}

#[test]
fn memory_and_local_are_one_rate_limit_backend() {
    for (name, backend) in [("memory", Backend::Memory), ("local", Backend::Memory), ("redis", Backend::Redis)] {
        assert_eq!(good(&[("RATELIMIT_BACKEND", name)]).rate_limit.backend, backend);
    }
    assert_eq!(bad(&[("RATELIMIT_BACKEND", "postgres")]).len(), 1);
}

#[test]
fn a_public_key_must_be_there_and_of_the_right_kind() {
    let problems = load(&[("JWT_ALGORITHM", "RS256")]).unwrap_err();
    assert!(problems[0].starts_with("JWT_PUBLICKEY: is required"), "{problems:?}");

    type ReadFile = fn(&Path) -> std::io::Result<Vec<u8>>;
    let rows: &[(ReadFile, &str)] = &[
        (|_| Err(std::io::ErrorKind::NotFound.into()), "cannot be read"),
        (|_| Ok(b"not a key".to_vec()), "must be an RSA public key in PEM form"),
    ];
    for (read_file, expected) in rows {
        let mut sources = Sources::from_environment([("JWT_ALGORITHM", "rs256"), ("JWT_PUBLIC_KEY", "/key.pem")]);
        sources.read_file = *read_file;
        let problems = load_sources(&sources).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    }

    const P256: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\n\
        q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n\
        -----END PUBLIC KEY-----\n";
    let mut sources = Sources::from_environment([("JWT_ALGORITHM", "ES256"), ("JWT_PUBLICKEY", "/key.pem")]);
    sources.read_file = |_| Ok(P256.to_vec());
    let settings = load_sources(&sources).unwrap().settings;
    assert_eq!(settings.jwt.algorithm, JwtAlgorithm::Es256);
    assert_eq!(settings.jwt.public_key_pem.as_deref(), Some(P256));
    assert!(settings.jwt.secret.is_none(), "the secret is not needed with a key pair");
}

#[test]
fn an_unknown_algorithm_stops_the_start() {
    assert!(bad(&[("JWT_ALGORITHM", "none")])[0].contains("must be one of HS256"));
}

#[test]
fn a_blank_log_filter_is_info() {
    assert_eq!(good(&[("RUST_LOG", "")]).log.filter, "info");
}

#[test]
fn shards_default_to_the_cores() {
    let mut sources = Sources::from_environment([SECRET]);
    sources.cores = 500;
    assert_eq!(load_sources(&sources).unwrap().settings.shards, 128);
    sources.environment.insert("SHARDS".to_owned(), "3".to_owned());
    assert_eq!(load_sources(&sources).unwrap().settings.shards, 3);
    assert!(bad(&[("SHARDS", "129")])[0].contains("from 1 to 128"));
}

#[test]
fn tenants_may_have_limits_of_their_own() {
    let mut sources = Sources::from_environment([SECRET]);
    let text = "[tenant.tenant_overrides.acme]\nmax_connections = 7\n\
                [tenant.tenant_overrides.\"a.b\"]\nmax_subscriptions_per_connection = 0\n";
    sources.files.push(SourceFile { name: "config/default.toml".to_owned(), text: text.to_owned() });
    let settings = load_sources(&sources).unwrap().settings;
    let acme = TenantLimits { connections_max: 7, connections_per_user_max: 5, subscriptions_max: 50 };
    assert_eq!(settings.tenant.overrides["acme"], acme);
    assert_eq!(settings.tenant.overrides["a.b"].subscriptions_max, 0);

    let rows = [
        ("tenant.tenant_overrides.\"a:b\".max_connections = 1", "a tenant's name"),
        ("tenant.tenant_overrides.acme.max_connections = -1", "must be a whole number"),
        ("tenant.tenant_overrides.acme = 1", "must be a table of limits"),
    ];
    for (text, expected) in rows {
        sources.files = vec![SourceFile { name: "x.toml".to_owned(), text: text.to_owned() }];
        let problems = load_sources(&sources).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn what_is_allowed_but_perhaps_not_meant_is_told() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("JWT_SECRET", "your-jwt-secret-here")], "JWT_SECRET: 20 bytes"),
        (&[("API_KEY", "short")], "API_KEY: 5 bytes"),
        (&[("API_KEY", "0123456789abcdef\u{20}")], "API_KEY: has blanks"),
        (&[("RUN_MODE", "production")], "API_KEY: not set, so the HTTP API answers 503"),
        (&[("RUN_MODE", "production")], "CORS_ORIGINS: not set"),
        (&[("CORS_ORIGINS", "*")], "CORS_ORIGINS: \"*\""),
        (&[("CORS_ORIGINS", "https://app.example.com/")], "CORS_ORIGINS: \"https://app.example.com/\""),
        (&[("REDIS_KEY", "x")], "unknown variables, not read: REDIS_KEY"),
        (&[("QUEUE_BACKEND", "postgres")], "DATABASE_URL: not set though"),
        (&[("ACK_ENABLED", "true"), ("ACK_BACKEND", "postgres"), ("SHARDS", "11")], "DATABASE_POOL_SIZE: 10 is less"),
        (&[("OTEL_ENABLED", "true")], "OTEL_ENABLED: this version"),
        (&[("CLUSTER_ENABLED", "true")], "QUEUE_BACKEND: with memory and CLUSTER_ENABLED templates stay"),
        (
            &[("CLUSTER_ENABLED", "true"), ("QUEUE_ENABLED", "true")],
            "QUEUE_BACKEND: with memory and CLUSTER_ENABLED mail and templates stay",
        ),
        (&[("CLUSTER_ENABLED", "true"), ("REDIS_CHANNELS", "x,ara:*")], "REDIS_CHANNELS: \"ara:*\" matches"),
        (&[("CLUSTER_ENABLED", "true"), ("REDIS_CHANNELS", "*:user:*")], "REDIS_CHANNELS: \"*:user:*\" matches"),
    ];
    for (pairs, expected) in rows {
        let said = warnings(pairs);
        assert!(said.iter().any(|text| text.starts_with(expected)), "{pairs:?}: {said:#?}");
    }
    let quiet = [
        ("API_KEY", "0123456789abcdef"),
        ("RUN_MODE", "prod"),
        ("CORS_ORIGINS", "https://app.example.com"),
        ("REDIS_URL", "rediss://redis:6380"),
        ("TENANT_ENABLED", "true"),
        ("CLUSTER_ENABLED", "true"),
        ("QUEUE_ENABLED", "true"),
        ("QUEUE_BACKEND", "redis"),
        ("ACK_ENABLED", "true"),
        ("ACK_BACKEND", "postgres"),
        ("DATABASE_URL", "postgresql://user:password@postgres:5432/notification"),
    ];
    assert_eq!(warnings(&quiet), [""; 0]);
}

#[test]
fn addresses_that_are_used_must_be_ones_and_show_no_password() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("REDIS_URL", "redis://u:hunter2@redis/x")], r#"REDIS_URL="redis://u:***@redis/x": "#),
        (
            &[("QUEUE_BACKEND", "postgres"), ("DATABASE_URL", "postgres://u:hunter2@db:0/x")],
            r#"DATABASE_URL="postgres://u:***@db:0/x": "#,
        ),
        (
            &[("ACK_ENABLED", "1"), ("ACK_BACKEND", "postgres"), ("DATABASE_URL", "postgres://db/x?sslmode=maybe")],
            r#"DATABASE_URL="postgres://db/x?sslmode=maybe": its sslmode must be"#,
        ),
        (
            &[("REDIS_URL", "redis-cluster://:hunter2@a,b/1")],
            r#"REDIS_URL="redis-cluster://:***@a,b/1": a cluster has no"#,
        ),
        (
            &[("REDIS_URL", "rediss-cluster://a,b:1"), ("QUEUE_REDIS_PREFIX", "{ara}:queue")],
            r#"QUEUE_REDIS_PREFIX="{ara}:queue": must have no braces with redis-cluster://"#,
        ),
        (
            &[("REDIS_URL", "redis-cluster://a,b:1"), ("CLUSTER_ROUTING_CHANNEL", "{ara}")],
            r#"CLUSTER_ROUTING_CHANNEL="{ara}": must have no braces with redis-cluster://"#,
        ),
    ];
    for (pairs, expected) in rows {
        let problems = bad(pairs);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{pairs:?}: {problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    good(&[("DATABASE_URL", "postgres://db:0/x"), ("ACK_BACKEND", "postgres")]);
    good(&[("REDIS_URL", "redis-cluster://u:p@a,b:7001")]);
    good(&[("QUEUE_REDIS_PREFIX", "{ara}:queue")]);
}

#[test]
fn what_is_kept_where_is_said() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (
            &[],
            "templates in memory, mail nowhere (QUEUE_ENABLED is false), acknowledgements nowhere (ACK_ENABLED is false)",
        ),
        (
            &[("QUEUE_ENABLED", "1"), ("QUEUE_BACKEND", "redis"), ("ACK_ENABLED", "1"), ("ACK_BACKEND", "postgres")],
            "templates in redis, mail in redis, acknowledgements in postgres",
        ),
    ];
    for (pairs, expected) in rows {
        assert_eq!(good(pairs).kept(), *expected);
    }
}

#[test]
fn debug_output_keeps_secrets() {
    let settings = good(&[("API_KEY", "hunter2-hunter2-"), ("REDIS_URL", "redis://:hunter2@redis")]);
    let text = format!("{settings:?}");
    assert!(!text.contains("hunter2") && !text.contains(SECRET.1));
}
