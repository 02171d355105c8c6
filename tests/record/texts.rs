//! Exchange lines and HTTP archives, ours and those of others; golden files.

use super::*;

#[test]
fn lines_keep_to_their_schema() {
    let schema = fs::read_to_string(root("docs/exchange.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut unanswered = get(1, "/unanswered");
    unanswered.response = None;
    let mut cut = get(2, "/cut");
    let response = cut.response.as_mut().unwrap();
    response.completeness = Completeness::Incomplete(Reason::ResponseGap);
    response.body.missing = 1;
    response.doubts.content_length = true;
    response.interim = vec![100, 103];
    let odd = exchange(
        3,
        "G\u{e9}T HTTP/1.1\r\n folded\r\nX: a\r\n  b\r\n\r\n"
            .replace('\u{e9}', "E")
            .as_str(),
        b"",
        Framing::None,
        None,
    );
    for exchange in [get(0, "/"), unanswered, cut, odd, orphan(get(4, "/"))] {
        for detail in [Detail::Inspect, Detail::Recording] {
            let mut line = Vec::new();
            jsonl::write_exchange(&exchange, &mut line, detail).unwrap();
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(&line)
                .map(|it| it.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}\n{line}");
        }
    }
    let wrong = serde_json::json!({"client": 5, "status": "ok"});
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn lines_of_others_are_read() {
    let file = r#"
{"client":"[::1]:5000","server":"10.0.0.1:80","method":"POST","target":"/a?b","request_headers":[["Host","x"],["X","caf\u00e9"]],"request_body_b64":"aGVsbG8=","status":201,"reason":"Created","response_headers":[["Transfer-Encoding","chunked"]],"response_body_b64":"b2s="}
{"method":"GET","target":"/"}
{"method":"POST","target":"/","request_headers":[["Content-Length","4"]],"request_body_len":4,"request_body_sha256":"x"}
{"method":"GET /evil HTTP/1.1\r\nX:","target":"/"}
nonsense
{"method":null,"status":200,"response_headers":[]}
{"method":"GET","ta"#;
    let (exchanges, damage) = read_bytes("a.jsonl", file.as_bytes());
    let request = |at: usize| exchanges[at].request.as_ref().unwrap();
    let post = exchanges
        .iter()
        .find(|it| {
            it.response
                .as_ref()
                .is_some_and(|it| it.head.status() == 201)
        })
        .unwrap();
    let posted = post.request.as_ref().unwrap();
    assert_eq!(
        &posted.head.bytes()[..],
        b"POST /a?b HTTP/1.1\r\nHost: x\r\nX: caf\xe9\r\nContent-Length: 5\r\n\r\n"
    );
    assert_eq!(posted.body.wire, "hello");
    assert_eq!(post.endpoints.client.to_string(), "[::1]:5000");
    let answer = post.response.as_ref().unwrap();
    assert_eq!(answer.body.wire, "2\r\nok\r\n0\r\n\r\n");
    assert!(answer.completeness.is_whole());
    // A body that only its hash tells of is not there.
    assert!(!request(2).completeness.is_whole());
    assert_eq!(exchanges.len(), 4);
    assert_eq!(damage.len(), 3, "{damage:?}");
    assert!(damage[0].starts_with("line 5: "), "{damage:?}");
    assert!(
        damage[1].starts_with("line 6: not an exchange"),
        "{damage:?}"
    );
    assert_eq!(
        damage[2],
        "line 8: the last line is cut (19 bytes of it are there); it is left out"
    );
}

#[test]
fn an_archive_of_a_browser_is_read() {
    let (exchanges, damage) = read_bytes(
        "a.har",
        &fs::read(root("fixtures/record/browser.har")).unwrap(),
    );
    assert!(damage.is_empty(), "{damage:?}");
    let [page, form, aborted] = &exchanges[..] else {
        panic!("{} exchanges", exchanges.len());
    };
    let request = page.request.as_ref().unwrap();
    assert_eq!(
        &request.head.bytes()[..],
        b"GET /path?q=1 HTTP/1.1\r\nHost: shop.example:8443\r\naccept: */*\r\n\r\n"
    );
    assert_eq!(page.endpoints.server.to_string(), "192.0.2.7:8443");
    let answer = page.response.as_ref().unwrap();
    assert_eq!(answer.head.fields().get("content-encoding"), None);
    assert_eq!(answer.head.fields().get("content-length"), Some(&b"16"[..]));
    assert_eq!(answer.body.wire, "<h1>Grüße</h1>");
    let request = form.request.as_ref().unwrap();
    assert_eq!(request.body.wire, "a=1&b=%20");
    assert!(request.completeness.is_whole());
    assert!(aborted.response.is_none());
}

#[test]
fn every_truncation_of_an_archive_gives_the_entries_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.har", &[get(1, "/1"), get(2, "/2")]);
    let file = fs::read(path).unwrap();
    let second = file
        .windows(20)
        .rposition(|it| it == b"\n{\"startedDateTime\":")
        .unwrap();
    for end in (20..file.trim_ascii_end().len()).step_by(7) {
        let (exchanges, damage) = read_bytes("a.har", &file[..end]);
        let whole = usize::from(end >= second - 1) + usize::from(end >= file.len() - 5);
        assert_eq!(exchanges.len(), whole, "cut at {end}");
        assert_eq!(damage.len(), 1);
        assert!(damage[0].contains("cut"), "{damage:?}");
    }
}

#[test]
fn recordings_are_the_golden_ones() {
    let mut gap = get(4, "/gap");
    let response = gap.response.as_mut().unwrap();
    response.completeness = Completeness::Incomplete(Reason::ResponseGap);
    response.body.missing = 1;
    response.body.wire = Bytes::from_static(b"o");
    let list = [
        get(1, "/caf\u{e9}?a=1&b=%20"),
        exchange(
            2,
            "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            Framing::Chunked,
            Some((
                "HTTP/1.1 303 See Other\r\nLocation: /there\r\nContent-Type: image/gif\r\nContent-Length: 3\r\n\r\n",
                b"\xff\x00\xfe",
                Framing::Length(3),
            )),
        ),
        exchange(3, "GET /lost HTTP/1.0\r\n\r\n", b"", Framing::None, None),
        gap,
        orphan(get(5, "/")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let regenerate = std::env::var_os("SHADOWTAP_REGENERATE").is_some();
    for name in [
        "exchanges.gor",
        "exchanges.jsonl",
        "exchanges.har",
        "exchanges.pcap",
    ] {
        let (path, _) = write(&folder, name, &list);
        let mut written = fs::read(path).unwrap();
        if name.ends_with(".har") {
            // The version of the program is no property of the format.
            let text = String::from_utf8(written).unwrap();
            let version = format!(
                "\"version\":\"{}\"}},\"entries\"",
                env!("CARGO_PKG_VERSION")
            );
            written = text
                .replace(&version, "\"version\":\"0\"},\"entries\"")
                .into_bytes();
        }
        let golden = root("fixtures/record").join(name);
        if regenerate {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &written).unwrap();
        }
        assert!(
            fs::read(&golden).unwrap_or_default() == written,
            "{name} is not the golden one; if it should be, set SHADOWTAP_REGENERATE"
        );
    }
}
