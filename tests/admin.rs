//! The program while it runs: the admin server, and what signals do. A replay at its original pace stands for any run.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;

use crate::support::run::PROGRAM;

/// Two requests, the second an hour after the first.
const RECORDING: &str = "1 aaaaaaaaaaaaaaaaaaaaaaaa 1700000000000000000 0\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n\
                         1 bbbbbbbbbbbbbbbbbbbbbbbb 1700003600000000000 0\nGET /in-an-hour HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n";

/// A target that answers 204 to every connection's every request, and says what it was asked.
fn target() -> (SocketAddr, crossbeam_channel::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (asked, targets) = crossbeam_channel::unbounded();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, asked) = (stream.expect("accepted"), asked.clone());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
                while let Some(Ok(line)) = lines.next() {
                    if line.starts_with("GET ") {
                        let _ = asked.send(line);
                    } else if line.is_empty() {
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        if (&stream).write_all(answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, targets)
}

struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    admin: SocketAddr,
}

impl Running {
    /// Starts a replay and waits until its admin server has an address.
    fn start(directory: &tempfile::TempDir, to: &str) -> Self {
        Self::start_with(directory, to, &[])
    }

    fn start_with(directory: &tempfile::TempDir, to: &str, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", directory, to, more)
    }

    fn start_at(admin: &str, directory: &tempfile::TempDir, to: &str, more: &[&str]) -> Self {
        let file = directory.path().join("two.gor");
        fs::write(&file, RECORDING).expect("written");
        Self::start_of(&file, admin, to, more)
    }

    fn start_of(file: &Path, admin: &str, to: &str, more: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["replay", "--admin", admin, "--to", to])
            .args(more)
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let admin = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("read"), 0, "ended: {said}");
            if let Some((_, address)) = line.split_once("address=") {
                break address.trim().parse().expect("an address");
            }
            said += &line;
        };
        Self { child, log, admin }
    }

    /// Status and body of an admin page.
    fn get(&self, page: &str) -> (u16, String) {
        self.get_with(page, "")
    }

    /// The same, with lines of fields.
    fn get_with(&self, page: &str, fields: &str) -> (u16, String) {
        let fields = format!("Host: localhost\r\n{fields}Connection: close\r\n");
        self.ask(&format!("GET {page} HTTP/1.1\r\n{fields}\r\n"))
    }

    /// Status and body of the answer to this request, after which the server closes.
    fn ask(&self, request: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.admin).expect("it listens");
        Self::ask_over(stream, request)
    }

    fn ask_over(mut stream: TcpStream, request: &str) -> (u16, String) {
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let status = answer[9..12].parse().expect("a status");
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        (status, body.to_owned())
    }

    /// Waits until the metrics hold that line.
    fn wait_for_metric(&self, line: &str) -> String {
        loop {
            let (status, text) = self.get("/metrics");
            assert_eq!(status, 200);
            if text.lines().any(|it| it == line) {
                return text;
            }
            thread::yield_now();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits for the end; the rest of the log.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("read");
        (self.child.wait().expect("ended"), rest)
    }
}

#[test]
fn metrics_health_and_a_clean_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, asked) = target();
    let to = format!("http://{address}");
    let running = Running::start(&directory, &to);
    assert_eq!(asked.recv().expect("asked"), "GET /now HTTP/1.1");
    let (status, health) = running.get("/healthz");
    assert_eq!((status, health.lines().next()), (200, Some("ok")));
    assert_eq!(running.get("/readyz"), (200, "ready\n".to_owned()));
    let (status, places) = running.get("/elsewhere");
    assert_eq!(status, 404);
    assert!(places.contains("/verdict, /metrics"), "{places}");
    let metrics = running.wait_for_metric("shadowtap_replays_answered_total 1");
    for line in [
        format!("shadowtap_replays_total{{target=\"{to}\",outcome=\"answered\"}} 1"),
        format!("shadowtap_replay_answers_total{{target=\"{to}\",class=\"2xx\"}} 1"),
        format!("shadowtap_replay_duration_seconds_count{{target=\"{to}\"}} 1"),
        "shadowtap_dropped_total{stage=\"replay\",reason=\"queue_full\"} 0".to_owned(),
        format!("shadowtap_target_resolved{{target=\"{to}\"}} 1"),
        format!("shadowtap_target_breaker_open{{target=\"{to}\"}} 0"),
        format!("shadowtap_target_breaker{{target=\"{to}\",state=\"closed\"}} 1"),
        format!("shadowtap_target_breaker{{target=\"{to}\",state=\"open\"}} 0"),
        format!("shadowtap_replay_lateness_seconds_count{{target=\"{to}\"}} 1"),
        "# EOF".to_owned(),
    ] {
        assert!(
            metrics.lines().any(|it| it == line),
            "no {line} in {metrics}"
        );
    }
    running.signal("-TERM");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("The account"), "{said}");
    assert!(said.contains("2xx 1;"), "{said}");
    assert!(!said.contains("bug"), "{said}");
}

#[test]
fn a_target_that_never_answers_holds_nothing_up_beyond_a_second_signal() {
    let directory = tempfile::tempdir().expect("a directory");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = format!("http://{}", silent.local_addr().expect("bound"));
    let running = Running::start(&directory, &to);
    let (_connection, _) = silent.accept().expect("the request comes");
    running.signal("-INT");
    let mut running = running;
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(running.log.read_line(&mut line).expect("read"), 0);
    }
    running.signal("-INT");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("at once"), "{said}");
}

#[test]
fn only_probes_are_answered_without_the_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, _asked) = target();
    let token = directory.path().join("token");
    fs::write(&token, "correct-horse\n").expect("written");
    let token = token.to_str().expect("a plain path");
    let to = format!("http://{address}");
    let running = Running::start_with(&directory, &to, &["--compare", "--admin-token-file", token]);
    for page in ["/healthz", "/readyz"] {
        assert_ne!(running.get(page).0, 401, "{page}");
    }
    for page in [
        "/metrics",
        "/verdict",
        "/api/examples",
        "/api/tally",
        "/",
        "/app.js",
    ] {
        let (status, said) = running.get(page);
        assert_eq!(status, 401, "{page}");
        assert!(said.contains("--admin-token-file"), "{said}");
        let wrong = running.get_with(page, "Authorization: Bearer correct\r\n");
        assert_eq!(wrong.0, 401, "{page}");
        let right = running.get_with(page, "Authorization: Bearer correct-horse\r\n");
        assert_eq!(right.0, 200, "{page}: {}", right.1);
        // A browser asks for a password: any:correct-horse.
        let basic = "Authorization: Basic YW55OmNvcnJlY3QtaG9yc2U=\r\n";
        assert_eq!(running.get_with(page, basic).0, 200, "{page}");
    }
    // What `verdict` asks for.
    let url = format!("http://{}", running.admin);
    let verdict = |more: &[&str]| {
        let ran = Command::new(PROGRAM)
            .args(["verdict", &url, "--json"])
            .args(more)
            .output()
            .expect("started");
        (
            ran.status.code(),
            String::from_utf8_lossy(&ran.stderr).into_owned(),
        )
    };
    let (code, said) = verdict(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--admin-token-file"), "{said}");
    let (code, said) = verdict(&["--admin-token-file", token]);
    assert_eq!(code, Some(4), "{said}");
    running.signal("-TERM");
    let (_, said) = running.end();
    assert!(!said.contains("correct-horse"), "{said}");
}

/// A page from the web may have its own name resolve to 127.0.0.1; the browser then asks here in that name.
#[test]
fn on_loopback_nobody_reads_through_another_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, _asked) = target();
    let to = format!("http://{address}");
    let running = Running::start_with(&directory, &to, &["--compare", "--reveal"]);
    let port = running.admin.port();
    let pages = [
        "/",
        "/app.js",
        "/metrics",
        "/verdict",
        "/api/examples",
        "/api/tally",
        "/api/events",
        "/healthz",
        "/readyz",
        "/elsewhere",
    ];
    let asked = |page: &str, host: &str| {
        running.ask(&format!(
            "GET {page} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        ))
    };
    for page in pages {
        for other in [
            format!("Host: evil.example:{port}\r\n"),
            format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
            format!("Host: 10.0.0.1:{port}\r\n"),
            "Host:\r\n".to_owned(),
            format!("Host: localhost:{port}\r\nHost: evil.example\r\n"),
        ] {
            let (status, said) = asked(page, &other);
            assert_eq!(status, 421, "{page} {other}");
            assert!(said.contains("--admin-token-file"), "{said}");
        }
    }
    let (status, _) = running.ask("POST /flagger/rollback HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 421);
    let (status, _) = running.ask(
        "GET http://evil.example/verdict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status, 421);
    // What port-forwarding, Prometheus on this machine and people write.
    for own in ["localhost", "127.0.0.1", "[::1]", "shadowtap.localhost"] {
        for host in [
            format!("Host: {own}\r\n"),
            format!("Host: {own}:{port}\r\n"),
        ] {
            assert_eq!(asked("/api/examples", &host).0, 200, "{host}");
        }
    }
    // A health check that knows no Host: no browser leaves it out.
    assert_eq!(running.ask("GET /metrics HTTP/1.0\r\n\r\n").0, 200);
    running.signal("-TERM");
    running.end();

    // A page has no token: whoever has one may come by any name, through a proxy for example.
    let token = directory.path().join("token");
    fs::write(&token, "correct-horse\n").expect("written");
    let token = ["--admin-token-file", token.to_str().expect("a plain path")];
    let guarded = Running::start_with(&directory, &to, &token);
    for (fields, status) in [("", 401), ("Authorization: Bearer correct-horse\r\n", 200)] {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: shadow.example\r\n{fields}Connection: close\r\n\r\n"
        );
        assert_eq!(guarded.ask(&request).0, status, "{fields}");
    }
    // In a pod: the kubelet and Prometheus ask for its address, others for a Service.
    let pod = Running::start_at("0.0.0.0:0", &directory, &to, &[]);
    for host in ["10.1.2.3:9471", "shadowtap.shop.svc.cluster.local"] {
        for page in ["/metrics", "/healthz", "/readyz"] {
            let request =
                format!("GET {page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_ne!(pod.ask(&request).0, 421, "{host} {page}");
        }
    }
    for running in [guarded, pod] {
        running.signal("-TERM");
        running.end();
    }
}

/// So many requests, a millisecond apart, and one an hour later.
fn many(requests: u64) -> String {
    let begin = 1_700_000_000_000_000_000;
    let due = |number| match number {
        last if last == requests => begin + 3_600_000_000_000,
        number => begin + number * 1_000_000,
    };
    (0..=requests)
        .map(|number| {
            format!(
                "1 {number:024x} {} 0\nGET /{number} HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n",
                due(number)
            )
        })
        .collect()
}

/// Whoever reads nothing, says nothing, or does not stop, keeps a seat for a while, and nothing else: not from others, and not
/// from what the program is there for.
#[cfg(target_os = "linux")]
#[test]
fn bad_guests_take_nothing_from_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, asked) = target();
    let to = format!("http://{address}");
    let file = directory.path().join("many.gor");
    fs::write(&file, many(3_000)).expect("written");
    let running = Running::start_of(&file, "127.0.0.1:0", &to, &["--compare"]);
    asked.recv().expect("asked");
    let admin = running.admin;
    let guest = || TcpStream::connect(admin).expect("it listens");
    let before = peak(running.child.id());

    // They follow the events and never read one.
    let deaf: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = guest();
            let request = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let _ = stream.write_all(request);
            stream
        })
        .collect();
    // They ask for the largest page again and again, and read none of it, until they are cut off.
    let greedy = |_| {
        let mut stream = guest();
        thread::spawn(move || {
            let request = b"GET /uPlot.iife.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
            while stream.write_all(request).is_ok() {}
        })
    };
    let greedy: Vec<_> = (0..5).map(greedy).collect();
    // Their heads never end.
    let endless = |_| {
        let mut stream = guest();
        thread::spawn(move || {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        })
    };
    let endless: Vec<_> = (0..5).map(endless).collect();
    // They say a letter now and then, and never come to the end.
    let slow = |_| {
        let mut stream = guest();
        thread::spawn(move || {
            let letters = b"GET /metrics HTTP/1.1\r\nX-Slow: "
                .iter()
                .chain(std::iter::repeat(&b'x'));
            let now_and_then = crossbeam_channel::tick(std::time::Duration::from_millis(50));
            for (letter, _) in letters.zip(now_and_then) {
                if stream.write_all(&[*letter]).is_err() {
                    return;
                }
            }
        })
    };
    let slow: Vec<_> = (0..5).map(slow).collect();
    // And many who only come.
    let crowd: Vec<_> = (0..300).map(|_| guest()).collect();

    // Somebody else is served all the while.
    let honest = |page: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let own = SocketAddr::from(([127, 0, 0, 2], 0));
        socket.bind(&own.into()).expect("loopback is all of 127/8");
        socket.connect(&admin.into()).expect("it listens");
        let request =
            format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Running::ask_over(socket.into(), &request)
    };
    loop {
        for page in ["/", "/healthz", "/readyz", "/verdict", "/api/tally"] {
            assert_eq!(honest(page).0, 200, "{page}");
        }
        let (status, metrics) = honest("/metrics");
        assert_eq!(status, 200);
        let all = "shadowtap_replays_answered_total 3000";
        if metrics.lines().any(|line| line == all) {
            let lost = metrics.lines().filter(|line| {
                line.starts_with("shadowtap_dropped_total{stage=\"replay\"")
                    && !line.ends_with(" 0")
            });
            assert_eq!(lost.collect::<Vec<_>>(), Vec::<&str>::new());
            break;
        }
    }
    // Every one of these is cut off in the end.
    for guest in greedy.into_iter().chain(endless).chain(slow) {
        guest.join().expect("no panic");
    }
    let grown = peak(running.child.id()) - before;
    assert!(grown < 64 << 10, "it has grown by {grown} KiB");
    drop((deaf, crowd));
    // Their seats are free again, as soon as the program has seen them go.
    loop {
        let mut stream = guest();
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        if stream.write_all(request).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200 ")
        {
            break;
        }
    }
    running.signal("-TERM");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("bug"), "{said}");
}

/// The most memory of a process so far, in KiB.
#[cfg(target_os = "linux")]
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.expect("a number of KiB")
}

#[test]
fn the_admin_server_over_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, _asked) = target();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let (cert, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    fs::write(&cert, certified.cert.pem()).expect("written");
    fs::write(&key, certified.signing_key.serialize_pem()).expect("written");
    let flags = [
        "--admin-tls-cert",
        cert.to_str().expect("a plain path"),
        "--admin-tls-key",
        key.to_str().expect("a plain path"),
    ];
    let to = format!("http://{address}");
    let running = Running::start_with(&directory, &to, &flags);
    let curl = |url: &str| {
        let ran = Command::new("curl")
            .args(["-s", "--cacert"])
            .arg(&cert)
            .args([
                "--resolve",
                &format!("localhost:{}:127.0.0.1", running.admin.port()),
            ])
            .arg(format!("{url}:{}/healthz", running.admin.port()))
            .output()
            .expect("curl is there");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    assert!(curl("https://localhost").starts_with("ok\n"));
    assert_eq!(curl("http://localhost"), "");
    running.signal("-TERM");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    // A key that does not belong to it.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    fs::write(&key, other.signing_key.serialize_pem()).expect("written");
    let ran = Command::new(PROGRAM)
        .args(["replay", "--admin", "127.0.0.1:0", "--to", &to, "file"])
        .args(flags)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("--admin-tls-key"), "{said}");
}

#[test]
fn a_port_alone_is_for_this_machine_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, _asked) = target();
    let to = format!("http://{address}");
    let file = directory.path().join("two.gor");
    fs::write(&file, RECORDING).expect("written");
    let mut child = Command::new(PROGRAM)
        .args(["replay", "--admin", "0", "--to", &to])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("address=") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("read"), 0);
    }
    assert!(line.contains("address=127.0.0.1:"), "{line}");
    child.kill().expect("ended");
    child.wait().expect("ended");
}

#[test]
fn what_the_process_may_still_do_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, asked) = target();
    let to = format!("http://{address}");
    let running = Running::start(&directory, &to);
    asked.recv().expect("asked");
    let health = running.get("/healthz").1;
    let kernel = fs::read_to_string(format!("/proc/{}/status", running.child.id()));
    if cfg!(target_os = "linux") {
        for words in ["no_new_privs on", "seccomp on (strict)"] {
            assert!(health.contains(words), "{health}");
        }
        let kernel = kernel.expect("it runs");
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(kernel.contains(line), "{kernel}");
        }
    }
    let off = Running::start_with(&directory, &to, &["--sandbox", "off"]);
    assert_eq!(off.get("/healthz").1, "ok\nsandbox: off\n");
    for running in [running, off] {
        running.signal("-TERM");
        assert_eq!(running.end().0.code(), Some(0));
    }
}
