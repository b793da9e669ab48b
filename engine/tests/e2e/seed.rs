//! The deployment guide's own words, run: its PHP, its nginx configuration, a browser, Prometheus. Adapted in addresses,
//! ports and keys only.
use crate::support::http::{Connection, call};
use crate::support::process::{Folder, Port, Process, await_that, run, tool};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::Ws;
use crate::support::{DEADLINE, token};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

const KEY: &str = "a-key-of-the-tests";

/// Runs a PHP script and returns what it printed.
#[track_caller]
fn php(script: &str) -> String {
    let folder = Folder::new("php");
    let (status, printed) = run(Command::new(tool("php")).arg(folder.write("script.php", script)));
    assert!(status.success(), "{printed}");
    printed
}

/// Event type, payload and source of the next notification.
#[track_caller]
fn told(ws: &mut Ws) -> (String, Value, String) {
    let heard = ws.notification();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{heard}")).to_owned();
    (text(&heard["event_type"]), heard["payload"].clone(), text(&heard["metadata"]["source"]))
}

#[test]
fn php_publishes_by_redis() {
    let redis = Redis::start();
    let server = Server::with(&[("REDIS_URL", &redis.url())]);
    redis.await_default_subscriptions();
    let mut ws = server.ws("user123");
    ws.subscribe(&["orders"]);
    let here = format!("connect('127.0.0.1', {})", redis.port);
    php(&include_str!("seed/publish.php").replace("connect('redis', 6379)", &here));
    for (event_type, payload, source) in [
        ("order.created", json!({"order_id": "ORD-001", "amount": 99.99}), "redis:notification:user:user123"),
        (
            "order.status_changed",
            json!({"order_id": "ORD-001", "status": "shipped"}),
            "redis:notification:channel:orders",
        ),
        ("system.maintenance", json!({"message": "系統將於 10 分鐘後進行維護"}), "redis:notification:broadcast"),
    ] {
        assert_eq!(told(&mut ws), (event_type.to_owned(), payload, source.to_owned()));
    }
}

#[test]
fn php_publishes_by_http() {
    let server = Server::with(&[("API_KEY", KEY), ("RUN_MODE", "production")]);
    let made = server.post(
        "/api/v1/templates",
        r#"{"id":"order-shipped","name":"Shipped","event_type":"order.shipped","payload_template":{"text":"{{order}} is on its way"}}"#,
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let mut ws = server.ws("user123");
    ws.subscribe(&["orders"]);
    let script = include_str!("seed/service.php")
        .replace("http://notification:8081", &format!("http://127.0.0.1:{}", server.port))
        .replace("NOTIFICATION_API_KEY", KEY);
    assert_eq!(php(&script), "1\n1\n1\n1\n");
    for (event_type, payload) in [
        ("order.created", json!({"order_id": "ORD-001", "amount": 99.99})),
        ("order.shipped", json!({"text": "ORD-001 is on its way"})),
        ("order.status_changed", json!({"status": "shipped", "total": 10.0})),
        ("system.maintenance", json!({"message": "系統將於 10 分鐘後進行維護"})),
    ] {
        assert_eq!(told(&mut ws), (event_type.to_owned(), payload, "http-api".to_owned()));
    }
}

/// nginx with the guide's configuration, its two upstream entries leading to these.
pub(crate) fn nginx(first: &Server, second: &Server) -> (Process, Port, Folder) {
    let port = Port::free();
    let folder = Folder::new("nginx");
    let home = folder.path().display();
    let site = include_str!("seed/nginx.conf")
        .replace("notification-1:8081", &format!("127.0.0.1:{}", first.port))
        .replace("notification-2:8081", &format!("127.0.0.1:{}", second.port))
        .replace("listen 80;", &format!("listen 127.0.0.1:{};", port.number));
    // What a distribution's main file brings: the frame around the guide's text, kept inside one folder.
    let frame = format!(
        "daemon off; master_process off; pid {home}/pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;\n\
         uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n{site}}}\n"
    );
    let file = folder.write("nginx.conf", &frame);
    let mut command = Command::new(tool("nginx"));
    command.args(["-p", &home.to_string(), "-e", "stderr", "-c"]).arg(file);
    let mut process = Process::spawn(&mut command);
    await_that("nginx", || {
        assert!(process.ended().is_none(), "nginx did not start: {}", process.output());
        TcpStream::connect(("127.0.0.1", port.number)).ok()
    });
    (process, port, folder)
}

#[test]
fn the_cluster_s_nginx_is_the_guide_s_in_a_frame() {
    let whole = include_str!("../../../deploy/nginx.conf");
    let mut lines = whole.lines().map(str::trim);
    for line in include_str!("seed/nginx.conf").lines().skip(1).map(str::trim).filter(|line| !line.is_empty()) {
        assert!(lines.any(|found| found == line), "not there, or not in its place: {line}");
    }
    let folder = Folder::new("nginx-main");
    let text = whole.replace("notification-1", "127.0.0.1").replace("notification-2", "127.0.0.1");
    let file = folder.write("nginx.conf", &format!("pid {}/pid;\n{text}", folder.path().display()));
    let mut command = Command::new(tool("nginx"));
    let home = folder.path().display().to_string();
    let told = command.args(["-p", &home, "-e", "stderr", "-t", "-c"]).arg(file).output().expect("nginx runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn nginx_as_in_the_guide_passes_everything_on() {
    let server = Server::with(&[("API_KEY", KEY), ("WEBSOCKET_HEARTBEAT_INTERVAL", "1")]);
    let (_nginx, port, _folder) = nginx(&server, &server);
    let front = port.number;
    for path in ["/health", "/stats", "/metrics"] {
        assert_eq!(call(front, "GET", path, &[], None).status, 200, "{path}");
    }
    let mut ws = Ws::connect(front, &token::of("ana"));
    ws.subscribe(&["orders"]);
    let mut stream = Sse::connect(front, &format!("/sse?channels=orders&token={}", token::of("ben")));
    let body = r#"{"channel":"orders","event_type":"e","payload":{"amount":1.50}}"#;
    let route = "/api/v1/notifications/channel";
    let receipt = call(front, "POST", route, &[("X-API-Key", KEY)], Some(body.as_bytes())).ok();
    assert_eq!(receipt["delivered_to"], 2);
    let heard = ws.hear();
    assert!(heard.contains(r#""payload":{"amount":1.50}"#), "{heard}");
    assert_eq!(stream.notification_text(), heard);

    // What is refused is refused through nginx as well.
    call(front, "POST", route, &[], Some(body.as_bytes())).refusal(401, "UNAUTHORIZED");
    call(front, "GET", "/sse", &[], None).refusal(401, "UNAUTHORIZED");
    assert_eq!(Ws::open(front, "/ws", &[]).err().map(|(status, _)| status), Some(401));
    // Live events are not held back: a heartbeat comes by itself.
    assert_eq!(stream.event().and_then(|event| event.name).as_deref(), Some("heartbeat"));
    assert_eq!(ws.close(1000), Some(1000));
}

/// A page's own web server: gives the page, and hands on what it reports.
fn serve_page(page: String) -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    let (reports, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (page, reports) = (page.clone(), reports.clone());
            // A browser opens connections ahead of need and may never speak on them.
            std::thread::spawn(move || answer(stream, &page, &reports));
        }
    });
    (port, heard)
}

fn answer(stream: TcpStream, page: &str, reports: &Sender<(String, String)>) {
    let mut connection = Connection::over(stream);
    let Some(head) = connection.read_until(b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())
        .unwrap_or(0);
    let body = String::from_utf8(connection.read_exact(length)).expect("the page reports text");
    let body_back = if path == "/" { page } else { "" };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body_back}",
        body_back.len()
    );
    // The test may be over, or the browser gone.
    let _ = connection.stream.write_all(answer.as_bytes());
    let _ = reports.send((path, body));
}

#[test]
fn chromium_opens_a_page_that_listens_and_publishes() {
    let server = Server::with(&[("API_KEY", KEY)]);
    let page = include_str!("seed/page.html")
        .replace("SERVER_PORT", &server.port.to_string())
        .replace("API_KEY", KEY)
        .replace("TOKEN", &token::of("ana"));
    let (port, reports) = serve_page(page);
    let profile = Folder::new("chromium");
    let mut command = Command::new(tool("chromium"));
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    command.env("HOME", profile.path());
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(format!("http://127.0.0.1:{port}/"));
    let _browser = Process::spawn(&mut command);

    let mut told = std::collections::BTreeMap::new();
    while !["/receipt", "/ws", "/sse"].iter().all(|path| told.contains_key(*path)) {
        // A browser takes its time to start on a busy machine.
        let (path, body) = reports.recv_timeout(DEADLINE * 3).unwrap_or_else(|_| panic!("the page told only {told:?}"));
        assert_ne!(path, "/error", "{body}");
        told.insert(path, body);
    }
    let receipt: Value = serde_json::from_str(&told["/receipt"]).expect("receipts are JSON");
    assert_eq!(receipt["delivered_to"], 2, "{receipt}");
    let id = receipt["notification_id"].as_str().expect("an id");
    assert!(told["/ws"].contains(r#""payload":{"order_id":"訂單-001","amount":99.9}"#), "{told:?}");
    assert_eq!(told["/sse"], format!("{id} {}", told["/ws"]));
}

#[test]
fn prometheus_can_read_the_metrics() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    ws.subscribe(&["orders"]);
    let _stream = server.sse("ben");
    server.send("ana", "1");
    server.get("/nowhere");
    let folder = Folder::new("metrics");
    let file = folder.write("metrics.txt", server.get("/metrics").text());
    let mut command = Command::new("sh");
    command.arg("-c").arg(r#""$1" check metrics < "$2""#).arg("sh").arg(tool("promtool")).arg(file);
    let (status, printed) = run(&mut command);
    // 3 is taste, not grammar. The names are the contract's; nothing else may be complained of.
    assert!(matches!(status.code(), Some(0 | 3)), "{status}: {printed}");
    let of_the_contract =
        [r#"non-counter metrics should not have "_total" suffix"#, "use base unit", "abbreviated unit"];
    for line in printed.lines().filter(|line| !line.trim().is_empty()) {
        assert!(of_the_contract.iter().any(|taste| line.contains(taste)), "{line}");
    }
}
