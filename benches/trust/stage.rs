//! Two network namespaces, joined by a veth pair: the client and version 2 outside, version 1 and the sidecars inside.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Version 1.
pub(super) const V1: &str = "10.77.0.2:8080";
/// Version 2.
pub(super) const V2: &str = "10.77.0.1:9090";

/// A process that ends with this one.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Sends a signal.
    pub(super) fn signal(&self, name: &str) -> io::Result<()> {
        must(Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]))
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.signal("TERM")?;
        let status = self.0.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("a sidecar ended with {status}")))
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|it| it.is_some())
    }

    /// Memory that it holds, in MiB.
    pub(super) fn memory(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
    }

    /// Files and sockets that it has open.
    pub(super) fn descriptors(&self) -> f64 {
        let open = fs::read_dir(format!("/proc/{}/fd", self.0.id()));
        open.map_or(f64::NAN, |open| open.count() as f64)
    }

    /// CPU seconds that it has used.
    pub(super) fn cpu(&self) -> f64 {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.0.id())) else {
            return f64::NAN;
        };
        let of = |path: &Path| -> Option<f64> {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        let times = tasks.filter_map(|task| of(&task.ok()?.path()));
        times.sum::<f64>() / 1e9
    }
}

/// The program: of this build, or another one that `TRUST_PROGRAM` names.
pub(super) fn program() -> String {
    std::env::var("TRUST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_shadowtap").to_owned())
}

/// The namespaces and version 1.
pub(super) struct Stage {
    inside: Process,
    pub(super) folder: tempfile::TempDir,
    _v1: Process,
}

impl Stage {
    /// Builds the stage. This process is in a network namespace of its own already.
    pub(super) fn build() -> io::Result<Self> {
        let inside = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let inside = Process(inside);
        let pid = inside.0.id().to_string();
        wait_for("a second network namespace", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim() == "cat")
        })?;
        let here = |words: &str| must(Command::new("ip").args(words.split(' ')));
        let there = |words: &str| {
            let mut command = Command::new("nsenter");
            must(
                command
                    .args(["-t", &pid, "-n", "ip"])
                    .args(words.split(' ')),
            )
        };
        here(&format!(
            "link add uplink type veth peer name front netns {pid}"
        ))?;
        here("addr add 10.77.0.1/24 dev uplink")?;
        here("link set uplink up")?;
        there("addr add 10.77.0.2/24 dev front")?;
        there("link set front up")?;
        there("link set lo up")?;
        let folder = tempfile::tempdir()?;
        let home = folder.path().display().to_string();
        fs::write(
            folder.path().join("nginx.conf"),
            NGINX.replace("@HOME@", &home),
        )?;
        let v1 = Command::new("nsenter")
            .args(["-t", &pid, "-n", "nginx", "-p", &home, "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.path().join("nginx.log"))?)
            .spawn()?;
        let v1 = Process(v1);
        wait_for("nginx", || TcpStream::connect(V1).is_ok())?;
        Ok(Self {
            inside,
            folder,
            _v1: v1,
        })
    }

    /// A command beside version 1.
    pub(super) fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.inside.0.id().to_string(), "-n", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts shadowtap beside version 1, and waits until its admin server says that it is ready.
    pub(super) fn sidecar(
        &self,
        name: &str,
        admin: u16,
        arguments: &[&str],
    ) -> io::Result<Process> {
        let log = fs::File::create(self.folder.path().join(format!("{name}.log")))?;
        let child = self
            .there(&program())
            .args(arguments)
            .args(["-i", "front", "--port", "8080", "--progress", "off"])
            .args(["--admin", &format!("10.77.0.2:{admin}")])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut process = Process(child);
        let mut ended = false;
        wait_for(name, || {
            ended = process.has_ended();
            ended || get(admin, "/readyz").is_some()
        })?;
        if ended {
            return Err(io::Error::other(format!("{name}: {}", self.said(name))));
        }
        Ok(process)
    }

    /// What a sidecar has printed.
    pub(super) fn said(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// A page of a sidecar's admin server, if it is there.
fn get(admin: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("10.77.0.2", admin)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: trust\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then_some(text)
}

/// A sidecar's counters.
pub(super) struct Metrics(String);

impl Metrics {
    /// As they are now.
    pub(super) fn of(admin: u16) -> Self {
        Self(get(admin, "/metrics").unwrap_or_default())
    }

    /// Whether there was no answer.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of all counters that begin like this.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let values = self.0.lines().filter(|line| line.starts_with(name));
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

pub(super) fn must(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?} failed")))
}

pub(super) fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("waited too long for {what}")));
        }
        pause(Duration::from_millis(10));
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a schedule, and processes that tell nobody when they are ready"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

const NGINX: &str = r#"user root;
daemon off;
master_process off;
pid @HOME@/nginx.pid;
error_log @HOME@/error.log warn;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path @HOME@/body;
    proxy_temp_path @HOME@/proxy;
    fastcgi_temp_path @HOME@/fastcgi;
    uwsgi_temp_path @HOME@/uwsgi;
    scgi_temp_path @HOME@/scgi;
    keepalive_requests 1000000;
    keepalive_timeout 600;
    default_type application/json;
    server {
        listen 8080 backlog=4096;
        return 200 '{"id":7,"name":"a thing","price":1234,"tags":["one","two"],"uri":"$request_uri"}';
    }
}
"#;
