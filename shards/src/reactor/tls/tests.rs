//! TLS at the rim, on both drivers: rustls clients against the stand-in shard, and sessions without a socket.
use super::super::tests::{Client, Node, SILENCE, on_both_drivers};
use super::serve::PLAIN_REFUSAL;
use super::session::{Ciphertext, Received, Session};
use super::{FULL_REFUSAL, TlsSource};
use protocol::limits::{TLS_INPUT_BYTES_MAX, TLS_PENDING_BYTES_MAX, WRITE_BYTES_MAX};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// A certificate of `localhost` that vouches for itself, and its key.
fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    static PEM: OnceLock<String> = OnceLock::new();
    let pem = PEM.get_or_init(|| {
        let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout - -days 30 \
                         -subj /CN=localhost -addext subjectAltName=DNS:localhost \
                         -addext basicConstraints=critical,CA:FALSE";
        let made = Command::new("openssl").args(arguments.split_whitespace()).output();
        let made = made.expect("these tests need openssl; deploy/install-test-deps.sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    });
    (CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
}

fn server_config() -> Arc<ServerConfig> {
    let (certificate, key) = identity();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.ticketer = ring::Ticketer::new().unwrap();
    Arc::new(config)
}

fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity().0).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn any_client() -> Arc<ClientConfig> {
    client_config(&[&rustls::version::TLS12, &rustls::version::TLS13])
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn start(shards: usize, uring: bool, connections_max: usize) -> Node {
    Node::start_with(shards, uring, connections_max, Vec::new(), Some(Arc::new(TlsSource::new(server_config()))))
}

fn tcp(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn connect_with(node: &Node, config: &Arc<ClientConfig>) -> Client<TlsStream> {
    let tls = ClientConnection::new(Arc::clone(config), localhost()).unwrap();
    Client(BufReader::new(StreamOwned::new(tls, tcp(node))))
}

fn connect(node: &Node) -> Client<TlsStream> {
    connect_with(node, &any_client())
}

#[test]
fn requests_are_answered_in_both_versions() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut ana = connect_with(&node, &client_config(&[version]));
            assert_eq!(ana.ask("echo hello"), "hello");
            assert_eq!(ana.0.get_ref().conn.protocol_version(), Some(version.version));
            for n in 0..300 {
                assert_eq!(ana.ask(&format!("echo {n}")), n.to_string());
            }
            // The end is said in TLS: a client that was cut off would hear an error instead of nothing.
            ana.say("echo one\necho two\nquit");
            assert_eq!([ana.hear(), ana.hear(), ana.hear(), ana.hear()], ["one", "two", "bye", ""]);
        }
        let metrics = node.end();
        let shard = &metrics.shards[0];
        assert_eq!((shard.tls_handshakes.get(), shard.tls_resumed.get(), shard.tls_failed.get()), (2, 0, 0));
        assert_eq!(shard.sockets.get(), 0);
    });
}

#[test]
fn a_client_that_comes_back_takes_up_its_session() {
    on_both_drivers(|uring| {
        let node = start(2, uring, 100);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = client_config(&[version]);
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
                let mut ana = connect_with(&node, &config);
                assert_eq!(ana.ask("echo hello"), "hello");
                assert_eq!(ana.0.get_ref().conn.handshake_kind(), Some(expected));
            }
        }
        let metrics = node.end();
        assert_eq!(metrics.sum(|shard| shard.tls_resumed.get()), 4);
    });
}

#[test]
fn a_session_travels_with_its_socket() {
    on_both_drivers(|uring| {
        let node = start(3, uring, 100);
        let mut clients: Vec<_> = (0..12).map(|_| connect(&node)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let home = n % 3;
            for home in [home, 0, home] {
                // What comes behind the request in the same record goes along.
                client.say(&format!("home {home}\necho still me"));
                assert_eq!([client.hear(), client.hear()], [format!("home {home}"), "still me".to_owned()]);
            }
        }
        let metrics = node.metrics.clone();
        drop(clients);
        node.end();
        assert_eq!(metrics.sum(|shard| shard.sockets.get()), 0);
    });
}

#[test]
fn a_slow_reader_gets_everything_and_disturbs_nobody() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        let (mut slow, mut quick) = (connect(&node), connect(&node));
        let len = 8 * 1024 * 1024;
        slow.say(&format!("big {len}"));
        for n in 0..100 {
            assert_eq!(quick.ask(&format!("echo {n}")), n.to_string());
        }
        slow.take(len);
        // What is encrypted and waits for the socket goes out before the end does.
        slow.say(&format!("big {len}\nquit"));
        for n in 0..100 {
            assert_eq!(quick.ask(&format!("echo {n}")), n.to_string());
        }
        slow.take(len);
        assert_eq!([slow.hear(), slow.hear()], ["bye", ""]);
        node.end();
    });
}

#[test]
fn a_handshake_that_comes_byte_by_byte_is_one() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        let mut stream = tcp(&node);
        let mut tls = ClientConnection::new(any_client(), localhost()).unwrap();
        tls.writer().write_all(b"echo at last\n").unwrap();
        let mut heard = String::new();
        while heard.is_empty() {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            for byte in out {
                stream.write_all(&[byte]).unwrap();
            }
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
            // Nothing yet is an error of its own kind.
            let _ = tls.reader().read_to_string(&mut heard);
        }
        assert_eq!(heard, "at last\n");
        node.end();
    });
}

#[test]
fn who_says_nothing_is_gone_at_the_deadline() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        let (mut silent, mut half) = (tcp(&node), tcp(&node));
        // The head of a record that never comes.
        half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        let mut ana = connect(&node);
        assert_eq!(ana.ask("echo hello"), "hello");
        for stream in [&mut silent, &mut half] {
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
        }
        assert_eq!(ana.ask("echo still here"), "still here");
        node.end();
    });
}

#[test]
fn who_speaks_plain_http_is_told_so() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        let mut stream = tcp(&node);
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, PLAIN_REFUSAL);
        // Noise hears an alert, and the end.
        let mut stream = tcp(&node);
        stream.write_all(&[0x80; 64]).unwrap();
        answer.clear();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!((answer.first(), answer.len()), (Some(&21), 7));
        let metrics = node.end();
        assert_eq!(metrics.sum(|shard| shard.tls_failed.get()), 2);
    });
    let text = std::str::from_utf8(PLAIN_REFUSAL).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
}

#[test]
fn a_full_node_says_so_by_an_alert() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 1);
        let mut ana = connect(&node);
        assert_eq!(ana.ask("echo in"), "in");
        let (mut stream, mut answer) = (tcp(&node), Vec::new());
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, FULL_REFUSAL);
        assert_eq!(ana.ask("echo still in"), "still in");
        node.end();
    });
}

#[test]
fn the_end_of_a_client_is_heard_however_it_comes() {
    on_both_drivers(|uring| {
        let node = start(2, uring, 100);
        let gone = |sockets: u64| while node.metrics.sum(|shard| shard.sockets.get()) != sockets {};
        let mut ana = connect(&node);
        // By TLS alone; the socket stays open.
        for home in [0, 1] {
            assert_eq!(ana.ask(&format!("home {home}")), format!("home {home}"));
        }
        ana.0.get_mut().conn.send_close_notify();
        ana.0.get_mut().flush().unwrap();
        assert_eq!(ana.hear(), "");
        // By FIN alone, and by a reset in the middle of a handshake.
        let mut ben = connect(&node);
        assert_eq!(ben.ask("echo hello"), "hello");
        ben.0.get_ref().sock.shutdown(Shutdown::Write).unwrap();
        gone(0);
        let mut eve = tcp(&node);
        eve.write_all(&[22, 3, 1]).unwrap();
        drop(eve);
        gone(0);
        // Behind the request that takes it elsewhere, in one piece.
        let mut dan = connect(&node);
        assert_eq!(dan.ask("echo hello"), "hello");
        dan.0.get_mut().conn.writer().write_all(b"home 0\nhome 1\n").unwrap();
        dan.0.get_mut().conn.send_close_notify();
        dan.0.get_mut().flush().unwrap();
        gone(0);
        node.end();
    });
}

#[test]
fn who_comes_after_a_change_gets_the_new_configuration() {
    on_both_drivers(|uring| {
        let source = Arc::new(TlsSource::new(server_config()));
        let node = Node::start_with(2, uring, 100, Vec::new(), Some(Arc::clone(&source)));
        let mut old = connect(&node);
        assert_eq!(old.ask("echo hello"), "hello");
        let mut changed = ServerConfig::clone(&server_config());
        changed.alpn_protocols = vec![b"http/1.1".to_vec()];
        source.replace(Arc::new(changed));
        let mut client = ClientConfig::clone(&any_client());
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Arc::new(client);
        for _ in 0..10 {
            let mut new = connect_with(&node, &client);
            assert_eq!(new.ask("echo hello"), "hello");
            assert_eq!(new.0.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
        assert_eq!(old.ask("echo still me"), "still me");
        node.end();
    });
}

#[test]
fn a_panic_costs_one_connection() {
    on_both_drivers(|uring| {
        let node = start(1, uring, 100);
        let mut eve = connect(&node);
        let mut ana = connect(&node);
        assert_eq!(ana.ask("echo before"), "before");
        for how in ["panic", "panic-output"] {
            eve.say(how);
            // Cut off in TLS's sense: without a word.
            assert!(eve.0.get_mut().read(&mut [0; 8]).map_or(true, |len| len == 0));
            eve = connect(&node);
            assert_eq!(eve.ask("echo again"), "again");
        }
        assert_eq!(ana.ask("echo after"), "after");
        node.end();
    });
}

// --- Without a socket ------------------------------------------------------------------------------------------------

/// A session and a client, in memory.
struct Scene {
    session: Session,
    client: ClientConnection,
    plain: Vec<u8>,
    /// By the client.
    heard: Vec<u8>,
}

impl Scene {
    fn new(config: Arc<ClientConfig>) -> Scene {
        Scene {
            session: Session::new(server_config()).unwrap(),
            client: ClientConnection::new(config, localhost()).unwrap(),
            plain: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Gives bytes to the session, as the reactor does; what it answers goes to the client.
    fn give(&mut self, bytes: &[u8]) -> Received {
        let mut buffer = self.session.held().to_vec();
        buffer.extend_from_slice(bytes);
        let mut cipher = Ciphertext::default();
        let received = self.session.receive(&mut buffer, &mut self.plain, &mut cipher);
        self.tell(cipher.bytes());
        received
    }

    fn tell(&mut self, mut cipher: &[u8]) {
        while !cipher.is_empty() {
            self.client.read_tls(&mut cipher).unwrap();
            self.client.process_new_packets().unwrap();
            // That nothing more is there is an error of its own kind.
            let _ = self.client.reader().read_to_end(&mut self.heard);
        }
    }

    /// What the client has to say.
    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).unwrap();
        }
        said
    }

    fn greet(&mut self) {
        while self.session.is_handshaking() {
            let said = self.said();
            assert!(self.give(&said).failed.is_none());
        }
    }
}

#[test]
fn an_idle_session_holds_no_buffer() {
    for config in [client_config(&[&rustls::version::TLS12]), client_config(&[&rustls::version::TLS13])] {
        let mut scene = Scene::new(config);
        scene.greet();
        scene.client.writer().write_all(&[b'x'; 40_000]).unwrap();
        let said = scene.said();
        for part in said.chunks(1_000) {
            assert!(scene.give(part).failed.is_none());
        }
        assert_eq!(scene.plain.len(), 40_000);
        assert_eq!((scene.session.incoming.capacity(), scene.session.outgoing.capacity()), (0, 0));
    }
    // What rustls keeps in place; its keys and secrets are behind pointers.
    assert!(size_of::<Session>() <= 1_536, "{} bytes", size_of::<Session>());
}

#[test]
fn a_write_is_sealed_in_bounded_pieces() {
    let mut scene = Scene::new(any_client());
    scene.greet();
    let text: Vec<u8> = (0..3 * WRITE_BYTES_MAX + 7).map(|n| (n % 251) as u8).collect();
    let (mut at, mut cipher) = (0, Ciphertext::default());
    while at < text.len() {
        cipher.clear();
        let len = scene.session.seal(&text[at..], &mut cipher).unwrap();
        assert!(len <= WRITE_BYTES_MAX && cipher.bytes().len() < TLS_PENDING_BYTES_MAX);
        at += len;
        scene.tell(cipher.bytes());
    }
    assert_eq!(scene.heard, text);
}

#[test]
fn the_first_answer_of_a_handshake_is_what_costs() {
    let mut scene = Scene::new(client_config(&[&rustls::version::TLS13]));
    let hello = scene.said();
    assert!(!scene.give(&hello[..hello.len() - 1]).was_costly);
    let received = scene.give(&hello[hello.len() - 1..]);
    assert!(received.was_costly && received.greeted.is_none());
    let finished = scene.said();
    let received = scene.give(&finished);
    assert_eq!((received.was_costly, received.greeted), (false, Some(HandshakeKind::Full)));
}

#[test]
fn a_handshake_without_an_end_is_bounded() {
    // Records of a message of the handshake that says it is long.
    let mut scene = Scene::new(any_client());
    let mut record = vec![22, 3, 1, 0x10, 0, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x1000, 0);
    let mut given = 0;
    loop {
        let received = scene.session.receive(
            &mut [scene.session.held(), &record].concat(),
            &mut scene.plain,
            &mut Ciphertext::default(),
        );
        given += record.len();
        if received.failed.is_some() {
            break;
        }
        assert!(given <= TLS_INPUT_BYTES_MAX + record.len());
        record = [&[22, 3, 1, 0x10, 0][..], &[0; 0x1000]].concat();
    }
}

#[test]
fn noise_at_any_place_fails_and_nothing_else() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut scene = Scene::new(any_client());
        let mut said = scene.said();
        let at = random.usize(..said.len());
        said[at] ^= random.u8(1..);
        let (mut plain, mut cipher) = (Vec::new(), Ciphertext::default());
        // Refused or waited for, or the change was in what does not matter; never a panic, never plaintext.
        let received = scene.session.receive(&mut said, &mut plain, &mut cipher);
        assert!(plain.is_empty());
        if received.failed.is_some() {
            continue;
        }
        let mut noise: Vec<u8> = (0..random.usize(..400)).map(|_| random.u8(..)).collect();
        let mut buffer = scene.session.held().to_vec();
        buffer.append(&mut noise);
        let _ = scene.session.receive(&mut buffer, &mut plain, &mut cipher);
        assert!(plain.is_empty());
    }
}
