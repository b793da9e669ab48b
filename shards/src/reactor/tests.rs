//! The reactor end to end: real threads, real sockets on the loopback, both drivers, and the stand-in shard.
use super::stand_in::{self, Shard};
use super::{DriverKind, ListenerFd, MakeGuest, ShardSeat, StopSignal, StoreSeat, TlsSource, run_on};
use crate::guest::{Guest, Port, Ready, Wants};
use crate::host::StorePort;
use crate::key::ShardId;
use crate::mesh::{Bell, Mesh, MeshPort};
use crate::metrics::NodeMetrics;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// After so long without an answer a test has failed; a reactor that works never comes near it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// A store with one helper thread: answers come late, from elsewhere, with a ring.
struct HelperStore {
    requests: Sender<StoreTicket>,
    replies: Receiver<(StoreTicket, StoreReply)>,
}

impl HelperStore {
    fn new(bell: Bell) -> HelperStore {
        let ((requests, taken), (answers, replies)) = (channel(), channel());
        std::thread::spawn(move || {
            for ticket in taken {
                answers.send((ticket, StoreReply::Done)).unwrap();
                bell.ring();
            }
        });
        HelperStore { requests, replies }
    }
}

impl StorePort for HelperStore {
    fn submit(&mut self, _now: Now, _shard: ShardId, ticket: StoreTicket, _request: StoreRequest) {
        self.requests.send(ticket).unwrap();
    }

    fn take_replies(&mut self, _now: Now, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.extend(self.replies.try_iter());
    }
}

/// A node of stand-in shards.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) metrics: Arc<NodeMetrics>,
    stop: Arc<StopSignal>,
    threads: Vec<JoinHandle<()>>,
    drivers: Vec<DriverKind>,
}

impl Node {
    fn start(shards: usize, uring: bool, connections_max: usize, guests: Vec<MakeGuest>) -> Node {
        Node::start_with(shards, uring, connections_max, guests, None)
    }

    pub(super) fn start_with(
        shards: usize,
        uring: bool,
        connections_max: usize,
        mut guests: Vec<MakeGuest>,
        tls: Option<Arc<TlsSource>>,
    ) -> Node {
        let metrics = Arc::new(NodeMetrics::new(shards, 0));
        let ports: Vec<MeshPort> = Mesh::new(shards, &metrics).unwrap();
        let stop = Arc::new(StopSignal::new(ports.iter().map(MeshPort::bell).collect()));
        let first = ListenerFd::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_address().unwrap();
        let mut listeners = vec![first];
        listeners.extend((1..shards).map(|_| ListenerFd::bind(address).unwrap()));
        let drivers = Arc::new(Mutex::new(Vec::new()));
        let (up, all_up) = channel();
        let threads = ports.into_iter().zip(listeners).map(|(mesh, listener)| {
            let tls = tls.clone();
            let (bell, drivers, up) = (mesh.bell(), drivers.clone(), up.clone());
            let seat = ShardSeat {
                id: mesh.id(),
                tls,
                cpu: Some(0),
                listener,
                mesh,
                guests: std::mem::take(&mut guests),
                store: Box::new(|_| StoreSeat { port: Box::new(HelperStore::new(bell)), links: Vec::new() }),
                cluster: None,
                stop: stop.clone(),
                metrics: metrics.clone(),
                ready: Box::new(move |driver| {
                    drivers.lock().unwrap().push(driver);
                    up.send(()).unwrap();
                }),
            };
            let id = seat.id;
            std::thread::spawn(move || run_on(seat, || Shard::new(id, connections_max), uring).unwrap())
        });
        let threads = threads.collect();
        for _ in 0..shards {
            all_up.recv_timeout(SILENCE).unwrap();
        }
        let drivers = drivers.lock().unwrap().clone();
        Node { address, metrics, stop, threads, drivers }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    pub(super) fn end(self) -> Arc<NodeMetrics> {
        self.stop.raise();
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.metrics
    }
}

pub(super) struct Client<S: Read = TcpStream>(pub(super) BufReader<S>);

impl<S: Read + Write> Client<S> {
    pub(super) fn say(&mut self, line: &str) -> &mut Client<S> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        self
    }

    /// The next line; empty at the end of the connection, however it came.
    pub(super) fn hear(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) fn ask(&mut self, line: &str) -> String {
        self.say(line).hear()
    }

    pub(super) fn take(&mut self, len: usize) {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'x'));
    }
}

/// Runs a story on both drivers.
pub(super) fn on_both_drivers(story: impl Fn(bool)) {
    story(true);
    story(false);
}

#[test]
fn requests_are_answered() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 100, Vec::new());
        assert_eq!(node.drivers[0] == DriverKind::IoUring, uring && monoio::utils::detect_uring());
        let (mut ana, mut ben) = (node.connect(), node.connect());
        assert_eq!(ana.ask("echo hello"), "hello");
        assert_eq!(ben.ask("echo world"), "world");
        for n in 0..1_000 {
            assert_eq!(ana.ask(&format!("echo {n}")), n.to_string());
        }
        ana.say("echo one\necho two\nquit");
        assert_eq!([ana.hear(), ana.hear(), ana.hear(), ana.hear()], ["one", "two", "bye", ""]);
        assert_eq!(ben.ask("echo still here"), "still here");
        assert_eq!(node.metrics.shards[0].sockets.get(), 1);
        drop(ben);
        let metrics = node.end();
        let shard = &metrics.shards[0];
        assert_eq!(shard.sockets.get(), 0);
        assert!(shard.writes.get() >= 1_003);
        // A turn that works and one that finds nothing, per request: a shard that does not sleep has thousands more.
        assert!(
            (shard.writes.get()..10 * shard.writes.get()).contains(&shard.turns.get()),
            "{} turns",
            shard.turns.get()
        );
        assert!(shard.bytes_sent.get() > 3_000);
    });
}

#[test]
fn sockets_and_messages_travel_between_shards() {
    on_both_drivers(|uring| {
        let node = Node::start(3, uring, 100, Vec::new());
        let mut clients: Vec<Client> = (0..30).map(|_| node.connect()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let home = n % 3;
            // Wherever it was accepted, also at home; several times.
            for home in [home, 0, home] {
                assert_eq!(client.ask(&format!("home {home}")), format!("home {home}"));
                assert_eq!(client.ask("echo still me"), "still me");
            }
        }
        for client in &mut clients {
            for _ in 0..100 {
                client.say("tell 2");
            }
            assert_eq!(client.ask("echo sent"), "sent");
        }
        let mut witness = node.connect();
        assert_eq!(witness.ask("home 2"), "home 2");
        while witness.ask("count") != "3000 0" {}
        let metrics = node.metrics.clone();
        drop((clients, witness));
        node.end();
        assert_eq!(metrics.sum(|shard| shard.sockets.get()), 0);
        assert!(metrics.sum(|shard| shard.mesh_sent.get()) >= 3_000);
    });
}

#[test]
fn a_slow_reader_gets_everything_and_disturbs_nobody() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 100, Vec::new());
        let (mut slow, mut quick) = (node.connect(), node.connect());
        let len = 8 * 1024 * 1024;
        slow.say(&format!("big {len}"));
        for n in 0..100 {
            assert_eq!(quick.ask(&format!("echo {n}")), n.to_string());
        }
        slow.take(len);
        assert_eq!(slow.ask("echo done"), "done");
        node.end();
    });
}

#[test]
fn who_is_not_read_is_heard_later() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 100, Vec::new());
        let mut ana = node.connect();
        for _ in 0..20 {
            ana.say("mute").say("echo patience");
            let heard = [ana.hear(), ana.hear()];
            // Both lines may come in one read, before the silence begins.
            assert!(heard.contains(&"heard".to_owned()) && heard.contains(&"patience".to_owned()), "{heard:?}");
        }
        node.end();
    });
}

#[test]
fn a_panic_costs_one_connection() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 100, Vec::new());
        let (mut ana, mut ben, mut eve) = (node.connect(), node.connect(), node.connect());
        assert_eq!(ben.ask("echo before"), "before");
        assert_eq!(ana.ask("panic"), "");
        assert_eq!(eve.ask("panic-output"), "");
        assert_eq!(ben.ask("echo after"), "after");
        assert_eq!(node.metrics.shards[0].sockets.get(), 1);
        node.end();
    });
}

#[test]
fn a_full_node_says_so() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 1, Vec::new());
        let mut ana = node.connect();
        assert_eq!(ana.ask("echo in"), "in");
        let mut ben = node.connect();
        assert_eq!(ben.hear(), "HTTP/1.1 503 Service Unavailable");
        assert_eq!(ana.ask("quit"), "bye");
        assert_eq!(ana.hear(), "");
        assert_eq!(node.connect().ask("echo in"), "in");
        node.end();
    });
}

#[test]
fn store_answers_wake_the_shard() {
    on_both_drivers(|uring| {
        let node = Node::start(1, uring, 100, Vec::new());
        let mut ana = node.connect();
        for _ in 0..500 {
            assert_eq!(ana.ask("store"), "stored");
        }
        node.end();
    });
}

#[test]
fn a_stop_tells_everybody_and_ends() {
    on_both_drivers(|uring| {
        let node = Node::start(2, uring, 100, Vec::new());
        let mut clients: Vec<Client> = (0..10).map(|_| node.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("echo here"), "here");
        }
        let (address, metrics) = (node.address, node.end());
        for client in &mut clients {
            assert_eq!([client.hear(), client.hear()], ["stop", ""]);
        }
        assert_eq!(metrics.sum(|shard| shard.sockets.get()), 0);
        assert!(TcpStream::connect(address).is_err());
    });
}

/// Publishes once per byte it reads, and reads one byte a turn.
struct ByteGuest {
    link: UnixStream,
    stopped: bool,
}

impl Guest for ByteGuest {
    fn turn(&mut self, _now: Now, ready: Ready, port: &mut dyn Port) -> Wants {
        if ready.read && !self.stopped && !port.congested() && self.link.read(&mut [0]).is_ok_and(|len| len > 0) {
            port.publish(stand_in::submission());
        }
        let socket = Some((self.link.as_raw_fd(), 1));
        Wants { socket, read: !self.stopped, ..Wants::default() }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}

#[test]
fn a_guest_publishes_from_the_shards_own_turn() {
    on_both_drivers(|uring| {
        let (link, mut publisher) = UnixStream::pair().unwrap();
        link.set_nonblocking(true).unwrap();
        let guest: MakeGuest = Box::new(|_bell| Box::new(ByteGuest { link, stopped: false }));
        let node = Node::start(1, uring, 100, vec![guest]);
        publisher.write_all(&[0; 300]).unwrap();
        let mut ana = node.connect();
        while ana.ask("count") != "0 300" {}
        node.end();
    });
}
