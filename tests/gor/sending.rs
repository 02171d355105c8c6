//! Cases 12 to 24 through the program, and case 36: what a target gets.

use super::*;
use crate::support::target::{EMPTY, Target};

/// Sends a file of records; what the program said.
fn send(text: &str, target: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", text);
    run_well(&[&["--input-file", &input, "--output-http", target], more].concat())
}

/// The request of the cases with another target.
fn with_target(target: &str) -> String {
    POST.replace("/post", target)
}

/// The request of the cases with one more field.
fn with_field(field: &str) -> String {
    POST.replace("Host:", &format!("{field}\r\nHost:"))
}

/// What comes out of one request, if anything.
fn one(payload: &str, flags: &[&str]) -> Option<String> {
    let mut found = through(&record(1, "a", 0, payload), flags);
    assert!(found.len() <= 1);
    let record = found.pop()?;
    Some(String::from_utf8(record.payload.to_vec()).expect("text"))
}

/// Cases 12 to 14, 17, 20 and 21: which requests pass.
#[test]
fn filters_choose() {
    let w4 = POST.replace("w3", "w4");
    let customer3 = with_field("Authorization: Basic Y3VzdG9tZXIzOndlbGNvbWU=");
    let customer6 = with_field("Authorization: Basic Y3VzdG9tZXI2OnJlc3RAMTIzXlRFU1Q=");
    let mickey = with_field("Authorization: Basic bWlja2V5IG1vdXNlOmhhcHB5MTIz");
    let (homer, customer) = ("^(homer simpson|mickey mouse).*", "^customer[0-9].*");
    let urls = ["--http-allow-url", "/v1/app", "--http-allow-url", "/v1/api"];
    let restricted = [
        "--http-disallow-url",
        "/restricted1",
        "--http-disallow-url",
        "/some/restricted2",
    ];
    let header = ["--http-header-limiter", "Header2:1/2"];
    let parameter = ["--http-param-limiter", "user_id:1/2"];
    let target = |target: &str| with_target(target);
    for (flags, payload, passes) in [
        (
            &["--http-allow-header", "Host:^www.w3.org$"][..],
            POST.to_owned(),
            true,
        ),
        (
            &["--http-allow-header", "Host:^www.w4.org$"],
            POST.to_owned(),
            false,
        ),
        (
            &["--http-disallow-header", "Host:^www.w3.org$"],
            w4.clone(),
            true,
        ),
        (
            &["--http-disallow-header", "Host:^www.w4.org$"],
            w4.clone(),
            false,
        ),
        (&["--http-disallow-header", "Host: www*"], w4, false),
        (
            &["--http-basic-auth-filter", customer],
            customer3.clone(),
            true,
        ),
        (
            &["--http-basic-auth-filter", customer],
            customer6.clone(),
            true,
        ),
        (&["--http-basic-auth-filter", homer], customer6, false),
        (&["--http-basic-auth-filter", homer], mickey, true),
        (
            &["--http-basic-auth-filter", customer],
            POST.to_owned(),
            true,
        ),
        (&header, POST.to_owned(), true),
        (&header, with_field("Header2: 3"), false),
        (&header, with_field("Header2: 1"), true),
        (&parameter, POST.to_owned(), true),
        (&parameter, target("/post?user_id=3"), false),
        (&parameter, target("/post?user_id=1"), true),
        (&urls, target("/v1/app/test"), true),
        (&urls, target("/v1/api/test"), true),
        (&urls, target("/other"), false),
        (&restricted, target("/restricted1"), false),
        (&restricted, target("/some/restricted2"), false),
        (&restricted, target("/v1/app/test"), true),
        (&["--http-allow-method", "GET"], POST.to_owned(), false),
        (&["--http-allow-method", "POST"], POST.to_owned(), true),
    ] {
        let out = one(&payload, flags);
        assert_eq!(out, passes.then_some(payload.clone()), "{flags:?}");
    }
}

/// Cases 15, 16, 18, 19 and 22: what becomes of those that pass.
#[test]
fn rewrites_change() {
    let ping = [
        "--http-rewrite-url",
        r"/v1/user/([^\/]+)/ping:/v2/user/$1/ping",
    ];
    let host = ["--http-rewrite-header", "Host: (.*).w3.org,$1.beta.w3.org"];
    let key = ["--http-set-param", "api_key=1"];
    let kind = ["--http-set-param", "type=1"];
    let two = [
        "--http-set-header",
        "Header1:1",
        "--http-set-header",
        "Host:localhost",
    ];
    let absolute = "POST http://example.com/post HTTP/1.0\r\nHost: example.com\r\n\r\n";
    for (flags, payload, expected) in [
        (
            &ping[..],
            with_target("/v1/user/joe/ping"),
            with_target("/v2/user/joe/ping"),
        ),
        (&ping, with_target("/v1/user/ping"), with_target("/v1/user/ping")),
        (&host, POST.to_owned(), POST.replace("www.w3", "www.beta.w3")),
        (
            &two,
            POST.to_owned(),
            "POST /post HTTP/1.1\r\nHeader1: 1\r\nContent-Length: 7\r\nHost: localhost\r\n\r\na=1&b=2".to_owned(),
        ),
        (
            &["--http-set-header", "User-Agent:Gor"],
            POST.to_owned(),
            POST.replace("Content-Length", "User-Agent: Gor\r\nContent-Length"),
        ),
        (
            &["--http-set-header", "User-Agent:Gor"],
            with_field("user-agent:curl"),
            with_field("user-agent:Gor"),
        ),
        (&key, with_target("/?api_key=1234"), with_target("/?api_key=1")),
        (&key, with_target("/"), with_target("/?api_key=1")),
        (&key, with_target("/?a=b"), with_target("/?a=b&api_key=1")),
        (&kind, with_target("/?d_type=2"), with_target("/?d_type=2&type=1")),
        (
            &kind,
            with_target("/?type=2&type=3"),
            with_target("/?type=1&type=3"),
        ),
        // Names are found in any case, values with and without blanks, and empty ones.
        (
            &["--http-rewrite-header", "x-a: ^b$,c"],
            with_field("X-A:b"),
            with_field("X-A:c"),
        ),
        (
            &["--http-rewrite-header", "x-a: ^b$,c"],
            with_field("X-A:   b  "),
            with_field("X-A:   c  "),
        ),
        (
            &["--http-set-header", "X-A: c"],
            with_field("X-A:"),
            with_field("X-A: c"),
        ),
        (&["--http-rewrite-header", "Absent: ^b$,c"], POST.to_owned(), POST.to_owned()),
        // What is cut is left alone.
        (
            &["--http-set-header", "X-A: c"],
            "POST /post HTTP/1.1".to_owned(),
            "POST /post HTTP/1.1".to_owned(),
        ),
        (
            &["--http-set-header", "X-A: c"],
            absolute.to_owned(),
            absolute.replace("Host", "X-A: c\r\nHost"),
        ),
    ] {
        let out = one(&payload, flags);
        assert_eq!(out.as_deref(), Some(&expected[..]), "{flags:?} {payload:?}");
    }
    // A new host counts in a target in absolute form too.
    let target = Target::new();
    send(&record(1, "a", 0, absolute), &target.url(), &[]);
    let line = format!("POST http://{}/post", target.address);
    assert_eq!(target.lines(), [line]);
    for wrong in [
        ["--http-rewrite-url", "/v1"],
        ["--http-header-limiter", "Header2:1"],
        ["--http-set-param", "x"],
    ] {
        let output = run(&[&["--input-file", "x", "--output-null"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// Case 23.
#[test]
fn prettify_takes_framing_and_compression_off() {
    let chunked = "POST / HTTP/1.1\r\nHost: www.w3.org\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n";
    let plain = one(chunked, &["--prettify-http"]).expect("it passes");
    assert!(plain.contains("\r\nContent-Length: 23\r\n"), "{plain}");
    assert!(!plain.contains("Transfer-Encoding"), "{plain}");
    assert!(
        plain.ends_with("\r\n\r\nWikipedia in\r\n\r\nchunks."),
        "{plain}"
    );
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"test").expect("memory");
    let packed = encoder.finish().expect("memory");
    let head = format!(
        "2 a 1795381446000000000 0\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Encoding: gzip\r\n\r\n",
        packed.len()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("in.gor");
    fs::write(
        &input,
        [head.as_bytes(), &packed, "\n🐵🙈🙉\n".as_bytes()].concat(),
    )
    .expect("written");
    let input = input.to_str().expect("a plain path");
    let output = run(&["--input-file", input, "--output-stdout", "--prettify-http"]);
    assert_eq!(
        records(&output.stdout)[0].payload,
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntest"
    );
}

/// Cases 12 to 20 together.
#[test]
fn filters_and_rewrites_are_applied() {
    let text = record(1, "a", 0, POST);
    let changed = through(
        &text,
        &[
            "--http-set-header",
            "User-Agent:Gor",
            "--http-set-param",
            "api_key=1",
            "--http-rewrite-url",
            "/p(.*)st:/n${1}w",
            "--http-rewrite-header",
            "Host: (.*).w3.org,$1.beta.w3.org",
        ],
    );
    assert_eq!(
        &changed[0].payload[..],
        b"POST /now?api_key=1 HTTP/1.1\r\nUser-Agent: Gor\r\nContent-Length: 7\r\nHost: www.beta.w3.org\r\n\r\na=1&b=2"
    );
}

/// Case 21.
#[test]
fn the_answer_to_a_filtered_request_goes_with_it() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let text = [
        record(1, "a", 0, POST),
        record(1, "b", 1, &get("/")),
        record(2, "a", 2, answer),
        record(2, "b", 3, answer),
    ]
    .concat();
    let passed = through(&text, &["--http-allow-method", "GET"]);
    assert_eq!(shown(&passed), ["1 GET / HTTP/1.1", "2 HTTP/1.1 200 OK"]);
    assert!(passed.iter().all(|it| it.id == "b"));
}

/// Case 17, by the run that the study made.
#[test]
fn a_quarter_by_the_hash_is_seventy_eight() {
    let text: String = (0..300)
        .map(|it| {
            record(
                1,
                &it.to_string(),
                0,
                &format!("GET / HTTP/1.1\r\nX: {it}\r\n\r\n"),
            )
        })
        .collect();
    assert_eq!(
        through(&text, &["--http-header-limiter", "X:25%"]).len(),
        78
    );
}

/// Case 36.
#[test]
fn a_target_gets_what_was_sent() {
    let text = [
        record(1, "a", 0, POST),
        record(1, "b", 1, &get("/x")),
        record(1, "c", 2, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
    .concat();
    let target = Target::new();
    let flags = [
        "--http-set-header",
        "User-Agent: Gor",
        "--http-allow-method",
        "GET",
        "--http-allow-method",
        "POST",
    ];
    send(&text, &target.url(), &flags);
    let seen = target.seen();
    assert_eq!(seen.len(), 2);
    let post = seen
        .iter()
        .find(|it| it.line() == "POST /post")
        .expect("the POST");
    assert_eq!(post.body, b"a=1&b=2");
    for it in &seen {
        assert_eq!(it.field("user-agent"), Some("Gor"));
        assert_eq!(it.field("host"), Some(&*target.address.to_string()));
    }
    for (flags, host) in [
        (&["--http-original-host"][..], "www.w3.org"),
        (&["--http-set-header", "Host: other"], "other"),
    ] {
        let target = Target::new();
        send(&record(1, "a", 0, POST), &target.url(), flags);
        assert_eq!(target.seen()[0].field("host"), Some(host));
    }
}

/// Case 36: a base path goes before the path, and a slash is none.
#[test]
fn a_base_path_does_not_swallow_the_path() {
    for (base, expected) in [
        ("", "GET /x?y"),
        ("/", "GET /x?y"),
        ("/v2", "GET /v2/x?y"),
        ("/v2/", "GET /v2/x?y"),
    ] {
        let target = Target::new();
        send(
            &record(1, "a", 0, &get("/x?y")),
            &format!("{}{base}", target.url()),
            &[],
        );
        assert_eq!(target.lines(), [expected], "{base}");
    }
}

/// Case 36: requests of one captured connection go over one connection, in order.
#[test]
fn connections_are_kept() {
    let text: String = (0..20)
        .map(|it| {
            record(
                1,
                &format!("c00000500a010203{it:08x}"),
                0,
                &get(&format!("/{it}")),
            )
        })
        .collect();
    let target = Target::new();
    send(&text, &target.url(), &[]);
    let expected: Vec<String> = (0..20).map(|it| format!("GET /{it}")).collect();
    assert_eq!(target.lines(), expected);
    assert_eq!(target.connections(), 1);
}

/// Case 36: a target behind TLS whose certificate nobody vouches for.
#[test]
fn any_certificate_is_taken_when_asked() {
    let (port, _, seen) = crate::replay::https::server(EMPTY.as_bytes());
    let url = format!("https://localhost:{port}");
    let text = record(1, "a", 0, POST);
    let said = send(&text, &url, &[]);
    assert_eq!(dropped(&said, "connect_failed"), 1, "{said}");
    let said = send(&text, &url, &["--output-http-skip-verify"]);
    assert!(said.contains("2xx 1"), "{said}");
    let got = seen
        .recv_timeout(crate::replay::bench::LONG)
        .expect("a request");
    let got = String::from_utf8(got).expect("text");
    assert!(
        got.starts_with("POST /post ") && got.ends_with("a=1&b=2"),
        "{got}"
    );
}

/// Redirects are followed as often as is asked for.
#[test]
fn redirects_are_followed_so_often() {
    let other = Target::new();
    let away = format!("http://{}/away", other.address);
    let answer = move |status: &str, location: &str| {
        format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    };
    for (redirects, expected, elsewhere) in [
        ("0", &["POST /post"][..], 0),
        ("1", &["POST /post", "GET /one"], 0),
        ("5", &["POST /post", "GET /one"], 1),
    ] {
        let away = away.clone();
        let before = other.seen().len();
        let target = Target::answering(move |seen| match seen.line() {
            "POST /post" => answer("302 Found", "/one"),
            "GET /one" => answer("307 Temporary Redirect", &away),
            _ => EMPTY.to_owned(),
        });
        let secret = POST.replace("Host:", "Authorization: x\r\nHost:");
        let said = send(
            &record(1, "a", 0, &secret),
            &target.url(),
            &["--output-http-redirects", redirects],
        );
        assert_eq!(target.lines(), expected, "{said}");
        assert_eq!(other.seen().len() - before, elsewhere, "{said}");
    }
    let last = other.seen().pop().expect("one came");
    assert_eq!(last.field("authorization"), None);
    assert_eq!(last.field("host"), Some(&*other.address.to_string()));
}

/// Tracked answers are messages of type 3 for the other outputs, failures and statuses are counted.
#[test]
fn answers_are_tracked_and_counted() {
    let target = Target::answering(|seen| {
        let status = if seen.line() == "GET /bad" {
            "503 Sorry"
        } else {
            "200 OK"
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi")
    });
    let text = [
        record(1, "aa", 0, &get("/")),
        record(1, "bb", 1, &get("/bad")),
    ]
    .concat();
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(&folder, "out.gor");
    let said = send(
        &text,
        &target.url(),
        &[
            "--output-http-track-response",
            "--output-file",
            &out,
            "--output-file-append",
        ],
    );
    let mut lines = shown(&records_of(&out));
    lines.sort();
    assert_eq!(
        lines,
        [
            "1 GET / HTTP/1.1",
            "1 GET /bad HTTP/1.1",
            "3 HTTP/1.1 200 OK",
            "3 HTTP/1.1 503 Sorry"
        ]
    );
    let replayed: Vec<_> = records_of(&out)
        .into_iter()
        .filter(|it| it.kind == Kind::Replayed)
        .collect();
    assert!(replayed.iter().any(|it| it.id == "aa") && replayed.iter().any(|it| it.id == "bb"));
    assert!(said.contains("2xx 1") && said.contains("5xx 1"), "{said}");
    let nobody = send(
        &text,
        "http://127.0.0.1:1",
        &["--output-http-timeout", "1s"],
    );
    assert_eq!(dropped(&nobody, "connect_failed"), 2, "{nobody}");
}
