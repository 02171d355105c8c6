//! What a person reads at the end: the account, and the table of exchanges.

mod comparison;
mod endpoints;
mod junit;

use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

pub(crate) use self::comparison::named;
pub use self::comparison::{Shown, verdict};
pub use self::endpoints::EndpointTable;
pub use self::junit::junit;
use crate::account::{Account, Counter, Reason, Stage};
use crate::exchange::{Completeness, Exchange};
use crate::metrics::{STATUS_CLASSES, status_class};
use crate::time::Timestamp;

/// How the replays to one target went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetSummary {
    /// The target as the user wrote it.
    pub name: String,
    /// Answers by the first digit of their status; index 0 is anything outside 100 to 599.
    pub by_class: [u64; 6],
    /// What was offered, answered, and left out.
    pub account: Account,
    /// Median and 99th percentile of the time that an answer took, if there was any.
    pub took: Option<(Duration, Duration)>,
    /// Median, 99th percentile and maximum of how much later than due requests left, if any did.
    pub late: Option<[Duration; 3]>,
}

impl TargetSummary {
    /// Replays that were tried without an answer, and those that were not tried.
    #[must_use]
    pub fn failed_and_skipped(&self) -> (u64, u64) {
        let mut sums = (0, 0);
        for &reason in Reason::ALL {
            if reason.stage() == Stage::Replay {
                let dropped = self.account.dropped(reason);
                if is_failure(reason) {
                    sums.0 += dropped;
                } else {
                    sums.1 += dropped;
                }
            }
        }
        sums
    }
}

/// Whether a replay that ended for this reason was tried.
#[must_use]
pub const fn is_failure(reason: Reason) -> bool {
    use Reason::*;
    matches!(
        reason,
        StoppedUnanswered
            | ResolveFailed
            | ConnectFailed
            | ConnectTimeout
            | ConnectionLost
            | FirstByteTimeout
            | AnswerTimeout
            | AnswerMalformed
            | AnswerCut
    )
}

/// The account for a person: what came in, what went on, and what left early under which name.
#[must_use]
pub fn account(account: &Account, targets: &[TargetSummary]) -> String {
    use Counter::*;
    let get = |counter| account.get(counter);
    let mut text = String::from("The account\n");
    let mut line = |name: &str, number: u64, more: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<12}{:>12}   {more}", grouped(number));
    };
    line(
        "packets",
        get(Packets),
        format!("{} on the wire", bytes(get(PacketBytes))),
    );
    line(
        "segments",
        get(Segments),
        format!(
            "{} with new data, {} control",
            grouped(get(SegmentsData)),
            grouped(get(SegmentsControl))
        ),
    );
    line(
        "connections",
        get(Connections),
        format!(
            "{} HTTP/1, {} TLS, {} HTTP/2, {} other, {} silent",
            grouped(get(ConnectionsHttp1)),
            grouped(get(ConnectionsTls)),
            grouped(get(ConnectionsHttp2)),
            grouped(get(ConnectionsOther)),
            grouped(get(ConnectionsSilent))
        ),
    );
    line(
        "requests",
        get(Requests),
        format!("{} whole", grouped(get(RequestsWhole))),
    );
    line(
        "answers",
        get(Responses),
        format!("{} whole and paired", grouped(get(ResponsesWhole))),
    );
    if get(Gaps) > 0 || get(Conflicts) > 0 || get(Desynchronised) > 0 {
        line(
            "gaps",
            get(Gaps),
            format!(
                "{} missing; {} conflicting retransmissions; framing lost {} times",
                bytes(get(GapBytes)),
                grouped(get(Conflicts)),
                grouped(get(Desynchronised))
            ),
        );
    }
    if get(RecordsOffered) > 0 {
        line(
            "recorded",
            get(RecordsWritten),
            format!("of {}", grouped(get(RecordsOffered))),
        );
    }
    if get(ComparesOffered) > 0 {
        line(
            "judged",
            get(ComparesJudged),
            format!("of {}", grouped(get(ComparesOffered))),
        );
    }
    if get(Messages) > 0 {
        line(
            "messages",
            get(MessagesEmitted),
            format!("of {} to the outputs", grouped(get(Messages))),
        );
    }
    if get(MiddlewareStarts) > 0 {
        let added = match get(MiddlewareAdded) {
            0 => String::new(),
            added => format!(", {} of them its own", grouped(added)),
        };
        line(
            "middleware",
            get(MiddlewareReturned),
            format!(
                "returned of {} given{added}; started {} times",
                grouped(get(MiddlewareOffered)),
                grouped(get(MiddlewareStarts))
            ),
        );
    }
    if get(EgressCalls) > 0 {
        line(
            "called",
            get(EgressCalls),
            format!(
                "outgoing calls of version 1, {} told to the mock",
                grouped(get(EgressFed))
            ),
        );
    }
    if get(MockCalls) > 0 {
        line(
            "mocked",
            get(MockAnswered),
            format!(
                "of {} calls of version 2: exact {}, normalised {}, sequence {}, passed through {}",
                grouped(get(MockCalls)),
                grouped(get(MockExact)),
                grouped(get(MockNormalised)),
                grouped(get(MockSequence)),
                grouped(get(MockPassedThrough)),
            ),
        );
    }
    let differing = get(SideEffectsMissing) + get(SideEffectsExtra) + get(SideEffectsChanged);
    if get(SideEffectsSame) + differing > 0 {
        line(
            "side effects",
            differing,
            format!(
                "of version 2 differ: {} missing, {} extra, {} changed; {} are the same",
                grouped(get(SideEffectsMissing)),
                grouped(get(SideEffectsExtra)),
                grouped(get(SideEffectsChanged)),
                grouped(get(SideEffectsSame)),
            ),
        );
    }
    for target in targets {
        let (failed, skipped) = target.failed_and_skipped();
        let classes: Vec<String> = STATUS_CLASSES
            .iter()
            .zip([1, 2, 3, 4, 5, 0].map(|class: usize| target.by_class[class]))
            .filter(|&(_, count)| count > 0)
            .map(|(class, count)| format!("{class} {}", grouped(count)))
            .collect();
        let mut more = format!(
            "of {} to {}",
            grouped(target.account.get(ReplaysOffered)),
            target.name
        );
        if !classes.is_empty() {
            more += &format!(": {}", classes.join(", "));
        }
        more += &format!("; {} failed, {} skipped", grouped(failed), grouped(skipped));
        if let Some((median, slow)) = target.took {
            more += &format!("; median {}, p99 {}", latency(median), latency(slow));
        }
        if let Some([median, slow, most]) = target.late.map(|late| late.map(latency)) {
            more += &format!("; left late by {median}, p99 {slow}, at most {most}");
        }
        line("replayed", target.account.get(ReplaysAnswered), more);
    }
    text.push_str(&losses(account));
    text
}

/// The two lists of what left early: losses, and what was rightly left aside.
fn losses(account: &Account) -> String {
    let mut text = String::new();
    for (title, intentional) in [("Lost", false), ("Left aside", true)] {
        let reasons: Vec<Reason> = Reason::ALL
            .iter()
            .copied()
            .filter(|reason| reason.intentional() == intentional && account.dropped(*reason) > 0)
            .collect();
        if reasons.is_empty() {
            if !intentional {
                text.push_str("Lost: nothing\n");
            }
            continue;
        }
        text.push_str(title);
        text.push('\n');
        for reason in reasons {
            let _ = writeln!(
                text,
                "  {:<12}{:>12}   {}: {}",
                reason.stage().name(),
                grouped(account.dropped(reason)),
                reason.name(),
                reason.meaning()
            );
        }
    }
    text
}

/// The account as JSON: every counter, every loss that happened, every target.
#[must_use]
pub fn account_json(account: &Account, targets: &[TargetSummary]) -> Value {
    let counters: serde_json::Map<String, Value> = Counter::ALL
        .iter()
        .map(|&counter| (counter.name().to_owned(), json!(account.get(counter))))
        .collect();
    let dropped: Vec<Value> = Reason::ALL
        .iter()
        .filter(|&&reason| account.dropped(reason) > 0)
        .map(|&reason| {
            json!({
                "stage": reason.stage().name(),
                "reason": reason.name(),
                "count": account.dropped(reason),
                "intentional": reason.intentional(),
            })
        })
        .collect();
    let targets: Vec<Value> = targets
        .iter()
        .map(|target| {
            let (failed, skipped) = target.failed_and_skipped();
            json!({
                "target": target.name,
                "offered": target.account.get(Counter::ReplaysOffered),
                "answered": target.account.get(Counter::ReplaysAnswered),
                "failed": failed,
                "skipped": skipped,
                "late_us": target.late.map(|late| late.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX))),
                "by_class": {
                    "1xx": target.by_class[1],
                    "2xx": target.by_class[2],
                    "3xx": target.by_class[3],
                    "4xx": target.by_class[4],
                    "5xx": target.by_class[5],
                    "other": target.by_class[0],
                },
            })
        })
        .collect();
    json!({ "counters": counters, "dropped": dropped, "targets": targets })
}

/// The sums below a table of exchanges.
pub struct Totals {
    exchanges: u64,
    by_class: [u64; STATUS_CLASSES.len()],
    unanswered: u64,
    sent: u64,
    received: u64,
    took: Histogram<u64>,
}

impl Totals {
    /// Of no exchange.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exchanges: 0,
            by_class: [0; STATUS_CLASSES.len()],
            unanswered: 0,
            sent: 0,
            received: 0,
            took: Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds")),
        }
    }

    /// Adds an exchange.
    pub fn add(&mut self, exchange: &Exchange) {
        self.exchanges += 1;
        if let Some(request) = &exchange.request {
            self.sent += request.body.content().len() as u64;
        }
        match &exchange.response {
            Some(response) => {
                self.by_class[status_class(response.head.status())] += 1;
                self.received += response.body.content().len() as u64;
            }
            None => self.unanswered += 1,
        }
        if let Some(took) = took(exchange) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.took.saturating_record(micros);
        }
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exchanges", grouped(self.exchanges))?;
        let classes = STATUS_CLASSES.iter().zip(self.by_class);
        let unanswered = ("without answer", self.unanswered);
        let counts = classes.map(|(&class, count)| (class, count));
        let counts = counts.chain([unanswered]).filter(|&(_, count)| count > 0);
        for (index, (name, count)) in counts.enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{name} {}", grouped(count))?;
        }
        write!(
            f,
            "; bodies {} sent, {} received",
            bytes(self.sent),
            bytes(self.received)
        )?;
        if !self.took.is_empty() {
            let at = |quantile| Duration::from_micros(self.took.value_at_quantile(quantile));
            write!(
                f,
                "; median {}, p99 {}",
                latency(at(0.5)),
                latency(at(0.99))
            )?;
        }
        Ok(())
    }
}

/// From the first byte of the request to the last of the answer, if there are both.
fn took(exchange: &Exchange) -> Option<Duration> {
    let request = exchange.request.as_ref()?;
    let response = exchange.response.as_ref()?;
    Some(response.last_byte.since(request.first_byte))
}

/// The heading of the table of exchanges.
#[must_use]
pub fn exchange_heading() -> String {
    format!(
        "{:<23} {:<21} {:<7} {:>6} {:>9} {:>9} {:>10}  TARGET",
        "TIME (UTC)", "CLIENT", "METHOD", "STATUS", "SENT", "RECEIVED", "LATENCY"
    )
}

/// One exchange as a line of the table; sizes are those of the bodies.
#[must_use]
pub fn exchange_line(exchange: &Exchange) -> String {
    let request = exchange.request.as_deref();
    let response = exchange.response.as_ref();
    let dash = || "-".to_owned();
    let time = request
        .map(|request| request.first_byte)
        .or_else(|| response.map(|response| response.first_byte))
        .unwrap_or_default();
    let took = took(exchange).map_or_else(dash, latency);
    let size = |body: &crate::http1::Body| body.content().len().to_string();
    let mut line = format!(
        "{:<23} {:<21} {:<7} {:>6} {:>9} {:>9} {:>10}  {}",
        date_and_time(time),
        exchange.endpoints.client,
        request.map_or_else(dash, |request| printable(request.head.method())),
        response.map_or_else(dash, |response| response.head.status().to_string()),
        request.map_or_else(dash, |request| size(&request.body)),
        response.map_or_else(dash, |response| size(&response.body)),
        took,
        request.map_or_else(dash, |request| printable(request.head.target())),
    );
    let parts = [
        ("request", request.map(|request| request.completeness)),
        ("response", response.map(|response| response.completeness)),
    ];
    for (side, completeness) in parts {
        if let Some(Completeness::Incomplete(reason)) = completeness {
            let _ = write!(line, "  [{side} not whole: {reason}]");
        }
    }
    line
}

/// Bytes from the wire as text that cannot act on a terminal: anything but printable ASCII is escaped.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// Text that may have come from the wire, as [`printable`] shows bytes, but with the letters and digits of all scripts, and with
/// the mark of what was cut short.
#[must_use]
pub fn printable_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        if character == '…' || !character.is_ascii() && character.is_alphanumeric() {
            shown.push(character);
        } else {
            shown.push_str(&printable(character.encode_utf8(&mut buffer).as_bytes()));
        }
    }
    shown
}

/// A duration as a person reads it, with three digits that count.
#[must_use]
pub fn latency(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", duration.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

/// A number with its thousands set apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes as a person reads it.
#[must_use]
pub fn bytes(number: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if number >= 1 << shift {
            let tenths = (u128::from(number) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{number} B")
}

/// `2023-11-14 22:13:20.123`, in UTC.
fn date_and_time(time: Timestamp) -> String {
    let text = crate::record::rfc3339::format(time);
    match (text.get(..10), text.get(11..19)) {
        (Some(date), Some(clock)) => {
            let (_, nanos) = time.as_secs_nanos();
            format!("{date} {clock}.{:03}", nanos / 1_000_000)
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_the_wire_acts_on_a_terminal() {
        assert_eq!(printable(b"/a?b=c d"), "/a?b=c d");
        assert_eq!(
            printable(b"\x1b[31m\r\n\x9b\\"),
            "\\x1b[31m\\x0d\\x0a\\x9b\\\\"
        );
        for byte in 0..=255u8 {
            assert!(
                printable(&[byte])
                    .bytes()
                    .all(|b| b.is_ascii_graphic() || b == b' ')
            );
        }
    }

    #[test]
    fn text_keeps_its_letters_and_acts_on_no_terminal() {
        assert_eq!(printable_text("543 µs, café, 価格"), "543 µs, café, 価格");
        // A command to the terminal, one of those with a single character, and one that turns the direction of writing.
        assert_eq!(
            printable_text("\u{1b}[31m\u{9b}\u{202e}\\"),
            "\\x1b[31m\\xc2\\x9b\\xe2\\x80\\xae\\\\"
        );
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1_500), "1.4 KiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(latency(Duration::from_micros(90)), "90 µs");
        assert_eq!(latency(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(latency(Duration::from_micros(41_239)), "41.2 ms");
        assert_eq!(latency(Duration::from_secs(2)), "2.00 s");
    }

    #[test]
    fn dates_read_well() {
        let time = Timestamp::from_nanos(1_700_000_000_123_456_789);
        assert_eq!(date_and_time(time), "2023-11-14 22:13:20.123");
    }

    #[test]
    fn the_account_as_a_person_sees_it() {
        let mut all = Account::new();
        all.add(Counter::Packets, 1234);
        all.add(Counter::PacketBytes, 1_500_000);
        all.add(Counter::Segments, 1200);
        all.add(Counter::SegmentsControl, 800);
        all.add(Counter::SegmentsData, 398);
        all.add(Counter::Requests, 100);
        all.add(Counter::RequestsWhole, 99);
        all.drop_n(Reason::NotIp, 34);
        all.drop_n(Reason::Duplicate, 2);
        all.drop(Reason::RequestGap);
        let mut replays = Account::new();
        replays.add(Counter::ReplaysOffered, 99);
        replays.add(Counter::ReplaysAnswered, 97);
        replays.drop(Reason::ConnectFailed);
        replays.drop(Reason::Marked);
        all.merge(&replays);
        let target = TargetSummary {
            name: "http://v2".to_owned(),
            by_class: [0, 0, 90, 0, 7, 0],
            account: replays,
            took: Some((Duration::from_micros(800), Duration::from_millis(12))),
            late: Some([90, 400, 1500].map(Duration::from_micros)),
        };
        let expected = "\
The account
  packets            1,234   1.4 MiB on the wire
  segments           1,200   398 with new data, 800 control
  connections            0   0 HTTP/1, 0 TLS, 0 HTTP/2, 0 other, 0 silent
  requests             100   99 whole
  answers                0   0 whole and paired
  replayed              97   of 99 to http://v2: 2xx 90, 4xx 7; 1 failed, 1 skipped; median 800 µs, p99 12.0 ms; left late by 90 µs, p99 400 µs, at most 1.50 ms
Lost
  request                1   request_gap: Bytes of the request were not captured.
  replay                 1   connect_failed: The target refused the connection or was unreachable.
Left aside
  packet                34   not_ip: Not IP: ARP, LLDP, 802.11 management …
  segment                2   duplicate: Every byte was known already.
  replay                 1   marked: Carries the shadow marker: it is a replay already.
";
        assert_eq!(account(&all, &[target]), expected);
    }
}
