//! Large messages that nobody takes: what waits is bounded in bytes as well.

use super::*;
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

/// So many requests of a megabyte each, packed: far more than may wait.
const LARGE: usize = 400;

fn packed(folder: &TempDir) -> String {
    let input = folder.path().join("large.gor.gz");
    let file = fs::File::create(&input).expect("created");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let body = "x".repeat(1 << 20);
    for number in 0..LARGE {
        let request = format!(
            "POST /{number} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let text = record(1, &format!("{number:024x}"), 0, &request);
        encoder.write_all(text.as_bytes()).expect("written");
    }
    encoder.finish().expect("written");
    input.to_str().expect("a plain path").to_owned()
}

/// The peak of a run that comes to a standstill, in KiB.
fn peak(flags: &[&str]) -> u64 {
    let mut child = gor(flags)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let begun = Instant::now();
    let mut last = (0, Instant::now());
    while last.1.elapsed() < Duration::from_secs(2) {
        assert!(begun.elapsed() < Duration::from_secs(120), "it grows");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let peak: u64 = peak.and_then(|it| it.parse().ok()).unwrap_or(0);
        if peak > last.0 {
            last = (peak, Instant::now());
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    child.kill().expect("it runs");
    child.wait().expect("a child");
    last.0
}

#[cfg(target_os = "linux")]
#[test]
fn large_records_that_nobody_takes_stay_within_the_limit() {
    // It accepts, as far as the kernel does, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let url = format!("http://{address}");
    let folder = tempfile::tempdir().expect("a folder");
    let input = packed(&folder);
    let input = ["--input-file", &input[..]];
    for output in [
        &["--output-http", &url[..], "--output-http-timeout", "1h"][..],
        &["--output-tcp", "127.0.0.1:1"],
        &["--output-tcp", &address, "--output-tcp-workers", "3"],
        &[
            "--output-http",
            &url,
            "--output-http-timeout",
            "1h",
            "--middleware",
            "cat",
        ],
    ] {
        let peak = peak(&[&input, output].concat());
        println!("{output:?}: {} MiB", peak >> 10);
        assert!(peak < 128 << 10, "{output:?}: {} MiB", peak >> 10);
        // A peak that shows nothing would be no test.
        assert!(peak > 32 << 10, "{output:?}: {} MiB", peak >> 10);
    }
}
