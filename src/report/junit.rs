//! The verdict as CI systems read test results: JUnit's XML, one test for each endpoint and one for the whole.

use std::fmt::Write as _;

use crate::judge::{Decision, Standing, Verdict};

/// The verdict as a JUnit report. What is rejected has failed; what is open is skipped, or has failed too with
/// `open_fails`.
#[must_use]
pub fn junit(verdict: &Verdict, open_fails: bool) -> String {
    let mut cases = String::new();
    let (mut failed, mut skipped) = (0, 0);
    let mut case = |name: &str, result: Outcome, reasons: &[String]| {
        let reasons = reasons.join("; ");
        // Writing to a string cannot fail.
        let _ = write!(
            cases,
            "    <testcase classname=\"shadowtap\" name=\"{}\"",
            escaped(name)
        );
        let element = match result {
            Outcome::Passed => {
                cases.push_str("/>\n");
                return;
            }
            Outcome::Failed => {
                failed += 1;
                "failure"
            }
            Outcome::Skipped => {
                skipped += 1;
                "skipped"
            }
        };
        let _ = writeln!(
            cases,
            ">\n      <{element} message=\"{}\"/>\n    </testcase>",
            escaped(&reasons)
        );
    };
    let open = if open_fails {
        Outcome::Failed
    } else {
        Outcome::Skipped
    };
    let whole = match verdict.verdict {
        Decision::Promote => Outcome::Passed,
        Decision::Reject => Outcome::Failed,
        Decision::Continue => open,
    };
    case("verdict", whole, &verdict.reasons);
    for endpoint in &verdict.endpoints {
        let result = match endpoint.standing {
            Standing::Good => Outcome::Passed,
            Standing::Worse => Outcome::Failed,
            Standing::Open | Standing::Uncovered => open,
        };
        case(&endpoint.endpoint, result, &endpoint.reasons);
    }
    let tests = verdict.endpoints.len() + 1;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"shadowtap: {}\" tests=\"{tests}\" \
         failures=\"{failed}\" skipped=\"{skipped}\" errors=\"0\">\n{cases}  </testsuite>\n</testsuites>\n",
        verdict.verdict
    )
}

#[derive(Clone, Copy)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Text as it may stand in an attribute; what XML has no way to say is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::comparison::tests::rejected;
    use super::*;

    #[test]
    fn a_rejected_version() {
        let report = junit(&rejected(), false);
        assert!(
            report.contains("<testsuite name=\"shadowtap: reject\" tests=\"3\""),
            "{report}"
        );
        for name in ["verdict", "POST /orders", "GET /items"] {
            let case = format!(
                "<testcase classname=\"shadowtap\" name=\"{name}\">\n      <failure message=\""
            );
            assert!(report.contains(&case), "{name}: {report}");
        }
        assert_eq!(report.matches("<testcase ").count(), 3);
        assert_eq!(report.matches("</testcase>").count(), 3);
    }

    #[test]
    fn what_is_open_is_skipped_or_has_failed() {
        let mut verdict = rejected();
        verdict.verdict = Decision::Continue;
        verdict.endpoints.truncate(1);
        verdict.endpoints[0].standing = Standing::Uncovered;
        let report = junit(&verdict, false);
        assert!(report.contains("failures=\"0\" skipped=\"2\""), "{report}");
        let report = junit(&verdict, true);
        assert!(report.contains("failures=\"2\" skipped=\"0\""), "{report}");
        verdict.verdict = Decision::Promote;
        verdict.endpoints[0].standing = Standing::Good;
        let report = junit(&verdict, true);
        assert!(report.contains("failures=\"0\" skipped=\"0\""), "{report}");
    }

    #[test]
    fn names_cannot_leave_their_attribute() {
        assert_eq!(
            escaped("a\"b<c>&'\n\u{1b}[2J\u{ffff}"),
            "a&quot;b&lt;c&gt;&amp;' [2J"
        );
    }
}
