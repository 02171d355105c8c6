//! Live runs: a client and version 2 in one network namespace, version 1 and whatever looks on in another, joined by a
//! veth pair.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{Cpu, MemoryGroup, cpu_of, monotonic, peak_memory, stop, wait_for};
use super::peers::{Load, Loaded, Served};

/// The address and port of version 1.
pub(crate) const V1: &str = "10.77.0.2:8080";
/// The address and port of version 2.
pub(crate) const V2: &str = "10.77.0.1:9090";

/// What looks on while version 1 is under load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beside {
    /// Nothing.
    Nobody,
    /// tcpdump, into nowhere.
    Tcpdump,
    /// shadowtap, to version 2.
    Shadowtap,
    /// shadowtap, reading every request and choosing none for version 2.
    Capturing,
    /// GoReplay, to version 2.
    Gor,
}

/// What one run showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) loaded: Loaded,
    pub(crate) served: Served,
    /// Of what looked on.
    pub(crate) cpu: Cpu,
    /// Of what looked on, in MiB.
    pub(crate) memory: f64,
    /// What the kernel charged its control group for, in MiB, where there can be one.
    pub(crate) charged: Option<f64>,
    /// CPU seconds of what looked on, for each second of the load.
    pub(crate) share: f64,
}

/// The namespaces and version 1.
pub(crate) struct Stage {
    inside: Child,
    myself: PathBuf,
    _v1: Server,
}

impl Stage {
    /// Builds the stage. This process is in a user and a network namespace of its own already.
    pub(crate) fn build() -> io::Result<Self> {
        let myself = std::env::current_exe()?;
        let inside = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // unshare has done its work once `cat` runs.
        let until = Instant::now() + Duration::from_secs(10);
        let name = format!("/proc/{}/comm", inside.id());
        while std::fs::read_to_string(&name)?.trim() != "cat" {
            if Instant::now() > until {
                return Err(io::Error::other("no second network namespace"));
            }
            pause(Duration::from_millis(5));
        }
        let pid = inside.id().to_string();
        let here = |words: &str| must(Command::new("ip").args(words.split(' ')));
        let there = |words: &str| {
            must(
                Command::new("nsenter")
                    .args(["-t", &pid, "-n", "ip"])
                    .args(words.split(' ')),
            )
        };
        here("link set lo up")?;
        here(&format!(
            "link add uplink type veth peer name front netns {pid}"
        ))?;
        here("addr add 10.77.0.1/24 dev uplink")?;
        here("link set uplink up")?;
        there("addr add 10.77.0.2/24 dev front")?;
        there("link set front up")?;
        there("link set lo up")?;
        let v1 = Server::start(
            Command::new("nsenter")
                .args(["-t", &pid, "-n"])
                .arg(&myself),
            V1,
        )?;
        Ok(Self {
            inside,
            myself,
            _v1: v1,
        })
    }

    /// A command in version 1's namespace.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.inside.id().to_string(), "-n", program]);
        command
    }

    /// One load with `beside` next to version 1.
    pub(crate) fn run(&self, beside: Beside, load: Load, more: &[&str]) -> io::Result<Run> {
        let mut v2 = Server::start(&mut Command::new(&self.myself), V2)?;
        let watcher = self.beside(beside, more)?;
        let group = MemoryGroup::new();
        if let Some(watcher) = &watcher {
            if let Some(group) = &group {
                group.take(watcher)?;
            }
            self.wait_until_it_captures(watcher.id())?;
        }
        let mut run = Run::default();
        let used = |watcher: &Option<Child>| watcher.as_ref().and_then(cpu_of).unwrap_or(0.0);
        let (before, since) = (used(&watcher), Instant::now());
        let mut client = self.client(load)?;
        let mut line = String::new();
        BufReader::new(client.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?)
            .read_line(&mut line)?;
        run.share = (used(&watcher) - before) / since.elapsed().as_secs_f64();
        let words: Vec<f64> = line
            .split_whitespace()
            .map_while(|it| it.parse().ok())
            .collect();
        let [requests, seconds, p99] = words[..] else {
            return Err(io::Error::other(format!(
                "the load generator said: {line:?}"
            )));
        };
        run.loaded = Loaded {
            requests: requests as u64,
            seconds,
            p99: p99 as u64,
        };
        if matches!(beside, Beside::Shadowtap | Beside::Gor) {
            v2.settle(run.loaded.requests)?;
        }
        wait_for(&client)?;
        if let Some(watcher) = watcher {
            run.memory = peak_memory(&watcher).unwrap_or(f64::NAN);
            run.charged = group.as_ref().and_then(MemoryGroup::peak);
            run.cpu = stop(&watcher)?;
        }
        run.served = v2.stop()?;
        Ok(run)
    }

    /// Milliseconds from shadowtap's start to the first request at version 2, with 1,000 requests a second already under way.
    pub(crate) fn to_first(&self) -> io::Result<f64> {
        let v2 = Server::start(&mut Command::new(&self.myself), V2)?;
        let client = self.client(Load {
            connections: 10,
            requests: 2000,
            rate: 1000,
            body: 0,
            linger: Duration::ZERO,
        })?;
        pause(Duration::from_millis(500));
        let started = monotonic();
        let watcher = self.beside(Beside::Shadowtap, &[])?;
        wait_for(&client)?;
        if let Some(watcher) = watcher {
            stop(&watcher)?;
        }
        let served = v2.stop()?;
        Ok(served.first.saturating_sub(started) as f64 / 1e6)
    }

    fn client(&self, load: Load) -> io::Result<Child> {
        let numbers = [load.connections, load.requests, load.rate].map(|it| it.to_string());
        Command::new(&self.myself)
            .args(["load", V1])
            .args(numbers)
            .args([load.body.to_string(), load.linger.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()
    }

    /// The bare loop, from version 1's namespace to version 2: what sending costs.
    pub(crate) fn bare(&self, connections: u32, requests: u32) -> io::Result<Cpu> {
        let v2 = Server::start(&mut Command::new(&self.myself), V2)?;
        let myself = self.myself.display().to_string();
        let child = self
            .there(&myself)
            .args(["bare", V2, &connections.to_string(), &requests.to_string()])
            .spawn()?;
        let cpu = wait_for(&child)?;
        v2.stop()?;
        Ok(cpu)
    }

    fn beside(&self, beside: Beside, more: &[&str]) -> io::Result<Option<Child>> {
        let mut command = match beside {
            Beside::Nobody => return Ok(None),
            Beside::Tcpdump => {
                let mut command = self.there("tcpdump");
                command.args([
                    "-Z",
                    "root",
                    "-i",
                    "front",
                    "-w",
                    "/dev/null",
                    "tcp port 8080",
                ]);
                command
            }
            Beside::Shadowtap | Beside::Capturing => {
                let mut command = self.there(env!("CARGO_BIN_EXE_shadowtap"));
                command.args([
                    "mirror",
                    "-i",
                    "front",
                    "--port",
                    "8080",
                    "--to",
                    &format!("http://{V2}"),
                ]);
                command.args(["--progress", "off"]).args(more);
                if beside == Beside::Capturing {
                    command.args(["--no-compare", "--percent", "0"]);
                }
                command
            }
            Beside::Gor => {
                let mut command = self.there("gor");
                command.args(["--input-raw", V1, "--output-http", &format!("http://{V2}")]);
                command
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Some(child))
    }

    /// Waits until the process holds a packet socket that is bound to an interface.
    fn wait_until_it_captures(&self, pid: u32) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let sockets =
                std::fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
            // sk RefCnt Type Proto Iface R Rmem User Inode
            let bound = |line: &str| {
                line.split_whitespace()
                    .nth(4)
                    .is_some_and(|iface| iface != "0")
            };
            if sockets.lines().skip(1).any(bound) {
                // The filter and the ring are in place before the socket is bound; the threads need a moment more.
                pause(Duration::from_millis(100));
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other("nothing captures"));
            }
            pause(Duration::from_millis(1));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.inside.stdin.take());
        let _ = self.inside.wait();
    }
}

/// This program as a server.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Server {
    fn start(command: &mut Command, address: &str) -> io::Result<Self> {
        let mut child = command
            .args(["serve", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut server = Self { child, out };
        let mut line = String::new();
        server.out.read_line(&mut line)?;
        Ok(server)
    }

    fn seen(&mut self) -> io::Result<Served> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        let words: Vec<u64> = line
            .split_whitespace()
            .map_while(|it| it.parse().ok())
            .collect();
        let [requests, first, lag_p50, lag_p99] = words[..] else {
            return Err(io::Error::other(format!("the server said: {line:?}")));
        };
        Ok(Served {
            requests,
            first,
            lag_p50,
            lag_p99,
        })
    }

    /// Waits until so many requests were here, or none has come for two seconds.
    fn settle(&mut self, wanted: u64) -> io::Result<()> {
        let mut last = (0, Instant::now());
        loop {
            if let Some(asking) = &mut self.child.stdin {
                asking.write_all(b"\n")?;
            }
            let seen = self.seen()?.requests;
            if seen >= wanted || (seen == last.0 && last.1.elapsed() > Duration::from_secs(2)) {
                return Ok(());
            }
            if seen != last.0 {
                last = (seen, Instant::now());
            }
            pause(Duration::from_millis(20));
        }
    }

    fn stop(mut self) -> io::Result<Served> {
        drop(self.child.stdin.take());
        let seen = self.seen()?;
        self.child.wait()?;
        Ok(seen)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn must(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?} failed")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes are waited for, and tell nobody when they are ready"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
