//! Tokens in HTML: what a server draws anew for each page, and names like that.

use std::borrow::Cow;

use super::noise::is_id_name;

/// A line without the values of attributes that hold tokens: `nonce="…"`, and those beside a name like `csrf_token`, as in
/// `<input name="csrf_token" value="…">` and `<meta name="csrf-token" content="…">`. A value that `is_kept` stays.
pub(super) fn without_tokens(line: &str, is_kept: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut is_named = false;
    let mut at = 0;
    while let Some(begin) = line[at..].find(['<', '"', '\'']) {
        let begin = at + begin;
        at = begin + 1;
        let quote = char::from(line.as_bytes()[begin]);
        if quote == '<' {
            is_named = false;
            continue;
        }
        let Some(before) = line[..begin].strip_suffix('=') else {
            continue;
        };
        let Some(length) = line[at..].find(quote) else {
            break;
        };
        let (name, value) = (last_name(before), &line[at..at + length]);
        let is_token = is_id_name(name) || is_named && is_one_of(name, &["value", "content"]);
        if is_token && !value.is_empty() && !is_kept(value) {
            out.push_str(&line[copied..at]);
            out.push('…');
            copied = at + length;
        }
        is_named |= is_one_of(name, &["name", "id", "property"]) && is_token_name(value);
        at += length + 1;
    }
    if copied == 0 {
        return Cow::Borrowed(line);
    }
    out.push_str(&line[copied..]);
    Cow::Owned(out)
}

/// The name of an attribute, which stands at the end of what is before its `=`.
fn last_name(before: &str) -> &str {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    let begin = before.rfind(|c| !is_of_names(c)).map_or(0, |at| {
        at + before[at..].chars().next().map_or(1, char::len_utf8)
    });
    &before[begin..]
}

/// Whether a form's field of this name holds a token; beside those that are clear anywhere, Laravel's and Symfony's, and the state of a
/// page that JSF keeps.
fn is_token_name(name: &str) -> bool {
    is_id_name(name)
        || name == "_token"
        || name.ends_with("[_token]")
        || name.ends_with(".faces.ViewState")
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(line: &str) -> String {
        without_tokens(line, |value| value == "sent").into_owned()
    }

    #[test]
    fn tokens_of_frameworks() {
        for line in [
            "<input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"@\">",
            "<input name=\"authenticity_token\" type=hidden value='@' />",
            "<input name=\"__RequestVerificationToken\" type=\"hidden\" value=\"@\" />",
            "<input type=\"hidden\" name=\"_token\" value=\"@\" autocomplete=\"off\">",
            "<input type=\"hidden\" id=\"order__token\" name=\"order[_token]\" value=\"@\" />",
            "<input type=\"hidden\" name=\"jakarta.faces.ViewState\" id=\"j_id1:jakarta.faces.ViewState:0\" value=\"@\" />",
            "<form><p>don't</p><input name='_csrf' value='@'></form><a href=\"/x\">y</a>",
            "<meta name=\"csrf-token\" content=\"@\"><meta name=\"author\" content=\"a\">",
            "ü<script nonce=\"@\" src=\"/a.js\"></script><style nonce=\"@\">",
        ] {
            let with = |token: &str| line.replace('@', token);
            assert_eq!(shown(&with("k3J9+/aQ==")), with("…"), "{line}");
        }
    }

    #[test]
    fn what_is_none_stays() {
        for line in [
            "",
            "<input name=\"price\" value=\"17\">",
            "<input name=\"csrf\" value=\"\"><input name=\"price\" value=\"17\">",
            "<input value=\"17\" name=\"csrf\">",
            "<input name=\"promotion_token\" value=\"17\">",
            "<a nonce=\"sent\">",
            "<a nonce=\"unfinished",
            "nonce = \"17\"",
            "it's a \"nonce\"",
        ] {
            assert_eq!(shown(line), line);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(line in "[<>a-c=\"' üname]{0,40}") {
            let _ = shown(&line);
        }
    }
}
