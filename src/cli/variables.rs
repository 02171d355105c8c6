//! Flags from the environment, as deployments template them: an empty variable counts as none, and line ends that only come from
//! how a value was written down, such as those of a block of YAML or of a file, are no part of it.

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};

/// The command without the variables that are read here.
pub(super) fn without_unclean(command: Command) -> Command {
    let unset = |argument: Arg| {
        let variable = argument.get_env().and_then(std::env::var_os);
        if variable.is_some_and(|value| value.is_empty() || cleaned(&value).is_some()) {
            argument.env(Resettable::<clap::builder::OsStr>::Reset)
        } else {
            argument
        }
    };
    command.mut_args(unset).mut_subcommands(without_unclean)
}

/// The command line with the variables whose values had to be cleaned as flags behind the verb, unless those are there already.
/// `variable` is the environment.
pub(super) fn with_cleaned(
    command: &Command,
    mut arguments: Vec<OsString>,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Vec<OsString> {
    let is_verb = |word: &OsString| command.find_subcommand(word).is_some();
    let Some(at) = arguments.iter().skip(1).position(is_verb) else {
        return arguments;
    };
    let verb = arguments[at + 1].clone();
    let mut flags = Vec::new();
    let of_verb = command.find_subcommand(&verb).into_iter();
    for argument in of_verb
        .flat_map(Command::get_arguments)
        .chain(command.get_arguments())
    {
        let value = argument.get_env().and_then(&variable);
        if let Some(value) = value.as_deref().and_then(cleaned)
            && let Some(flag) = flag(argument, &value)
        {
            flags.push((argument.get_id().clone(), flag));
        }
    }
    if flags.is_empty() {
        return arguments;
    }
    // What is wrong with the command line is said when it is parsed in earnest.
    let lenient = command.clone().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(&arguments) else {
        return arguments;
    };
    let matches = matches.subcommand().map(|(_, matches)| matches);
    let is_given = |id: &clap::Id| {
        matches.and_then(|it| it.value_source(id.as_str())) == Some(ValueSource::CommandLine)
    };
    flags.retain(|(id, _)| !is_given(id));
    let behind_verb = at + 2;
    arguments.splice(
        behind_verb..behind_verb,
        flags.into_iter().map(|(_, flag)| flag),
    );
    arguments
}

/// `--only=RULE`; none where nothing is said by it.
fn flag(argument: &Arg, value: &str) -> Option<OsString> {
    let long = argument.get_long()?;
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        let is_false = ["false", "no", "n", "off", "f", "0"].contains(&&*value.to_lowercase());
        return (!value.is_empty() && !is_false).then(|| format!("--{long}").into());
    }
    (!value.is_empty()).then(|| format!("--{long}={value}").into())
}

/// The value without empty lines, and without line ends around it and carriage returns at the ends of its lines; `None` where there
/// are none.
fn cleaned(value: &OsStr) -> Option<String> {
    let value = value.to_str()?;
    let lines: Vec<&str> = value
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| !line.trim().is_empty())
        .collect();
    let cleaned = lines.join("\n");
    (cleaned != value && value.contains(['\n', '\r'])).then_some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &OsStr| {
            let mut variables = variables.iter();
            let found = variables.find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let arguments = line.split(' ').map(OsString::from).collect();
        with_cleaned(&super::super::command(), arguments, variable)
            .into_iter()
            .map(|it| it.into_string().expect("UTF-8"))
            .collect()
    }

    #[test]
    fn line_ends_are_no_part_of_a_value() {
        for (value, expected) in [
            ("80\n", Some("80")),
            ("80\r\n", Some("80")),
            ("path:/a\npath:/b\n", Some("path:/a\npath:/b")),
            ("path:/a\r\npath:/b", Some("path:/a\npath:/b")),
            ("\n  \na\n\n b \n", Some("a\n b ")),
            ("\n", Some("")),
            ("", None),
            ("80", None),
            (" 80 ", None),
            ("path:/a\npath:/b", None),
        ] {
            assert_eq!(cleaned(OsStr::new(value)).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn variables_become_flags_behind_the_verb() {
        let line = "shadowtap --log-level debug mirror --port 80";
        assert_eq!(with(line, &[]).join(" "), line);
        assert_eq!(with(line, &[("SHADOWTAP_TO", "http://v2")]).join(" "), line);
        let variables = [
            ("SHADOWTAP_TO", "http://v2\n"),
            ("SHADOWTAP_PORT", "81\n"),
            ("SHADOWTAP_ONLY", "path:/a\nmethod:GET\n"),
            ("SHADOWTAP_SAFE_ONLY", "true\n"),
            ("SHADOWTAP_NO_COMPARE", "false\n"),
            ("SHADOWTAP_IGNORE", "\n"),
            ("SHADOWTAP_SPEED", "2\n"),
        ];
        let mut words = with(line, &variables);
        assert_eq!(words[..4], ["shadowtap", "--log-level", "debug", "mirror"]);
        assert_eq!(words[words.len() - 2..], ["--port", "80"]);
        words[4..].sort();
        assert_eq!(
            words[4..],
            [
                "--only=path:/a\nmethod:GET",
                "--port",
                "--safe-only",
                "--to=http://v2",
                "80"
            ]
        );
        // What cannot be parsed stays as it is.
        assert_eq!(with("shadowtap", &variables).len(), 1);
        assert_eq!(with("shadowtap nothing", &variables).len(), 2);
    }
}
