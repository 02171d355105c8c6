use super::*;
use crate::exchange::{
    Completeness, ConnectionId, Doubts, Endpoints, ExchangeId, Request, Response,
};
use crate::http1::{Body, Framing, RequestHead, ResponseHead};
use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};

const NO_FIELDS: &dyn Fn(&str) -> Option<String> = &|_| None;

fn body(content: &str) -> Body {
    Body {
        framing: Framing::Length(content.len() as u64),
        wire: content.to_owned().into(),
        missing: 0,
    }
}

/// What version 1 called, and what it got.
fn exchange(line: &str, content: &str, answer: Option<&str>) -> Exchange {
    let endpoints = Endpoints {
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        server: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
    };
    let head = format!(
        "{line} HTTP/1.1\r\nHost: payment\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    let request = Request {
        id: ExchangeId(1),
        connection: ConnectionId(1),
        endpoints,
        first_byte: Timestamp::ZERO,
        last_byte: Timestamp::ZERO,
        head: RequestHead::parse(head.into()).unwrap(),
        body: body(content),
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    };
    let response = answer.map(|answer| Response {
        first_byte: Timestamp::from_nanos(3_000_000),
        last_byte: Timestamp::from_nanos(3_000_000),
        interim: Vec::new(),
        head: ResponseHead::parse(
            "HTTP/1.1 201 Created\r\nX-Receipt: yes\r\nConnection: close\r\n\r\n".into(),
        )
        .unwrap(),
        body: body(answer),
        doubts: Doubts::default(),
        completeness: Completeness::Whole,
    });
    Exchange {
        connection: ConnectionId(1),
        endpoints,
        request: Some(Arc::new(request)),
        response,
    }
}

fn call(line: &str, content: &str, trace: Option<&str>) -> Call {
    let (method, target) = line.split_once(' ').unwrap();
    Call::new(
        method,
        "payment",
        target,
        content.to_owned().into(),
        trace.map(Arc::from),
        &Ignored::default(),
    )
}

fn key(exchange: u64) -> ExchangeKey {
    ExchangeKey {
        sidecar: "pod-1".into(),
        exchange,
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn unfed() -> Mock {
    Mock::new(MockConfig {
        is_fed: false,
        ..MockConfig::default()
    })
}

/// The level and the body of the answer at `now` to a call that came at `came`; nothing while it has to wait.
fn told(decision: &Decision) -> (&'static str, String) {
    match decision {
        Decision::Answer { answer, level, .. } => {
            let body = answer.as_ref().map_or("no answer".into(), |answer| {
                String::from_utf8_lossy(&answer.body).into_owned()
            });
            (level.name(), body)
        }
        Decision::Wait(_) => ("wait", String::new()),
        Decision::Miss(miss) => ("miss", miss.why.clone()),
    }
}

fn ask(mock: &mut Mock, call: Call, now: Timestamp) -> (&'static str, String) {
    let mut asked = mock.asked(call, None, now);
    let decision = mock.answer(&mut asked, NO_FIELDS, now);
    if let Decision::Wait(_) = decision {
        mock.leave(&asked, Left::CallerGone);
    }
    told(&decision)
}

fn balanced(mock: Mock) -> Account {
    let account = mock.finish();
    assert_eq!(account.check(), Ok(()), "{account:?}");
    account
}

#[test]
fn every_level_from_recordings() {
    for (called, level) in [
        (r#"{"order_id":17,"amount":100}"#, "exact"),
        (r#"{ "amount": 100, "order_id": 17 }"#, "normalised"),
        (
            r#"{"order_id":17,"amount":100,"created_at":"2026-01-02T03:04:05Z"}"#,
            "normalised",
        ),
        (r#"{"order_id":18,"amount":100}"#, "normalised"),
        (r#"{"order_id":17,"amount":101}"#, "miss"),
    ] {
        let mut mock = unfed();
        let made = r#"{"order_id":17,"amount":100}"#;
        mock.learn(exchange("POST /charges", made, Some("receipt 17")), vec![]);
        let (found, said) = ask(&mut mock, call("POST /charges", called, None), at(1));
        assert_eq!(found, level, "{called}: {said}");
        if level == "miss" {
            assert!(
                said.contains("body.amount is 101, version 1 had 100"),
                "{said}"
            );
        } else {
            assert_eq!(said, "receipt 17");
        }
        balanced(mock);
    }
}

#[test]
fn identical_calls_get_the_answers_in_order_and_then_the_last_again() {
    let mut mock = unfed();
    for answer in ["pending", "pending still", "done"] {
        mock.learn(exchange("GET /status", "", Some(answer)), vec![]);
    }
    for answer in ["pending", "pending still", "done", "done"] {
        let told = ask(&mut mock, call("GET /status", "", None), at(1));
        assert_eq!(told, ("sequence", answer.to_owned()));
    }
    balanced(mock);
}

#[test]
fn of_calls_that_are_alike_but_for_ids_the_nearest_answers() {
    let mut mock = unfed();
    for order in [16, 17, 18] {
        let made = format!(
            r#"{{"order_id":{order},"amount":100,"ref":"1b671a64-40d5-491e-99b0-da01ff1f33{order}"}}"#
        );
        let receipt = format!("receipt {order}");
        mock.learn(exchange("POST /charges", &made, Some(&receipt)), vec![]);
    }
    let called = r#"{"order_id":17,"amount":100,"ref":"7d444840-9dc0-11d1-b245-5ffdce74fad2"}"#;
    let told = ask(&mut mock, call("POST /charges", called, None), at(1));
    assert_eq!(told, ("normalised", "receipt 17".to_owned()));
}

#[test]
fn what_version_1_got_no_answer_to_has_none() {
    let mut mock = unfed();
    mock.learn(exchange("POST /charges", "x", None), vec![]);
    let told = ask(&mut mock, call("POST /charges", "x", None), at(1));
    assert_eq!(told, ("exact", "no answer".to_owned()));
}

#[test]
fn a_miss_says_what_is_known() {
    let mut mock = unfed();
    let (_, said) = ask(&mut mock, call("GET /a", "", None), at(1));
    assert!(said.contains("nothing is known yet"), "{said}");
    mock.learn(exchange("GET /items/7", "", Some("x")), vec![]);
    let (_, said) = ask(&mut mock, call("GET /a", "", None), at(1));
    assert!(said.contains("GET payment /items/{id}"), "{said}");
    let elsewhere = Call::new(
        "GET",
        "stock",
        "/a",
        Bytes::new(),
        None,
        &Ignored::default(),
    );
    let (_, said) = ask(&mut mock, elsewhere, at(1));
    assert!(
        said.contains("did not call \"stock\"; it called payment"),
        "{said}"
    );
    assert_eq!(balanced(mock).dropped(Reason::MockMiss), 3);
}

#[test]
fn the_answer_of_the_same_exchange_is_preferred() {
    let mut mock = Mock::new(MockConfig::default());
    for order in [17, 18] {
        mock.shadows_mut()
            .begin(key(order), "POST /orders", Some(format!("t{order}").into()));
    }
    for order in [17, 18] {
        let receipt = format!("receipt {order}");
        // All charges look the same: only the trace tells.
        let made = exchange("POST /charges", "the same", Some(&receipt));
        mock.learn(made, vec![key(order)]);
    }
    for order in [18, 17] {
        let trace = format!("t{order}");
        let told = ask(
            &mut mock,
            call("POST /charges", "the same", Some(&trace)),
            at(1),
        );
        assert_eq!(told, ("exact", format!("receipt {order}")));
    }
}

#[test]
fn without_a_trace_the_open_replay_tells() {
    let mut mock = Mock::new(MockConfig::default());
    for order in [17, 18] {
        mock.shadows_mut().begin(key(order), "POST /orders", None);
        let receipt = format!("receipt {order}");
        mock.learn(
            exchange("POST /charges", "the same", Some(&receipt)),
            vec![key(order)],
        );
    }
    mock.shadows_mut().replayed(&key(17), true, at(1));
    let told = ask(&mut mock, call("POST /charges", "the same", None), at(2));
    assert_eq!(told, ("exact", "receipt 18".to_owned()));
}

#[test]
fn a_call_waits_for_version_1_to_make_its_own() {
    let mut mock = Mock::new(MockConfig::default());
    mock.shadows_mut()
        .begin(key(17), "POST /orders", Some("t17".into()));
    let mut asked = mock.asked(call("POST /charges", "x", Some("t17")), None, at(0));
    let decision = mock.answer(&mut asked, NO_FIELDS, at(0));
    assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
    assert!(!mock.has_news(&asked));
    mock.learn(
        exchange("POST /charges", "x", Some("receipt")),
        vec![key(17)],
    );
    assert!(mock.has_news(&asked));
    let decision = mock.answer(&mut asked, NO_FIELDS, at(700));
    assert_eq!(told(&decision), ("exact", "receipt".to_owned()));
    balanced(mock);
}

#[test]
fn news_that_come_late_still_tell_whose_a_call_is() {
    for trace in [Some("t17"), None] {
        let mut mock = Mock::new(MockConfig::default());
        mock.shadows_mut().begin(key(16), "POST /orders", None);
        let mut asked = mock.asked(call("POST /charges", "x", trace), None, at(0));
        for now in [0, 150, 900] {
            let decision = mock.answer(&mut asked, NO_FIELDS, at(now));
            assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
        }
        let known = trace.map(Arc::from);
        mock.shadows_mut().begin(key(17), "POST /orders", known);
        mock.learn(
            exchange("POST /charges", "x", Some("receipt")),
            vec![key(17)],
        );
        assert!(mock.has_news(&asked));
        let decision = mock.answer(&mut asked, NO_FIELDS, at(1000));
        assert_eq!(told(&decision), ("exact", "receipt".to_owned()));
        mock.shadows_mut().done(&key(17), at(1000));
        mock.shadows_mut().replayed(&key(17), true, at(1000));
        mock.shadows_mut().settle(at(3000));
        let sums: Vec<_> = mock.shadows().sums().collect();
        assert_eq!((sums[0].same, sums[0].missing, sums[0].extra), (1, 0, 0));
    }
}

#[test]
fn the_wait_ends_when_version_1_is_done_or_the_time_is_over() {
    for (done, at_end) in [(true, 300), (false, 2000)] {
        let mut mock = Mock::new(MockConfig::default());
        mock.shadows_mut()
            .begin(key(17), "POST /orders", Some("t17".into()));
        let mut asked = mock.asked(call("POST /charges", "x", Some("t17")), None, at(0));
        for now in [0, 299] {
            let decision = mock.answer(&mut asked, NO_FIELDS, at(now));
            assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
        }
        if done {
            mock.shadows_mut().done(&key(17), at(300));
            assert!(mock.has_news(&asked));
        }
        let decision = mock.answer(&mut asked, NO_FIELDS, at(at_end));
        assert!(matches!(decision, Decision::Miss(_)), "{decision:?}");
        assert_eq!(balanced(mock).dropped(Reason::MockMiss), 1);
    }
}

#[test]
fn another_orders_answer_is_not_given_while_the_right_one_may_come() {
    let mut mock = Mock::new(MockConfig::default());
    for order in [17, 18] {
        mock.shadows_mut()
            .begin(key(order), "POST /orders", Some(format!("t{order}").into()));
    }
    let made = |order: u64| {
        exchange(
            "POST /charges",
            &format!(r#"{{"order_id":{order}}}"#),
            Some(&format!("receipt {order}")),
        )
    };
    mock.learn(made(17), vec![key(17)]);
    let called = call("POST /charges", r#"{"order_id":18}"#, Some("t18"));
    let mut asked = mock.asked(called, None, at(0));
    let decision = mock.answer(&mut asked, NO_FIELDS, at(500));
    assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
    mock.learn(made(18), vec![key(18)]);
    let decision = mock.answer(&mut asked, NO_FIELDS, at(600));
    assert_eq!(told(&decision), ("exact", "receipt 18".to_owned()));
    // Of a charge that version 1 never made in that exchange, another's receipt is not given at all.
    mock.shadows_mut().done(&key(17), at(600));
    let called = call("POST /charges", r#"{"order_id":19}"#, Some("t17"));
    assert_eq!(ask(&mut mock, called.clone(), at(700)).0, "normalised");
    assert_eq!(ask(&mut mock, called, at(700)).0, "normalised");
    mock.shadows_mut()
        .begin(key(20), "POST /orders", Some("t20".into()));
    mock.shadows_mut().done(&key(20), at(800));
    let called = call("POST /charges", r#"{"order_id":20}"#, Some("t20"));
    assert_eq!(ask(&mut mock, called, at(900)).0, "miss");
}

#[test]
fn a_second_charge_is_answered_and_counted_as_extra() {
    let mut mock = Mock::new(MockConfig::default());
    mock.shadows_mut()
        .begin(key(17), "POST /orders", Some("t17".into()));
    mock.learn(
        exchange("POST /charges", "x", Some("receipt")),
        vec![key(17)],
    );
    mock.shadows_mut().done(&key(17), at(0));
    let charge = || call("POST /charges", "x", Some("t17"));
    assert_eq!(ask(&mut mock, charge(), at(1)).0, "exact");
    assert_eq!(
        ask(&mut mock, charge(), at(2)),
        ("sequence", "receipt".to_owned())
    );
    mock.shadows_mut().replayed(&key(17), true, at(3));
    mock.shadows_mut().settle(at(2003));
    let settled: Vec<_> = mock.shadows().settled(Some("pod-1"), 0).collect();
    assert_eq!(settled.len(), 1);
    let effect = &settled[0].calls[0];
    assert_eq!(effect.call, "POST payment /charges");
    assert_eq!((effect.same, effect.extra), (1, 1));
    assert_eq!(
        effect.example.as_deref(),
        Some("POST payment /charges once more")
    );
    assert_eq!(mock.shadows().settled(Some("pod-2"), 0).count(), 0);
    balanced(mock);
}

#[test]
fn a_charge_of_another_amount_is_changed_and_not_answered() {
    let mut mock = Mock::new(MockConfig::default());
    mock.shadows_mut()
        .begin(key(17), "POST /orders", Some("t17".into()));
    let made = exchange("POST /charges", r#"{"amount":100}"#, Some("receipt"));
    mock.learn(made, vec![key(17)]);
    mock.shadows_mut().done(&key(17), at(0));
    let charge = call("POST /charges", r#"{"amount":119}"#, Some("t17"));
    assert_eq!(ask(&mut mock, charge, at(1)).0, "miss");
    mock.shadows_mut().replayed(&key(17), true, at(3));
    mock.shadows_mut().settle(at(2003));
    let sums: Vec<_> = mock.shadows().sums().collect();
    assert_eq!(
        [
            sums[0].same,
            sums[0].missing,
            sums[0].extra,
            sums[0].changed
        ],
        [0, 0, 0, 1]
    );
    let example = sums[0].example.as_deref().unwrap_or_default();
    assert!(
        example.contains("body.amount is 119, version 1 had 100"),
        "{example}"
    );
}

#[test]
fn memory_is_bounded_and_the_oldest_go() {
    let mut mock = Mock::new(MockConfig {
        memory: 64 << 10,
        is_fed: false,
        ..MockConfig::default()
    });
    for number in 0..1000 {
        let line = format!("GET /items?n={number}");
        mock.learn(exchange(&line, "", Some("x")), vec![]);
        assert!(mock.held().1 <= 64 << 10);
    }
    let held = mock.held().0 as u64;
    assert!(held > 10 && held < 1000);
    assert_eq!(
        ask(&mut mock, call("GET /items?n=0", "", None), at(1)).0,
        "miss"
    );
    assert_eq!(
        ask(&mut mock, call("GET /items?n=999", "", None), at(1)).0,
        "exact"
    );
    let account = balanced(mock);
    assert_eq!(account.dropped(Reason::StubEvicted), 1000 - held);
    assert_eq!(account.dropped(Reason::StubHeldAtEnd), held);
}

#[test]
fn a_thousand_orders_in_flight_each_get_their_own_receipt() {
    let mut mock = Mock::new(MockConfig::default());
    let orders = 0..1000u64;
    let charge = |order: u64| format!(r#"{{"order":{order},"amount":100}}"#);
    for order in orders.clone() {
        mock.shadows_mut().begin(key(order), "POST /orders", None);
    }
    let mut asked: Vec<Asked> = orders
        .clone()
        .map(|order| mock.asked(call("POST /charges", &charge(order), None), None, at(0)))
        .collect();
    for asked in &mut asked {
        let decision = mock.answer(asked, NO_FIELDS, at(0));
        assert!(matches!(decision, Decision::Wait(_)));
    }
    for order in orders.clone().rev() {
        let receipt = format!("receipt {order}");
        mock.learn(
            exchange("POST /charges", &charge(order), Some(&receipt)),
            vec![],
        );
    }
    for (order, asked) in orders.zip(&mut asked) {
        assert!(mock.has_news(asked));
        let decision = mock.answer(asked, NO_FIELDS, at(200));
        assert_eq!(told(&decision), ("exact", format!("receipt {order}")));
    }
    balanced(mock);
}

#[test]
fn sidecars_with_the_same_ids_are_kept_apart() {
    let mut mock = Mock::new(MockConfig::default());
    let of = |sidecar: &str| ExchangeKey {
        sidecar: sidecar.into(),
        exchange: 1,
    };
    for sidecar in ["pod-1", "pod-2"] {
        mock.shadows_mut()
            .begin(of(sidecar), "POST /orders", Some(sidecar.into()));
        mock.learn(
            exchange("POST /charges", "x", Some(sidecar)),
            vec![of(sidecar)],
        );
    }
    for sidecar in ["pod-2", "pod-1"] {
        let told = ask(&mut mock, call("POST /charges", "x", Some(sidecar)), at(1));
        assert_eq!(told, ("exact", sidecar.to_owned()));
    }
}

#[test]
fn written_stubs_come_first_and_scenarios_move_on() {
    let mut mock = unfed();
    mock.learn(exchange("GET /status", "", Some("learnt")), vec![]);
    let mappings = json!({"mappings": [
        {"scenarioName": "s", "requiredScenarioState": "Started", "newScenarioState": "two",
         "request": {"method": "GET", "url": "/status"}, "response": {"body": "one"}},
        {"scenarioName": "s", "requiredScenarioState": "two", "newScenarioState": "three",
         "request": {"method": "GET", "urlPathPattern": "/sta.*"}, "response": {"jsonBody": 2}},
    ]});
    let ids: Vec<StubId> = wiremock::read(&mappings)
        .unwrap()
        .into_iter()
        .map(|written| mock.write(written))
        .collect();
    for answer in ["one", "2", "learnt"] {
        let told = ask(&mut mock, call("GET /status", "", None), at(1));
        assert_eq!(told, ("exact", answer.to_owned()));
    }
    assert!(mock.remove(ids[0]));
    assert!(!mock.remove(ids[0]));
    assert_eq!(mock.clear(), 2);
    assert_eq!(balanced(mock).dropped(Reason::StubRemoved), 3);
}

#[test]
fn wiremock_mappings_fit_what_they_ask_for() {
    let field = |name: &str| (name == "x-tenant").then(|| "blue".to_owned());
    let base = || call("POST /pay/7?b=2&a=1", r#"{"a":[1,2],"b":{"c":true}}"#, None);
    for (request, fits) in [
        (json!({}), true),
        (json!({"method": "ANY"}), true),
        (json!({"method": "PUT"}), false),
        (json!({"url": "/pay/7?a=1&b=2"}), true),
        (json!({"url": "/pay/7?a=1&b=3"}), false),
        (json!({"url": "/pay/7?a=1"}), false),
        (json!({"url": "/pay/7"}), false),
        (json!({"urlPathTemplate": "/pay/{number}"}), true),
        (json!({"urlPathTemplate": "/{what}"}), false),
        (json!({"urlPath": "/pay/7"}), true),
        (json!({"urlPathPattern": "/pay/[0-9]+"}), true),
        (json!({"urlPathPattern": "/pay"}), false),
        (json!({"urlPattern": "/pay/7.*"}), true),
        (json!({"host": {"equalTo": "Payment:80"}}), true),
        (json!({"host": {"equalTo": "stock"}}), false),
        (json!({"queryParameters": {"a": {"equalTo": "1"}}}), true),
        (json!({"queryParameters": {"z": {"absent": true}}}), true),
        (json!({"queryParameters": {"a": {"absent": true}}}), false),
        (
            json!({"headers": {"X-Tenant": {"equalTo": "BLUE", "caseInsensitive": true}}}),
            true,
        ),
        (
            json!({"headers": {"X-Tenant": {"doesNotMatch": "b.*"}}}),
            false,
        ),
        (json!({"bodyPatterns": [{"contains": "true"}]}), true),
        (
            json!({"bodyPatterns": [{"equalToJson": {"b": {"c": true}, "a": [1, 2]}}]}),
            true,
        ),
        (
            json!({"bodyPatterns": [{"equalToJson": {"a": [2, 1]}}]}),
            false,
        ),
        (
            json!({"bodyPatterns": [{"equalToJson": "{\"a\":[2,1]}", "ignoreArrayOrder": true, "ignoreExtraElements": true}]}),
            true,
        ),
    ] {
        let mapping = json!({"request": request, "response": {"status": 201}});
        let written = wiremock::read(&mapping).unwrap();
        assert_eq!(written[0].pattern.fits(&base(), &field), fits, "{request}");
    }
    for (mapping, wrong) in [
        (json!({"request": {}}), "\"response\" is missing"),
        (
            json!({"request": {"urlPathTemplate": "/a/{b"}, "response": {}}),
            "a brace is open",
        ),
        (
            json!({"request": {"cookies": {}}, "response": {}}),
            "request.cookies is not supported",
        ),
        (
            json!([{"request": {}, "response": {"fault": "EMPTY_RESPONSE"}}]),
            "mapping 1: response.fault is not supported",
        ),
        (
            json!({"request": {"urlPattern": "("}, "response": {}}),
            "\"(\"",
        ),
        (json!(7), "neither a mapping"),
    ] {
        let error = wiremock::read(&mapping).err().unwrap_or_default();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn what_wiremock_exports_is_read_and_its_parameters_are_decoded() {
    let exported = json!({"mappings": [{
        "id": "8c5db8b0-2db4-4ad7-a99f-38c9b00da3f7", "uuid": "8c5db8b0-2db4-4ad7-a99f-38c9b00da3f7",
        "persistent": true, "insertionIndex": 3,
        "request": {"method": "GET", "urlPath": "/find", "queryParameters": {"q": {"equalTo": "tea & cake"}}},
        "response": {"status": 200, "body": "found", "headers": {"Content-Type": "text/plain"}},
    }], "meta": {"total": 1}});
    let mut mock = unfed();
    for written in wiremock::read(&exported).unwrap() {
        mock.write(written);
    }
    for line in ["GET /find?q=tea%20%26%20cake", "GET /find?q=tea+%26+cake"] {
        let told = ask(&mut mock, call(line, "", None), at(1));
        assert_eq!(told, ("exact", "found".to_owned()), "{line}");
    }
    let (_, said) = ask(&mut mock, call("GET /find?q=tea", "", None), at(1));
    assert!(said.contains("no written stub fits"), "{said}");
    // And the other way: what version 1 called is exported as WireMock compares it.
    let mut first = unfed();
    first.learn(exchange("GET /find?q=a%20b", "", Some("x")), vec![]);
    let exported = wiremock::write(first.written(), first.stubs());
    let query = &exported["mappings"][0]["request"]["queryParameters"];
    assert_eq!(query["q"]["equalTo"], "a b");
}

#[test]
fn exported_mappings_read_back_give_the_same_answers() {
    let mut first = unfed();
    first.learn(exchange("GET /status?a=1", "", Some("pending")), vec![]);
    first.learn(exchange("GET /status?a=1", "", Some("done")), vec![]);
    first.learn(exchange("POST /pay", r#"{"a":1}"#, Some("paid")), vec![]);
    let exported = wiremock::write(first.written(), first.stubs());
    let mut second = unfed();
    for written in wiremock::read(&exported).unwrap() {
        second.write(written);
    }
    for (line, content, answer) in [
        ("GET /status?a=1", "", "pending"),
        ("POST /pay", r#"{ "a": 1 }"#, "paid"),
        ("GET /status?a=1", "", "done"),
        ("GET /status?a=1", "", "done"),
    ] {
        let told = ask(&mut second, call(line, content, None), at(1));
        assert_eq!(told, ("exact", answer.to_owned()), "{line}");
    }
    assert_eq!(
        ask(&mut second, call("POST /pay", "{}", None), at(1)).0,
        "miss"
    );
}
