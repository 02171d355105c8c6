//! What sidecars tell a mock: JSON lines, `POST /mock/feed?sidecar=NAME`.
//!
//! ```text
//! {"shadowtap":"begin","exchange":"0000000000000011","endpoint":"POST /orders","trace":"4bf9…"}   a request is replayed
//! {"shadowtap":"call","of":["0000000000000011"]}     whose the exchange in the next line is
//! {"client":…,"server":…,"method":"POST",…}          a call of version 1, in the form of a .jsonl recording
//! {"shadowtap":"done","exchange":"0000000000000011"}                        version 1 has answered
//! {"shadowtap":"replayed","exchange":"0000000000000011","answered":true}    version 2 has, or has not
//! {"shadowtap":"lost","of":["0000000000000011"]}     a call in it was not seen whole; without names, news of any were lost
//! ```
//!
//! The order of lines is that of events. A line that is an exchange alone is a call that belongs to nobody known.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::exchange::Exchange;
use crate::mock::shadow::Settled;
use crate::record::jsonl::{self, Detail, Lines};

/// One piece of news.
#[derive(Clone, Debug)]
pub enum News {
    /// Version 1 got a request, which is about to be replayed.
    Begin {
        /// The exchange.
        exchange: u64,
        /// `POST /orders`.
        endpoint: String,
        /// Its trace, if it has one.
        trace: Option<String>,
    },
    /// Version 1 made a call.
    Call {
        /// The call and what came back.
        exchange: Box<Exchange>,
        /// The exchange that it belongs to, or those that it may belong to.
        of: Vec<u64>,
    },
    /// Version 1 has answered: it calls nobody for that exchange any more.
    Done {
        /// The exchange.
        exchange: u64,
    },
    /// Something that version 1 did was not seen, or its news were lost: nothing can be said about these exchanges.
    Lost {
        /// The exchanges; none for every one that has begun.
        of: Vec<u64>,
    },
    /// The replay is over.
    Replayed {
        /// The exchange.
        exchange: u64,
        /// Whether version 2 answered.
        answered: bool,
    },
}

/// What the mock says to a feed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Taken {
    /// Lines that were taken.
    pub taken: u64,
    /// Lines that could not be read.
    pub refused: u64,
    /// What is wrong with the first of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wrong: Option<String>,
    /// Names this run of the mock; another one has forgotten everything.
    pub run: String,
    /// Results of the sidecar's own exchanges that are still to come.
    #[serde(default)]
    pub unsettled: u64,
    /// Side effects of the sidecar's own exchanges, settled since it asked last.
    pub settled: Vec<Settled>,
}

impl News {
    /// Appends the lines of this news.
    pub fn append(&self, out: &mut Vec<u8>) {
        let line = match self {
            Self::Begin {
                exchange,
                endpoint,
                trace,
            } => json!({
                "shadowtap": "begin", "exchange": name(*exchange), "endpoint": endpoint, "trace": trace,
            }),
            Self::Call { of, .. } => {
                let of: Vec<String> = of.iter().copied().map(name).collect();
                json!({ "shadowtap": "call", "of": of })
            }
            Self::Lost { of } => {
                let of: Vec<String> = of.iter().copied().map(name).collect();
                json!({ "shadowtap": "lost", "of": of })
            }
            Self::Done { exchange } => json!({ "shadowtap": "done", "exchange": name(*exchange) }),
            Self::Replayed { exchange, answered } => json!({
                "shadowtap": "replayed", "exchange": name(*exchange), "answered": answered,
            }),
        };
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
        if let Self::Call { exchange, .. } = self {
            jsonl::append_exchange(out, exchange, Detail::Recording);
        }
    }
}

fn name(exchange: u64) -> String {
    format!("{exchange:016x}")
}

#[derive(Deserialize)]
struct Line {
    shadowtap: Option<String>,
    exchange: Option<String>,
    #[serde(default)]
    endpoint: String,
    trace: Option<String>,
    #[serde(default)]
    of: Vec<String>,
    #[serde(default)]
    answered: bool,
}

/// Reads the lines of a feed; what is wrong with a line costs that line.
pub fn read(lines: &[u8]) -> impl Iterator<Item = Result<News, String>> {
    let mut owners = Vec::new();
    lines
        .split(|&byte| byte == b'\n')
        .zip(1..)
        .filter(|(line, _)| !line.trim_ascii().is_empty())
        .filter_map(move |(line, number): (&[u8], u64)| {
            read_line(line, &mut owners)
                .map_err(|wrong| format!("line {number}: {wrong}"))
                .transpose()
        })
}

fn read_line(text: &[u8], owners: &mut Vec<u64>) -> Result<Option<News>, String> {
    let of = std::mem::take(owners);
    let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let id = |text: &str| {
        u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} does not name an exchange"))
    };
    let exchange = || match &line.exchange {
        Some(text) => id(text),
        None => Err("\"exchange\" is missing".to_owned()),
    };
    Ok(Some(match line.shadowtap.as_deref() {
        Some("call") => {
            *owners = line.of.iter().map(|it| id(it)).collect::<Result<_, _>>()?;
            return Ok(None);
        }
        Some("lost") => News::Lost {
            of: line.of.iter().map(|it| id(it)).collect::<Result<_, _>>()?,
        },
        Some("begin") => News::Begin {
            exchange: exchange()?,
            endpoint: line.endpoint,
            trace: line.trace,
        },
        Some("done") => News::Done {
            exchange: exchange()?,
        },
        Some("replayed") => News::Replayed {
            exchange: exchange()?,
            answered: line.answered,
        },
        Some(other) => return Err(format!("{other:?} is no news that this version knows")),
        None => {
            let exchange = match Lines::new(text).next_exchange() {
                Some(Ok(exchange)) => exchange,
                Some(Err(damage)) => return Err(damage.to_string()),
                None => return Ok(None),
            };
            News::Call {
                exchange: Box::new(exchange),
                of,
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_read_back_as_it_was_written() {
        let lines = concat!(
            r#"{"client":"10.0.0.1:4000","server":"10.0.0.7:80","method":"POST","target":"/charges","version":"HTTP/1.1","#,
            r#""request_headers":[["Host","payment"]],"request_body_b64":"e30=","status":201,"reason":"Created","#,
            r#""response_headers":[],"response_body_b64":"eHl6"}"#
        );
        let Some(Ok(News::Call { exchange, of })) = read(lines.as_bytes()).next() else {
            panic!("an exchange alone is a call");
        };
        assert!(of.is_empty());
        let news = [
            News::Begin {
                exchange: 17,
                endpoint: "POST /orders".to_owned(),
                trace: Some("abc".to_owned()),
            },
            News::Call {
                exchange,
                of: vec![17, 18],
            },
            News::Lost { of: vec![18] },
            News::Done { exchange: 17 },
            News::Replayed {
                exchange: 17,
                answered: true,
            },
        ];
        let mut text = Vec::new();
        for one in &news {
            one.append(&mut text);
        }
        let again: Vec<News> = read(&text).map(Result::unwrap).collect();
        let mut text_again = Vec::new();
        for one in &again {
            one.append(&mut text_again);
        }
        assert_eq!(again.len(), 5);
        // Identifiers are given anew by a reader; everything else is the same.
        let without_id = |text: &[u8]| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            regex::Regex::new(r#""id":"[0-9a-f]*""#)
                .unwrap()
                .replace_all(&text, "")
                .into_owned()
        };
        assert_eq!(without_id(&text), without_id(&text_again));
    }

    #[test]
    fn a_wrong_line_costs_that_line() {
        let text = b"{\"shadowtap\":\"dance\"}\nnot json\n{\"shadowtap\":\"done\"}\n{\"shadowtap\":\"done\",\"exchange\":\"x\"}\n\n{\"shadowtap\":\"done\",\"exchange\":\"1f\"}\n";
        let told: Vec<_> = read(text)
            .map(|it| it.map(|news| format!("{news:?}")))
            .collect();
        assert_eq!(told.len(), 5);
        assert_eq!(told[4].as_deref(), Ok("Done { exchange: 31 }"));
        for (line, wrong) in told[..4].iter().zip([
            "line 1: \"dance\"",
            "line 2: ",
            "line 3: \"exchange\" is missing",
            "line 4: \"x\" does not name",
        ]) {
            let error = line.as_ref().unwrap_err();
            assert!(error.starts_with(wrong), "{error}");
        }
    }
}
