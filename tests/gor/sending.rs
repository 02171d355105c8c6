//! Cases 12 to 24 through the program, and case 36: what a target gets.

use super::*;
use crate::support::target::{EMPTY, Target};

/// Sends a file of records; what the program said.
fn send(text: &str, target: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", text);
    run_well(&[&["--input-file", &input, "--output-http", target], more].concat())
}

/// Cases 12 to 20, each as GoReplay asserts it; the tables are beside the code, in `goreplay::modifier`.
#[test]
fn filters_and_rewrites_are_applied() {
    let text = record(1, "a", 0, POST);
    for (flags, passes) in [
        (&["--http-allow-header", "Host:^www.w3.org$"][..], true),
        (&["--http-allow-header", "Host:^www.w4.org$"], false),
        (&["--http-disallow-header", "Host: www*"], false),
        (&["--http-basic-auth-filter", "^customer"], true),
        (&["--http-allow-method", "GET"], false),
        (&["--http-allow-url", "^/post"], true),
        (&["--http-disallow-url", "/post"], false),
        (&["--http-header-limiter", "Host:0%"], false),
        (&["--http-param-limiter", "user_id:0%"], true),
    ] {
        assert_eq!(
            through(&text, flags).len(),
            usize::from(passes),
            "{flags:?}"
        );
    }
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
