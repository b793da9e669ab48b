//! The cable between one node and its Redis: a TCP relay that can stop carrying, in both directions or in one. As in a network
//! that is split nobody is told: sockets stand, what is sent waits, and goes on when the cable is whole again.
use super::process::Port;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToRedis,
    ToNode,
}

#[derive(Debug, Default)]
struct Gate {
    is_shut: Mutex<[bool; 2]>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, shut: [bool; 2]) {
        *self.is_shut.lock().expect("nobody panics with it") = shut;
        self.changed.notify_all();
    }

    /// Waits until all these directions carry.
    fn pass(&self, directions: &[Direction]) {
        let shut = self.is_shut.lock().expect("nobody panics with it");
        let blocked = |shut: &mut [bool; 2]| directions.iter().any(|direction| shut[*direction as usize]);
        drop(self.changed.wait_while(shut, blocked).expect("nobody panics with it"));
    }
}

/// A relay to a server on loopback. Its threads end with the sockets.
#[derive(Debug)]
pub(crate) struct Cable {
    port: Port,
    gate: Arc<Gate>,
}

impl Cable {
    pub(crate) fn to(server: u16) -> Cable {
        let (port, gate) = (Port::free(), Arc::new(Gate::default()));
        let listener = TcpListener::bind(("127.0.0.1", port.number)).expect("the port is ours");
        let of_all = Arc::clone(&gate);
        std::thread::spawn(move || {
            for node in listener.incoming() {
                let Ok(node) = node else { return };
                // Who comes while it is cut is connected when it is whole.
                of_all.pass(&[Direction::ToRedis, Direction::ToNode]);
                let Ok(redis) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let both = node.try_clone().and_then(|node| Ok((node, redis.try_clone()?)));
                let Ok((node_too, redis_too)) = both else { continue };
                carry(node, redis, Direction::ToRedis, &of_all);
                carry(redis_too, node_too, Direction::ToNode, &of_all);
            }
        });
        Cable { port, gate }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number)
    }

    /// Carries nothing in these directions.
    pub(crate) fn cut(&self, directions: &[Direction]) {
        self.gate.set([Direction::ToRedis, Direction::ToNode].map(|direction| directions.contains(&direction)));
    }

    /// Carries everything again, first of all what has waited.
    pub(crate) fn mend(&self) {
        self.gate.set([false; 2]);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, direction: Direction, gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    std::thread::spawn(move || {
        // Either end may be gone; the other is told, as by any network.
        let _ = to.set_nodelay(true);
        let mut chunk = [0; 16 * 1024];
        loop {
            gate.pass(&[direction]);
            let read = from.read(&mut chunk).unwrap_or(0);
            gate.pass(&[direction]);
            if read == 0 || to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    });
}
