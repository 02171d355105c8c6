//! Recordings without secrets, through the program.

use std::process::Output;

use super::*;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shadowtap"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Two requests with the same secrets, one of them in chunks, and answers with them.
fn secretive() -> Vec<Exchange> {
    let head = "POST /login?code=hunter2&x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\n\
                Cookie: s=hunter2; t=hunter2\r\nX-Api-Key: hunter2\r\nX-Seen: seen\r\n";
    let body = br#"{"user":{"email":"hunter2","name":"seen"}}"#;
    let length = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let mut chunks = format!("{:x}\r\n", body.len()).into_bytes();
    chunks.extend_from_slice(body);
    chunks.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: s=hunter2; Path=/\r\nContent-Length: 2\r\n\r\n";
    let answer = Some((answer, &b"ok"[..], Framing::Length(2)));
    vec![
        exchange(1, &length, body, Framing::Length(body.len() as u64), answer),
        exchange(2, &chunked, &chunks, Framing::Chunked, answer),
    ]
}

#[test]
fn secrets_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (packets, _) = write(&folder, "a.pcap", &secretive());
    for name in ["a.gor", "a.jsonl", "a.har", "b.jsonl.gz"] {
        let out = folder.path().join(name);
        let (from, to) = (packets.to_str().unwrap(), out.to_str().unwrap());
        let output = run(&[
            "convert",
            from,
            "--out",
            to,
            "--redact-recording",
            "--redact",
            "email",
            "--redact",
            "query.code",
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let exchanges = read(&[out]);
        assert_eq!(exchanges.len(), 2, "{name}");
        let mut tokens = Vec::new();
        for exchange in exchanges {
            let request = exchange.request.unwrap();
            let response = exchange.response.unwrap();
            assert!(request.completeness.is_whole() && response.completeness.is_whole());
            let head = String::from_utf8_lossy(request.head.bytes()).into_owned();
            let body = String::from_utf8_lossy(&request.body.wire).into_owned();
            let answer = String::from_utf8_lossy(response.head.bytes()).into_owned();
            for text in [&head, &body, &answer] {
                assert!(!text.contains("hunter2"), "{name}: {text}");
            }
            assert!(head.contains("X-Seen: seen\r\n"), "{name}: {head}");
            assert!(head.contains("&x=1 HTTP/1.1\r\n"), "{name}: {head}");
            assert!(!head.contains("chunked"), "{name}: {head}");
            let length = format!("Content-Length: {}\r\n", body.len());
            assert!(head.contains(&length), "{name}: {head}");
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json["user"]["name"], "seen");
            let token = json["user"]["email"].as_str().unwrap().to_owned();
            assert!(token.starts_with("redacted-"), "{name}: {token}");
            // Equal secrets are equal tokens.
            assert!(head.contains(&format!("?code={token}&x=1 ")), "{head}");
            assert!(head.contains(&format!("Cookie: s={token}; t={token}\r\n")));
            assert!(head.contains(&format!("X-Api-Key: {token}\r\n")), "{head}");
            let cookie = format!("Set-Cookie: s={token}; Path=/\r\n");
            assert!(answer.contains(&cookie), "{name}: {answer}");
            assert_eq!(&response.body.wire[..], b"ok");
            tokens.push(token);
        }
        assert_eq!(tokens[0], tokens[1], "{name}");
    }
    // Nothing else in the files has them either.
    for name in ["a.gor", "a.jsonl", "a.har"] {
        let text = fs::read(folder.path().join(name)).unwrap();
        assert!(
            !String::from_utf8_lossy(&text).contains("hunter2"),
            "{name}"
        );
    }
}

#[test]
fn filters_see_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, _) = write(&folder, "a.gor", &secretive());
    let out = folder.path().join("b.gor");
    let output = run(&[
        "convert",
        recording.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--redact-recording",
        "--only",
        "header:x-api-key=hunter2",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let exchanges = read(&[out]);
    assert_eq!(exchanges.len(), 2, "{said}");
    // Nothing in a body was asked for: its bytes are as they were.
    let bodies = secretive().into_iter().zip(exchanges);
    for (before, after) in bodies {
        let (before, after) = (before.request.unwrap(), after.request.unwrap());
        assert_eq!(before.body.wire, after.body.wire);
    }
}

#[test]
fn packets_keep_their_secrets_and_are_refused() {
    for (arguments, words) in [
        (
            &["record", "--out", "a.pcap", "--redact-recording"][..],
            ["--redact-recording", "'a.pcap'", ".jsonl"],
        ),
        (
            &[
                "convert",
                "a.gor",
                "--out",
                "a.pcap.gz",
                "--redact-recording",
            ],
            ["--redact-recording", "'a.pcap.gz'", ".jsonl"],
        ),
        (
            &["record", "--out", "a.jsonl", "--redact", "email"],
            ["--redact:", "--redact-recording", "leave"],
        ),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    assert!(!Path::new("a.pcap").exists() && !Path::new("a.jsonl").exists());
}
