//! The raw-socket ceiling: one thread writes messages to many loopback connections in turn, another process reads them.
//!
//! No framing, no tables, no parsing: what is left is the kernel. A server on this machine delivers at most this much
//! from one core; how near it comes is the figure to compare. The number of messages in one write is the row: it
//! matters more than anything else a server can choose.
use crate::drain::Drained;
use crate::table::Table;
use crate::{BenchError, machine, trying};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// Flags of `ceiling`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Connections, one round for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    pub connections: Vec<usize>,
    /// Messages in one write, one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    pub coalesce: Vec<usize>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub size: u32,
    /// Seconds of each row.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Core of the writer.
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    /// Core of the reader.
    #[arg(long, default_value_t = 1)]
    pub reader_cpu: usize,
}

/// Connections and messages in one write, at most.
const CONNECTIONS_MAX: usize = 500_000;
const COALESCE_MAX: usize = 1_024;
/// Length of a row, at most.
const SECONDS_MAX: f64 = 600.0;
/// The writer looks at the clock once in so many writes.
const WRITES_PER_CLOCK: usize = 64;

/// Measures every row.
pub fn run(args: &Args) -> Result<Table, BenchError> {
    let bad = |number: &usize, max: usize| *number == 0 || *number > max;
    if args.connections.iter().any(|n| bad(n, CONNECTIONS_MAX)) || args.coalesce.iter().any(|n| bad(n, COALESCE_MAX)) {
        return Err(BenchError(format!("1..={CONNECTIONS_MAX} connections, 1..={COALESCE_MAX} messages in one write")));
    }
    if !(0.0..=SECONDS_MAX).contains(&args.seconds) {
        return Err(BenchError(format!("--seconds must be between 0 and {SECONDS_MAX}")));
    }
    machine::pin(args.cpu)?;
    let title = format!("ceiling: raw loopback sockets, messages of {} bytes, one writer, one reader", args.size);
    let columns = [
        "connections",
        "per_write",
        "messages_per_second",
        "writer_us_per_message",
        "reader_us_per_message",
        "writer_busy",
        "stalls",
    ];
    let mut table = Table::new(&title, &columns);
    for connections in &args.connections {
        for coalesce in &args.coalesce {
            let row = measure(args, *connections, *coalesce)?;
            table.push([
                (*connections).into(),
                (*coalesce).into(),
                (row.messages_per_second as u64).into(),
                row.writer_us_per_message.into(),
                row.reader_us_per_message.into(),
                row.writer_busy.into(),
                row.stalls.into(),
            ]);
        }
    }
    Ok(table)
}

struct Figures {
    messages_per_second: f64,
    writer_us_per_message: f64,
    reader_us_per_message: f64,
    writer_busy: f64,
    stalls: u64,
}

fn measure(args: &Args, connections: usize, coalesce: usize) -> Result<Figures, BenchError> {
    machine::raise_descriptors(connections as u64 + 32)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(trying("listen"))?;
    let port = listener.local_addr().map_err(trying("listen"))?.port();
    let mut reader = Reader::start(port, connections, args.reader_cpu)?;
    let streams = accept(&listener, connections, &mut reader)?;
    let message = vec![b'm'; args.size as usize * coalesce];
    let mut writer = Writer { streams: &streams, message: &message, at: 0, sent: 0, stalls: 0 };
    // A first round fills the kernel's pools; it is not counted.
    writer.write(connections.max(WRITES_PER_CLOCK))?;
    let (first, stalls) = (writer.sent, writer.stalls);
    let (start_ns, start_cpu_ns) = (machine::now_ns(), machine::thread_cpu_ns());
    let until_ns = start_ns + (args.seconds * 1e9) as u64;
    while machine::now_ns() < until_ns {
        writer.write(WRITES_PER_CLOCK)?;
    }
    let cpu_ns = machine::thread_cpu_ns() - start_cpu_ns;
    let elapsed_ns = machine::now_ns() - start_ns;
    let messages = ((writer.sent - first) * coalesce as u64).max(1) as f64;
    let (sent, stalls) = (writer.sent, writer.stalls - stalls);
    drop(streams);
    let drained = reader.finish()?;
    let bytes = sent * message.len() as u64;
    if drained.bytes != bytes {
        return Err(BenchError(format!("{bytes} bytes were written and {} read", drained.bytes)));
    }
    Ok(Figures {
        messages_per_second: messages * 1e9 / elapsed_ns as f64,
        writer_us_per_message: cpu_ns as f64 / 1e3 / messages,
        // The reader's CPU includes its connects and the uncounted round: a little too much, never too little.
        reader_us_per_message: drained.cpu_ns as f64 / 1e3 / (sent * coalesce as u64) as f64,
        writer_busy: cpu_ns as f64 / elapsed_ns as f64,
        stalls,
    })
}

/// The reading process; ended with the value.
struct Reader(Child);

impl Reader {
    fn start(port: u16, connections: usize, cpu: usize) -> Result<Reader, BenchError> {
        let program = std::env::current_exe().map_err(trying("own path"))?;
        let (port, connections, cpu) = (port.to_string(), connections.to_string(), cpu.to_string());
        let child = Command::new(program)
            .args(["drain", "--port", &port, "--connections", &connections, "--cpu", &cpu])
            .stdout(Stdio::piped())
            .spawn();
        child.map(Reader).map_err(trying("start the reader"))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn finish(mut self) -> Result<Drained, BenchError> {
        let mut text = String::new();
        if let Some(output) = &mut self.0.stdout {
            std::io::Read::read_to_string(output, &mut text).map_err(trying("the reader's figures"))?;
        }
        serde_json::from_str(&text).map_err(trying("the reader's figures"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // After an error it would read for ever; after a good end there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn accept(listener: &TcpListener, connections: usize, reader: &mut Reader) -> Result<Vec<TcpStream>, BenchError> {
    let mut streams = Vec::with_capacity(connections);
    listener.set_nonblocking(true).map_err(trying("listen"))?;
    while streams.len() < connections {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nodelay(true).map_err(trying("no delay"))?;
                streams.push(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if reader.has_ended() {
                    return Err(BenchError("the reader could not connect".to_owned()));
                }
                wait(listener, PollFlags::IN)?;
            }
            Err(error) => return Err(trying("accept")(error)),
        }
    }
    Ok(streams)
}

/// Waits, one second at most, so that the caller can see that the other side is gone.
fn wait(socket: &impl std::os::fd::AsFd, flags: PollFlags) -> Result<(), BenchError> {
    let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    match rustix::event::poll(&mut [PollFd::new(socket, flags)], Some(&second)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(trying("poll")(error)),
    }
}

struct Writer<'a> {
    streams: &'a [TcpStream],
    message: &'a [u8],
    at: usize,
    /// Writes of whole messages.
    sent: u64,
    /// Writes that had to wait for the reader.
    stalls: u64,
}

impl Writer<'_> {
    /// Makes so many writes, to each connection in turn.
    fn write(&mut self, writes: usize) -> Result<(), BenchError> {
        for _ in 0..writes {
            let stream = &self.streams[self.at];
            let mut rest = self.message;
            while !rest.is_empty() {
                match rustix::net::send(stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(bytes) => rest = &rest[bytes..],
                    Err(Errno::AGAIN) => {
                        self.stalls += 1;
                        wait(stream, PollFlags::OUT)?;
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(trying("send")(error)),
                }
            }
            self.sent += 1;
            self.at = (self.at + 1) % self.streams.len();
        }
        Ok(())
    }
}
