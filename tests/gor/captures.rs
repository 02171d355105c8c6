//! Cases 1 to 4, 8 to 11: capture files.

use super::*;
use crate::support::files::{PCAP, Record as Packet};
use crate::support::net::{Conversation, Side, Tcp};
use crate::support::run::in_root;

fn packet(conversation: &Conversation, tcp: &Tcp) -> Packet {
    Packet {
        at: tcp.at,
        frame: conversation.ip(tcp),
    }
}

/// What the capture of a conversation gives, with answers.
fn read(conversation: &Conversation) -> Vec<Record> {
    let packets: Vec<Packet> = conversation
        .packets
        .iter()
        .map(|tcp| packet(conversation, tcp))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.pcap");
    fs::write(&file, PCAP.write(101, 262_144, &packets)).expect("written");
    let address = format!("{}:80", file.display());
    let output = run(&[
        "--input-raw",
        &address,
        "--input-raw-track-response",
        "--output-stdout",
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    records(&output.stdout)
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

/// Cases 10 and 11. All captures with their truth are held to it by `conformance::`, which reads by the same code.
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
