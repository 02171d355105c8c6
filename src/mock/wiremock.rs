//! WireMock's mappings, in JSON: read as written stubs, written from every stub.
//!
//! What a mapping asks for and this mock cannot do is an error that names it; nothing is left out in silence.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::call::{Digest, plain_host};
use super::store::STARTED;
use super::stub::{
    Answer, BodyPattern, Pattern, Scenario, Stub, StubId, Text, Written, decoded, is_sent_anew,
};

/// Reads one mapping, a list of them, or `{"mappings": […]}`.
///
/// # Errors
/// What is wrong with which mapping.
pub fn read(value: &Value) -> Result<Vec<Written>, String> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        Value::Object(members) => match members.get("mappings") {
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err("\"mappings\" is not a list".to_owned()),
            None => std::slice::from_ref(value),
        },
        _ => return Err("neither a mapping, a list of them, nor {\"mappings\": [...]}".to_owned()),
    };
    list.iter()
        .zip(1..)
        .map(|(mapping, number)| {
            read_one(mapping).map_err(|wrong| format!("mapping {number}: {wrong}"))
        })
        .collect()
}

fn read_one(mapping: &Value) -> Result<Written, String> {
    let members = object(mapping, "a mapping")?;
    only(
        members,
        &[
            "id",
            "uuid",
            "name",
            "request",
            "response",
            "priority",
            "scenarioName",
            "requiredScenarioState",
            "newScenarioState",
            "persistent",
            "metadata",
            // What WireMock adds when it exports.
            "insertionIndex",
        ],
        "a mapping",
    )?;
    let request = members.get("request").ok_or("\"request\" is missing")?;
    let response = members.get("response").ok_or("\"response\" is missing")?;
    let priority = match members.get("priority") {
        None => 5,
        Some(priority) => priority
            .as_u64()
            .and_then(|priority| u32::try_from(priority).ok())
            .ok_or("\"priority\" is not a number from 1 up")?,
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Written {
        pattern: read_request(object(request, "\"request\"")?)?,
        answer: Arc::new(read_response(object(response, "\"response\"")?)?),
        priority,
        scenario: text("scenarioName").map(|name| Scenario {
            name,
            required: text("requiredScenarioState"),
            next: text("newScenarioState"),
        }),
        used: 0,
        source: mapping.clone(),
    })
}

fn read_request(members: &Map<String, Value>) -> Result<Pattern, String> {
    let mut pattern = Pattern::default();
    for (name, value) in members {
        let text = || {
            value
                .as_str()
                .ok_or_else(|| format!("request.{name} is not a text"))
        };
        match name.as_str() {
            "method" => {
                let method = text()?;
                pattern.method = (method != "ANY").then(|| method.to_owned());
            }
            "url" => {
                // As a set, like every query.
                let (path, query) = text()?.split_once('?').unwrap_or((text()?, ""));
                pattern.path = Some(Text::Equal(path.to_owned()));
                pattern.is_whole_query = true;
                for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                    let value = Text::Equal(value.into_owned());
                    pattern.query.push((name.into_owned(), value));
                }
            }
            "urlPath" => pattern.path = Some(Text::Equal(text()?.to_owned())),
            "urlPathPattern" => pattern.path = Some(Text::Matches(regex(text()?)?)),
            "urlPathTemplate" => pattern.path = Some(Text::Matches(template(text()?)?)),
            "urlPattern" => pattern.url = Some(Text::Matches(regex(text()?)?)),
            "host" => pattern.host = Some(host(read_text(value, "request.host")?)),
            "queryParameters" => {
                for (name, value) in object(value, "request.queryParameters")? {
                    let value = read_text(value, &format!("queryParameters.{name}"))?;
                    pattern.query.push((name.clone(), value));
                }
            }
            "headers" => {
                for (name, value) in object(value, "request.headers")? {
                    let value = read_text(value, &format!("headers.{name}"))?;
                    let name = name.to_ascii_lowercase();
                    if name == "host" {
                        pattern.host = Some(host(value));
                    } else {
                        pattern.fields.push((name, value));
                    }
                }
            }
            "bodyPatterns" => {
                let list = value.as_array().ok_or("request.bodyPatterns is no list")?;
                for wanted in list {
                    pattern.body.push(read_body(wanted)?);
                }
            }
            other => {
                return Err(format!(
                    "request.{other} is not supported; known are method, url, urlPath, urlPattern, urlPathPattern, urlPathTemplate, host, \
                     queryParameters, headers and bodyPatterns"
                ));
            }
        }
    }
    Ok(pattern)
}

/// A host is compared without the port that the scheme means.
fn host(text: Text) -> Text {
    match text {
        Text::Equal(host) | Text::EqualIgnoringCase(host) => Text::Equal(plain_host(&host)),
        other => other,
    }
}

fn read_text(value: &Value, place: &str) -> Result<Text, String> {
    let members = object(value, place)?;
    let ignores_case = members.get("caseInsensitive") == Some(&Value::Bool(true));
    let mut found = None;
    for (name, value) in members {
        let text = || {
            value
                .as_str()
                .ok_or_else(|| format!("{place}.{name} is not a text"))
        };
        found = Some(match name.as_str() {
            "caseInsensitive" => continue,
            "equalTo" if ignores_case => Text::EqualIgnoringCase(text()?.to_owned()),
            "equalTo" => Text::Equal(text()?.to_owned()),
            "contains" => Text::Contains(text()?.to_owned()),
            "matches" => Text::Matches(regex(text()?)?),
            "doesNotMatch" => Text::DoesNotMatch(regex(text()?)?),
            "absent" => Text::Absent,
            other => {
                return Err(format!(
                    "{place}.{other} is not supported; known are equalTo, contains, matches, doesNotMatch and absent"
                ));
            }
        });
    }
    found.ok_or_else(|| format!("{place} asks for nothing"))
}

fn read_body(wanted: &Value) -> Result<BodyPattern, String> {
    let members = object(wanted, "a body pattern")?;
    if let Some(json) = members.get("equalToJson") {
        only(
            members,
            &["equalToJson", "ignoreArrayOrder", "ignoreExtraElements"],
            "a body pattern",
        )?;
        let is_set = |name: &str| members.get(name) == Some(&Value::Bool(true));
        // A text that holds JSON, or the JSON itself.
        let value = match json {
            Value::String(text) => serde_json::from_str(text)
                .map_err(|error| format!("equalToJson is no JSON: {error}"))?,
            other => other.clone(),
        };
        return Ok(BodyPattern::Json {
            value,
            any_order: is_set("ignoreArrayOrder"),
            more: is_set("ignoreExtraElements"),
        });
    }
    if let Some(Value::String(text)) = members.get("binaryEqualTo") {
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| format!("binaryEqualTo is no base64: {error}"))?;
        return Ok(BodyPattern::Bytes(bytes.into()));
    }
    read_text(wanted, "a body pattern").map(BodyPattern::Text)
}

fn read_response(members: &Map<String, Value>) -> Result<Answer, String> {
    let mut answer = Answer {
        status: 200,
        ..Answer::default()
    };
    for (name, value) in members {
        match name.as_str() {
            "status" => {
                answer.status = value
                    .as_u64()
                    .and_then(|status| u16::try_from(status).ok())
                    .filter(|status| (200..=599).contains(status))
                    .ok_or("response.status is not a number from 200 to 599")?;
            }
            "statusMessage" => {}
            "body" => {
                let text = value.as_str().ok_or("response.body is not a text")?;
                answer.body = Bytes::copy_from_slice(text.as_bytes());
            }
            "jsonBody" => answer.body = value.to_string().into(),
            "base64Body" => {
                let text = value.as_str().ok_or("response.base64Body is not a text")?;
                answer.body = STANDARD
                    .decode(text)
                    .map_err(|error| format!("response.base64Body is no base64: {error}"))?
                    .into();
            }
            "headers" => {
                for (name, value) in object(value, "response.headers")? {
                    // Recorded mappings have them, of an answer that was sent otherwise.
                    if is_sent_anew(&name.to_ascii_lowercase()) {
                        continue;
                    }
                    let values = match value {
                        Value::Array(values) => values.as_slice(),
                        one => std::slice::from_ref(one),
                    };
                    for value in values {
                        let value = value
                            .as_str()
                            .ok_or_else(|| format!("response.headers.{name} is not a text"))?;
                        let value = Bytes::copy_from_slice(value.as_bytes());
                        answer.fields.push((name.clone(), value));
                    }
                }
            }
            "fixedDelayMilliseconds" => {
                let millis = value.as_u64();
                answer.took = Duration::from_millis(
                    millis.ok_or("response.fixedDelayMilliseconds is no number")?,
                );
            }
            other => {
                return Err(format!(
                    "response.{other} is not supported; known are status, body, jsonBody, base64Body, headers and \
                     fixedDelayMilliseconds"
                ));
            }
        }
    }
    Ok(answer)
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{text})$")).map_err(|error| format!("{text:?}: {error}"))
}

/// `/contacts/{id}`: any segment stands for a name in braces.
fn template(text: &str) -> Result<Regex, String> {
    let mut pattern = String::new();
    let mut rest = text;
    while let Some((fixed, behind)) = rest.split_once('{') {
        let (_, behind) = behind
            .split_once('}')
            .ok_or_else(|| format!("{text:?}: a brace is open"))?;
        pattern += &regex::escape(fixed);
        pattern += "[^/]+";
        rest = behind;
    }
    pattern += &regex::escape(rest);
    regex(&pattern)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{what} is not an object"))
}

fn only(members: &Map<String, Value>, known: &[&str], what: &str) -> Result<(), String> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{what}: {name} is not supported")),
        None => Ok(()),
    }
}

/// Writes all stubs. Identical calls become the steps of a scenario; calls that version 1 got no answer to are left out.
#[must_use]
pub fn write<'a>(
    written: impl Iterator<Item = (StubId, &'a Written)>,
    stubs: impl Iterator<Item = (StubId, &'a Stub)>,
) -> Value {
    let mut mappings: Vec<Value> = written.map(|(_, it)| it.source.clone()).collect();
    let stubs: Vec<_> = stubs.filter(|(_, stub)| stub.answer.is_some()).collect();
    let mut alike: ahash::AHashMap<Digest, (usize, usize)> = ahash::AHashMap::new();
    for (_, stub) in &stubs {
        alike.entry(stub.call.keys.exact).or_default().0 += 1;
    }
    for (id, stub) in stubs {
        let Some(answer) = &stub.answer else { continue };
        let mut mapping = json!({
            "name": format!("stub {}", id.0),
            "request": request_of(stub),
            "response": response_of(answer),
        });
        if let Some((all, at)) = alike.get_mut(&stub.call.keys.exact)
            && *all > 1
        {
            let state = |at: usize| {
                if at == 0 {
                    STARTED.to_owned()
                } else {
                    format!("step {}", at + 1)
                }
            };
            let name: String = stub
                .call
                .keys
                .exact
                .map(|byte| format!("{byte:02x}"))
                .concat();
            mapping["scenarioName"] = name.into();
            mapping["requiredScenarioState"] = state(*at).into();
            // The last answer stays.
            if *at + 1 < *all {
                mapping["newScenarioState"] = state(*at + 1).into();
            }
            *at += 1;
        }
        mappings.push(mapping);
    }
    json!({ "mappings": mappings, "meta": { "total": mappings.len() } })
}

fn request_of(stub: &Stub) -> Value {
    let call = &stub.call;
    let mut request = json!({
        "method": call.method,
        "urlPath": call.path,
        "host": { "equalTo": call.host },
    });
    if !call.query.is_empty() {
        let query: Map<String, Value> = call
            .query
            .iter()
            .map(decoded)
            .map(|(name, value)| (name, json!({ "equalTo": value })))
            .collect();
        request["queryParameters"] = query.into();
    }
    if !call.body.is_empty() {
        let body = match (
            serde_json::from_slice::<Value>(&call.body),
            std::str::from_utf8(&call.body),
        ) {
            (Ok(value @ (Value::Object(_) | Value::Array(_))), _) => {
                json!({ "equalToJson": value })
            }
            (_, Ok(text)) => json!({ "equalTo": text }),
            _ => json!({ "binaryEqualTo": STANDARD.encode(&call.body) }),
        };
        request["bodyPatterns"] = json!([body]);
    }
    request
}

fn response_of(answer: &Answer) -> Value {
    let mut fields: Map<String, Value> = Map::new();
    for (name, value) in &answer.fields {
        let value = Value::String(String::from_utf8_lossy(value).into_owned());
        match fields.get_mut(name) {
            None => {
                fields.insert(name.clone(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    let mut response = json!({
        "status": answer.status,
        "headers": fields,
        "fixedDelayMilliseconds": u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
    });
    match std::str::from_utf8(&answer.body) {
        Ok(text) => response["body"] = text.into(),
        Err(_) => response["base64Body"] = STANDARD.encode(&answer.body).into(),
    }
    response
}
