//! Child processes that never outlive their test, their output as something to wait for, ports and folders of their own.
use super::DEADLINE;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The path of a tool the tests need.
///
/// # Panics
///
/// When it is not on this machine: a missing tool is a failure, not a reason to pass.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; run deploy/install-test-deps.sh"))
}

/// A number this process has not given out yet.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port nobody else uses while this value lives. Other tests run at the same time, and the server listens with
/// `SO_REUSEPORT`, so "was free a moment ago" is not enough: a locked file names the owner. Below the kernel's
/// ephemeral range, so no client socket takes it either.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    pub(crate) fn free() -> Port {
        let user = rustix::process::getuid().as_raw();
        let folder = std::env::temp_dir().join(format!("ara-e2e-ports-{user}"));
        std::fs::create_dir_all(&folder).expect("the temp folder is writable");
        let mut random = fastrand::Rng::with_seed(u64::from(std::process::id()) << 32 | next());
        loop {
            let number = random.u16(10_000..32_000);
            let Ok(lock) = File::create(folder.join(number.to_string())) else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
    }
}

/// An empty folder that goes away with this value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ara-e2e-{name}-{}-{}", std::process::id(), next()));
        std::fs::create_dir_all(&path).expect("the temp folder is writable");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the temp folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A process that has just been killed may still hold a file; a leftover in the temp folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Default)]
struct Printed {
    text: String,
    open_pipes: usize,
}

/// A running child in a process group of its own, with everything it printed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    printed: Arc<(Mutex<Printed>, Condvar)>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let printed = Arc::new((Mutex::new(Printed { text: String::new(), open_pipes: 2 }), Condvar::new()));
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&printed));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&printed));
        Process { name, child, printed }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far, both streams.
    pub(crate) fn output(&self) -> String {
        self.printed.0.lock().expect("no reader panics").text.clone()
    }

    /// Waits until the output holds `text`.
    pub(crate) fn await_output(&self, text: &str) {
        let (printed, changed) = &*self.printed;
        let guard = printed.lock().expect("no reader panics");
        let (guard, _) = changed
            .wait_timeout_while(guard, DEADLINE, |printed| !printed.text.contains(text) && printed.open_pipes > 0)
            .expect("no reader panics");
        assert!(guard.text.contains(text), "{} never printed {text:?}; it printed:\n{}", self.name, guard.text);
    }

    /// Waits a moment for more output; for loops that also look at something else.
    pub(crate) fn await_any_output(&self, at_most: Duration) {
        let (printed, changed) = &*self.printed;
        let guard = printed.lock().expect("no reader panics");
        let seen = guard.text.len();
        let _ = changed.wait_timeout_while(guard, at_most, |printed| printed.text.len() == seen);
    }

    /// Whether it is over, without waiting.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Waits for the end: its pipes close when it exits.
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        let (printed, changed) = &*self.printed;
        let guard = printed.lock().expect("no reader panics");
        let (guard, late) =
            changed.wait_timeout_while(guard, DEADLINE, |printed| printed.open_pipes > 0).expect("no reader panics");
        assert!(!late.timed_out(), "{} did not exit; it printed:\n{}", self.name, guard.text);
        drop(guard);
        self.child.wait().expect("the child is ours to wait for")
    }

    /// Ends it and everything it started, at once.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::KILL,
        );
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}\n---", self.name, self.output());
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, printed: Arc<(Mutex<Printed>, Condvar)>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            printed.0.lock().expect("no reader panics").text.push_str(&String::from_utf8_lossy(&line));
            printed.1.notify_all();
            line.clear();
        }
        printed.0.lock().expect("no reader panics").open_pipes -= 1;
        printed.1.notify_all();
    });
}

/// Tries until `attempt` gives something: for states of other programs that announce themselves to nobody. The pause is
/// the price of asking, not a guess at how long it takes.
pub(crate) fn await_that<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a short-lived command to its end and returns what it printed on both streams, with its status.
pub(crate) fn run(command: &mut Command) -> (ExitStatus, String) {
    let mut process = Process::spawn(command);
    let status = process.await_exit();
    (status, process.output())
}
