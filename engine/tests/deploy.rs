//! `deploy/install-test-deps.sh` on machines where something is missing: stand-ins are all that is on its `PATH`, so nothing
//! is installed, and what it asks of apt and cargo is seen.
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the script looks for. A stand-in only has to be there, and to agree to everything.
const NEEDS: &[&str] =
    &["redis-server", "redis-cli", "openssl", "nginx", "curl", "chromium", "promtool", "cc", "cargo", "rustup"];

/// A machine: a folder that is the whole `PATH`, and a record of what was called.
struct Machine(PathBuf);

impl Machine {
    /// With everything the script wants.
    fn complete(name: &str) -> Machine {
        let folder = std::env::temp_dir().join(format!("ara-deploy-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temp folder is writable");
        let machine = Machine(folder);
        for tool in ["bash", "env", "grep"] {
            let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
            let real = real.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {tool} on this machine"));
            symlink(real, machine.0.join(tool)).expect("the folder is ours");
        }
        NEEDS.iter().for_each(|need| machine.has(need, "exit 0"));
        machine.has("php", "echo redis; echo curl");
        machine.has("id", "echo 0");
        let record = machine.record();
        let apt = format!(r#"echo "$DEBIAN_FRONTEND apt-get $*" >>'{}'"#, record.display());
        machine.has("apt-get", &apt);
        machine
    }

    /// A command that does this.
    fn has(&self, name: &str, script: &str) {
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("the folder is ours");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
    }

    fn lacks(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).expect("it was there");
    }

    fn record(&self) -> PathBuf {
        self.0.join("called")
    }

    /// What apt was called with so far.
    fn called(&self) -> String {
        std::fs::read_to_string(self.record()).unwrap_or_default()
    }

    /// Runs the script: whether it is content, and what it printed.
    fn install(&self, arguments: &[&str]) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install-test-deps.sh");
        let output = Command::new("/bin/bash")
            .arg(script)
            .args(arguments)
            .env_clear()
            .env("PATH", &self.0)
            .output()
            .expect("bash can be started");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A leftover in the temp folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_complete_machine_is_left_alone() {
    let machine = Machine::complete("complete");
    for arguments in [&[][..], &["--dry-run"]] {
        assert_eq!(machine.install(arguments), (true, String::new()));
    }
    assert_eq!(machine.called(), "");
}

#[test]
fn what_is_missing_is_asked_of_apt_and_nothing_else() {
    let machine = Machine::complete("missing");
    machine.lacks("promtool");
    machine.lacks("curl");
    let (content, printed) = machine.install(&[]);
    assert!(content, "{printed}");
    assert_eq!(printed, "install-test-deps: missing: curl prometheus\n");
    assert_eq!(
        machine.called(),
        " apt-get update -q\nnoninteractive apt-get install -q -y --no-install-recommends curl prometheus\n"
    );
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_not() {
    let machine = Machine::complete("dry");
    machine.lacks("curl");
    machine.has("php", "echo curl");
    // No cargo subcommand is there.
    machine.has("cargo", "exit 1");
    let (content, printed) = machine.install(&["--dry-run"]);
    assert!(content, "{printed}");
    for line in [
        "install-test-deps: missing: curl php-redis",
        "would run: apt-get update -q",
        "would run: env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends curl php-redis",
        "would run: rustup component add rustfmt",
        "would run: rustup component add clippy",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    let last = printed.lines().last().unwrap_or_default();
    assert!(last.starts_with("would run: env ") && last.contains(" cargo install cargo-nextest --locked "), "{last}");
    assert_eq!(machine.called(), "");
}

#[test]
fn a_user_asks_by_sudo_or_is_told_to() {
    let machine = Machine::complete("user");
    machine.lacks("curl");
    machine.has("id", "echo 1000");
    let (content, printed) = machine.install(&[]);
    assert!(!content && printed.ends_with("missing: curl; run this as root, or install sudo\n"), "{printed}");
    machine.has("sudo", r#""$@""#);
    let (content, printed) = machine.install(&["--dry-run"]);
    assert!(content && printed.contains("would run: sudo apt-get update -q\n"), "{printed}");
    assert!(machine.install(&[]).0);
    assert_eq!(machine.called().lines().count(), 2, "{}", machine.called());
}

#[test]
fn what_apt_cannot_do_is_told() {
    let machine = Machine::complete("refused");
    machine.lacks("curl");
    machine.has("apt-get", r#"test "$1" = update"#);
    let (content, printed) = machine.install(&[]);
    assert!(!content && printed.ends_with("install-test-deps: apt-get could not install curl\n"), "{printed}");
    machine.has("apt-get", "exit 100");
    let (content, printed) = machine.install(&[]);
    assert!(!content && printed.ends_with("apt-get update failed: is the network there?\n"), "{printed}");
    machine.lacks("apt-get");
    let (content, printed) = machine.install(&[]);
    assert!(!content && printed.contains("missing: curl (Debian package names), and there is no apt-get"), "{printed}");
    let (content, printed) = machine.install(&["--wet-run"]);
    assert!(!content && printed.contains("usage: "), "{printed}");
}
