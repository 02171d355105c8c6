//! A target that moves to another address.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use super::bench::{LONG, OK};
use crate::support::cannot_run;
use crate::support::run::PROGRAM;

/// Answers requests, each of one read, until the other end has closed; `count` of them at most.
fn answer(mut stream: TcpStream, count: usize) -> usize {
    let mut some = [0; 4096];
    for answered in 0..count {
        match stream.read(&mut some) {
            Ok(1..) => stream.write_all(OK).expect("open"),
            _ => return answered,
        }
    }
    count
}

#[test]
fn a_target_that_moves_to_another_address_is_found_there() {
    let first = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = first.local_addr().expect("an address").port();
    let second = TcpListener::bind(("127.0.0.2", port)).expect("the same port there");
    let folder = tempfile::tempdir().expect("a directory");
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 target.test\n").expect("written");
    let recording = folder.path().join("one.gor");
    let record = "1 000000000000000000000001 1 0\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n";
    fs::write(&recording, record).expect("written");
    // Names are looked up in a file that this test writes.
    let script = "mount --bind \"$1\" /etc/hosts && exec \"$0\" replay \"$2\" --to \"$3\" \
                  --rate 20/s --loop forever --duration 10m --progress off --log-level info";
    let mut child = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, PROGRAM])
        .args([&hosts, &recording])
        .arg(format!("http://target.test:{port}"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("util-linux is here");
    first.set_nonblocking(true).expect("a socket");
    let begun = Instant::now();
    let stream = loop {
        match first.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if child.try_wait().expect("a child").is_some() => {
                let output = child.wait_with_output().expect("a child");
                let said = String::from_utf8_lossy(&output.stderr);
                return cannot_run(format_args!("no mount namespace of our own: {said}"));
            }
            Err(_) => {
                assert!(begun.elapsed() < LONG, "nobody came");
                thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
    };
    stream.set_nonblocking(false).expect("a socket");
    assert!(answer(stream, 3) > 0);
    // Nobody is there any more.
    drop(first);
    fs::write(&hosts, "127.0.0.2 target.test\n").expect("written");
    let (stream, _) = second.accept().expect("it comes here");
    assert!(answer(stream, 3) > 0);
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.expect("kill is here").success());
    drop(second);
    let output = child.wait_with_output().expect("a child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("127.0.0.2") && said.contains("  connect_failed: "),
        "{said}"
    );
    assert!(!said.contains("bug in shadowtap"), "{said}");
}
