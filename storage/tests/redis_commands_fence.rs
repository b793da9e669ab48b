//! Commands that hang between us and the server when their connection is given up: they must not be executed behind those
//! of the next one.
mod common;
mod redis_commands_driver;

use common::RedisServer;
use redis_commands_driver::{CommandDriver, Told, config, done};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// A way to the server on which one connection's words may hang.
struct Way {
    port: u16,
    connections: Arc<Mutex<Vec<Passage>>>,
}

/// One connection over the way.
struct Passage {
    hangs: Arc<(Mutex<bool>, Condvar)>,
    there: JoinHandle<()>,
    back: JoinHandle<()>,
}

impl Way {
    fn to(server: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let passages = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let upstream = TcpStream::connect(("127.0.0.1", server)).unwrap();
                passages.lock().unwrap().push(Passage::new(client.unwrap(), upstream));
            }
        });
        Way { port, connections }
    }

    /// What is said over the connection so far last made hangs from here on.
    fn hang(&self) {
        *self.connections.lock().unwrap().last().unwrap().hangs.0.lock().unwrap() = true;
    }

    /// What hung on the first connection goes on, and has come through, or not, when this returns.
    fn release_first(&self) {
        let Passage { hangs, there, back } = self.connections.lock().unwrap().remove(0);
        *hangs.0.lock().unwrap() = false;
        hangs.1.notify_all();
        there.join().unwrap();
        back.join().unwrap();
    }
}

impl Passage {
    fn new(mut client: TcpStream, mut upstream: TcpStream) -> Passage {
        let hangs = Arc::new((Mutex::new(false), Condvar::new()));
        let (mut from_server, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
        let held = Arc::clone(&hangs);
        let there = std::thread::spawn(move || {
            let mut words = vec![0; 65_536];
            while let Ok(bytes @ 1..) = client.read(&mut words) {
                let guard = held.1.wait_while(held.0.lock().unwrap(), |hangs| *hangs).unwrap();
                drop(guard);
                // The server may have ended it.
                if upstream.write_all(&words[..bytes]).is_err() {
                    break;
                }
            }
            let _ = upstream.shutdown(Shutdown::Write);
        });
        let back = std::thread::spawn(move || {
            let mut words = vec![0; 65_536];
            while let Ok(bytes @ 1..) = from_server.read(&mut words) {
                // We may have gone; the server is heard out all the same.
                let _ = to_client.write_all(&words[..bytes]);
            }
            let _ = to_client.shutdown(Shutdown::Both);
        });
        Passage { hangs, there, back }
    }
}

/// What the list holds after a command hung, another came in its place, and the first was let go.
fn after_a_hang(url_user: &str, server: &RedisServer) -> String {
    let way = Way::to(server.port);
    let mut driver = CommandDriver::new(config(&format!("redis://{url_user}127.0.0.1:{}", way.port), &[]));
    driver.until_healthy(1);
    way.hang();
    driver.say(&["RPUSH", "list", "late"]);
    driver.turn(false, true);
    driver.skip_ms(121_000);
    assert_eq!(std::mem::take(&mut driver.told), [(1, Told::Unknown)]);
    driver.until_healthy(2);
    assert_eq!(driver.command(&["RPUSH", "list", "new"]), done("1"));
    way.release_first();
    let Told::Done(list) = driver.command(&["LRANGE", "list", "0", "-1"]) else { panic!("it is a list") };
    assert_eq!(driver.status().reconnections, 2, "nobody ended the new connection");
    list
}

#[test]
fn what_hung_on_an_old_connection_is_never_executed_behind_a_new_one() {
    let server = RedisServer::start();
    assert_eq!(after_a_hang("", &server), "[\"new\"]");
}

#[test]
fn a_user_who_may_not_end_connections_is_served_without_the_fence() {
    let server = RedisServer::start();
    server.client().must(&["ACL", "SETUSER", "ara", "on", ">pw", "~*", "+@all", "-client|kill"]);
    assert_eq!(after_a_hang("ara:pw@", &server), "[\"new\", \"late\"]", "as the warning in the log says");
}
