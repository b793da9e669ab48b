//! A server that speaks TLS, certificates made for the test, and clients by rustls.
use super::DEADLINE;
use super::http::{Connection, request};
use super::process::{Folder, Port, Process, run, tool};
use super::server::binary;
use super::sse::Sse;
use super::token;
use super::ws::Ws;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A client's stream.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Makes `{name}.pem` and `{name}.key` in a folder: a certificate of `localhost` that vouches for itself.
pub(crate) fn make_certificate(folder: &Path, name: &str, kind: &str) {
    let arguments = format!(
        "req -x509 -newkey {kind} -nodes -keyout {name}.key -out {name}.pem -days 30 -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    );
    let (status, printed) = run(Command::new(tool("openssl")).args(arguments.split(' ')).current_dir(folder));
    assert!(status.success(), "{printed}");
}

pub(crate) const P256: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

/// A running server whose certificate and key lie in its folder.
#[derive(Debug)]
pub(crate) struct TlsServer {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) home: Folder,
    _port: Port,
}

impl TlsServer {
    /// Two shards, and these settings on top.
    pub(crate) fn with(settings: &[(&str, &str)]) -> TlsServer {
        let (home, port) = (Folder::new("tls"), Port::free());
        make_certificate(home.path(), "ara", P256);
        let mut process = Process::spawn(TlsServer::command(&home, port.number).envs(settings.iter().copied()));
        process.await_output("every shard listens");
        assert!(process.ended().is_none());
        TlsServer { process, port: port.number, home, _port: port }
    }

    fn command(home: &Folder, port: u16) -> Command {
        let mut command = binary();
        command
            .current_dir(home.path())
            .env("JWT_SECRET", token::SECRET)
            .env("SERVER_HOST", "127.0.0.1")
            .env("SERVER_PORT", port.to_string())
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("SHARDS", "2")
            .env("TLS_CERT", "ara.pem")
            .env("TLS_KEY", "ara.key");
        command
    }

    /// Another command of the binary, with the same settings.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let (status, printed) = run(TlsServer::command(&self.home, self.port).args(arguments));
        (status.code(), printed)
    }

    /// Somebody who takes the certificate that lies in the folder now, and no other.
    pub(crate) fn trust(&self) -> Arc<ClientConfig> {
        let certificate = CertificateDer::from_pem_file(self.home.path().join("ara.pem")).expect("it was made");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("it is a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring does both")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A socket that has said nothing.
    pub(crate) fn tcp(&self) -> TcpStream {
        Connection::open(self.port).stream
    }

    pub(crate) fn stream_by(&self, config: &Arc<ClientConfig>) -> TlsStream {
        let name = ServerName::try_from("localhost").expect("a name");
        StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a good configuration"), self.tcp())
    }

    pub(crate) fn stream(&self) -> TlsStream {
        self.stream_by(&self.trust())
    }

    pub(crate) fn connect(&self) -> Connection<TlsStream> {
        Connection::on(self.stream())
    }

    #[track_caller]
    pub(crate) fn publish(&self, kind: &str, body: &str) -> Value {
        let mut connection = self.connect();
        connection.send(request("POST", &format!("/api/v1/notifications/{kind}"), &[], Some(body.as_bytes())));
        connection.read().ok()
    }

    #[track_caller]
    pub(crate) fn ws(&self, user: &str) -> Ws<TlsStream> {
        Ws::open_on(self.stream(), "localhost", &format!("/ws?token={}", token::of(user)), &[])
            .unwrap_or_else(|(status, body)| panic!("handshake refused: {status} {body}"))
    }

    #[track_caller]
    pub(crate) fn sse(&self, user: &str, channels: &str) -> Sse<TlsStream> {
        let path = format!("/sse?channels={channels}&token={}", token::of(user));
        Sse::open_over(self.connect(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// The value of a metric without labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut connection = self.connect();
        connection.send(request("GET", "/metrics", &[], None));
        let page = connection.read();
        let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a whole number")
    }
}

// What a test waits for never takes longer.
const _: () = assert!(DEADLINE.as_secs() > 10);
