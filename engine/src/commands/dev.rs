//! `dev`: a service for a try, on this machine only, that needs nothing and says what to do with it.
use super::serve::ensure_free;
use super::token::{Claims, sign, unix_seconds};
use super::{Failure, print};
use crate::args::DevArgs;
use crate::boot::{self, ServeOptions};
use crate::config::settings::JwtAlgorithm;
use crate::config::{Settings, Sources};
use crate::{logging, random};
use std::net::SocketAddr;

/// How long the printed token is good for.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// Serves on loopback with secrets made up for this run; once it listens, prints commands to paste.
///
/// # Errors
/// The port is taken, `RUST_LOG` is no filter, or the node could not start.
pub fn run(sources: &Sources, args: &DevArgs) -> Result<(), Failure> {
    let no_randomness = |error| Failure(format!("no randomness to make up secrets from: {error}"));
    let secret = random::hex::<32>().map_err(no_randomness)?;
    let api_key = random::hex::<16>().map_err(no_randomness)?;
    let settings = settings(sources, args, &secret, &api_key)?;
    logging::start(&settings.log).map_err(Failure::new)?;
    if let Err(error) = ensure_free("127.0.0.1", args.port) {
        return Err(Failure(format!("{error}; try: ara-notification-service dev --port {}", another(args.port))));
    }
    let now = unix_seconds();
    let claims = Claims { sub: "ana", iat: now, exp: now + TOKEN_SECONDS, ..Claims::default() };
    let token = sign(JwtAlgorithm::Hs256, &secret, &claims)?;
    let on_ready = move |address: SocketAddr| print(guide(address, &token, &api_key));
    boot::serve(settings, ServeOptions { on_ready: Some(Box::new(on_ready)), ends_with_terminal: true })
        .map_err(Failure::new)
}

/// The defaults, but on loopback, with these secrets and without Redis. Of the sources only what is logged counts: a
/// try must not depend on, nor disturb, what is set up for the real thing.
fn settings(sources: &Sources, args: &DevArgs, secret: &str, api_key: &str) -> Result<Settings, Failure> {
    let (port, shards) = (args.port.to_string(), args.shards.map(|shards| shards.to_string()));
    let mut environment =
        vec![("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", &*port), ("JWT_SECRET", secret), ("API_KEY", api_key)];
    environment.extend(shards.as_deref().map(|shards| ("SHARDS", shards)));
    for name in ["RUST_LOG", "LOG_FORMAT"] {
        environment.extend(sources.lookup(name).map(|text| (name, text)));
    }
    let mut own = Sources::from_environment(environment);
    own.cores = sources.cores;
    let loaded = Settings::load(&own).map_err(|problems| Failure::of_configuration(&problems))?;
    let mut settings = loaded.settings;
    settings.redis.enabled = false;
    Ok(settings)
}

fn another(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(port - 1)
}

/// What to paste, and what to see.
fn guide(address: SocketAddr, token: &str, api_key: &str) -> String {
    let url = format!("http://{address}");
    format!(
        "\n\
Ara listens on {url}, for this machine only. No Redis, nothing is kept, all keys are made up for this run. Ctrl-C ends it.

1. In a second terminal, be the user ana and listen, also to the channel orders:

     curl -N '{url}/sse?channels=orders' -H 'Authorization: Bearer {token}'

   You see `event: connected`, and then every notification as it comes. Leave it running.

2. In a third terminal, send ana something:

     curl '{url}/api/v1/notifications/send' -H 'X-API-Key: {api_key}' -H 'Content-Type: application/json' \\
       -d '{{\"target_user_id\":\"ana\",\"event_type\":\"order.created\",\"payload\":{{\"order_id\":\"ORD-001\"}}}}'

   The answer says \"delivered_to\":1, and the second terminal shows `event: notification` with the order.

3. Send to everybody who listens to the channel orders:

     curl '{url}/api/v1/notifications/channel' -H 'X-API-Key: {api_key}' -H 'Content-Type: application/json' \\
       -d '{{\"channel\":\"orders\",\"event_type\":\"order.shipped\",\"payload\":{{\"order_id\":\"ORD-001\"}}}}'

4. Send to everybody:

     curl '{url}/api/v1/notifications/broadcast' -H 'X-API-Key: {api_key}' -H 'Content-Type: application/json' \\
       -d '{{\"event_type\":\"system.maintenance\",\"payload\":{{\"message\":\"back in ten minutes\"}}}}'

5. Over WebSocket, from a browser's console:

     ws = new WebSocket('ws://{address}/ws?token={token}')
     ws.onmessage = (event) => console.log(event.data)
     ws.onopen = () => ws.send('{{\"type\":\"Subscribe\",\"payload\":{{\"channels\":[\"orders\"]}}}}')

6. See how it does: curl {url}/health; curl {url}/stats; curl {url}/metrics
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
        let args = DevArgs { port: 9000, shards: Some(2) };
        settings(&Sources::from_environment(pairs.iter().copied()), &args, "secret", "key")
    }

    #[test]
    fn a_try_is_on_loopback_and_without_redis_whatever_is_set_up() {
        let settings = dev(&[
            ("SERVER_HOST", "0.0.0.0"),
            ("REDIS_URL", "redis://production"),
            ("QUEUE_BACKEND", "nonsense"),
            ("JWT_SECRET", "production"),
            ("RUST_LOG", "debug"),
        ])
        .unwrap();
        assert_eq!((&*settings.server.host, settings.server.port, settings.shards), ("127.0.0.1", 9000, 2));
        assert!(!settings.redis.enabled && !settings.run_mode.production && !settings.redis_is_required());
        assert_eq!(settings.jwt.secret.unwrap().expose(), "secret");
        assert_eq!(settings.api_key.unwrap().expose(), "key");
        assert_eq!(settings.log.filter, "debug");
    }

    #[test]
    fn a_bad_filter_is_told_of() {
        assert!(dev(&[("RUST_LOG", "shards=loud")]).unwrap_err().0.contains("RUST_LOG"));
    }

    #[test]
    fn the_guide_can_be_pasted() {
        let text = guide("127.0.0.1:9000".parse().unwrap(), "TOKEN", "KEY");
        for part in [
            "curl -N 'http://127.0.0.1:9000/sse?channels=orders' -H 'Authorization: Bearer TOKEN'",
            "-H 'X-API-Key: KEY'",
            r#"-d '{"target_user_id":"ana","event_type":"order.created","payload":{"order_id":"ORD-001"}}'"#,
            r#"-d '{"channel":"orders","event_type":"order.shipped","payload":{"order_id":"ORD-001"}}'"#,
            "/api/v1/notifications/broadcast",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
