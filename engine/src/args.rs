//! The command line.
use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};
use std::ops::RangeInclusive;

const SHARDS: RangeInclusive<i64> = 1..=protocol::limits::SHARDS_MAX as i64;

/// Push notifications over WebSocket and SSE. Without a command it serves.
///
/// Takes notifications over HTTP and from Redis and delivers them to the connections of users and channels.
#[derive(Debug, Parser)]
#[command(name = "ara-notification-service", version, after_help = SHORT_HELP, after_long_help = long_help())]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The same as the command `healthcheck`.
    #[arg(long, hide = true, global = true)]
    pub healthcheck: bool,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve on this machine for a try: no Redis, no settings; prints commands to paste.
    Dev(DevArgs),
    /// Print a token that lets a user connect, signed with JWT_SECRET.
    Token(TokenArgs),
    /// Check the settings, show them without their secrets, and say what is wrong with them.
    CheckConfig,
    /// Ask a running service whether it is healthy; exits 0 if so, else 1.
    Healthcheck(HealthcheckArgs),
    /// Send one notification through a running service and print its answer.
    Publish(PublishArgs),
}

/// Options of `dev`.
#[derive(Debug, ClapArgs)]
pub struct DevArgs {
    /// Port to listen on, on 127.0.0.1 only.
    #[arg(long, value_name = "N", default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Shards; default: one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(SHARDS))]
    pub shards: Option<u16>,
}

/// Options of `token`.
#[derive(Debug, Default, ClapArgs)]
pub struct TokenArgs {
    /// User id: the claim `sub`.
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// Tenant of the user: the claim `tenant_id`.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Role of the user; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Channel that may be subscribed to, or a prefix like orders.*; may be given several times. Default: every channel.
    #[arg(long = "channel", value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// What the token can be revoked by: the claim `jti`.
    #[arg(long = "jti", value_name = "ID")]
    pub id: Option<String>,
    /// Seconds until it expires, up to ten years.
    #[arg(long, value_name = "N", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    pub ttl_seconds: u64,
    /// Secret to sign with instead of JWT_SECRET; other users of this machine can see it while the command runs.
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
}

/// Options of `healthcheck`.
#[derive(Debug, Default, ClapArgs)]
pub struct HealthcheckArgs {
    /// Page to ask for; default: /health of this machine on SERVER_PORT.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Options of `publish`.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("target").required(true))]
pub struct PublishArgs {
    /// Send to all connections of this user.
    #[arg(long, value_name = "USER", group = "target")]
    pub user: Option<String>,
    /// Send to all subscribers of this channel.
    #[arg(long, value_name = "CHANNEL", group = "target")]
    pub channel: Option<String>,
    /// Send to everybody.
    #[arg(long, group = "target")]
    pub broadcast: bool,
    /// Type of the event, like order.created.
    #[arg(long, value_name = "TYPE")]
    pub event_type: String,
    /// What to send: any JSON.
    #[arg(long, value_name = "JSON")]
    pub payload: String,
    /// Tenant to send in, where TENANT_ENABLED is on: the header X-Tenant-ID.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Service to send through; default: this machine on SERVER_PORT.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Key of the API instead of API_KEY; other users of this machine can see it while the command runs.
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
}

const SHORT_HELP: &str = "\
To try it:          ara-notification-service dev
To serve:           JWT_SECRET=... REDIS_URL=redis://localhost:6379 ara-notification-service
Settings that matter first: JWT_SECRET, API_KEY, REDIS_URL, SERVER_HOST, SERVER_PORT, CORS_ORIGINS, RUN_MODE, RUST_LOG.
All settings:       ara-notification-service --help";

fn long_help() -> String {
    format!(
        "To try it:   ara-notification-service dev\n\
         To serve:    JWT_SECRET=... REDIS_URL=redis://localhost:6379 ara-notification-service\n\n{}",
        crate::config::show::help()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::error::ErrorKind> {
        let words = ["ara-notification-service"].into_iter().chain(line.split_whitespace());
        Args::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_argument_serves() {
        let args = parse("").unwrap();
        assert!(args.command.is_none() && !args.healthcheck);
    }

    #[test]
    fn good_lines_are_taken() {
        for line in [
            "dev",
            "dev --port 9000 --shards 128",
            "token --user ana --role admin --role editor --tenant acme --ttl-seconds 60",
            "token --user ana --channel orders --channel news.* --jti t-1",
            "check-config",
            "healthcheck",
            "--healthcheck",
            "healthcheck --url http://127.0.0.1:9000/health",
            "publish --user ana --event-type a --payload {}",
            "publish --broadcast --event-type a --payload 1 --url http://localhost:1 --api-key k",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "serve",
            "--port 1",
            "dev --port 0",
            "dev --shards 0",
            "dev --shards 129",
            "token",
            "token --user ana --ttl-seconds 0",
            "publish --event-type a --payload {}",
            "publish --user ana --broadcast --event-type a --payload {}",
            "publish --user ana --payload {}",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_is_for_the_operator() {
        let help = Args::command().render_long_help().to_string();
        for part in ["dev", "token", "check-config", "healthcheck", "publish", "JWT_SECRET", "SERVER_PORT", "REDIS_URL"]
        {
            assert!(help.contains(part), "{part}");
        }
        assert!(!help.contains("--healthcheck"), "the synonym is hidden");
        let short = Args::command().render_help().to_string();
        assert!(short.lines().count() < 40, "the short help fits a screen");
    }
}
