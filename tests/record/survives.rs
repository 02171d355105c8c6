//! Every message, of whatever bytes, comes back from every format.

use super::*;
use crate::support::corpus;

/// A body with its framing and the field that announces it.
fn any_body(response: bool) -> impl Strategy<Value = (String, Vec<u8>, Framing)> {
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..60),
        1 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => "(🐵🙈🙉|\r?\n|[a-z]){0,8}".prop_map(String::into_bytes),
    ];
    (content, 0..if response { 4 } else { 3 }).prop_map(move |(content, kind)| match kind {
        0 if !response => (String::new(), Vec::new(), Framing::None),
        0 | 1 => (
            format!("Content-Length: {}\r\n", content.len()),
            content.clone(),
            Framing::Length(content.len() as u64),
        ),
        2 => {
            let mut wire = Vec::new();
            for chunk in content.chunks(17) {
                wire.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            (
                "Transfer-Encoding: chunked\r\n".to_owned(),
                wire,
                Framing::Chunked,
            )
        }
        _ => (String::new(), content, Framing::UntilClose),
    })
}

fn any_fields() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(prop_oneof![0x21..0x7fu8, 0x80..=0xffu8], 0..12);
    let field = ("[A-Za-z][A-Za-z-]{0,9}x", value)
        .prop_map(|(name, value)| [name.as_bytes(), b": ", &value, b"\r\n"].concat());
    prop::collection::vec(field, 0..5).prop_map(|fields| fields.concat())
}

prop_compose! {
    fn any_exchange()(
        number in 0..1000u64,
        method in "[A-Z]{3,7}",
        target in prop::collection::vec(prop_oneof![0x21..0x7fu8, 0x80..=0xffu8], 0..20),
        fields in any_fields(),
        (told, body, framing) in any_body(false),
        status in prop_oneof![Just(200u16), 205..304u16, 400..600u16],
        reason in "[A-Za-z ]{0,12}",
        answer_fields in any_fields(),
        (answer_told, answer_body, answer_framing) in any_body(true),
        answered in prop::bool::weighted(0.9),
    ) -> Exchange {
        let mut exchange = exchange(number, "GET / HTTP/1.1\r\n\r\n", &body, framing, Some((
            "HTTP/1.1 200 OK\r\n\r\n", &answer_body, answer_framing,
        )));
        let head = [method.as_bytes(), b" /", &target, b" HTTP/1.1\r\n", &fields, told.as_bytes(), b"\r\n"].concat();
        let request = Arc::make_mut(exchange.request.as_mut().unwrap());
        request.head = RequestHead::parse(head.into()).unwrap();
        let line = format!("HTTP/1.1 {status:03} {}\r\n", reason.trim());
        let head = [line.as_bytes(), &answer_fields, answer_told.as_bytes(), b"\r\n"].concat();
        exchange.response.as_mut().unwrap().head = ResponseHead::parse(head.into()).unwrap();
        if !answered || method == "HEAD" || method == "CONNECT" {
            exchange.response = None;
        }
        exchange
    }
}

prop_compose! {
    /// Exchanges of ascending numbers, and so of ascending times.
    fn any_exchanges()(mut list in prop::collection::vec(any_exchange(), 0..6)) -> Vec<Exchange> {
        list.sort_by_key(|it| it.id());
        list.dedup_by_key(|it| it.id());
        list
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gor_keeps_bytes_and_times(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.gor.gz" } else { "a.gor" }, &list);
        prop_assert_eq!(all(&read(&[path]), gor_facts), all(&list, gor_facts));
    }

    #[test]
    fn jsonl_keeps_everything(
        list in any_exchanges(),
        gzip in any::<bool>(),
        doubts in any::<(bool, bool, bool, bool)>(),
        missing in 0..3u64,
        interim in prop::collection::vec(100..104u16, 0..3),
        orphans in any::<bool>(),
    ) {
        let mut list = list;
        for exchange in &mut list {
            let request = Arc::make_mut(exchange.request.as_mut().unwrap());
            request.doubts = Doubts { transfer_encoding: doubts.0, content_length: doubts.1, head: doubts.2, retransmission: doubts.3, unproven: doubts.1, after_close: doubts.2 };
            request.body.missing = missing;
            if missing > 0 {
                request.completeness = Completeness::Incomplete(Reason::RequestGap);
            }
            if let Some(response) = &mut exchange.response {
                response.interim = interim.clone();
                response.body.missing = missing;
                if missing > 0 {
                    response.completeness = Completeness::Incomplete(Reason::ResponseCutByClose);
                }
                if orphans {
                    exchange.request = None;
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.jsonl.gz" } else { "a.jsonl" }, &list);
        prop_assert_eq!(all(&read(&[path]), facts), all(&list, facts));
    }

    #[test]
    fn har_keeps_lines_fields_and_content(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.har.gz" } else { "a.har" }, &list);
        prop_assert_eq!(all(&read(&[path]), har_facts), all(&list, har_facts));
    }

    #[test]
    fn made_up_packets_give_the_same_exchanges(list in any_exchanges(), gzip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(&folder, if gzip { "a.pcap.gz" } else { "a.pcap" }, &list);
        let wire = |it: &Exchange| {
            let request = it.request.as_ref().map(|it| (it.head.bytes().clone(), it.body.wire.clone(), it.completeness));
            let response = it.response.as_ref().map(|it| (it.head.bytes().clone(), it.body.wire.clone(), it.completeness));
            format!("{:?} {request:?} {response:?}", it.endpoints)
        };
        let seen: Vec<_> = capture(&path).iter().map(wire).collect();
        prop_assert_eq!(seen, list.iter().map(wire).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0..3usize) {
        let (name, start): (&str, &[u8]) = [
            ("a.gor", &b"1 a 1 1\n"[..]),
            ("a.jsonl", b"{\"method\":"),
            ("a.har", b"{\"log\":{\"entries\":[{"),
        ][start];
        read_bytes(name, &[start, &bytes].concat());
    }
}

/// What is seen in a capture is what is read from every recording of it, as far as the format can say it.
#[test]
fn every_kept_capture_survives_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for case in corpus::all() {
        let file = folder.path().join("capture");
        fs::write(&file, &case.file).unwrap();
        let Ok(mut source) = FileSource::open(&file) else {
            continue;
        };
        let mut tap = Tap::new(TapConfig::default());
        while let Ok(Some(packet)) = source.next_packet() {
            tap.packet(&packet);
        }
        tap.finish();
        let seen = join(std::iter::from_fn(|| tap.poll()));
        count += seen.len();
        for (name, keep, facts) in [
            (
                "a.jsonl",
                (|it| Some(it)) as fn(Exchange) -> Option<Exchange>,
                facts as fn(&Exchange) -> String,
            ),
            ("a.gor", whole_messages, wire_facts),
            ("a.har", with_whole_request, har_facts),
            ("a.pcap", whole_and_clear, wire_facts),
        ] {
            let kept: Vec<_> = seen.iter().cloned().filter_map(keep).collect();
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            let (path, _) = write(&folder, path.to_str().unwrap(), &kept);
            let back = match name {
                "a.pcap" => capture(&path),
                _ => read(&[path]),
            };
            let sorted = |list: &[Exchange]| {
                let mut list = all(list, facts);
                list.sort();
                list
            };
            assert_eq!(sorted(&back), sorted(&kept), "{} as {name}", case.name);
        }
    }
    assert!(count > 500, "{count} exchanges");
}

/// The exchange without messages that are not whole.
fn whole_messages(mut exchange: Exchange) -> Option<Exchange> {
    exchange.request = exchange
        .request
        .filter(|request| request.completeness.is_whole());
    exchange.response = exchange
        .response
        .filter(|response| response.completeness.is_whole());
    (exchange.request.is_some() || exchange.response.is_some()).then_some(exchange)
}

/// The exchange, if its request is whole; its answer, if that is too.
fn with_whole_request(exchange: Exchange) -> Option<Exchange> {
    whole_messages(exchange).filter(|exchange| exchange.request.is_some())
}

/// What makes a message ambiguous, and what its chunks say beside their content, comes back from an archive.
#[test]
fn an_archive_says_what_its_format_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let with_body =
        |number, head, body: &[u8]| exchange(number, head, body, Framing::Chunked, None);
    let mut list = vec![
        with_body(1, chunked, b"3;a=b\r\nabc\r\n0\r\n\r\n"),
        with_body(2, chunked, b"3\r\nabc\r\n0\r\nTrailer: yes\r\n\r\n"),
        with_body(3, chunked, b"3\nabc\n0\n\n"),
        with_body(
            4,
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            b"3\r\nabc\r\n0\r\n\r\n",
        ),
        exchange(
            5,
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"",
            Framing::None,
            None,
        ),
        get(6, "/"),
    ];
    let doubts = |index: usize, list: &mut Vec<Exchange>, doubts: Doubts| {
        Arc::make_mut(list[index].request.as_mut().unwrap()).doubts = doubts;
    };
    let framing = Doubts {
        transfer_encoding: true,
        ..Doubts::default()
    };
    doubts(2, &mut list, framing);
    doubts(3, &mut list, framing);
    let head = Doubts {
        head: true,
        ..Doubts::default()
    };
    doubts(4, &mut list, head);
    let unproven = Doubts {
        retransmission: true,
        unproven: true,
        ..Doubts::default()
    };
    doubts(5, &mut list, unproven);
    let (path, _) = write(&folder, "a.har", &list);
    let back = read(&[path]);
    assert_eq!(all(&back, wire_facts), all(&list, wire_facts));
    let told = |list: &[Exchange]| -> Vec<Doubts> {
        let requests = list.iter().filter_map(|it| it.request.as_ref());
        requests.map(|it| it.doubts).collect()
    };
    assert_eq!(told(&back), told(&list));
}

/// The exchange, if its request is whole and can be read in one way only; its answer, if that is too.
fn whole_and_clear(exchange: Exchange) -> Option<Exchange> {
    let mut exchange = whole_messages(exchange)?;
    let request = exchange.request.as_ref()?;
    if request.doubts.any() || !request.head.is_strict() {
        return None;
    }
    exchange.response = exchange
        .response
        .filter(|response| !response.doubts.any() && response.head.is_strict());
    Some(exchange)
}

/// The bytes on the wire alone.
fn wire_facts(exchange: &Exchange) -> String {
    let request = exchange.request.as_ref();
    let request = request.map(|it| (it.head.bytes().clone(), it.body.wire.clone()));
    let response = exchange.response.as_ref();
    let response = response.map(|it| (it.head.bytes().clone(), it.body.wire.clone()));
    format!("{request:?} {response:?}")
}
