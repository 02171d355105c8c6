//! `/mock/feed` and `/mock/api`.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::server::{Server, json_answer};
use crate::account::Counter;
use crate::app::feed::{self, News, Taken};
use crate::exchange::Joiner;
use crate::mock::shadow::ExchangeKey;
use crate::mock::stub::StubId;
use crate::mock::wiremock;
use crate::record::{Input, Reader, har_archive};

pub(super) fn handle(server: &Server, parts: &Parts, body: Bytes) -> Response {
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let method = parts.method.as_str();
    let outcome = match (method, path.trim_start_matches("/mock/")) {
        ("POST", "feed") => Ok(take_feed(server, query, &body)),
        ("GET", "api") => Ok(overview(server)),
        ("GET", "api/stubs") => Ok(list(server)),
        ("POST", "api/stubs" | "api/wiremock") => write(server, &body),
        ("DELETE", "api/stubs") => Ok(json!({ "removed": server.mock().clear() })),
        ("DELETE", other) if other.starts_with("api/stubs/") => {
            remove(server, other.trim_start_matches("api/stubs/"))
        }
        ("GET", "api/wiremock") => {
            let mock = server.mock();
            Ok(wiremock::write(mock.written(), mock.stubs()))
        }
        ("GET", "api/har") => return export_har(server),
        ("POST", "api/har") => import_har(server, body),
        ("GET", "api/side-effects") => Ok(side_effects(server, query)),
        _ => Err((
            StatusCode::NOT_FOUND,
            format!(
                "there is no {method} {path}; there are POST /mock/feed, GET /mock/api, GET, POST and DELETE /mock/api/stubs, \
             DELETE /mock/api/stubs/ID, GET and POST /mock/api/wiremock, GET and POST /mock/api/har, GET /mock/api/side-effects"
            ),
        )),
    };
    match outcome {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err((status, wrong)) => json_answer(status, &json!({ "error": wrong })),
    }
}

type Outcome = Result<Value, (StatusCode, String)>;

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(it, _)| *it == name)
        .map(|(_, value)| value)
}

fn take_feed(server: &Server, query: &str, body: &[u8]) -> Value {
    let sidecar: Arc<str> = parameter(query, "sidecar").unwrap_or("unnamed").into();
    let after = parameter(query, "after").and_then(|it| it.parse().ok());
    let key = |exchange: u64| ExchangeKey {
        sidecar: Arc::clone(&sidecar),
        exchange,
    };
    let mut taken = Taken {
        run: server.run.clone(),
        ..Taken::default()
    };
    let now = server.now();
    for news in feed::read(body) {
        let news = match news {
            Ok(news) => news,
            Err(wrong) => {
                taken.refused += 1;
                taken.wrong.get_or_insert(wrong);
                continue;
            }
        };
        taken.taken += 1;
        // Taken and given back for each, so that a long feed keeps no call waiting.
        let mut mock = server.mock();
        match news {
            News::Begin {
                exchange,
                endpoint,
                trace,
            } => mock
                .shadows_mut()
                .begin(key(exchange), &endpoint, trace.map(Arc::from)),
            News::Call { exchange, of } => {
                mock.learn(*exchange, of.into_iter().map(key).collect());
            }
            News::Lost { of } => {
                let of: Vec<ExchangeKey> = of.into_iter().map(key).collect();
                mock.shadows_mut().spoil(&sidecar, &of);
            }
            News::Done { exchange } => mock.shadows_mut().done(&key(exchange), now),
            News::Replayed { exchange, answered } => {
                mock.shadows_mut().replayed(&key(exchange), answered, now);
            }
        }
    }
    if taken.taken > 0 {
        server.tell();
    }
    if let Some(after) = after {
        let mut mock = server.mock();
        mock.shadows_mut().settle(now);
        let settled = mock.shadows().settled(Some(&sidecar), after);
        taken.settled = settled.take(MOST_SETTLED).cloned().collect();
        let more = mock.shadows().settled(Some(&sidecar), after).count() - taken.settled.len();
        taken.unsettled = mock.shadows().unsettled(&sidecar) + more as u64;
    }
    serde_json::to_value(taken).unwrap_or_default()
}

fn overview(server: &Server) -> Value {
    let account = server.beat();
    let mock = server.mock();
    let (stubs, bytes) = mock.held();
    let counted: serde_json::Map<String, Value> = [
        Counter::StubsOffered,
        Counter::MockCalls,
        Counter::MockAnswered,
        Counter::MockExact,
        Counter::MockNormalised,
        Counter::MockSequence,
        Counter::MockPassedThrough,
    ]
    .into_iter()
    .map(|counter| (counter.name().to_owned(), account.get(counter).into()))
    .collect();
    let dropped: serde_json::Map<String, Value> = crate::account::Reason::ALL
        .iter()
        .filter(|reason| account.dropped(**reason) > 0)
        .map(|reason| (reason.name().to_owned(), account.dropped(*reason).into()))
        .collect();
    json!({ "stubs": stubs, "bytes": bytes, "counted": counted, "dropped": dropped })
}

fn list(server: &Server) -> Value {
    let mock = server.mock();
    let written = mock.written().map(|(id, stub)| {
        json!({
            "id": id.0,
            "origin": "written",
            "mapping": stub.source,
            "status": stub.answer.status,
            "given": stub.used,
        })
    });
    let learnt = mock.stubs().map(|(id, stub)| {
        let of: Vec<String> = stub.owners.iter().map(ToString::to_string).collect();
        json!({
            "id": id.0,
            "origin": "version 1",
            "call": &*stub.call.endpoint,
            "path": stub.call.path,
            "query": stub.call.query,
            "body_len": stub.call.body.len(),
            "status": stub.answer.as_ref().map(|answer| answer.status),
            "given": stub.used,
            "of": of,
        })
    });
    Value::Array(written.chain(learnt).collect())
}

fn write(server: &Server, body: &[u8]) -> Outcome {
    let bad = |wrong: String| (StatusCode::BAD_REQUEST, wrong);
    let value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("not JSON: {error}")))?;
    let stubs = wiremock::read(&value).map_err(bad)?;
    let mut mock = server.mock();
    let ids: Vec<u64> = stubs.into_iter().map(|stub| mock.write(stub).0).collect();
    drop(mock);
    server.tell();
    Ok(json!({ "ids": ids }))
}

fn remove(server: &Server, id: &str) -> Outcome {
    let id: u64 = id.parse().map_err(|_| {
        let wrong = format!("{id:?} is not the number of a stub; GET /mock/api/stubs lists them");
        (StatusCode::BAD_REQUEST, wrong)
    })?;
    if server.mock().remove(StubId(id)) {
        Ok(json!({ "removed": 1 }))
    } else {
        let wrong = format!("there is no stub {id}; GET /mock/api/stubs lists them");
        Err((StatusCode::NOT_FOUND, wrong))
    }
}

fn export_har(server: &Server) -> Response {
    let archive = {
        let mock = server.mock();
        har_archive(mock.stubs().map(|(_, stub)| &*stub.source))
    };
    let mut response = Response::new(Body::from(archive));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn import_har(server: &Server, body: Bytes) -> Outcome {
    let bad = |wrong: String| (StatusCode::BAD_REQUEST, wrong);
    let input = Input::from_reader(Box::new(Cursor::new(body)), Path::new("import.har"))
        .map_err(|error| bad(error.to_string()))?;
    let mut reader = Reader::new(vec![input]).map_err(|error| bad(error.to_string()))?;
    let mut joiner = Joiner::new(1);
    let mut stubs = 0;
    for event in reader.by_ref() {
        if let Some(exchange) = joiner.push(event) {
            server.mock().learn(exchange, Vec::new());
            stubs += 1;
        }
    }
    server.tell();
    match reader.damage().first() {
        Some((_, damage)) if stubs == 0 => Err(bad(damage.to_string())),
        first => Ok(json!({
            "taken": stubs,
            "refused": reader.damaged(),
            "wrong": first.map(|(_, damage)| damage.to_string()),
        })),
    }
}

fn side_effects(server: &Server, query: &str) -> Value {
    let after = parameter(query, "after").and_then(|it| it.parse().ok());
    let now = server.now();
    let mut mock = server.mock();
    mock.shadows_mut().settle(now);
    let shadows = mock.shadows();
    let (exchanges, differing, unattributed) = shadows.counts();
    let sums: Vec<Value> = shadows
        .sums()
        .map(|sum| {
            let same = sum.is_same();
            let mut value = serde_json::to_value(sum).unwrap_or_default();
            value["differs"] = (!same).into();
            value
        })
        .collect();
    let settled: Vec<_> = shadows
        .settled(parameter(query, "sidecar"), after.unwrap_or(0))
        .filter(|it| after.is_some() || it.calls.iter().any(|call| !call.is_same()))
        .take(if after.is_some() {
            MOST_SETTLED
        } else {
            MOST_EXAMPLES
        })
        .collect();
    let mut value = json!({
        "exchanges": exchanges,
        "differing": differing,
        "unattributed": unattributed,
        "calls": sums,
    });
    let name = if after.is_some() {
        "settled"
    } else {
        "examples"
    };
    value[name] = serde_json::to_value(settled).unwrap_or_default();
    value
}

/// Results that are told at once.
const MOST_SETTLED: usize = 4096;

/// Exchanges with other side effects that are shown.
const MOST_EXAMPLES: usize = 20;
