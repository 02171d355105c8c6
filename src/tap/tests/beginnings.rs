//! What the first bytes of a direction, or of a message, are taken for.

use super::*;

#[test]
fn the_line_of_a_proxy_is_no_part_of_the_first_request() {
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    let versions: [&[u8]; 7] = [
        &b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 80\r\n"[..],
        b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 80\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::ffff ffff::fffe 65535 65535\r\n",
        // Version 2: a connection over IPv4, one with a vendor's field behind it, and a health check.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\x9c\x40\0\x50",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x01\xc6\x33\x64\x01\x9c\x40\0\x50\xea\0\x04GET ",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ];
    for line in versions {
        let stream = [line, get].concat();
        for size in [stream.len(), line.len(), line.len() - 1, 7, 4, 1] {
            let mut connections = connected();
            let mut seq = 1;
            for piece in stream.chunks(size) {
                connections.segment(&sent(seq, 1001, DATA, piece));
                seq += piece.len() as u32;
            }
            connections.segment(&answered(1001, seq, DATA, OK));
            let seen = pairs(&mut connections);
            assert_eq!(seen, [(b"/1".to_vec(), Some(200))], "pieces of {size}");
        }
    }
}

#[test]
fn empty_lines_that_begin_like_a_proxys_header_are_empty_lines() {
    let get: &[u8] = b"GET /1 HTTP/1.1\r\n\r\n";
    for lines in [&b"\r\n"[..], b"\r\n\r\n", b"\r\n\r", b"\r\n\r\n\r\n"] {
        let stream = [lines, get].concat();
        for size in [lines.len(), 1] {
            let mut connections = connected();
            let mut seq = 1;
            for piece in stream.chunks(size) {
                connections.segment(&Segment {
                    time: Timestamp::from_nanos(u64::from(seq)),
                    ..sent(seq, 1001, DATA, piece)
                });
                seq += piece.len() as u32;
            }
            let seen = requests(&mut connections);
            assert_eq!(targets(&seen), [b"/1"]);
            // It begins with its line.
            let first = 1 + lines.len() as u64;
            assert_eq!(seen[0].first_byte, Timestamp::from_nanos(first));
        }
        // Alone they are no request, whatever the server makes of them.
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, lines));
        connections.segment(&answered(1001, 1 + lines.len() as u32, DATA, OK));
        assert!(requests(&mut connections).is_empty());
        assert_eq!(connections.account.get(Counter::Requests), 0);
    }
}

#[test]
fn a_request_that_is_cut_in_its_first_line_has_a_name_like_any_other() {
    let part: &[u8] = b"GET /a/long/pa";
    let end = 1 + part.len() as u32;
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    let rst = TcpFlags::RST | TcpFlags::ACK;
    let cases: [(&[Segment<'_>], Reason); 5] = [
        (&[], Reason::RequestCutByCaptureEnd),
        (
            &[sent(end, 1001, fin, b""), answered(1001, end + 1, fin, b"")],
            Reason::RequestCutByClose,
        ),
        (&[sent(end, 1001, rst, b"")], Reason::RequestCutByClose),
        (
            &[
                sent(end + 100, 1001, DATA, b"GET /2 HTTP/1.1\r\n\r\n"),
                answered(1001, end + 119, TcpFlags::ACK, b""),
            ],
            Reason::RequestGap,
        ),
        (&[answered(1001, end, DATA, OK)], Reason::RequestMalformed),
    ];
    for (segments, reason) in cases {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, part));
        for segment in segments {
            connections.segment(segment);
        }
        connections.finish();
        assert_eq!(connections.account.dropped(reason), 1, "{reason}");
    }
    // What is no method that servers know may be anything.
    for other in [&b"GETTING "[..], b"EHLO me", b"GET", b"* OK", b""] {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, other));
        connections.finish();
        assert_eq!(connections.account.get(Counter::Requests), 0);
    }
}

#[test]
fn a_target_of_any_length_makes_a_request() {
    for length in [100_000, 140_000, 900_000, 1_100_000] {
        for before in [false, true] {
            let mut connections = connected();
            let first: &[u8] = if before {
                b"GET /0 HTTP/1.1\r\n\r\n"
            } else {
                b""
            };
            let target = format!("http://{}", "a".repeat(length));
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            let stream = [first, request.as_bytes()].concat();
            let mut seq = 1;
            for piece in stream.chunks(1460) {
                connections.segment(&sent(seq, 1001, DATA, piece));
                seq += piece.len() as u32;
            }
            let seen = requests(&mut connections);
            let is_kept = length < 1 << 20;
            assert_eq!(seen.len(), usize::from(before) + usize::from(is_kept));
            if is_kept {
                assert_eq!(targets(&seen).last(), Some(&target.as_bytes()));
            }
            let too_large = connections.account.dropped(Reason::RequestTooLarge);
            assert_eq!(too_large, u64::from(!is_kept));
        }
    }
}

#[test]
fn a_method_may_be_called_proxy() {
    for start in [
        &b"PROXY unknown HTTP/1.1\r\n\r\n"[..],
        b"PROXY UNKNOWN HTTP/1.1\r\n\r\n",
        b"PROXY /x HTTP/1.1\r\n\r\n",
    ] {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, start));
        connections.segment(&answered(1001, 1 + start.len() as u32, DATA, OK));
        assert_eq!(pairs(&mut connections).len(), 1);
    }
}

#[test]
fn the_end_of_a_request_line_is_no_request() {
    // What comes before it was not captured, and nothing says so.
    for end in [&b"index.html HTTP/1.1\r\n\r\n"[..], b"x HTTP/1.0\r\n\r\n"] {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, end));
        connections.segment(&answered(1001, 1 + end.len() as u32, DATA, OK));
        assert_eq!(pairs(&mut connections), []);
    }
}

#[test]
fn empty_lines_before_anything_else_cost_nothing() {
    let mut connections = connected();
    for offset in 0..50_000 {
        connections.segment(&sent(1 + offset, 1001, DATA, b"\n"));
    }
    assert!(connections.memory < 10_000);
    connections.segment(&sent(50_001, 1001, DATA, b"GET /last HTTP/1.1\r\n\r\n"));
    assert_eq!(targets(&requests(&mut connections)), [b"/last"]);
}

#[test]
fn a_body_that_is_sent_although_it_was_refused_is_no_method() {
    let head: &[u8] = b"POST /1 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    let next: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";
    let never = Reason::RequestBodyNeverSent;
    for (body, sent_after_all) in [
        (&b"0123456789"[..], true),
        (b"GETTING-ON", true),
        (b"", false),
    ] {
        for size in [body.len().max(1), 3, 1] {
            let mut connections = connected();
            connections.segment(&sent(1, 1001, DATA, head));
            let mut seq = 1 + head.len() as u32;
            connections.segment(&answered(1001, seq, DATA, NO));
            let ack = 1001 + NO.len() as u32;
            for piece in body.chunks(size).chain(next.chunks(size.max(4))) {
                connections.segment(&sent(seq, ack, DATA, piece));
                seq += piece.len() as u32;
            }
            connections.segment(&answered(ack, seq, DATA, OK));
            let seen = requests(&mut connections);
            let context = format!("{} in pieces of {size}", body.escape_ascii());
            assert_eq!(targets(&seen), [b"/1", b"/2"], "{context}");
            assert_eq!(seen[0].completeness.is_whole(), sent_after_all, "{context}");
            assert_eq!(seen[1].head.method(), b"GET", "{context}");
            assert_eq!(
                connections.account.dropped(never),
                u64::from(!sent_after_all)
            );
        }
    }
}

#[test]
fn a_request_is_no_body_of_one_whose_refusal_was_not_captured() {
    let head: &[u8] = b"POST /1 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 15\r\n\r\n";
    let (get, body): (&[u8], &[u8]) = (b"GET /2 HTTP/1.1\r\n\r\n", b"GET /2 HTTP/1.1");
    let seq = 1 + head.len() as u32;
    let go_on: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let beyond = |answer: &[u8]| 1001 + answer.len() as u32;
    // The answer, whether it was captured, and what the client sends then.
    let cases: [(&[u8], bool, &[u8]); 4] = [
        (NO, false, get),
        (NO, true, get),
        (go_on, true, body),
        // It did not wait.
        (b"", false, body),
    ];
    for (answer, captured, then) in cases {
        let mut connections = connected();
        connections.segment(&sent(1, 1001, DATA, head));
        if captured {
            connections.segment(&answered(1001, seq, DATA, answer));
        }
        let ack = beyond(answer);
        connections.segment(&sent(seq, ack, DATA, then));
        let end = seq + then.len() as u32;
        connections.segment(&answered(ack, end, DATA, OK));
        let seen = requests(&mut connections);
        let is_body = then == body;
        let expected = if is_body { 1 } else { 2 };
        let context = answer.escape_ascii();
        assert_eq!(targets(&seen), [b"/1", b"/2"][..expected], "{context}");
        assert_eq!(seen[0].completeness.is_whole(), is_body, "{context}");
    }
}
