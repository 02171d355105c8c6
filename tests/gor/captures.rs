//! Cases 1 to 11 as far as they are about packets: capture files.

use super::*;
use crate::support::corpus;
use crate::support::files::{PCAP, Record as Packet};
use crate::support::inside;
use crate::support::net::{Conversation, Side, Tcp};
use crate::support::run::in_root;
use crate::support::target::Target;
use sha2::Digest as _;

fn packet(conversation: &Conversation, tcp: &Tcp) -> Packet {
    Packet {
        at: tcp.at,
        frame: conversation.ip(tcp),
    }
}

/// What the capture of a conversation gives, with answers.
fn read(conversation: &Conversation) -> Vec<Record> {
    let more = ["--input-raw-track-response", "--output-stdout"];
    records(&played(conversation, &more).stdout)
}

/// How reading the capture of a conversation went.
fn played(conversation: &Conversation, more: &[&str]) -> Output {
    let packets: Vec<Packet> = conversation
        .packets
        .iter()
        .map(|tcp| packet(conversation, tcp))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.pcap");
    fs::write(&file, PCAP.write(101, 262_144, &packets)).expect("written");
    let address = format!("{}:80", file.display());
    let output = run(&[&["--input-raw", &address[..]], more].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Case 1.
#[test]
fn two_exchanges_of_one_connection_have_their_own_ids() {
    let mut conversation = Conversation::new(1);
    conversation.open();
    for _ in 0..2 {
        conversation.data(Side::Client, b"GET / HTTP/1.1\r\n");
        conversation.data(Side::Client, b"Host: localhost\r\n\r\n");
        conversation.data(Side::Server, b"HTTP/1.1 200 OK\r\n");
        conversation.data(Side::Server, b"Content-Length: 0\r\n\r\n");
    }
    let found = read(&conversation);
    assert_eq!(
        shown(&found),
        [
            "1 GET / HTTP/1.1",
            "2 HTTP/1.1 200 OK",
            "1 GET / HTTP/1.1",
            "2 HTTP/1.1 200 OK"
        ]
    );
    assert_eq!(found[0].id, found[1].id);
    assert_eq!(found[2].id, found[3].id);
    assert_ne!(found[0].id, found[2].id);
}

/// Cases 2, 3 and 9.
#[test]
fn messages_in_several_segments_in_any_order() {
    let request = b"POST / HTTP/1.1\r\nContent-Length: 23\r\n\r\nMozillaDeveloperNetwork";
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nMozilla\r\n9\r\nDeveloper\r\n7\r\nNetwork\r\n0\r\n\r\n";
    let (end, cut) = (request.len(), answer.len() - 14);
    for order in [[0, 1, 2], [1, 2, 0], [0, 2, 1]] {
        let pieces = [(0, end - 23), (end - 23, end - 7), (end - 7, end)];
        let answers = [(0, 50), (50, cut), (cut, answer.len())];
        let mut conversation = Conversation::new(1);
        conversation.open();
        conversation.send_pieces(Side::Client, request, &order.map(|at| pieces[at]));
        conversation.send_pieces(Side::Server, answer, &order.map(|at| answers[at]));
        let found = read(&conversation);
        assert_eq!(found.len(), 2, "{order:?}");
        assert_eq!(&found[0].payload[..], &request[..], "{order:?}");
        assert_eq!(&found[1].payload[..], &answer[..], "{order:?}");
    }
}

/// Cases 8 and 9: a data chunk that holds `0 CR LF CR LF` ends nothing; what is cut is never sent as whole.
#[test]
fn chunks_are_followed() {
    let tricky = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n4; a=b\r\nWiki\r\n0\r\nExpires: x\r\n\r\n";
    let mut conversation = Conversation::new(1);
    conversation.open();
    conversation.send(Side::Client, tricky);
    let found = read(&conversation);
    assert_eq!(&found[0].payload[..], &tricky[..]);
    for cut in [20, tricky.len() - 4, tricky.len() - 20] {
        let mut conversation = Conversation::new(1);
        conversation.open();
        conversation.send(Side::Client, &tricky[..cut]);
        assert_eq!(read(&conversation).len(), 0, "{cut}");
    }
}

/// What a client says on a connection of its own, and the server's answer, as records.
fn told(request: &str, answer: &str) -> Vec<Record> {
    let mut conversation = Conversation::new(1);
    conversation.open();
    conversation.data(Side::Client, request.as_bytes());
    if !answer.is_empty() {
        conversation.data(Side::Server, answer.as_bytes());
    }
    conversation.close(Side::Client);
    read(&conversation)
}

/// Case 7. Any method that is a token is one here (`POS`), so that no method is lost. What only some servers would read is a
/// message, and is never sent.
#[test]
fn first_lines_tell_requests_and_answers() {
    for (line, is_one) in [
        ("POST /post HTTP/1.0\r\n", true),
        ("GET / HTTP/1.1\r\n", true),
        ("PROPFIND / HTTP/1.1\r\n", true),
        ("POS /post HTTP/1.1\r\n", true),
        ("", false),
        ("POST /post HTTP/1.\r\n", false),
        ("GET / HTTP/1.400\r\n", false),
    ] {
        let target = Target::new();
        let mut conversation = Conversation::new(1);
        conversation.open();
        conversation.data(Side::Client, format!("{line}Host: a\r\n\r\n").as_bytes());
        played(&conversation, &["--output-http", &target.url()]);
        assert_eq!(target.lines().len(), usize::from(is_one), "{line:?}");
    }
    assert_eq!(told("GET / HTTP/1.1\r", "").len(), 0);
    let empty = "Content-Length: 0\r\n\r\n";
    for (answer, line) in [
        (
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 OK\r\n{empty}"),
            "2 HTTP/1.1 204 OK",
        ),
        (format!("HTTP/1.1 200\r\n{empty}"), "2 HTTP/1.1 200"),
        ("HTTP".to_owned(), ""),
        (format!("HTTP/1.1  \r\n{empty}"), ""),
        (format!("HTTP/4.0 100Continue\r\n{empty}"), ""),
        (format!("HTTP/1.0 100Continue\r\n{empty}"), ""),
        (format!("HTTP/1.0 10r Continue\r\n{empty}"), ""),
    ] {
        let found = shown(&told("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &answer));
        let expected: Vec<&str> = ["1 GET / HTTP/1.1", line]
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(found, expected, "{answer:?}");
    }
}

/// Case 8.
#[test]
fn chunks_end_where_they_say() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, whole) in [
        (
            "4\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n",
            true,
        ),
        ("7\r\nMozia\r\n9\r\nDeveloper\r\n0\r\n\r\n", false),
        ("3\r\n0\r\n\r\n0\r\n\r\n", true),
        (
            "E; name='quoted string'\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n",
            true,
        ),
    ] {
        let found = told(&format!("{head}{body}"), "");
        assert_eq!(found.len(), usize::from(whole), "{body:?}");
        // Bytes behind the end are not part of it.
        let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let found = told(&format!("{head}{body}{next}"), "");
        if whole {
            assert_eq!(found[0].payload, format!("{head}{body}"), "{body:?}");
            assert_eq!(found[1].payload, next, "{body:?}");
        }
    }
}

/// Case 9.
#[test]
fn what_is_complete_is_known() {
    let with_trailer = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: Expires\r\n\r\n3\r\nabc\r\n0\r\nExpires: now\r\n\r\n";
    let of_length = |body: &str| format!("POST / HTTP/1.1\r\nContent-Length: 23\r\n\r\n{body}");
    for (request, is_whole) in [
        (with_trailer.to_owned(), true),
        (with_trailer[..with_trailer.len() - 2].to_owned(), false),
        (with_trailer[..with_trailer.len() - 8].to_owned(), false),
        (of_length("MozillaDeveloperNetwork"), true),
        (of_length("MozillaDeveloperNet"), false),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), true),
        ("Host: a\r\n\r\nMozilla".to_owned(), false),
    ] {
        let found = told(&request, "");
        assert_eq!(found.len(), usize::from(is_whole), "{request:?}");
        // In segments of ten bytes as well.
        let mut conversation = Conversation::new(1);
        conversation.open();
        for piece in request.as_bytes().chunks(10) {
            conversation.data(Side::Client, piece);
        }
        let found = read(&conversation);
        assert_eq!(found.len(), usize::from(is_whole), "{request:?}");
    }
}

/// Case 4: a binary protocol is not replayed, and that is said.
#[test]
fn the_binary_protocol_is_refused() {
    let output = run(&[
        "--input-raw",
        ":80",
        "--input-raw-protocol",
        "binary",
        "--output-null",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("only HTTP/1 is replayed"));
}

/// Case 10: from every capture with a truth, the requests that this knows to be whole come out, and no other. That what is
/// compared with is right is held to the truth by `conformance::`.
#[test]
fn captures_with_a_truth_give_their_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    for case in corpus::all() {
        let path = path(&folder, &case.name);
        fs::write(&path, &case.file).expect("written");
        let mut expected: Vec<String> = inside::read(&case.file)
            .lines()
            .iter()
            .filter(|line| line["request_complete"] == true)
            .map(|line| {
                let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                format!(
                    "{} {} {} {}",
                    text("method"),
                    // What is no ASCII is shown in another way.
                    text("target").replace(|it: char| !it.is_ascii(), ""),
                    line["request_body_len"],
                    text("request_body_sha256")
                )
            })
            .collect();
        let output = run(&[
            "--input-raw",
            &path,
            "--input-raw-engine",
            "pcap_file",
            "--output-stdout",
        ]);
        let mut found: Vec<String> = records(&output.stdout)
            .iter()
            .map(|record| {
                let (head, body, _) = record.request().expect("a request");
                let content = body.content();
                let hash: String = sha2::Sha256::digest(&content)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!(
                    "{} {} {} {hash}",
                    String::from_utf8_lossy(head.method()),
                    head.target()
                        .iter()
                        .filter(|byte| byte.is_ascii())
                        .map(|&byte| char::from(byte))
                        .collect::<String>(),
                    content.len()
                )
            })
            .collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{}", case.name);
        count += found.len();
    }
    assert!(count > 500, "{count}");
}

/// Case 11.
#[test]
fn a_capture_file_ends_and_gives_the_same_each_time() {
    for name in [
        "keep_alive.pcap",
        "pipelined.pcap",
        "lost_segment.pcap",
        "chunked_v6.pcapng",
    ] {
        let capture = in_root("fixtures").join(name);
        let capture = capture.to_str().expect("a plain path");
        let once = || {
            let output = run(&[
                "--input-raw",
                capture,
                "--input-raw-engine",
                "pcap_file",
                "--output-stdout",
            ]);
            assert_eq!(output.status.code(), Some(0));
            output.stdout
        };
        let first = once();
        assert!(!records(&first).is_empty(), "{name}");
        assert_eq!(first, once(), "{name}");
    }
}

/// Case 5, the field for the client's address.
#[test]
fn the_clients_address_is_set() {
    let mut conversation = Conversation::new(1);
    conversation.open();
    conversation.send(Side::Client, b"GET / HTTP/1.1\r\nX-Real-IP: forged\r\n\r\n");
    let packets: Vec<Packet> = conversation
        .packets
        .iter()
        .map(|tcp| packet(&conversation, tcp))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.pcap");
    fs::write(&file, PCAP.write(101, 262_144, &packets)).expect("written");
    let output = run(&[
        "--input-raw",
        file.to_str().expect("a plain path"),
        "--input-raw-realip-header",
        "X-Real-IP",
        "--output-stdout",
    ]);
    let found = records(&output.stdout);
    assert_eq!(
        &found[0].payload[..],
        b"GET / HTTP/1.1\r\nX-Real-IP: 10.0.0.2\r\n\r\n"
    );
}
