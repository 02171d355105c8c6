//! The format of GoReplay.

use super::*;

#[test]
fn a_record_of_goreplay_is_read_to_the_byte() {
    let file = gor(1, ID, 1_795_381_446_370_345_171, GET);
    assert_eq!(
        &file[..52],
        b"1 d7921c0c7f000001388709f8 1795381446370345171 0\nGET"
    );
    let mut records = Records::new(&file[..]);
    let record = records.next_record().unwrap().unwrap();
    assert_eq!(record.kind, Kind::Request);
    assert_eq!(record.id, ID);
    assert_eq!(record.time.as_nanos(), 1_795_381_446_370_345_171);
    assert_eq!(record.payload, GET);
    assert!(records.next_record().is_none());

    let (exchanges, _) = read_bytes("x", &file);
    assert_eq!(exchanges[0].endpoints.client.to_string(), "127.0.0.1:55186");
    assert_eq!(exchanges[0].endpoints.server.port(), 7180);
}

#[test]
fn our_records_look_like_those_of_goreplay() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &[get(0x2a, "/")]);
    let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
    assert_eq!(
        text,
        "1 9c401f900a0102030000002a 1795381446420000000 1000003\n\
         GET / HTTP/1.1\r\nHost: a.example\r\n\r\n\n🐵🙈🙉\n\
         2 9c401f900a0102030000002a 1795381446422000006 1000003\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\n🐵🙈🙉\n"
    );
}

#[test]
fn sizes_and_order_survive() {
    let big = vec![b'x'; 100_000];
    let head = "POST /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    let list = [
        get(1, "/"),
        exchange(
            2,
            "POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
            b"a=1&b=2",
            Framing::Length(7),
            None,
        ),
        exchange(3, head, &big, Framing::Length(100_000), None),
    ];
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.gor.gz", "a.jsonl", "a.jsonl.gz"] {
        let (path, account) = write(&folder, name, &list);
        assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
        let expected = if name.starts_with("a.gor") { 4 } else { 3 };
        assert_eq!(account.get(Counter::RecordsWritten), expected);
    }
}

#[test]
fn an_answer_belongs_to_the_latest_request_of_its_id() {
    let file = [
        gor(1, ID, 1, "GET /first HTTP/1.1\r\n\r\n"),
        gor(1, ID, 2, "GET /second HTTP/1.1\r\n\r\n"),
        gor(2, ID, 3, OK),
        gor(3, ID, 4, OK),
    ]
    .concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    let shown: Vec<_> = exchanges
        .iter()
        .map(|it| {
            (
                it.request.as_ref().unwrap().head.target(),
                it.response.is_some(),
            )
        })
        .collect();
    assert_eq!(shown, [(&b"/first"[..], false), (b"/second", true)]);
    assert!(damage.is_empty());
}

#[test]
fn connections_are_told_by_the_first_sixteen_digits() {
    let file = [
        gor(1, "d7921c0c7f00000100000001", 1, GET),
        gor(1, "d7921c0c7f00000100000002", 2, GET),
        gor(1, "d7931c0c7f00000100000003", 3, GET),
        gor(1, "not-hex", 4, GET),
    ]
    .concat();
    let (exchanges, _) = read_bytes("a.gor", &file);
    let ids: Vec<_> = exchanges.iter().map(|it| it.connection).collect();
    assert_eq!(ids[0], ids[1]);
    assert!(ids[1] != ids[2] && ids[2] != ids[3] && ids[1] != ids[3]);
}

#[test]
fn connections_end_when_idle_and_at_the_end() {
    let minute = 60_000_000_000;
    let file: Vec<_> = [
        ("aaaaaaaaaaaaaaaa00", 1),
        ("bbbbbbbbbbbbbbbb00", 2),
        ("aaaaaaaaaaaaaaaa00", 4),
        ("aaaaaaaaaaaaaaaa00", 8),
    ]
    .iter()
    .flat_map(|&(id, time)| gor(1, id, time * minute, GET))
    .collect();
    let input = Input::from_reader(Box::new(Cursor::new(file)), Path::new("a.gor")).unwrap();
    let seen: Vec<_> = Reader::new(vec![input])
        .unwrap()
        .filter_map(|event| match event {
            Event::Request(request) => Some(format!("request {}", request.connection.0)),
            Event::Closed { connection } => Some(format!("closed {}", connection.0)),
            _ => None,
        })
        .collect();
    assert_eq!(
        seen,
        [
            "request 1",
            "request 2",
            "request 1",
            "closed 2",
            "request 1",
            "closed 1"
        ]
    );
}

#[test]
fn several_files_are_read_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("test_requests_0.gor");
    let even = folder.path().join("test_requests_1.gor");
    let target = |name: &str| format!("GET /{name} HTTP/1.1\r\n\r\n");
    fs::write(
        &odd,
        [
            gor(1, "a1", 1, &target("1")),
            gor(2, "a2", 3, OK),
            gor(1, "a3", 3, &target("3")),
        ]
        .concat(),
    )
    .unwrap();
    fs::write(
        &even,
        [
            gor(1, "a2", 2, &target("2")),
            gor(2, "a3", 3, OK),
            gor(1, "a4", 4, &target("4")),
        ]
        .concat(),
    )
    .unwrap();
    let mut reader = Reader::open(&[odd, even]).unwrap();
    let order: Vec<_> = (&mut reader)
        .filter_map(|event| match event {
            Event::Request(it) => Some(String::from_utf8_lossy(it.head.target()).into_owned()),
            Event::Response { id, .. } => Some(format!("answer to {}", id.0)),
            _ => None,
        })
        .collect();
    // A request comes before an answer of the same time, whichever file holds it.
    assert_eq!(
        order,
        ["/1", "/2", "/3", "answer to 2", "answer to 3", "/4"]
    );
}

#[test]
fn three_fields_and_negative_latencies_are_read() {
    let file = format!("1 2 3\n{GET}\n🐵🙈🙉\n2 2 4 -1\n{OK}\n🐵🙈🙉\n");
    let (exchanges, damage) = read_bytes("a.gor", file.as_bytes());
    assert_eq!((exchanges.len(), damage.len()), (1, 0));
    assert!(exchanges[0].response.is_some());
}

#[test]
fn malformed_headers_are_skipped_and_said() {
    let file = [
        gor(1, "a", 1, GET),
        b"4 b 2 0\nwhatever\n".to_vec(),
        "\n🐵🙈🙉\n".into(),
        b"garbage".to_vec(),
        "\n🐵🙈🙉\n".into(),
        gor(1, "c", 3, "no http"),
        gor(1, "d", 4, GET),
    ]
    .concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    assert_eq!(exchanges.len(), 2);
    assert_eq!(damage.len(), 3, "{damage:?}");
    assert!(
        damage[0].starts_with("at byte 65: not a record header: \"4 b 2 0\""),
        "{damage:?}"
    );
}

#[test]
fn a_body_may_hold_the_separator() {
    let body = "x\n🐵🙈🙉\ny";
    let post = format!(
        "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let file = [gor(1, "a", 1, &post), gor(1, "b", 2, GET)].concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    assert_eq!((exchanges.len(), damage.len()), (2, 0), "{damage:?}");
    assert_eq!(exchanges[0].request.as_ref().unwrap().body.wire, body);
}

#[test]
fn what_is_written_of_bodies_with_monkeys_reads_back() {
    let long_id = "i".repeat(491);
    let cut_header = format!("🐵🙈🙉\n1 {long_id} 123456789012345678 x\n");
    for (body, is_written) in [
        ("🐵🙈🙉", true),
        ("🐵🙈🙉\n", true),
        ("🐵🙈🙉\nx", true),
        ("\n🐵🙈🙉", true),
        ("🐵🙈🙉\n🐵🙈🙉\n🐵🙈🙉", true),
        ("🐵🙈🙉\n1 a 1 0", false),
        ("🐵🙈🙉\n🐵🙈🙉\n1 a 1 0\nGET / HTTP/1.1\r\n\r\n", false),
        (&cut_header, false),
    ] {
        let length = body.len();
        let framing = Framing::Length(length as u64);
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let answer = Some((&ok[..], body.as_bytes(), framing));
        let list = [
            exchange(1, &post, body.as_bytes(), framing, answer),
            get(2, "/"),
        ];
        for list in [&list[..], &list[..1]] {
            let folder = tempfile::tempdir().unwrap();
            let (path, account) = write(&folder, "a.gor", list);
            let refused = if is_written { 0 } else { 2 };
            assert_eq!(account.dropped(Reason::RecordIncomplete), refused, "{body}");
            let kept = &list[if is_written { 0 } else { 1 }..];
            assert_eq!(all(&read(&[path]), gor_facts), all(kept, gor_facts));
        }
    }
}

#[test]
fn a_body_of_nothing_but_separators_reads_back() {
    let line = "\n🐵🙈🙉\nx";
    let plain = line.repeat(100_000);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let chunked = format!("{}0\r\n\r\n", chunk.repeat(100_000));
    let length = plain.len();
    let list = [
        exchange(
            1,
            &format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"),
            plain.as_bytes(),
            Framing::Length(length as u64),
            None,
        ),
        exchange(
            2,
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunked.as_bytes(),
            Framing::Chunked,
            None,
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &list);
    assert!(all(&read(&[path]), gor_facts) == all(&list, gor_facts));
}

#[test]
fn a_record_has_room_for_the_longest_body_of_a_capture_and_not_more() {
    let folder = tempfile::tempdir().unwrap();
    for (length, refused) in [(64 << 20, 0), (66 << 20, 1)] {
        let body = vec![b'x'; length];
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let big = exchange(1, &head, &body, Framing::Length(length as u64), None);
        let name = format!("{length}.gor");
        let (path, account) = write(&folder, &name, &[big, get(2, "/")]);
        assert_eq!(account.dropped(Reason::RecordIncomplete), refused);
        assert_eq!(read(&[path]).len() as u64, 2 - refused);
    }
    let file = [gor(1, "a", 1, &"x".repeat(66 << 20)), gor(1, "b", 2, GET)].concat();
    let (exchanges, damage) = read_bytes("a.gor", &file);
    assert_eq!(exchanges.len(), 1);
    assert_eq!(damage, ["at byte 0: a record longer than 66 MiB; skipped"]);
}

#[test]
fn a_body_that_holds_a_whole_record_is_not_written() {
    let inner = [SEPARATOR, &gor(1, "a", 1, "DELETE / HTTP/1.1\r\n\r\n")].concat();
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", inner.len());
    let smuggled = exchange(1, &head, &inner, Framing::Length(inner.len() as u64), None);
    let folder = tempfile::tempdir().unwrap();
    let (path, account) = write(&folder, "a.gor", &[smuggled.clone(), get(2, "/")]);
    assert_eq!(account.dropped(Reason::RecordIncomplete), 1);
    assert_eq!(read(&[path]).len(), 1);
    // When somebody else wrote it, neither part is replayed as what it is not.
    let request = smuggled.request.unwrap();
    let payload = [&request.head.bytes()[..], &inner].concat();
    let (exchanges, _) = read_bytes("a.gor", &gor(1, "b", 1, str::from_utf8(&payload).unwrap()));
    let outer = exchanges.iter().filter_map(|it| it.request.as_ref());
    let outer: Vec<_> = outer.filter(|it| it.head.method() == b"POST").collect();
    assert!(!outer[0].completeness.is_whole());
}

#[test]
fn requests_shorter_than_they_say_are_incomplete() {
    for payload in [
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let (exchanges, _) = read_bytes("a.gor", &gor(1, ID, 1, payload));
        let request = exchanges[0].request.as_ref().unwrap();
        assert!(!request.completeness.is_whole(), "{payload}");
    }
}

#[test]
fn incomplete_messages_are_counted_not_written() {
    let mut cut = exchange(
        1,
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"abc",
        Framing::Length(5),
        Some((
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            b"ok",
            Framing::Length(2),
        )),
    );
    let request = Arc::make_mut(cut.request.as_mut().unwrap());
    request.completeness = Completeness::Incomplete(Reason::RequestGap);
    request.body.missing = 2;
    let folder = tempfile::tempdir().unwrap();
    for (name, left) in [("a.gor", 1), ("a.har", 0), ("a.pcap", 0)] {
        let (path, account) = write(&folder, name, std::slice::from_ref(&cut));
        assert!(account.dropped(Reason::RecordIncomplete) > 0);
        if name != "a.pcap" {
            let read = read(&[path]);
            assert_eq!(read.len(), left, "{name}");
            assert!(read.iter().all(|it| it.request.is_none()));
        }
    }
}

#[test]
fn orphans_never_find_a_request_of_another_exchange() {
    let list = [get(0, "/a"), orphan(get(7, "/b")), get(14, "/c")];
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &list);
    assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
}

#[test]
fn every_truncation_gives_what_was_whole_and_says_that_it_is_cut() {
    let files: Vec<_> = [(1, GET), (2, OK), (1, GET)]
        .iter()
        .zip(1..)
        .map(|(&(kind, payload), time)| gor(kind, ID, time, payload))
        .collect();
    let file = files.concat();
    for end in 1..file.len() {
        let mut ends = files.iter().scan(0, |at, record| {
            *at += record.len();
            Some(*at)
        });
        // The last line feed of a separator may be missing.
        let whole = ends.by_ref().take_while(|&at| at <= end + 1).count();
        let input = Input::from_reader(
            Box::new(Cursor::new(file[..end].to_vec())),
            Path::new("a.gor"),
        );
        let mut records = Records::new(input.unwrap().into_content().unwrap());
        let mut good = 0;
        let mut cut = 0;
        while let Some(record) = records.next_record() {
            match record {
                Ok(_) => good += 1,
                Err(damage) => {
                    cut += 1;
                    assert!(damage.to_string().contains("cut"), "{damage}");
                }
            }
        }
        assert_eq!(good, whole, "cut at {end}");
        let at_end = files
            .iter()
            .scan(0, |at, it| {
                *at += it.len();
                Some(*at)
            })
            .any(|at| at == end || at == end + 1);
        assert_eq!(cut, usize::from(!at_end), "cut at {end}");
    }
}

#[test]
fn an_answer_dated_before_its_request_finds_it() {
    let file = [gor(1, "a", 1_000, GET), gor(2, "a", 900, OK)].concat();
    let (exchanges, _) = read_bytes("a.gor", &file);
    assert_eq!(exchanges.len(), 1);
    let answer = exchanges[0].response.as_ref().unwrap();
    assert_eq!(answer.first_byte.as_nanos(), 900);
}

#[test]
fn a_thousand_pieces_of_a_recording_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // As GoReplay names them: the order of names is not that of time, and answers lie in the next file.
    let mut paths: Vec<_> = (0..1500)
        .map(|number| {
            let path = folder.path().join(format!("requests_{number}.gor"));
            let id = format!("{number:024x}");
            let before = format!("{:024x}", number.max(1) - 1);
            let time = 10 * (number as u64 + 1);
            let pieces = [gor(2, &before, time, OK), gor(1, &id, time + 1, GET)];
            fs::write(&path, pieces.concat()).unwrap();
            path
        })
        .collect();
    paths.sort();
    // The limit of open files is inherited, so it is set for a process of its own.
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 200 && exec \"$0\" inspect --json \"$@\""])
        .arg(env!("CARGO_BIN_EXE_shadowtap"))
        .args(&paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let answered = lines.lines().filter(|line| line.contains("\"status\":200"));
    // The first answer is an orphan, the last request has none.
    assert_eq!(
        (lines.lines().count(), answered.count()),
        (1501, 1500),
        "{said}"
    );
}

#[test]
fn answers_of_targets_are_written_and_not_taken_for_those_of_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gor");
    let mut writer = Writer::create(&path, Options::default()).unwrap();
    let mut exchange = get(1, "/");
    exchange.response = None;
    writer.exchange(&exchange).unwrap();
    let request = exchange.request.unwrap();
    let sent = Timestamp::from_nanos(START + 99);
    let took = Duration::from_millis(5);
    let head = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    writer.replayed(&request, sent, took, head, b"").unwrap();
    writer.finish().1.unwrap();

    let file = fs::read(&path).unwrap();
    let mut records = Records::new(&file[..]);
    let first = records.next_record().unwrap().unwrap();
    let second = records.next_record().unwrap().unwrap();
    assert_eq!((first.kind, second.kind), (Kind::Request, Kind::Replayed));
    assert_eq!(first.id, second.id);
    assert_eq!((second.time, second.latency), (sent, Some(took)));
    assert_eq!(second.payload[..], head[..]);
    assert!(read(&[path])[0].response.is_none());
}
