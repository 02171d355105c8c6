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
        .map(|it| record(1, &format!("{same}{it:08x}"), it, &get("/")))
        .collect();
    fs::write(&input, session).expect("written");
    // The first 20 digits are the same for the first 16 of each 65,536.
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
