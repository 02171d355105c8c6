//! Wrong checksums: of segments that were damaged on their way, and of captures in which they mean nothing.

use super::*;

const GOOD: &[u8] = b"GET /good HTTP/1.1\r\n\r\n";
const EVIL: &[u8] = b"GET /evil HTTP/1.1\r\n\r\n";
const END: u32 = 1 + GOOD.len() as u32;

fn damaged(segment: Segment<'_>) -> Segment<'_> {
    Segment {
        checksum: Checksum::Wrong,
        ..segment
    }
}

/// The targets of the requests that are found whole, and how many segments left for their checksums.
fn found(mut connections: Connections, segments: &[Segment<'_>]) -> (Vec<String>, u64) {
    // The handshake before.
    let before = connections.account.get(Counter::SegmentsControl);
    for segment in segments {
        connections.segment(segment);
    }
    for counter in [Counter::Packets, Counter::Segments] {
        connections
            .account
            .add(counter, before + segments.len() as u64);
    }
    let seen = requests(&mut connections);
    let whole = seen.iter().filter(|it| it.completeness.is_whole());
    let targets = whole.map(|it| String::from_utf8_lossy(it.head.target()).into_owned());
    let dropped = connections.account.dropped(Reason::BadChecksum);
    connections
        .account
        .check()
        .expect("every segment leaves once");
    (targets.collect(), dropped)
}

#[test]
fn a_damaged_segment_that_is_sent_again_is_not_read() {
    let evil = damaged(sent(1, 1001, DATA, EVIL));
    let good = sent(1, 1001, DATA, GOOD);
    let (one, other) = GOOD.split_at(9);
    let pieces = [sent(1, 1001, DATA, one), sent(10, 1001, DATA, other)];
    let answer = answered(1001, END, DATA, OK);
    let none = answered(1001, 1, TcpFlags::ACK, b"");
    for (segments, dropped) in [
        (vec![evil, good, answer], 1),
        (vec![evil, evil, none, good, answer], 2),
        (vec![evil, pieces[0], pieces[1], answer], 1),
        (vec![evil, pieces[1], none, pieces[0], answer], 1),
        // Behind the one that the receiver took.
        (vec![good, evil, answer], 1),
        (vec![good, answer, evil], 1),
        (vec![damaged(pieces[0]), pieces[1], pieces[0], answer], 1),
    ] {
        let said = format!("{segments:?}");
        assert_eq!(
            found(connected(), &segments),
            (vec!["/good".to_owned()], dropped),
            "{said}"
        );
    }
}

#[test]
fn what_of_it_was_neither_sent_again_nor_acknowledged_was_not_received() {
    let evil = damaged(sent(1, 1001, DATA, EVIL));
    let reset = sent(1, 1001, TcpFlags::RST | TcpFlags::ACK, b"");
    let none = answered(1001, 1, TcpFlags::ACK, b"");
    assert_eq!(found(connected(), &[evil, none]), (vec![], 1));
    assert_eq!(found(connected(), &[evil, none, reset]), (vec![], 1));
    // Nor does it end anything, or acknowledge.
    let segments = [
        damaged(reset),
        damaged(answered(1001, 9, TcpFlags::ACK, b"")),
        sent(1, 1001, DATA, GOOD),
        answered(1001, END, DATA, OK),
    ];
    assert_eq!(found(connected(), &segments), (vec!["/good".to_owned()], 0));
}

#[test]
fn a_wrong_checksum_that_the_receiver_acknowledges_was_left_to_something_else() {
    let all = vec!["/good".to_owned(), "/evil".to_owned(), "/good".to_owned()];
    let next = END + EVIL.len() as u32;
    let last = next + GOOD.len() as u32;
    let (a, b, c) = (
        damaged(sent(1, 1001, DATA, GOOD)),
        damaged(sent(END, 1001, DATA, EVIL)),
        damaged(sent(next, 1001, DATA, GOOD)),
    );
    let ack = |ack| answered(1001, ack, TcpFlags::ACK, b"");
    for segments in [
        vec![a, ack(END), b, ack(next), c, ack(last)],
        vec![a, b, c, ack(last)],
        // A part of it, or before it is shown.
        vec![a, ack(5), b, c, ack(last)],
        vec![ack(END), a, ack(next), b, c, ack(last)],
    ] {
        let said = format!("{segments:?}");
        assert_eq!(found(connected(), &segments), (all.clone(), 0), "{said}");
    }
    // Every checksum of the sender is wrong, or what the receiver says is not in the capture.
    let mut alone = Connections::new(Watch::default(), Limits::default());
    alone.segment(&sent(0, 0, TcpFlags::SYN, b""));
    assert_eq!(found(alone, &[a, b, c]), (all.clone(), 0));
    let mut wrong = Connections::new(Watch::default(), Limits::default());
    wrong.segment(&damaged(sent(0, 0, TcpFlags::SYN, b"")));
    wrong.segment(&answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b""));
    assert_eq!(found(wrong, &[a, b, c]), (all.clone(), 0));
    // One that is right among wrong ones is so by chance.
    let mut chance = Connections::new(Watch::default(), Limits::default());
    chance.segment(&damaged(sent(0, 0, TcpFlags::SYN, b"")));
    chance.segment(&answered(1000, 1, TcpFlags::SYN | TcpFlags::ACK, b""));
    let right = sent(1, 1001, DATA, GOOD);
    assert_eq!(found(chance, &[right, b, c]), (all, 0));
}
