use super::super::tests::request;
use super::*;
use crate::compare::tests::answer;
use proptest::prelude::*;

fn redactor(fields: &[&str]) -> Redactor {
    let fields = fields.iter().map(|field| field.parse().unwrap()).collect();
    Redactor::new([7; 32], fields)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn known_digest() {
    // echo -n secret | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
    assert_eq!(redactor(&[]).token(b"secret"), "redacted-e8f9acc76498");
}

#[test]
fn what_is_always_secret() {
    let head = "GET /a?token=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\n\
                Cookie: s=hunter2; t=hunter2\r\nx-api-key: hunter2\r\nX-Other: seen\r\n\r\n";
    let shown = redactor(&[]).request(&Arc::new(request(head, "")));
    let shown = text(shown.head.bytes());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.starts_with("GET /a?token=1 HTTP/1.1\r\nHost: a\r\nAuthorization: redacted-"));
    let token = redactor(&[]).token(b"hunter2");
    assert!(
        shown.contains(&format!(
            "Cookie: s={token}; t={token}\r\nx-api-key: {token}\r\nX-Other: seen\r\n\r\n"
        )),
        "{shown}"
    );
    let response = answer(200, "Set-Cookie: s=hunter2; Path=/; Secure\r\n", b"hi");
    let shown = redactor(&[]).response(&response);
    assert_eq!(
        text(shown.head.bytes()),
        format!(
            "HTTP/1.1 200 X\r\nSet-Cookie: s={token}; Path=/; Secure\r\nContent-Length: 2\r\n\r\n"
        )
    );
    assert_eq!(&shown.body.wire[..], b"hi");
}

#[test]
fn what_was_asked_for() {
    let redactor = redactor(&["body.user.email", "token", "header.x-tenant"]);
    let head = "POST /a?x=1&token=hunter2&y=2 HTTP/1.1\r\nX-Tenant: hunter2\r\nContent-Length: 75\r\nContent-Type: application/json\r\n\r\n";
    let body =
        r#"{"user": {"email": "hunter2", "name": "a"}, "list": [{"token": [1, "hunter2"]}]}"#;
    let shown = redactor.request(&Arc::new(request(head, body)));
    let token = redactor.token(b"hunter2");
    let list = redactor.token(br#"[1,"hunter2"]"#);
    let expected = format!(
        r#"{{"user": {{"email": "{token}", "name": "a"}}, "list": [{{"token": "{list}"}}]}}"#
    );
    assert_eq!(text(&shown.body.wire), expected);
    assert_eq!(
        text(shown.head.bytes()),
        format!(
            "POST /a?x=1&token={token}&y=2 HTTP/1.1\r\nX-Tenant: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            expected.len()
        )
    );
    let head = "POST /a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 17\r\n\r\n";
    let shown = redactor.request(&Arc::new(request(head, "a=1&token=hunter2")));
    assert_eq!(text(&shown.body.wire), format!("a=1&token={token}"));
}

#[test]
fn every_other_byte_of_json_stays() {
    let redactor = redactor(&["email", "body.list"]);
    let token = redactor.token(b"S");
    let list = redactor.token(br#"[1.50,{"a":2}]"#);
    for (body, expected) in [
        (
            "\u{feff}{ \"b\" : 1.50 ,\n\"email\":\"S\", \"a\":\"\\u00e9\\/\" } ",
            format!("\u{feff}{{ \"b\" : 1.50 ,\n\"email\":\"{token}\", \"a\":\"\\u00e9\\/\" }} "),
        ),
        (
            r#"{"email":"S","email":"\u0053","a":1,"a":2}"#,
            format!(r#"{{"email":"{token}","email":"{token}","a":1,"a":2}}"#),
        ),
        (
            r#"{"z":{"email":"S"},"list":[1.50, {"a":1,"a": 2}],"a":12345678901234567890123}"#,
            format!(r#"{{"z":{{"email":"{token}"}},"list":"{list}","a":12345678901234567890123}}"#),
        ),
        (
            r#"[{"email" :null},{"a":{"email":  "S"}}]"#,
            format!(r#"[{{"email" :null}},{{"a":{{"email":  "{token}"}}}}]"#),
        ),
    ] {
        let fields = "Content-Type: application/json\r\n";
        let shown = redactor.response(&answer(200, fields, body.as_bytes()));
        assert_eq!(text(&shown.body.wire), expected);
    }
}

#[test]
fn coded_bodies() {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"token":"hunter2","a":1}"#).unwrap();
    let response = answer(
        200,
        "Content-Encoding: gzip\r\n",
        &encoder.finish().unwrap(),
    );
    let redactor = redactor(&["token"]);
    let shown = redactor.response(&response);
    let token = redactor.token(b"hunter2");
    assert_eq!(
        text(&shown.body.wire),
        format!(r#"{{"token":"{token}","a":1}}"#)
    );
    assert_eq!(shown.head.fields().get("content-encoding"), None);
    // What cannot be looked into is not shown.
    let shown = redactor.response(&answer(200, "Content-Encoding: compress\r\n", b"hunter2"));
    assert_eq!(text(&shown.body.wire), token);
    // Unless nothing in a body was asked to be hidden.
    let shown = super::Redactor::new([7; 32], Vec::new()).response(&answer(
        200,
        "Content-Encoding: compress\r\n",
        b"hunter2",
    ));
    assert_eq!(text(&shown.body.wire), "hunter2");
}

#[test]
fn bodies_that_cannot_be_looked_into() {
    let redactor = redactor(&["password"]);
    let token = |body: &str| redactor.token(body.as_bytes());
    for (media_type, body, is_shown) in [
        ("application/json", r#"{"a":1,"password":"hunt"#, false),
        ("application/json", r#"er2","a":1}"#, false),
        ("text/plain", r#" {"password":"hunter2"}{"a":1}"#, false),
        ("multipart/form-data; boundary=a", "--a\r\n", false),
        (
            "application/soap+xml",
            "<password>hunter2</password>",
            false,
        ),
        ("text/event-stream", "data: {}\n\n", false),
        ("text/plain", "nothing has a name here", true),
        ("text/plain", "a=1&Password=hunter2", false),
        ("application/yaml", "a: 1\npassword: hunter2\n", false),
        (
            "text/html",
            "<input name='password' value='hunter2'>",
            false,
        ),
        (
            "application/javascript",
            "f({\"password\":\"hunter2\"})",
            false,
        ),
        ("image/png", "\u{89}PNG\0password", true),
        ("image/png", "\u{89}PNG", true),
        ("application/json", r#"{"a":1}"#, true),
    ] {
        let fields = format!("Content-Type: {media_type}\r\n");
        let shown = redactor.response(&answer(200, &fields, body.as_bytes()));
        let expected = if is_shown {
            body.to_owned()
        } else {
            token(body)
        };
        assert_eq!(text(&shown.body.wire), expected, "{media_type}: {body}");
    }
}

#[test]
fn trailers_are_fields_too() {
    let mut response = answer(200, "", b"");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    response.head = ResponseHead::parse(Bytes::from(head)).unwrap();
    let chunked = |trailer: &str| Body {
        framing: Framing::Chunked,
        wire: Bytes::from(format!("2\r\nhi\r\n0\r\n{trailer}\r\n")),
        missing: 0,
    };
    response.body = chunked("Digest: a\r\n");
    let shown = redactor(&[]).response(&response);
    assert_eq!(shown.body.wire, response.body.wire);
    for (fields, trailer) in [
        (&[][..], "x-API-key: hunter2\r\n"),
        (&["header.digest"], "Digest: hunter2\r\n"),
        (&["email", "header.digest"], "Digest: hunter2\r\n"),
    ] {
        response.body = chunked(trailer);
        let shown = redactor(fields).response(&response);
        assert_eq!(text(&shown.body.wire), "hi", "{trailer}");
        assert_eq!(
            text(shown.head.bytes()),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        );
    }
}

#[test]
fn differences_are_shown_as_tokens() {
    let difference = |field: &str| Difference {
        field: field.into(),
        named: None,
        kind: crate::compare::DifferenceKind::Value,
        v1: Some("hunter2".to_owned()),
        v2: Some("hunter3".to_owned()),
    };
    let redactor = redactor(&["body.user"]);
    for field in ["header.x-api-key", "body.user.email", "body.user"] {
        let shown = redactor.difference(&difference(field));
        assert_eq!(shown.v1, Some(redactor.token(b"hunter2")), "{field}");
        assert_eq!(shown.v2, Some(redactor.token(b"hunter3")), "{field}");
    }
    let seen = difference("body.price");
    assert_eq!(redactor.difference(&seen), seen);
}

/// The secret in what version 1 has, wherever two answers differ.
fn shown_differences(fields: &[&str], head: &str, v1: &str, v2: &str) -> String {
    let redactor = redactor(fields);
    let request = request("GET /a HTTP/1.1\r\n\r\n", "");
    let (v1, v2) = (
        answer(200, head, v1.as_bytes()),
        answer(200, "", v2.as_bytes()),
    );
    let rules = crate::compare::Rules::default();
    let found = crate::compare::differences(&request, &v1, &v2, &rules).expect("small");
    assert!(!found.is_empty());
    let shown = found.iter().map(|it| redactor.difference(it));
    shown.map(|it| format!("{it:?}\n")).collect()
}

#[test]
fn differences_show_no_secret_that_their_field_does_not_name() {
    let with = |member: &str, number: usize| {
        let members: Vec<String> = (0..number).map(|i| format!("\"m{i}x\":{i}")).collect();
        format!("{{\"{member}\":\"hunter2\",{}}}", members.join(","))
    };
    let reduced = with("email", 9).replace("hunter2", "");
    for (v1, v2) in [
        // Not compared as JSON, so that the field is the body.
        (with("email", 9), "<p>sorry</p>".to_owned()),
        (with("email", 9), String::new()),
        (with("email", 9)[..30].to_owned(), "{\"a".to_owned()),
        // More members than are told apart.
        (
            with("email", 100),
            with("email", 100).replace("hunter2", "x"),
        ),
        (with("email", 200), "{}".to_owned()),
        (with("email", 9), reduced),
    ] {
        let shown = shown_differences(&["email"], "", &v1, &v2);
        assert!(!shown.contains("hunter2"), "{v1} {v2}: {shown}");
    }
    // JSON in a text in JSON.
    let inner = |secret: &str| format!(r#"{{"log":"{{\"email\":\"{secret}\"}}"}}"#);
    let shown = shown_differences(&["email"], "", &inner("hunter2"), &inner("hunter3"));
    assert!(!shown.contains("hunter"), "{shown}");
    let location = "Location: /cb?code=hunter2&x=1\r\n";
    let shown = shown_differences(&["query.code"], location, "", "");
    assert!(
        !shown.contains("hunter2") && shown.contains("&x=1"),
        "{shown}"
    );
    // What nobody asked to hide is there to be seen.
    let shown = shown_differences(&["query.code"], "", "one", "two");
    assert!(shown.contains("one"), "{shown}");
}

#[test]
fn links_hold_queries_too() {
    let redactor = redactor(&["query.code", "access_token"]);
    let token = redactor.token(b"hunter2");
    let head =
        "GET / HTTP/1.1\r\nReferer: https://a/b?code=hunter2&x=1\r\nX-Other: ?code=seen\r\n\r\n";
    let shown = redactor.request(&Arc::new(request(head, "")));
    assert_eq!(
        text(shown.head.bytes()),
        format!(
            "GET / HTTP/1.1\r\nReferer: https://a/b?code={token}&x=1\r\nX-Other: ?code=seen\r\n\r\n"
        )
    );
    // What only queries are asked of leaves bodies alone that are no JSON.
    let shown = super::Redactor::new([7; 32], vec!["query.code".parse().unwrap()]);
    let shown = shown.response(&answer(200, "Content-Type: text/xml\r\n", b"<a>code</a>"));
    assert_eq!(text(&shown.body.wire), "<a>code</a>");
    let link = "Link: </b?code=hunter2&x=1>; rel=next\r\nRefresh: 5; url=/c?code=hunter2\r\n";
    let shown = redactor.response(&answer(200, link, b""));
    let shown = text(shown.head.bytes());
    assert!(
        !shown.contains("hunter2") && shown.contains("&x=1>; rel=next"),
        "{shown}"
    );
    let location = "Location: https://a/cb?x=1#access_token=hunter2&code=hunter2\r\n";
    let shown = redactor.response(&answer(302, location, b""));
    let location = shown.head.fields().get("location").map(text);
    let expected = format!("https://a/cb?x=1#access_token={token}&code={token}");
    assert_eq!(location, Some(expected));
}

#[test]
fn names_of_every_spelling() {
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (pattern, fields, body) in [
        ("größe", "", "{\"a\":[{\"größe\":\"hunter2\"}]}"),
        ("body.e mail", "", "{\"e mail\":\"hunter2\"}"),
        ("@id", "", "{\"@id\":\"hunter2\"}"),
        ("card-1234", "", "{\"card-1234\":\"hunter2\"}"),
        ("password", form, "user[password]=hunter2"),
        ("password", form, "user%5Bpassword%5D=hunter2&x=1"),
        ("body.user.password", form, "user%5Bpassword%5D=hunter2"),
        ("password", form, "users%5B%5D%5Bpassword%5D=hunter2"),
        ("pass word", form, "pass+word=hunter2"),
        ("password", "", "{\"a\":{\"Password\":\"hunter2\"}}"),
        (
            "body.user.passWord",
            "",
            "{\"User\":{\"PASSWORD\":\"hunter2\"}}",
        ),
        ("pass word", "", "{\"Pass Word\":\"hunter2\"}"),
        ("password", form, "Password=hunter2"),
        (
            "token",
            "",
            "{\"next\":\"https://a/b?page=2&token=hunter2\"}",
        ),
        ("query.token", "", "[\"/b?token=hunter2#x\"]"),
        ("token", "", r#"{"log":"{\"Token\":\"hunter2\"}"}"#),
        ("body.*word", "", "it is my password: hunter2"),
    ] {
        let redactor = redactor(&[pattern]);
        let shown = redactor.response(&answer(200, fields, body.as_bytes()));
        let shown = text(&shown.body.wire);
        assert!(!shown.contains("hunter2"), "{body}: {shown}");
    }
    let head = "GET /?user%5Btoken%5D=hunter2&y=2 HTTP/1.1\r\n\r\n";
    let shown = redactor(&["query.user.token"]).request(&Arc::new(request(head, "")));
    assert!(!text(shown.head.bytes()).contains("hunter2"));
}

proptest! {
    #[test]
    fn no_secret_survives(secret in "[a-z0-9]{12,20}", other in "[a-z0-9 ]{0,20}") {
        let redactor = redactor(&["password"]);
        let head = format!("POST /?password={secret} HTTP/1.1\r\nauthorization: {secret}\r\nCOOKIE: a={secret}\r\nContent-Length: 1\r\n\r\n");
        let body = serde_json::json!({"a": [{"password": secret, "b": other}]}).to_string();
        let shown = redactor.request(&Arc::new(request(&head, &body)));
        prop_assert!(!text(shown.head.bytes()).contains(&secret));
        prop_assert!(!text(&shown.body.wire).contains(&secret));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&shown.body.wire).is_ok());
        // Equal stays equal.
        prop_assert_eq!(redactor.token(secret.as_bytes()), redactor.token(secret.as_bytes()));
    }

    #[test]
    fn no_message_panics(fields in "([a-zA-Z-]{1,8}: [ -~]{0,20}\r\n){0,5}", body in any::<Vec<u8>>()) {
        let response = answer(200, &fields, &body);
        let _ = redactor(&["a", "body.b", "header.c"]).response(&response);
    }
}
