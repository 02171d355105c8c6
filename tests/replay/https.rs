//! Targets behind TLS.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use shadowtap::account::Reason;
use shadowtap::replay::{ReplayConfig, Tls};

use crate::support::run::PROGRAM;

use super::bench::{Bench, LONG, OK, answered, failed, get, listener, request_length, text};

/// Starts a server that gives `answer` to each request: its port, its certificate, and the requests.
pub(crate) fn server(answer: &'static [u8]) -> (u16, Vec<u8>, mpsc::Receiver<Vec<u8>>) {
    server_with(rcgen::IsCa::NoCa, answer)
}

/// The same with a certificate that is, or is not, one of an authority.
fn server_with(
    is_ca: rcgen::IsCa,
    answer: &'static [u8],
) -> (u16, Vec<u8>, mpsc::Receiver<Vec<u8>>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.is_ca = is_ca;
    let cert = params.self_signed(&key).expect("a certificate");
    let pem = cert.pem().into_bytes();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a certificate");
    let server = Arc::new(server);
    let listener = listener();
    let port = listener.local_addr().expect("an address").port();
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&server)).expect("TLS");
            let mut stream = rustls::StreamOwned::new(connection, stream.expect("a stream"));
            let mut bytes = Vec::new();
            loop {
                let mut chunk = [0; 4096];
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => bytes.extend_from_slice(&chunk[..len]),
                }
                if let Some(length) = request_length(&bytes) {
                    let message: Vec<u8> = bytes.drain(..length).collect();
                    let _ = sender.send(message);
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            }
        }
    });
    (port, pem, seen)
}

#[test]
fn an_https_target_is_sent_to() {
    let (port, pem, seen) = server(OK);
    let target = format!("https://localhost:{port}/base");
    let config = ReplayConfig::live(target.parse().expect("a target"));
    let mut bench = Bench::start(config.clone(), |config| {
        config.tls = Tls::Authorities(pem);
        config.deadlines.connect = LONG;
    });
    bench.offer(
        1,
        b"POST /p//q?x=%2f&y HTTP/1.1\r\nHost: a.example\r\nX-B: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nAccept: x\r\nX-A: \xe4\r\nContent-Length: 2\r\n\r\nhi",
    );
    let answer = answered(bench.next());
    assert_eq!(answer.response.head.status(), 200);
    assert_eq!(answer.response.body.content(), b"ok" as &[u8]);
    assert_eq!(
        text(&seen.recv_timeout(LONG).expect("a request")),
        text(b"POST /base/p//q?x=%2f&y HTTP/1.1\r\nhost: a.example\r\nx-b: 1\r\naccept: x\r\nx-a: \xe4\r\nshadowtap: 1\r\ncontent-length: 2\r\n\r\nhi")
    );
    bench.finish();

    // The system's authorities do not know that certificate.
    let mut bench = Bench::start(config, |config| config.deadlines.connect = LONG);
    bench.offer(1, &get("/"));
    assert_eq!(failed(&bench.next()), Reason::ConnectFailed);
    bench.finish();
}

/// What `openssl req -x509` makes unless told otherwise.
#[test]
fn a_server_that_shows_an_authoritys_certificate_as_its_own_is_explained() {
    let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (port, pem, _seen) = server_with(authority, OK);
    let folder = tempfile::tempdir().expect("a directory");
    let (ca, file) = (folder.path().join("ca.pem"), folder.path().join("one.gor"));
    std::fs::write(&ca, pem).expect("written");
    let record = "1 aaaaaaaaaaaaaaaaaaaaaaaa 1700000000000000000 0\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n";
    std::fs::write(&file, record).expect("written");
    let replay = |more: &[&str]| {
        let ran = Command::new(PROGRAM)
            .args(["replay", "--to", &format!("https://localhost:{port}")])
            .args(more)
            .arg(&file)
            .output()
            .expect("started");
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    let said = replay(&["--tls-ca", ca.to_str().expect("a plain path")]);
    for words in [
        "the certificate of an authority as its own",
        "--tls-insecure",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // As it says.
    let said = replay(&["--tls-insecure"]);
    assert!(said.contains("2xx 1"), "{said}");
}

#[test]
fn what_was_sent_before_the_grace_period_ended_is_not_said_to_be_untried() {
    let (port, pem, seen) = server(b"");
    let target = format!("https://localhost:{port}");
    let config = ReplayConfig::live(target.parse().expect("a target"));
    let mut bench = Bench::start(config, |config| {
        config.tls = Tls::Authorities(pem);
        config.deadlines.connect = LONG;
        config.deadlines.first_byte = LONG;
    });
    bench.offer(1, &get("/"));
    seen.recv_timeout(LONG).expect("a request");
    let end = bench.drain(Duration::ZERO);
    assert_eq!(failed(&end.outcomes[0]), Reason::StoppedUnanswered);
}
