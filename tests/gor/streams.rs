//! Cases 33 to 35 and 38: dealing out, limits, streams between instances, middleware.

use super::*;
use std::io::{BufRead as _, BufReader};
use std::process::Child;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts one that listens; where.
    fn listening(flag: &str, more: &[&str]) -> (Self, String) {
        let child = gor(&[&[flag, "127.0.0.1:0"], more].concat())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let mut running = Self(child);
        let mut lines = BufReader::new(running.0.stderr.take().expect("piped"));
        loop {
            let mut line = String::new();
            assert!(
                lines.read_line(&mut line).expect("text") > 0,
                "it has ended"
            );
            if let Some((_, address)) = line.split_once("address=") {
                let address = address.trim().to_owned();
                // Whatever else it says is not to block it.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return (running, address);
            }
        }
    }

    fn stop(mut self) {
        let id = self.0.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        let status = self.0.wait().expect("our child");
        assert_eq!(status.code(), Some(0));
    }
}

/// Case 33.
#[test]
fn messages_are_dealt_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(1000, 0));
    let (one, two) = (path(&folder, "one.gor"), path(&folder, "two.gor"));
    let plain = [
        "--input-file",
        &input,
        "--output-file-append",
        "--output-file",
        &one,
        "--output-file",
        &two,
    ];
    let counts = |more: &[&str]| {
        for file in [&one, &two] {
            let _ = fs::remove_file(file);
        }
        run_well(&[&plain[..], more].concat());
        [&one, &two].map(|file| {
            if Path::new(file).exists() {
                records_of(file).len()
            } else {
                0
            }
        })
    };
    assert_eq!(counts(&[]), [1000, 1000]);
    assert_eq!(counts(&["--split-output"]), [500, 500]);
    let [first, second] = counts(&["--split-output", "--recognize-tcp-sessions"]);
    assert_eq!(first + second, 1000);
    let same = "00010050 0a010203".replace(' ', "");
    let session: String = (0..100)
        .map(|it| record(1, &format!("{same}{:08x}", it * 0x1_0001), it, &get("/")))
        .collect();
    fs::write(&input, session).expect("written");
    let both = counts(&["--split-output", "--recognize-tcp-sessions"]);
    assert!(both.contains(&100), "{both:?}");
}

/// Case 34.
#[test]
fn limits_hold_on_inputs_and_outputs() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(100, 0));
    let out = path(&folder, "out.gor");
    for (input, limit, expected) in [
        (input.clone(), "|10", 10),
        (format!("{input}|10"), "", 10),
        (input.clone(), "|0%", 0),
        (input.clone(), "|100%", 100),
    ] {
        let _ = fs::remove_file(&out);
        let limited = format!("{out}{limit}");
        let said = run_well(&[
            "--input-file",
            &input,
            "--output-file-append",
            "--output-file",
            &limited,
        ]);
        let count = if Path::new(&out).exists() {
            records_of(&out).len()
        } else {
            0
        };
        assert_eq!(count, expected, "{said}");
        assert_eq!(
            dropped(&said, "record_limited") + dropped(&said, "message_limited"),
            100 - expected
        );
    }
}

/// Case 35: at full speed, every byte as it was.
#[test]
fn twenty_thousand_records_arrive_to_the_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::new();
    for number in 0..20_000usize {
        let body = "x".repeat(number * 7 % 3000);
        let request = format!(
            "POST /{number} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        text += &record(1, &format!("{number:024x}"), 0, &request);
    }
    let input = file(&folder, "in.gor", &text);
    for (sticky, workers) in [
        ("--output-tcp-sticky=false", "3"),
        ("--output-tcp-sticky", "1"),
    ] {
        let out = path(&folder, "out.gor");
        let _ = fs::remove_file(&out);
        let (receiver, address) = Running::listening(
            "--input-tcp",
            &["--output-file", &out, "--output-file-append"],
        );
        run_well(&[
            "--input-file",
            &input,
            "--output-tcp",
            &address,
            "--output-tcp-workers",
            workers,
            sticky,
        ]);
        receiver.wait_for(&out, text.len() as u64);
        receiver.stop();
        let sorted = |bytes: &[u8]| {
            let mut all: Vec<_> = records(bytes)
                .into_iter()
                .map(|it| (it.id, it.payload))
                .collect();
            all.sort();
            all
        };
        assert!(
            sorted(&fs::read(&out).expect("written")) == sorted(text.as_bytes()),
            "{workers}"
        );
    }
}

impl Running {
    /// Waits until the file has so many bytes.
    fn wait_for(&self, file: &str, bytes: u64) {
        crate::support::stage::wait_for("all records", || {
            fs::metadata(file).is_ok_and(|it| it.len() >= bytes)
        });
    }
}

/// Case 35 with TLS: from anybody where that is asked for, and otherwise only from whom the system trusts.
#[test]
fn records_arrive_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let certificate = file(&folder, "cert.pem", &certified.cert.pem());
    let key = file(&folder, "key.pem", &certified.signing_key.serialize_pem());
    let text = requests(100, 0);
    let input = file(&folder, "in.gor", &text);
    let out = path(&folder, "out.gor");
    let (receiver, address) = Running::listening(
        "--input-tcp",
        &[
            "--input-tcp-secure",
            "--input-tcp-certificate",
            &certificate,
            "--input-tcp-certificate-key",
            &key,
            "--output-file",
            &out,
            "--output-file-append",
        ],
    );
    let port = address.rsplit_once(':').expect("a port").1;
    let to = format!("localhost:{port}");
    let flags = [
        "--input-file",
        &input,
        "--output-tcp",
        &to,
        "--output-tcp-secure",
    ];
    // Nobody vouches for it: nothing is sent.
    let stranger = gor(&[&flags[..], &["--exit-after", "1s"]].concat())
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert_eq!(dropped(&said, "write_failed"), 100, "{said}");
    assert!(said.contains("TLS"), "{said}");
    run_well(&[&flags[..], &["--output-tcp-skip-verify"]].concat());
    receiver.wait_for(&out, text.len() as u64);
    // And from somebody whom the system trusts.
    let trusting = gor(&flags)
        .env("SSL_CERT_FILE", &certificate)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&trusting.stderr).into_owned();
    assert_eq!(trusting.status.code(), Some(0), "{said}");
    receiver.wait_for(&out, 2 * text.len() as u64);
    receiver.stop();
    assert_eq!(records_of(&out).len(), 200);
    for (flags, words) in [
        (
            &[
                "--input-tcp",
                "127.0.0.1:0",
                "--input-tcp-secure",
                "--output-null",
            ][..],
            "needs --input-tcp-certificate",
        ),
        (
            &[
                "--input-tcp",
                "127.0.0.1:0",
                "--input-tcp-secure",
                "--input-tcp-certificate",
                &input,
                "--input-tcp-certificate-key",
                &key,
                "--output-null",
            ],
            "there is no certificate in it",
        ),
    ] {
        let output = run(flags);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}

/// Case 35: who gets which record.
#[test]
fn records_are_dealt_to_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let text: String = (0..400)
        .map(|it| record(1, &format!("id{}", it % 20), 0, &get(&format!("/{it}"))))
        .collect();
    let input = file(&folder, "in.gor", &text);
    let received = |sticky: &str| -> Vec<Vec<Record>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let readers = std::thread::spawn(move || -> Vec<_> {
            (0..4)
                .map(|_| {
                    let (mut stream, _) = listener.accept().expect("a stream");
                    std::thread::spawn(move || {
                        let mut bytes = Vec::new();
                        std::io::Read::read_to_end(&mut stream, &mut bytes).expect("read");
                        records(&bytes)
                    })
                })
                .collect()
        });
        run_well(&[
            "--input-file",
            &input,
            "--output-tcp",
            &address,
            "--output-tcp-workers",
            "4",
            sticky,
        ]);
        let readers = readers.join().expect("no panic");
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no panic"))
            .collect()
    };
    for got in received("--output-tcp-sticky=false") {
        assert_eq!(got.len(), 100);
    }
    let sticky = received("--output-tcp-sticky");
    assert_eq!(sticky.iter().map(Vec::len).sum::<usize>(), 400);
    for id in 0..20 {
        let id = format!("id{id}");
        let has = |got: &&Vec<Record>| got.iter().any(|it| it.id == id);
        assert_eq!(sticky.iter().filter(has).count(), 1, "{id}");
    }
}

/// The input over HTTP, and case 37: what is too large is counted and not cut.
#[test]
fn requests_are_received_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(&folder, "out.gor");
    let flags = [
        "--output-file",
        &out,
        "--output-file-append",
        "--copy-buffer-size",
        "100kb",
    ];
    let (receiver, address) = Running::listening("--input-http", &flags);
    let large = file(&folder, "large", &"x".repeat(10 << 20));
    let url = format!("http://{address}/a?b=c");
    let body = format!("@{large}");
    for arguments in [
        &["-d", "a=1&b=2", &url[..]][..],
        &["--data-binary", &body, &url],
        &[&url],
    ] {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(arguments)
            .output();
        let output = output.expect("installed by `make setup`");
        assert_eq!(output.stdout, b"200", "{arguments:?}");
    }
    receiver.stop();
    assert_eq!(
        shown(&records_of(&out)),
        ["1 POST /a?b=c HTTP/1.1", "1 GET /a?b=c HTTP/1.1"]
    );
}

/// Case 38.
#[test]
fn an_echo_changes_nothing_and_what_it_keeps_is_gone() {
    let text: String = [
        record(1, "a", 0, &get("/")),
        record(1, "b", 1, POST),
        record(2, "b", 2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        record(1, "c", 3, &get("/c")),
        record(3, "c", 4, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]
    .concat();
    let echoed = through(&text, &["--middleware", "cat"]);
    assert_eq!(echoed, through(&text, &[]));
    assert_eq!(echoed.len(), 5);
    let kept = through(&text, &["--middleware", "grep --line-buffered ^31"]);
    assert_eq!(kept.len(), 3, "the requests alone");
    // Prettify comes before it.
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let plain = through(
        &record(1, "a", 0, chunked),
        &["--middleware", "cat", "--prettify-http"],
    );
    assert_eq!(
        &plain[0].payload[..],
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
    );
}

/// Case 38: one that ends early hangs nobody.
#[test]
fn a_middleware_that_ends_early_hangs_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(5, 0));
    let output = run(&[
        "--input-file",
        &input,
        "--output-stdout",
        "--middleware",
        "head -n 1",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let passed = records(&output.stdout).len();
    // Each that is started takes one, and what was inside then is lost; all is counted.
    let lost = dropped(&said, "middleware_died") + dropped(&said, "middleware_down");
    let filtered = dropped(&said, "middleware_filtered");
    assert!(passed >= 1, "{said}");
    assert_eq!(passed + lost + filtered, 5, "{said}");
}

/// Case 38, the example with tokens: version 1 gave one, version 2 another, and later requests get the latter.
#[test]
fn a_middleware_maps_the_tokens_of_one_version_to_those_of_the_other() {
    let Some(libraries) = crate::support::peers::middleware_libraries() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nA";
    let input = file(
        &folder,
        "in.gor",
        &[
            record(1, "aa", 0, &get("/token")),
            record(2, "aa", 100, answer),
            // Long after version 2 has given its own.
            record(1, "bb", 3000, &get("/use?token=A")),
        ]
        .concat(),
    );
    let target = crate::support::target::Target::answering(|_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nB".to_owned()
    });
    let middleware = format!(
        "env PYTHONPATH={} python3 {} {}",
        libraries.join("python").display(),
        crate::support::run::in_root("tests/middleware/tokens.py").display(),
        path(&folder, "log")
    );
    let said = run_well(&[
        "--input-file",
        &input,
        "--output-http",
        &target.url(),
        "--output-http-track-response",
        "--middleware",
        &middleware,
    ]);
    assert_eq!(target.lines(), ["GET /token", "GET /use?token=B"], "{said}");
}
