//! A stage for the whole play: a client, version 1 and version 2, each in a network namespace of its own, joined by veth
//! pairs; nginx as both versions, and `shadowtap` beside version 1.
//!
//! A namespace lives as long as a `cat` that waits for the end of its input, so nothing is left behind, whatever happens.

pub(crate) mod cart;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::cannot_run;
use super::run::{PROGRAM, in_root};

/// How the stage differs from the plain one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenery {
    /// The MTU of every link.
    pub(crate) mtu: u16,
    /// Whether segments are put together and cut by the network cards (GRO, GSO, TSO), as is usual.
    pub(crate) offload: bool,
    /// How many of a hundred packets the client's namespace loses, each way.
    pub(crate) loss: u8,
    /// Whether the client speaks IPv6.
    pub(crate) v6: bool,
}

/// The plain stage.
pub(crate) const PLAIN: Scenery = Scenery {
    mtu: 1500,
    offload: true,
    loss: 0,
    v6: false,
};

/// Waits that end for certain if the program works, and end the test if it does not.
const DEADLINE: Duration = Duration::from_secs(90);

/// The port of both versions.
pub(crate) const PORT: u16 = 8080;

/// The namespaces and the servers in them.
pub(crate) struct Stage {
    /// Where files go.
    pub(crate) folder: TempDir,
    scenery: Scenery,
    client: Namespace,
    v1: Namespace,
    _v2: Namespace,
    _servers: [Process; 2],
}

impl Stage {
    /// Builds the stage; `None`, with the reason printed, where the kernel does not let us. In CI that is a failure.
    pub(crate) fn build(scenery: Scenery) -> Option<Self> {
        Self::try_build(scenery).map_err(cannot_run).ok()
    }

    fn try_build(scenery: Scenery) -> Result<Self, String> {
        let client = Namespace::first()?;
        let v1 = client.another()?;
        let v2 = client.another()?;
        link(&client, "uplink", &v1, "front", 77)?;
        link(&v1, "back", &v2, "eth0", 78)?;
        for (namespace, interface) in [
            (&client, "uplink"),
            (&v1, "front"),
            (&v1, "back"),
            (&v2, "eth0"),
        ] {
            namespace.must(&[
                "ip",
                "link",
                "set",
                interface,
                "mtu",
                &scenery.mtu.to_string(),
            ])?;
            if !scenery.offload {
                namespace.must(&[
                    "ethtool", "-K", interface, "gro", "off", "gso", "off", "tso", "off",
                ])?;
            }
        }
        if scenery.loss > 0 {
            // Lost between the client and the place of capture, both ways, so that TCP repairs it.
            let rule = format!(
                "numgen random mod 100 < {} tcp dport {PORT} drop",
                scenery.loss
            );
            let back = format!(
                "numgen random mod 100 < {} tcp sport {PORT} drop",
                scenery.loss
            );
            let table = format!(
                "table inet loss {{ chain out {{ type filter hook output priority 0; {rule}; }}; \
                 chain in {{ type filter hook input priority 0; {back}; }}; }}"
            );
            client.must(&["nft", &table])?;
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let servers = [
            nginx(&v1, folder.path(), "v1")?,
            nginx(&v2, folder.path(), "v2")?,
        ];
        Ok(Self {
            folder,
            scenery,
            client,
            v1,
            _v2: v2,
            _servers: servers,
        })
    }

    /// Version 1, as the client calls it.
    pub(crate) fn v1_host(&self) -> &'static str {
        if self.scenery.v6 {
            "[fd77::2]"
        } else {
            "10.77.0.2"
        }
    }

    /// Version 2, as the sidecar calls it.
    pub(crate) fn v2_url(&self) -> String {
        let host = if self.scenery.v6 {
            "[fd78::2]"
        } else {
            "10.78.0.2"
        };
        format!("http://{host}:{PORT}")
    }

    /// Starts `shadowtap` beside version 1 and waits until it says that it is ready.
    pub(crate) fn sidecar(&self, name: &str, admin: u16, arguments: &[&str]) -> Sidecar {
        self.sidecar_by(&[], name, admin, arguments)
    }

    /// The same, started by a command that ends as the program behind it.
    pub(crate) fn sidecar_by(
        &self,
        starter: &[&str],
        name: &str,
        admin: u16,
        arguments: &[&str],
    ) -> Sidecar {
        let command = [starter, &[PROGRAM], arguments].concat();
        start(self.folder.path(), &self.v1, name, admin, &command)
    }

    /// Starts a Python script beside version 1, which runs until what this returns is dropped.
    pub(crate) fn script_beside_v1(&self, script: &Path, arguments: &[&str]) -> Process {
        let mut command = self.v1.command("python3");
        let started = command.arg(script).args(arguments).spawn();
        Process(started.expect("installed by `make setup`"))
    }

    /// Starts the program beside version 1 and waits until it has said `word`.
    pub(crate) fn beside_v1(&self, name: &str, word: &str, arguments: &[&str]) -> Sidecar {
        let errors = self.folder.path().join(format!("{name}.err"));
        let output = self.folder.path().join(format!("{name}.out"));
        let child = self
            .v1
            .command(PROGRAM)
            .args(arguments)
            .stdout(fs::File::create(&output).expect("a temporary file"))
            .stderr(fs::File::create(&errors).expect("a temporary file"))
            .spawn()
            .expect("the program can be started");
        let mut sidecar = Sidecar {
            process: Process(child),
            errors,
            output,
        };
        wait_for(&format!("{name} to say '{word}'"), || {
            if let Some(status) = sidecar.process.0.try_wait().expect("our child") {
                panic!("{name} ended with {status}: {}", sidecar.said());
            }
            sidecar.said().contains(word)
        });
        sidecar
    }

    /// A number that the sidecar at this admin port tells in `/metrics`.
    pub(crate) fn metric(&self, admin: u16, name: &str) -> Option<f64> {
        self.admin(admin, "/metrics")?
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// What the sidecar at this admin port answers for that path.
    pub(crate) fn admin(&self, admin: u16, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:{admin}{path}");
        let output = self.v1.command("curl").args(["-sf", &url]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `shadowtap` beside version 1 to its end, which must be a good one.
    pub(crate) fn shadowtap(&self, arguments: &[&str]) -> String {
        let output = self
            .v1
            .command(PROGRAM)
            .args(arguments)
            .output()
            .expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}: {said}",
            output.status
        );
        said + &String::from_utf8_lossy(&output.stdout)
    }

    /// Runs curl at the client against version 1, with `{}` in the arguments as its address.
    pub(crate) fn curl(&self, arguments: &[&str]) {
        self.at_client("curl", &[&["-gsS", "--retry", "3"], arguments].concat());
    }

    /// Runs a program at the client, with `{}` in the arguments as version 1's address; it must succeed.
    pub(crate) fn at_client(&self, program: &str, arguments: &[&str]) {
        let host = format!("{}:{PORT}", self.v1_host());
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| argument.replace("{}", &host))
            .collect();
        let output = self
            .client
            .command(program)
            .args(&arguments)
            .output()
            .expect("installed by `make setup`");
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs curl beside version 1 against version 1, with `{}` in the arguments as its address.
    pub(crate) fn curl_at_v1(&self, arguments: &[&str]) {
        let host = format!("{}:{PORT}", self.v1_host());
        let arguments = arguments.iter().map(|it| it.replace("{}", &host));
        let mut curl = self.v1.command("curl");
        let output = curl.args(["-gsS"]).args(arguments).output();
        let output = output.expect("installed by `make setup`");
        assert!(output.status.success(), "curl: {}", output.status);
    }

    /// A file of `bytes` in the stage's folder.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path.to_str().expect("a plain path").to_owned()
    }

    /// The requests that a version (`v1` or `v2`) has served: each line of its log with how often it is there.
    pub(crate) fn served(&self, version: &str) -> Served {
        let log = fs::read(self.folder.path().join(version).join("access.log")).unwrap_or_default();
        let mut served = BTreeMap::new();
        for line in log
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            *served.entry(line.to_vec()).or_default() += 1;
        }
        Served(served)
    }

    /// Waits until version 2 has served `times` as many requests as version 1.
    pub(crate) fn wait_for_v2(&self, times: usize) {
        let wanted = self.served("v1").total() * times;
        let deadline = Instant::now() + DEADLINE;
        while self.served("v2").total() < wanted && Instant::now() < deadline {
            pause();
        }
    }

    /// Holds version 2's log to be exactly version 1's, each request `times` times.
    pub(crate) fn v2_got_what_v1_got(&self, times: usize) {
        let (v1, v2) = (self.served("v1"), self.served("v2"));
        assert!(v1.total() > 0, "version 1 served nothing");
        let mut wrong = String::new();
        for line in
            v1.0.keys()
                .chain(v2.0.keys().filter(|line| !v1.0.contains_key(*line)))
        {
            let (wanted, got) = (v1.count(line) * times, v2.count(line));
            if wanted != got {
                let short = &line[..line.len().min(120)];
                wrong += &format!(
                    "{got} instead of {wanted}: {} ({} bytes)\n",
                    String::from_utf8_lossy(short),
                    line.len()
                );
            }
        }
        let many = wrong.lines().count();
        let first: String = wrong
            .lines()
            .take(20)
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(
            wrong.is_empty(),
            "{many} requests differ between version 1 and version 2:\n{first}"
        );
    }
}

/// Lines of an access log: method, target, a field and the body, with how often each is there.
#[derive(Debug)]
pub(crate) struct Served(BTreeMap<Vec<u8>, usize>);

impl Served {
    /// How many requests there are in all.
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    fn count(&self, line: &[u8]) -> usize {
        self.0.get(line).copied().unwrap_or(0)
    }
}

/// Starts `shadowtap` in a namespace and waits until its admin server says that it is ready.
fn start(
    folder: &Path,
    namespace: &Namespace,
    name: &str,
    admin: u16,
    command: &[&str],
) -> Sidecar {
    let errors = folder.join(format!("{name}.err"));
    let output = folder.join(format!("{name}.out"));
    let admin = format!("127.0.0.1:{admin}");
    let child = namespace
        .command(command[0])
        .args(&command[1..])
        .args(["--admin", &admin])
        .stdout(fs::File::create(&output).expect("a temporary file"))
        .stderr(fs::File::create(&errors).expect("a temporary file"))
        .spawn()
        .expect("the program can be started");
    let mut sidecar = Sidecar {
        process: Process(child),
        errors,
        output,
    };
    wait_for(&format!("{name} to be ready"), || {
        if let Some(status) = sidecar.process.0.try_wait().expect("our child") {
            panic!("{name} ended with {status}: {}", sidecar.said());
        }
        namespace
            .command("curl")
            .args(["-sf", "-o", "/dev/null", &format!("http://{admin}/readyz")])
            .status()
            .is_ok_and(|status| status.success())
    });
    sidecar
}

/// A running `shadowtap`.
pub(crate) struct Sidecar {
    process: Process,
    errors: PathBuf,
    output: PathBuf,
}

impl Sidecar {
    /// Keeps it from running while `scene` plays.
    pub(crate) fn asleep(&self, scene: impl FnOnce()) {
        signal("STOP", &self.process.0);
        scene();
        signal("CONT", &self.process.0);
    }

    /// Asks it to end, waits for that, and gives back what it said; the end must be a good one.
    pub(crate) fn stop(mut self) -> String {
        signal("TERM", &self.process.0);
        let mut status = None;
        wait_for("the program to end after SIGTERM", || {
            status = self.process.0.try_wait().expect("our child");
            status.is_some()
        });
        assert!(
            status.is_some_and(|status: ExitStatus| status.success()),
            "{status:?}: {}",
            self.said()
        );
        self.said()
    }

    fn said(&self) -> String {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        read(&self.errors) + &read(&self.output)
    }
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace.
pub(crate) struct Namespace {
    keeper: Process,
    /// Whether it lies in a user namespace, which has to be entered as well.
    user: bool,
}

impl Namespace {
    /// One in which we may do everything: directly as root, else in a user namespace of our own.
    pub(crate) fn first() -> Result<Self, String> {
        let mut refused = String::new();
        for user in [false, true] {
            let flags: &[&str] = if user { &["-Urn"] } else { &["-n"] };
            match Self::keep(Command::new("unshare").args(flags), user) {
                Ok(namespace) => return Ok(namespace),
                Err(why) => refused = why,
            }
        }
        Err(format!(
            "no network namespace: {refused}. Run as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
        ))
    }

    /// Another one, with the same owner.
    pub(crate) fn another(&self) -> Result<Self, String> {
        let mut command = self.command("unshare");
        Self::keep(command.arg("-n"), self.user)
    }

    fn keep(command: &mut Command, user: bool) -> Result<Self, String> {
        let child = command
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut keeper = Process(child);
        let file = PathBuf::from(format!("/proc/{}/ns/net", keeper.0.id()));
        let outside = fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let cat = PathBuf::from(format!("/proc/{}/comm", keeper.0.id()));
        wait_for("a network namespace", || {
            let ended = keeper.0.try_wait().expect("our child").is_some();
            ended
                || (fs::read_link(&file).is_ok_and(|inside| inside != outside)
                    && fs::read_to_string(&cat).is_ok_and(|name| name == "cat\n"))
        });
        if keeper.0.try_wait().expect("our child").is_some() {
            let mut why = String::new();
            let _ = keeper
                .0
                .stderr
                .take()
                .expect("piped above")
                .read_to_string(&mut why);
            return Err(why.trim().to_owned());
        }
        let namespace = Self { keeper, user };
        namespace.must(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The process that keeps it.
    pub(crate) fn pid(&self) -> u32 {
        self.keeper.0.id()
    }

    /// A command that will run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.keeper.0.id().to_string()]);
        if self.user {
            command.args(["-U", "--preserve-credentials"]);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        // All that a test sends fits in: on a busy machine the program may not run for as long as that takes.
        command.env("SHADOWTAP_BUFFER", "64MiB");
        command.arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command in it that must succeed.
    pub(crate) fn must(&self, command: &[&str]) -> Result<(), String> {
        let output = self
            .command(command[0])
            .args(&command[1..])
            .output()
            .map_err(|error| format!("{}: {error}", command[0]))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}", command.join(" "), why.trim()))
    }
}

/// Joins two namespaces: `10.NET.0.1` and `fdNET::1` on the one side, `.2` and `::2` on the other.
fn link(
    one: &Namespace,
    interface: &str,
    other: &Namespace,
    peer: &str,
    net: u8,
) -> Result<(), String> {
    let pid = other.keeper.0.id().to_string();
    one.must(&[
        "ip", "link", "add", "name", interface, "type", "veth", "peer", "name", peer, "netns", &pid,
    ])?;
    for (namespace, interface, host) in [(one, interface, 1), (other, peer, 2)] {
        let v4 = format!("10.{net}.0.{host}/24");
        let v6 = format!("fd{net}::{host}/64");
        namespace.must(&["ip", "address", "add", &v4, "dev", interface])?;
        namespace.must(&["ip", "-6", "address", "add", &v6, "dev", interface, "nodad"])?;
        namespace.must(&["ip", "link", "set", "dev", interface, "up"])?;
    }
    Ok(())
}

/// Starts nginx, which logs every request with its body and answers with its own name.
fn nginx(namespace: &Namespace, folder: &Path, name: &str) -> Result<Process, String> {
    let home = folder.join(name);
    fs::create_dir(&home).map_err(|error| error.to_string())?;
    let config = fs::read_to_string(in_root("tests/support/nginx.conf")).expect("it is there");
    let config = config
        .replace("@NAME@", name)
        .replace("@HOME@", home.to_str().expect("a plain path"));
    fs::write(home.join("nginx.conf"), config).map_err(|error| error.to_string())?;
    let log = fs::File::create(home.join("start.log")).map_err(|error| error.to_string())?;
    let child = namespace
        .command("nginx")
        .args([
            "-p",
            home.to_str().expect("a plain path"),
            "-c",
            "nginx.conf",
        ])
        .stderr(log)
        .spawn()
        .map_err(|error| format!("nginx: {error}"))?;
    let mut process = Process(child);
    wait_for("nginx", || {
        if let Some(status) = process.0.try_wait().expect("our child") {
            let why = fs::read_to_string(home.join("start.log")).unwrap_or_default();
            panic!("nginx ended with {status}: {why}");
        }
        namespace
            .command("curl")
            .args(["-sf", "-o", "/dev/null", "http://127.0.0.1:8086/"])
            .status()
            .is_ok_and(|status| status.success())
    });
    Ok(process)
}

/// Sends a signal to a child.
pub(crate) fn signal(name: &str, child: &Child) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
}

/// Waits until `done`.
pub(crate) fn wait_for(what: &str, done: impl FnMut() -> bool) {
    assert!(comes_true(done), "waited too long for {what}");
}

/// Waits until `done`, or until that has taken too long; which of both.
pub(crate) fn comes_true(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
    true
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes have no channel to wait on"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
