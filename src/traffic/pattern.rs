//! Text against patterns: globs and regular expressions, both over bytes.

use regex::bytes::{Regex, RegexBuilder};

/// Why the text of a rule is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub(super) String);

impl RuleError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// One pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a regular expression in the syntax of the `regex` crate; it matches anywhere unless anchored.
    pub(super) fn regex(text: &str) -> Result<Self, RuleError> {
        if text.is_empty() {
            return Err(RuleError::new("the regular expression is empty"));
        }
        compile(text).map(Self)
    }

    /// Compiles globs, separated by commas; each is matched from the first byte to the last.
    ///
    /// `?` is one byte, `*` any number; neither crosses a `/` if `segments`, and `**` does. `\` takes what follows it as
    /// it is.
    pub(super) fn globs(text: &str, case: Case, segments: Segments) -> Result<Self, RuleError> {
        if text.is_empty() {
            return Err(RuleError::new("there is nothing to match"));
        }
        let any = match segments {
            Segments::BySlash => "[^/]",
            Segments::None => ".",
        };
        let mut regex = String::from(match case {
            Case::Exact => "(?s-u)^(?:",
            Case::Ignored => "(?si-u)^(?:",
        });
        let mut bytes = text.bytes().peekable();
        let mut is_empty = true;
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' if bytes.peek() == Some(&b'*') => {
                    while bytes.next_if_eq(&b'*').is_some() {}
                    regex.push_str(".*");
                }
                b'*' => regex.extend([any, "*"]),
                b'?' => regex.push_str(any),
                b',' => {
                    if is_empty || bytes.peek().is_none() {
                        return Err(RuleError::new(
                            "there is nothing before or behind a comma; '\\,' is a comma itself",
                        ));
                    }
                    regex.push('|');
                    is_empty = true;
                    continue;
                }
                b'\\' => {
                    let literal = bytes
                        .next()
                        .ok_or_else(|| RuleError::new("there is nothing behind '\\'"))?;
                    push_literal(&mut regex, literal);
                }
                literal => push_literal(&mut regex, literal),
            }
            is_empty = false;
        }
        regex.push_str(")$");
        compile(&regex).map(Self)
    }

    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// Whether upper and lower case are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Case {
    Exact,
    Ignored,
}

/// Whether `*` and `?` stop somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segments {
    BySlash,
    None,
}

fn push_literal(regex: &mut String, byte: u8) {
    regex.push_str(&format!("\\x{byte:02x}"));
}

/// Compiles a regular expression of bounded size, and says in one line what is wrong with one that is none.
pub(super) fn compile(text: &str) -> Result<Regex, RuleError> {
    RegexBuilder::new(text).build().map_err(|error| {
        let text = error.to_string();
        // The library draws a picture; its last line has the words.
        let words = text.lines().last().unwrap_or_default();
        RuleError(format!(
            "not a regular expression: {}",
            words.trim_start_matches("error: ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, segments, yes, no) in [
            (
                "/a",
                Segments::BySlash,
                &["/a"][..],
                &["/a/", "/", "/ab", "/A"][..],
            ),
            (
                "/a/*",
                Segments::BySlash,
                &["/a/", "/a/b"],
                &["/a", "/a/b/c"],
            ),
            (
                "/a/**",
                Segments::BySlash,
                &["/a/", "/a/b/c"],
                &["/a", "/b/a/"],
            ),
            ("/a**", Segments::BySlash, &["/a", "/a/b/c", "/ab"], &["/b"]),
            (
                "/*/x",
                Segments::BySlash,
                &["/a/x", "//x"],
                &["/a/b/x", "/x"],
            ),
            (
                "**/x",
                Segments::BySlash,
                &["/a/b/x", "/x"],
                &["/xx", "/x/"],
            ),
            (
                "/?",
                Segments::BySlash,
                &["/a", "/\u{7f}"],
                &["/", "//", "/ab"],
            ),
            (
                "/a,/b*",
                Segments::BySlash,
                &["/a", "/b", "/bc"],
                &["/a,/b", "/ab"],
            ),
            ("/a\\,b", Segments::BySlash, &["/a,b"], &["/a"]),
            ("/\\*", Segments::BySlash, &["/*"], &["/a"]),
            ("/.+(x)", Segments::BySlash, &["/.+(x)"], &["/aax"]),
            ("*json*", Segments::None, &["text/json; a/b"], &["text/xml"]),
        ] {
            let pattern = Pattern::globs(glob, Case::Exact, segments).expect(glob);
            for text in yes {
                assert!(pattern.is_match(text.as_bytes()), "{glob} {text}");
            }
            for text in no {
                assert!(!pattern.is_match(text.as_bytes()), "{glob} {text}");
            }
        }
        let pattern = Pattern::globs("*.Example.com", Case::Ignored, Segments::None);
        assert!(pattern.expect("a glob").is_match(b"a.b.eXample.COM"));
        let pattern = Pattern::globs("/\u{e4}*", Case::Exact, Segments::BySlash);
        assert!(pattern.expect("a glob").is_match(b"/\xc3\xa4\xff\xfe"));
        for wrong in ["", ",", "a,", ",a", "a,,b", "a\\"] {
            let pattern = Pattern::globs(wrong, Case::Exact, Segments::None);
            assert!(pattern.is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_expressions_are_told_in_one_line() {
        for wrong in ["", "(", "[a", "a{9999999}", "(?P<x"] {
            let error = Pattern::regex(wrong).expect_err(wrong).to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }
}
