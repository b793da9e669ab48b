//! Who connects, which streams are published, and who must receive what: all of it known before the first socket.
use crate::args::{AimArg, CommonArgs, DoorArg, RunArgs, TransportArg};
use crate::error::LoadError;
use protocol::{ids, limits};
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};

/// What a batch says of each notification beside its payload and its user, and more than enough for its numbers.
const BATCH_ITEM_BYTES_MIN: usize = 256;

/// Whom one publish addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aim {
    /// The client of this number.
    User(u32),
    /// The n-th group of `group` clients.
    Users(u32),
    /// The channel of this number.
    Channel(u32),
    /// `group` channels from this number on, around the end.
    Channels(u32),
    /// Everybody.
    Broadcast,
}

/// A numbered sequence of publishes from one publisher to one aim. Its messages are to arrive in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Whom it addresses.
    pub aim: Aim,
    /// Which publisher's it is.
    pub publisher: u32,
    /// Clients that must receive each message: those that read.
    pub fanout: u32,
}

/// The subscribers of a run.
#[derive(Clone, Debug)]
pub struct Audience {
    /// The server's addresses.
    pub targets: Vec<SocketAddr>,
    /// Clients.
    pub clients: u32,
    /// How they connect.
    pub transport: TransportArg,
    /// Channels in play.
    pub channels: u32,
    /// Of which each client takes so many.
    pub channels_each: u32,
    /// So many percent of the clients do not read.
    pub slow_percent: u32,
    channel_prefix: String,
    user_prefix: String,
}

impl Audience {
    /// Reads and checks the flags.
    pub fn new(args: &CommonArgs, clients: u32) -> Result<Audience, LoadError> {
        let mut targets = Vec::new();
        for text in &args.targets {
            targets.push(resolve(text, args.allow_remote)?);
        }
        let audience = Audience {
            targets,
            clients,
            transport: args.transport,
            channels: args.channels,
            channels_each: args.channels_each.min(args.channels),
            slow_percent: 0,
            channel_prefix: args.channel_prefix.clone(),
            user_prefix: args.user_prefix.clone(),
        };
        if audience.channels > 0 && !ids::is_channel_name(&audience.channel(audience.channels - 1)) {
            return Err(LoadError::Plan(format!(
                "{:?} is not a channel name",
                audience.channel(audience.channels - 1)
            )));
        }
        if !audience.user_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(LoadError::Plan("--user-prefix: only ASCII letters, digits, '-', '_' and '.'".to_owned()));
        }
        Ok(audience)
    }

    /// The user id of a client.
    pub fn user(&self, client: u32) -> String {
        format!("{}{client}", self.user_prefix)
    }

    /// The name of a channel.
    pub fn channel(&self, channel: u32) -> String {
        format!("{}{channel}", self.channel_prefix)
    }

    /// The channels a client subscribes to.
    pub fn channels_of(&self, client: u32) -> impl Iterator<Item = u32> + use<> {
        let channels = self.channels;
        (0..self.channels_each)
            .map(move |offset| ((u64::from(client) + u64::from(offset)) % u64::from(channels)) as u32)
    }

    /// Whether a client speaks WebSocket.
    pub fn is_websocket(&self, client: u32) -> bool {
        match self.transport {
            TransportArg::Ws => true,
            TransportArg::Sse => false,
            TransportArg::Mixed => client.is_multiple_of(2),
        }
    }

    /// Whether a client stops reading once it is connected; such clients are spread evenly over all.
    pub fn is_slow(&self, client: u32) -> bool {
        let slow_before = |client: u64| client * u64::from(self.slow_percent) / 100;
        slow_before(u64::from(client)) < slow_before(u64::from(client) + 1)
    }

    /// Clients that stop reading.
    pub fn slow_clients(&self) -> u32 {
        (u64::from(self.clients) * u64::from(self.slow_percent) / 100) as u32
    }

    /// A client's number among those that connect to the same address.
    pub fn place_at_target(&self, client: u32) -> u32 {
        client / self.targets.len() as u32
    }

    /// The address a client connects to.
    pub fn target_of(&self, client: u32) -> SocketAddr {
        self.targets[client as usize % self.targets.len()]
    }
}

/// What is published in a run.
#[derive(Debug)]
pub struct Plan {
    /// Every stream; its place here is its number on the wire.
    pub streams: Vec<Stream>,
    /// Publishers: those that have a stream.
    pub publishers: u32,
    /// Members of a `users` or `channels` aim.
    pub group: u32,
    /// Notifications of one publish when publishes are batches.
    pub batch_size: Option<u32>,
    /// Notifications of each stream, all of them published while its user is away and received afterwards; `None` when
    /// streams end with the clock.
    pub backlog: Option<u32>,
    by_aim: HashMap<Aim, Vec<u32>>,
    sets: Vec<u32>,
    mixed: bool,
}

impl Plan {
    /// No publishes: the plan of an idle run.
    pub fn silent() -> Plan {
        Plan {
            streams: Vec::new(),
            publishers: 0,
            group: 1,
            batch_size: None,
            backlog: None,
            by_aim: HashMap::new(),
            sets: Vec::new(),
            mixed: false,
        }
    }

    /// Reads and checks the flags.
    pub fn new(args: &RunArgs, audience: &Audience) -> Result<Plan, LoadError> {
        let channelled = matches!(args.aim, AimArg::Channel | AimArg::Channels | AimArg::Mixed);
        if channelled && audience.channels == 0 {
            return Err(LoadError::Plan("this --aim needs --channels".to_owned()));
        }
        let group_max = match args.aim {
            AimArg::Channels => limits::PUBLISH_CHANNELS_MAX,
            _ => limits::PUBLISH_USERS_MAX,
        };
        if args.group as usize > group_max {
            return Err(LoadError::Plan(format!("--group is at most {group_max} here (contract §0.3)")));
        }
        let batch_size = (args.aim == AimArg::Batch).then_some(args.batch_size);
        if let Some(batch_size) = batch_size {
            if args.door.publish != DoorArg::Rest {
                return Err(LoadError::Plan("--aim batch goes by --publish rest only".to_owned()));
            }
            // Each notification is shorter than the message it becomes, but for the user's name.
            let item_bytes = args.door.size as usize + BATCH_ITEM_BYTES_MIN + audience.user(audience.clients).len();
            if batch_size as usize * item_bytes > limits::BATCH_BODY_BYTES_MAX {
                return Err(LoadError::Plan("--batch-size times --size is more than a batch may be long".to_owned()));
            }
        }
        let mut plan = Plan { group: args.group, batch_size, mixed: args.aim == AimArg::Mixed, ..Plan::silent() };
        let users: Vec<Aim> = (0..audience.clients).map(Aim::User).collect();
        let groups: Vec<Aim> = (0..audience.clients.div_ceil(args.group)).map(Aim::Users).collect();
        let channels: Vec<Aim> = (0..audience.channels).map(Aim::Channel).collect();
        plan.sets = (0..audience.channels).collect();
        let sets: Vec<Aim> = plan.sets.iter().copied().map(Aim::Channels).collect();
        let aims: Vec<Vec<Aim>> = match args.aim {
            AimArg::User | AimArg::Batch => vec![users],
            AimArg::Users => vec![groups],
            AimArg::Channel => vec![channels],
            AimArg::Channels => vec![sets],
            AimArg::Broadcast => vec![vec![Aim::Broadcast]],
            AimArg::Mixed => vec![users, groups, vec![Aim::Broadcast], channels],
        };
        for aim in aims.into_iter().flatten() {
            plan.add(aim, args.door.publishers);
        }
        plan.address(audience);
        Ok(plan)
    }

    /// So many notifications for every user.
    pub fn backlog(messages: u32, publishers: u32, audience: &Audience) -> Plan {
        let mut plan = Plan { backlog: Some(messages), ..Plan::silent() };
        (0..audience.clients).for_each(|client| plan.add(Aim::User(client), publishers));
        plan.address(audience);
        plan
    }

    /// Counts the publishers and each stream's receivers.
    fn address(&mut self, audience: &Audience) {
        // A publisher without a stream would hold a share of the rate and never use it.
        self.publishers = self.streams.iter().map(|stream| stream.publisher + 1).max().unwrap_or(0);
        for client in (0..audience.clients).filter(|client| !audience.is_slow(*client)) {
            for stream in self.streams_of(client, audience) {
                self.streams[stream as usize].fanout += 1;
            }
        }
    }

    /// Notifications a publisher publishes in all; without end unless they are a backlog.
    pub fn quota(&self, publisher: u32) -> u64 {
        let own = self.streams.iter().filter(|stream| stream.publisher == publisher).count() as u64;
        self.backlog.map_or(u64::MAX, |messages| u64::from(messages) * own)
    }

    /// Users are dealt out to the publishers; what many clients share is published by each of them, as a stream of
    /// its own, because order is promised only along one publisher's connection.
    fn add(&mut self, aim: Aim, publishers: u32) {
        let those = match aim {
            Aim::User(index) | Aim::Users(index) => index % publishers..index % publishers + 1,
            Aim::Channel(_) | Aim::Channels(_) | Aim::Broadcast => 0..publishers,
        };
        for publisher in those {
            self.by_aim.entry(aim).or_default().push(self.streams.len() as u32);
            self.streams.push(Stream { aim, publisher, fanout: 0 });
        }
    }

    /// The streams a client must receive, in no order.
    pub fn streams_of(&self, client: u32, audience: &Audience) -> Vec<u32> {
        let mut streams = Vec::new();
        let mut add = |aim: Aim| streams.extend(self.by_aim.get(&aim).into_iter().flatten());
        add(Aim::User(client));
        add(Aim::Users(client / self.group));
        add(Aim::Broadcast);
        audience.channels_of(client).for_each(|channel| add(Aim::Channel(channel)));
        if self.by_aim.contains_key(&Aim::Channels(0)) {
            let own: Vec<u32> = audience.channels_of(client).collect();
            let named = |set: u32| self.channels_of_set(set, audience).any(|channel| own.contains(&channel));
            self.sets.iter().filter(|set| named(**set)).for_each(|set| add(Aim::Channels(*set)));
        }
        streams
    }

    /// The channels a `channels` publish names.
    pub fn channels_of_set(&self, set: u32, audience: &Audience) -> impl Iterator<Item = u32> + use<> {
        let channels = audience.channels;
        (0..self.group.min(channels)).map(move |offset| (set + offset) % channels)
    }

    /// The clients a `users` publish names.
    pub fn clients_of_group(&self, group: u32, audience: &Audience) -> std::ops::Range<u32> {
        group * self.group..((group + 1) * self.group).min(audience.clients)
    }

    /// In which order a publisher uses its streams.
    pub fn deck(&self, publisher: u32) -> Deck {
        let kinds: [fn(&Aim) -> bool; 4] = [
            |aim| matches!(aim, Aim::User(_)),
            |aim| matches!(aim, Aim::Users(_)),
            |aim| matches!(aim, Aim::Broadcast),
            |aim| matches!(aim, Aim::Channel(_) | Aim::Channels(_)),
        ];
        let mine = |kind: fn(&Aim) -> bool| -> Vec<u32> {
            let numbered = (0..).zip(&self.streams);
            numbered.filter(|(_, s)| s.publisher == publisher && kind(&s.aim)).map(|(number, _)| number).collect()
        };
        let lists: Vec<Vec<u32>> = kinds.into_iter().map(mine).collect();
        // 50, 20, 10 and 20 % (contract §17.2), interleaved.
        let mix: &[usize] = if self.mixed { &[0, 1, 0, 3, 0, 2, 0, 1, 0, 3] } else { &[0, 1, 2, 3] };
        let slots = mix.iter().copied().filter(|kind| !lists[*kind].is_empty()).collect();
        Deck { cursors: vec![0; lists.len()], lists, slots, turn: 0 }
    }
}

/// Deals a publisher's streams, round and round.
#[derive(Debug)]
pub struct Deck {
    lists: Vec<Vec<u32>>,
    cursors: Vec<usize>,
    slots: Vec<usize>,
    turn: usize,
}

impl Deck {
    /// The next stream to publish on; `None` for a publisher that has none.
    pub fn deal(&mut self) -> Option<u32> {
        let kind = *self.slots.get(self.turn)?;
        self.turn = (self.turn + 1) % self.slots.len();
        let list = &self.lists[kind];
        let cursor = &mut self.cursors[kind];
        let stream = list[*cursor];
        *cursor = (*cursor + 1) % list.len();
        Some(stream)
    }
}

/// Resolves `host:port`, and refuses what is not on this machine unless that is meant.
pub fn resolve(text: &str, allow_remote: bool) -> Result<SocketAddr, LoadError> {
    let mut addresses = text.to_socket_addrs().map_err(|error| LoadError::Plan(format!("{text}: {error}")))?;
    let address = addresses.next().ok_or_else(|| LoadError::Plan(format!("{text}: no address")))?;
    if !allow_remote && !address.ip().is_loopback() {
        return Err(LoadError::Remote(text.to_owned()));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn plan(flags: &str) -> Result<(Plan, Audience), LoadError> {
        let args = Args::parse_from(["ara-loadtest", "run"].into_iter().chain(flags.split_ascii_whitespace()));
        let Command::Run(run) = args.command else { panic!("run was asked for") };
        let mut audience = Audience::new(&run.common, run.common.clients.unwrap_or(100))?;
        audience.slow_percent = run.slow_percent;
        Ok((Plan::new(&run, &audience)?, audience))
    }

    fn fanouts(flags: &str) -> Vec<u32> {
        plan(flags).unwrap().0.streams.iter().map(|stream| stream.fanout).collect()
    }

    #[test]
    fn every_publish_knows_its_receivers() {
        assert_eq!(fanouts("--clients 3 --aim user"), [1, 1, 1]);
        assert_eq!(fanouts("--clients 7 --aim users --group 3"), [3, 3, 1]);
        assert_eq!(fanouts("--clients 5 --aim broadcast --publishers 2"), [5, 5]);
        assert_eq!(fanouts("--clients 6 --aim channel --channels 3 --channels-each 2 --publishers 1"), [4, 4, 4]);
        // Client 0 has channel 0, client 1 channel 1, ...; a set of two channels reaches two clients once each.
        assert_eq!(fanouts("--clients 4 --aim channels --channels 4 --group 2 --publishers 1"), [2, 2, 2, 2]);
    }

    #[test]
    fn slow_clients_are_spread_and_receive_nothing_that_counts() {
        let (_, audience) = plan("--clients 10 --slow-percent 30").unwrap();
        let slow: Vec<u32> = (0..10).filter(|client| audience.is_slow(*client)).collect();
        assert_eq!((slow, audience.slow_clients()), (vec![3, 6, 9], 3));
        assert_eq!(fanouts("--clients 4 --aim user --slow-percent 50"), [1, 0, 1, 0]);
        assert_eq!(fanouts("--clients 10 --aim broadcast --publishers 1 --slow-percent 30"), [7]);
    }

    #[test]
    fn a_deck_deals_the_mix_and_only_its_own() {
        let (plan, _) = plan("--clients 8 --aim mixed --channels 2 --group 4 --publishers 2").unwrap();
        let mut deck = plan.deck(1);
        let dealt: Vec<Stream> = (0..10).map(|_| plan.streams[deck.deal().unwrap() as usize]).collect();
        assert!(dealt.iter().all(|stream| stream.publisher == 1));
        let users = dealt.iter().filter(|stream| matches!(stream.aim, Aim::User(_))).count();
        let broadcasts = dealt.iter().filter(|stream| stream.aim == Aim::Broadcast).count();
        assert_eq!((users, broadcasts), (5, 1));
    }

    #[test]
    fn surplus_publishers_are_not_made() {
        assert_eq!(plan("--clients 2 --aim user --publishers 8").unwrap().0.publishers, 2);
    }

    #[test]
    fn a_backlog_is_dealt_out_to_the_last_notification() {
        let (_, audience) = plan("--clients 5").unwrap();
        let plan = Plan::backlog(3, 2, &audience);
        assert_eq!((plan.publishers, plan.quota(0), plan.quota(1)), (2, 9, 6));
        let mut each = [0; 5];
        for publisher in 0..2 {
            let mut deck = plan.deck(publisher);
            (0..plan.quota(publisher)).for_each(|_| each[deck.deal().unwrap() as usize] += 1);
        }
        assert_eq!(each, [3; 5]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(matches!(plan("--aim channel"), Err(LoadError::Plan(_))));
        assert!(matches!(plan("--target 192.0.2.1:80"), Err(LoadError::Remote(_))));
        assert!(plan("--target 192.0.2.1:80 --allow-remote").is_ok());
        assert!(matches!(plan("--aim batch --publish redis"), Err(LoadError::Plan(_))));
        assert!(matches!(plan("--aim batch --batch-size 100 --size 20000"), Err(LoadError::Plan(_))));
        assert!(matches!(plan("--channels 1 --channel-prefix a:b"), Err(LoadError::Plan(_))));
    }
}
