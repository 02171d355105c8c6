//! Arguments in the syntax of Go's package `flag`: `-x` and `--x` are the same, a value follows as `=value` or as the next
//! argument, and a boolean has its value as `=value` only.

use super::flags::{Flag, Kind, Use, find};
use super::values;

/// What was given, every value of the right form.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    values: Vec<(&'static Flag, String)>,
}

impl Given {
    /// Reads arguments; `None` when help is asked for.
    ///
    /// # Errors
    /// The first that is wrong, refused or unknown.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut given = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let bare = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'));
            let Some(bare) = bare.filter(|bare| !bare.is_empty()) else {
                return Err(stray(argument, given.values.last()));
            };
            let (name, inline) = match bare.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (bare, None),
            };
            if matches!(name, "h" | "help") {
                return Ok(None);
            }
            let flag = find(name).ok_or_else(|| unknown(name))?;
            if let Use::Refused(why, instead) = flag.usage {
                return Err(format!(
                    "--{name} of GoReplay is not supported: {why}. Use instead: {instead}"
                ));
            }
            let value = match (flag.kind, inline) {
                (_, Some(value)) => value,
                (Kind::Bool, None) => "true".to_owned(),
                (_, None) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("--{name} needs a value"))?,
            };
            check(flag, &value).map_err(|wrong| match find_bare(&value) {
                // Version 1 of GoReplay had '--verbose' without a number.
                Some(next) => {
                    format!("--{name} needs a value, and the next word is --{next}")
                }
                None => format!("--{name}: {wrong}"),
            })?;
            given.values.push((flag, value));
        }
        Ok(Some(given))
    }

    /// Every value of that flag, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        debug_assert!(find(name).is_some(), "{name}");
        self.values
            .iter()
            .filter(move |(flag, _)| flag.name == name)
            .map(|(_, value)| &value[..])
    }

    /// The last value of that flag.
    #[must_use]
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Whether it is given and not false.
    #[must_use]
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.last(name)
            .is_some_and(|value| values::boolean(value) == Ok(true))
    }

    /// A length of time.
    #[must_use]
    pub(super) fn duration(&self, name: &str) -> Option<std::time::Duration> {
        values::duration(self.last(name)?).ok()
    }

    /// A whole number; a negative one counts as 0.
    #[must_use]
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        let number = values::integer(self.last(name)?).ok()?;
        Some(u64::try_from(number).unwrap_or(0))
    }

    /// A number of bytes.
    #[must_use]
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        values::size(self.last(name)?).ok()
    }

    /// What is to be said of flags for which there is nothing to do, and of those that lack the one that they belong to.
    #[must_use]
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        let given = self.values.iter().map(|(flag, _)| *flag);
        for flag in given.filter(|flag| flag.kind != Kind::Bool || self.is_on(flag.name)) {
            let note = match flag.usage {
                Use::Needless(why) => format!("--{}: nothing to do here: {why}", flag.name),
                _ => match self.lacks(flag.name) {
                    Some(other) => {
                        format!("--{}: nothing to do without --{other}", flag.name)
                    }
                    None => continue,
                },
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }

    /// The flag that `name` does nothing without, if that is not given.
    fn lacks(&self, name: &str) -> Option<&'static str> {
        let is_absent = |other: &&str| self.last(other).is_none();
        let needs = match name {
            "output-http-stats" | "output-http-stats-ms" | "output-tcp-stats" => "stats",
            "recognize-tcp-sessions" => "split-output",
            "http-original-host" => "output-http",
            "input-tcp-certificate" | "input-tcp-certificate-key" => "input-tcp-secure",
            "output-tcp-skip-verify" => "output-tcp-secure",
            _ => MAIN_FLAGS.into_iter().find(|main| {
                let rest = name.strip_prefix(main);
                rest.is_some_and(|rest| rest.starts_with('-'))
            })?,
        };
        Some(needs).filter(is_absent)
    }
}

/// The name of the flag that a word is, if it is one.
fn find_bare(word: &str) -> Option<&'static str> {
    let bare = word.strip_prefix('-')?;
    let name = bare.strip_prefix('-').unwrap_or(bare);
    Some(find(name.split('=').next()?)?.name)
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Text | Kind::List => Ok(()),
        Kind::Bool => values::boolean(value).map(drop),
        Kind::Integer => values::integer(value).map(drop),
        Kind::Duration => values::duration(value).map(drop),
        Kind::Size => values::size(value).map(drop),
    }
}

/// Flags that others belong to, whose names begin with theirs.
const MAIN_FLAGS: [&str; 6] = [
    "input-raw",
    "input-file",
    "input-tcp",
    "output-http",
    "output-file",
    "output-tcp",
];

fn stray(argument: &str, before: Option<&(&Flag, String)>) -> String {
    if argument == "file-server" && before.is_none() {
        return "'gor file-server' is not supported: it is a file server. Use instead: python3 -m http.server"
            .to_owned();
    }
    match before {
        Some((flag, _)) if flag.kind == Kind::Bool => format!(
            "'{argument}' is no flag; a value of --{name} is written --{name}={argument}",
            name = flag.name
        ),
        _ => format!("'{argument}' is no flag; is a dash or a quotation mark missing?"),
    }
}

fn unknown(name: &str) -> String {
    let like = super::flags::FLAGS
        .iter()
        .map(|flag| (distance(name, flag.name), flag.name))
        .min()
        .filter(|&(distance, _)| distance <= 3);
    match like {
        Some((_, like)) => format!("--{name} is no flag of GoReplay 2.0; did you mean --{like}?"),
        None => format!(
            "--{name} is no flag of GoReplay 2.0; 'shadowtap gor --help' lists them, and shadowtap's own flags \
             belong to its own commands, such as 'shadowtap mirror'"
        ),
    }
}

/// How many letters have to change to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Given>, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Given::parse(&words)
    }

    #[test]
    fn gos_syntax() {
        for (line, name, values) in [
            ("--input-raw :80", "input-raw", &[":80"][..]),
            ("-input-raw :80", "input-raw", &[":80"]),
            ("-input-raw=:80", "input-raw", &[":80"]),
            ("--input-raw=a=b", "input-raw", &["a=b"]),
            ("--input-raw -1", "input-raw", &["-1"]),
            ("--input-raw a --input-raw=b", "input-raw", &["a", "b"]),
            ("--stats", "stats", &["true"]),
            ("-stats=0", "stats", &["0"]),
            ("--input-raw=", "input-raw", &[""]),
        ] {
            let given = parse(line).expect(line).expect("no help");
            assert!(given.all(name).eq(values.iter().copied()), "{line}");
        }
        let given =
            parse("--stats --stats=false --exit-after 1m30s --verbose 0x10 --copy-buffer-size 1kb");
        let given = given.expect("right").expect("no help");
        assert!(!given.is_on("stats") && !given.is_on("split-output"));
        assert_eq!(
            given.duration("exit-after"),
            Some(std::time::Duration::from_secs(90))
        );
        assert_eq!(given.count("verbose"), Some(16));
        assert_eq!(given.size("copy-buffer-size"), Some(1024));
        for help in ["-h", "--help", "--stats -help"] {
            assert!(parse(help).expect("right").is_none());
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("--input-raw", "--input-raw needs a value"),
            (
                "--stats maybe",
                "a value of --stats is written --stats=maybe",
            ),
            ("--stats=maybe", "--stats: 'maybe' is neither"),
            ("--exit-after 5", "--exit-after: '5' is not a length"),
            ("--verbose x", "--verbose: 'x' is not a whole number"),
            (
                "--verbose --input-raw :80",
                "--verbose needs a value, and the next word is --input-raw",
            ),
            (
                "--copy-buffer-size 5m",
                "--copy-buffer-size: '5m' is not a size",
            ),
            ("--input-rew x", "did you mean --input-raw?"),
            ("--port 80", "shadowtap mirror"),
            ("x", "'x' is no flag"),
            ("--input-raw :80 x", "'x' is no flag"),
            ("-", "'-' is no flag"),
            ("file-server :80", "is a file server"),
            (
                "--output-kafka-host x",
                "Kafka is not spoken. Use instead: --output-file",
            ),
            ("--output-ws=x", "--output-ws of GoReplay is not supported"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn what_needs_nothing_is_said_once() {
        let notes = |line: &str| parse(line).expect("right").expect("no help").notes();
        let needless =
            notes("--input-raw-expire 5s --input-raw-expire 6s --input-raw-vlan --stats");
        assert_eq!(needless.len(), 2, "{needless:?}");
        assert!(needless[0].starts_with("--input-raw-expire: nothing to do here"));
        let alone = [
            "--output-file-append",
            "--output-http-stats=false",
            "--input-tcp-certificate x",
            "--http-original-host",
            "--recognize-tcp-sessions",
            "--output-file-size-limit 1mb",
        ];
        assert_eq!(
            notes(&alone.join(" ")),
            [
                "--output-file-append: nothing to do without --output-file",
                "--input-tcp-certificate: nothing to do without --input-tcp-secure",
                "--http-original-host: nothing to do without --output-http",
                "--recognize-tcp-sessions: nothing to do without --split-output",
                "--output-file-size-limit: nothing to do without --output-file",
            ]
        );
        assert!(notes("--input-raw :80 --input-raw-track-response --output-file x").is_empty());
    }
}
