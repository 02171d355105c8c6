//! What each of several targets gets.

use std::str::FromStr;

use super::limit::Rate;
use super::pattern::RuleError;
use super::sample::Percent;
use super::select::{Rule, Selection};

/// What one target gets of the traffic: what is said here is for it alone.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Beside the rules for all targets.
    pub select: Selection,
    /// In the place of the share that is for all targets.
    pub percent: Option<Percent>,
    /// In the place of the limit that is for all targets.
    pub limit: Option<Rate>,
}

/// The options that may stand behind a target, each as `NAME=VALUE`.
const NAMES: [&str; 4] = ["only", "except", "percent", "limit"];

impl FromStr for Share {
    type Err = RuleError;

    /// `only=RULE except=RULE percent=P limit=RATE` between blanks, in any order; `only` and `except` may come again.
    ///
    /// An option begins at its name, so that blanks may stand in a rule.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut share = Self::default();
        let mut rest = text.trim();
        if !rest.is_empty() && name_at(rest).is_none() {
            return Err(RuleError(format!(
                "{:?} is not one of only=RULE, except=RULE, percent=P, limit=RATE",
                rest.split_whitespace().next().unwrap_or_default()
            )));
        }
        while let Some(name) = name_at(rest) {
            let (value, behind) =
                rest[name.len() + 1..].split_at(value_len(&rest[name.len() + 1..]));
            let value = value.trim_end();
            let wrong = |error: RuleError| RuleError(format!("{name}={value}: {error}"));
            let once = || RuleError(format!("{name}= can be said once for a target"));
            match name {
                "only" => share.select.only.push(value.parse().map_err(wrong)?),
                "except" => share.select.except.push(value.parse().map_err(wrong)?),
                "percent" => match share.percent.replace(value.parse().map_err(wrong)?) {
                    None => {}
                    Some(_) => return Err(once()),
                },
                _ => match share.limit.replace(value.parse().map_err(wrong)?) {
                    None => {}
                    Some(_) => return Err(once()),
                },
            }
            rest = behind.trim_start();
        }
        Ok(share)
    }
}

impl Share {
    /// The first of its rules that asks for version 1's answer, if there is one.
    #[must_use]
    pub fn on_status(&self) -> Option<&Rule> {
        self.select.on_status()
    }
}

/// The option whose name and `=` are in front of `text`.
fn name_at(text: &str) -> Option<&'static str> {
    let is_it = |name: &&&str| {
        text.strip_prefix(**name)
            .is_some_and(|behind| behind.starts_with('='))
    };
    NAMES.iter().find(is_it).copied()
}

/// Up to the blanks before the next option.
fn value_len(text: &str) -> usize {
    text.char_indices()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, _)| at)
        .find(|&at| name_at(text[at..].trim_start()).is_some())
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_any_order() {
        let share = |text: &str| text.parse::<Share>().expect(text);
        let texts = |rules: &[Rule]| -> Vec<String> {
            rules.iter().map(|rule| rule.text().to_owned()).collect()
        };
        let all = share(
            " limit=5/s only=path:/a  b,/c=d only=method:GET percent=10% except=header:X=a limits=3 ",
        );
        assert_eq!(texts(&all.select.only), ["path:/a  b,/c=d", "method:GET"]);
        assert_eq!(texts(&all.select.except), ["header:X=a limits=3"]);
        assert_eq!(all.percent, "10".parse().ok());
        assert_eq!(all.limit, "5/s".parse().ok());
        let none = share("");
        assert!(none.select.is_everything() && none.percent.is_none() && none.limit.is_none());
        assert!(share("only=status:2xx").on_status().is_some());
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        for (text, words) in [
            ("percnt=5", "\"percnt=5\" is not one of"),
            ("only", "\"only\" is not one of"),
            ("percent=5 percent=6", "once"),
            ("limit=5 limit=6", "once"),
            ("percent=x", "percent=x: expected a number"),
            ("only=path:x", "only=path:x: a path begins"),
            ("only=", "only=: a rule is about"),
        ] {
            let error = text.parse::<Share>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
