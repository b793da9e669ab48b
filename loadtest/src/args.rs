//! The command line.
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Loads an Ara notification service and checks every message it delivers.
#[derive(Clone, Debug, Parser)]
#[command(name = "ara-loadtest", version, about, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The scenarios.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Connects, publishes at a rate or flat out, and checks what arrives.
    Run(Box<RunArgs>),
    /// Publishes to users who are away, then connects them all and checks the mail that was kept for them. Tells what
    /// storing costs and how long the replay takes; the server needs QUEUE_ENABLED=true.
    Replay(Box<ReplayArgs>),
    /// Opens connections, holds them, and reports the connect rate and the server's memory for each.
    Idle(Box<IdleArgs>),
}

impl Args {
    /// The flags every scenario has.
    pub fn common(&self) -> &CommonArgs {
        match &self.command {
            Command::Run(run) => &run.common,
            Command::Replay(replay) => &replay.common,
            Command::Idle(idle) => &idle.common,
        }
    }
}

/// Flags every scenario has.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Server address; repeat it to spread clients and publishers over the nodes of a cluster.
    #[arg(long = "target", value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    pub targets: Vec<String>,
    /// Allows targets and a Redis that are not on the loopback interface.
    #[arg(long)]
    pub allow_remote: bool,
    /// Subscribers, each a user of its own. Default: the profile's, else 100.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: Option<u32>,
    /// How the subscribers connect; `mixed` alternates.
    #[arg(long, value_enum, default_value_t = TransportArg::Ws)]
    pub transport: TransportArg,
    /// Connects started in a second; 0 is as fast as `--connecting` allows. Default: the profile's ramp, else 0.
    #[arg(long, value_name = "PER_SECOND")]
    pub connect_rate: Option<u32>,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub connecting: u32,
    /// Seconds until every client must be open.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub connect_deadline: u64,
    /// Channels in play; each client subscribes to `--channels-each` of them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub channels: u32,
    /// Channels one client subscribes to (at most the contract's 100).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub channels_each: u32,
    /// Channel names are this and a number.
    #[arg(long, default_value = "load-")]
    pub channel_prefix: String,
    /// User ids are this and a number.
    #[arg(long, default_value = "load-user-")]
    pub user_prefix: String,
    /// HS256 secret the server knows.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, default_value = "")]
    pub secret: String,
    /// `tenant_id` of every token and `X-Tenant-ID` of every publish.
    #[arg(long)]
    pub tenant: Option<String>,
    /// `iss` of every token.
    #[arg(long)]
    pub issuer: Option<String>,
    /// `aud` of every token.
    #[arg(long)]
    pub audience: Option<String>,
    /// Threads the clients are spread over; publishers run on the first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Cores the threads are pinned to, in turn.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pub cpu: Vec<usize>,
    /// The server's process id: adds its memory and CPU to the report.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Also writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Milliseconds to listen on once all is there, for duplicates and for the server's memory to settle.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub linger_ms: u64,
    /// Which connections are read a second time by tungstenite and simd-json, and compared.
    #[arg(long, value_enum, default_value_t = VerifyArg::Sample)]
    pub verify: VerifyArg,
}

/// How publishes go in.
#[derive(Clone, Debug, clap::Args)]
pub struct DoorArgs {
    /// Which door the publishes use.
    #[arg(long, value_enum, default_value_t = DoorArg::Rest)]
    pub publish: DoorArg,
    /// Where `--publish redis` publishes: `redis://[user:password@]host:port[/db]`.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub redis_url: String,
    /// `X-API-Key` of every REST publish.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Publisher connections.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub publishers: u32,
    /// Requests (or PUBLISH commands) one publisher connection has under way. Default: 1 by REST
    /// (16 in `replay`), 128 by Redis.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub pipeline: Option<u32>,
    /// Bytes of a delivered message's JSON text; the padding is chosen to meet it.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub size: u32,
}

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Flags every scenario has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Sets clients, rate, duration and ramp; each can still be given by its own flag.
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// How the publishes go in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// Whom the publishes address. `mixed` is 50 % user, 20 % users, 10 % broadcast, 20 % channel; with `batch` each
    /// publish is one request with `--batch-size` notifications, each to one user.
    #[arg(long, value_enum, default_value_t = AimArg::User)]
    pub aim: AimArg,
    /// Users (or channels) one `users` (or `channels`) publish names.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub group: u32,
    /// Notifications of one `batch` publish (at most the contract's 100).
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub batch_size: u32,
    /// Percent of the clients that stop reading once they are connected. What they miss is not counted; that the server
    /// closes them, for their slowness (4008) or their silence (1001), is expected.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=90))]
    pub slow_percent: u32,
    /// Publishes in a second over all publishers, open loop; 0 is flat out within `--window`.
    /// Default: the profile's, else 100.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Publishes whose deliveries may be outstanding when flat out.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub window: u64,
    /// Seconds of publishing that are checked but not measured.
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Seconds of the measured phase. Default: the profile's, else 10.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Seconds the drain waits for what is still outstanding.
    #[arg(long, default_value_t = 10.0)]
    pub drain_deadline: f64,
    /// Fails the run when the 95th percentile of the delivery latency is above this.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p95_ms: Option<f64>,
    /// Fails the run when the 99th percentile of the delivery latency is above this.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p99_ms: Option<f64>,
    /// Fails the run when fewer deliveries a second arrived in the measured phase.
    #[arg(long, value_name = "DELIVERIES_PER_SECOND")]
    pub min_rate: Option<f64>,
}

/// Flags of `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Flags every scenario has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// How the publishes go in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// Notifications kept for each user. The server's QUEUE_MAX_SIZE_PER_USER must allow as many: what it drops to make
    /// room counts as lost.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub messages: u32,
    /// Each client acknowledges every notification (WebSocket only), and the run waits for the answers and until the
    /// server's /health says that the mailboxes are as empty as before. For a server with ACK_ENABLED.
    #[arg(long)]
    pub ack: bool,
    /// Waits until the mailboxes are as empty as before, as `--ack` does, but leaves emptying them to the server.
    #[arg(long)]
    pub until_empty: bool,
    /// Seconds that storing may take, and that the replay may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub deadline: f64,
    /// Seconds until /health must count everything that was stored, and, in the end, nothing of it any more.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub count_deadline: f64,
    /// Fails the run when fewer notifications a second were stored.
    #[arg(long, value_name = "NOTIFICATIONS_PER_SECOND")]
    pub min_stored: Option<f64>,
    /// Fails the run when fewer messages a second were replayed.
    #[arg(long, value_name = "MESSAGES_PER_SECOND")]
    pub min_rate: Option<f64>,
    /// Fails the run when the 95th percentile of the users' times, from connect to last message, is above this.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p95_ms: Option<f64>,
    /// Fails the run when the 99th percentile of those times is above this.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p99_ms: Option<f64>,
}

/// Flags of `idle`.
#[derive(Clone, Debug, clap::Args)]
pub struct IdleArgs {
    /// Flags every scenario has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Seconds the connections are held.
    #[arg(long, default_value_t = 10.0)]
    pub hold: f64,
}

/// How subscribers connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// WebSocket.
    Ws,
    /// Server-sent events.
    Sse,
    /// Both in turn.
    Mixed,
}

/// Which door publishes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoorArg {
    /// HTTP, contract §1.8.
    Rest,
    /// Redis PUBLISH, contract §6.
    Redis,
}

/// Whom publishes address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AimArg {
    /// One user each.
    User,
    /// `--group` users each.
    Users,
    /// One channel each.
    Channel,
    /// `--group` channels each.
    Channels,
    /// Everybody.
    Broadcast,
    /// The mix of contract §17.2.
    Mixed,
    /// Many users, one notification each, in one request.
    Batch,
}

/// How much is read twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyArg {
    /// Only the cheap scan.
    Scan,
    /// One connection in 64, too.
    Sample,
    /// Every connection.
    Full,
}

/// The profiles of contract §17.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// 10 clients, 10/s, 30 s.
    Smoke,
    /// 100 clients, 50/s, 2 min.
    Baseline,
    /// 500 clients, 100/s, 3 min.
    Medium,
    /// 1,000 clients, 200/s, 5 min.
    High,
    /// 2,000 clients, 500/s, 5 min.
    Stress,
    /// 500 clients, 50/s, 30 min.
    Soak,
    /// 100 clients, 1,000/s, 1 min.
    Spike,
}

/// A profile's figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileFigures {
    /// Subscribers.
    pub clients: u32,
    /// Publishes in a second.
    pub rate: f64,
    /// The measured phase.
    pub seconds: f64,
    /// Over which the subscribers connect.
    pub ramp_seconds: u32,
}

impl Profile {
    /// The figures of contract §17.1.
    pub fn figures(self) -> ProfileFigures {
        let (clients, rate, seconds, ramp_seconds) = match self {
            Profile::Smoke => (10, 10.0, 30.0, 10),
            Profile::Baseline => (100, 50.0, 120.0, 30),
            Profile::Medium => (500, 100.0, 180.0, 60),
            Profile::High => (1_000, 200.0, 300.0, 60),
            Profile::Stress => (2_000, 500.0, 300.0, 120),
            Profile::Soak => (500, 50.0, 1_800.0, 120),
            Profile::Spike => (100, 1_000.0, 60.0, 5),
        };
        ProfileFigures { clients, rate, seconds, ramp_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["ara-loadtest", "run", "--profile", "spike", "--cpu", "0,1", "--rate", "0"]);
        let Command::Run(run) = args.command else { panic!("run was asked for") };
        assert_eq!(run.profile.unwrap().figures().rate, 1_000.0);
        assert_eq!((run.rate, run.common.cpu), (Some(0.0), vec![0, 1]));
    }
}
