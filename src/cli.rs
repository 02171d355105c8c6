//! What may be typed, turned once into a [`Config`] that is legal by construction.
//!
//! One file for each verb holds its flags and turns them into the verb's job. Every flag can be given as an environment
//! variable too, `SHADOWTAP_` and the flag's name in capitals.

pub mod convert;
pub mod demo;
pub mod gor;
pub mod inject;
pub mod inspect;
pub mod mirror;
pub mod mock;
pub mod options;
pub mod record;
pub mod replay;
pub mod values;
mod variables;
pub mod verdict;

use std::ffi::OsString;
use std::path::Path;

use clap::builder::{Styles, styling::AnsiColor};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::sandbox::SandboxMode;

/// What the program is to do.
#[derive(Debug)]
pub struct Config {
    /// How it logs.
    pub logging: Logging,
    /// Whether it gives up what it does not need once it has begun.
    pub sandbox: SandboxMode,
    /// The job.
    pub job: Job,
}

/// One verb with everything it needs.
#[derive(Debug)]
pub enum Job {
    /// Live capture to a target.
    Mirror(mirror::Job),
    /// Live capture to a file.
    Record(record::Job),
    /// Files to a target.
    Replay(replay::Job),
    /// Files to a table or to JSON lines.
    Inspect(inspect::Job),
    /// Files to a file.
    Convert(convert::Job),
    /// Kubernetes manifests with the sidecar.
    Inject(inject::Job),
    /// What GoReplay does.
    Gor(Box<gor::Job>),
    /// Sidecars to a verdict.
    Verdict(verdict::Job),
    /// Version 1's answers for version 2.
    Mock(mock::Job),
    /// The demonstration.
    Demo(demo::Job),
}

/// How the program logs, to standard error.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// How log lines look.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "SHADOWTAP_LOG_FORMAT"
    )]
    pub log_format: LogFormat,

    /// How much is logged: error, warn, info, debug, trace, or a filter as in RUST_LOG.
    ///
    /// Without this flag, RUST_LOG is read; without that, it is info.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "SHADOWTAP_LOG_LEVEL",
        value_parser = log_level
    )]
    pub log_level: Option<String>,

    /// Whether a running line of progress is shown.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "SHADOWTAP_PROGRESS"
    )]
    pub progress: ProgressMode,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether a running line of progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ProgressMode {
    /// A running line at a terminal, a log line now and then elsewhere.
    #[default]
    Auto,
    /// Log lines only, also at a terminal.
    Plain,
    /// None at all.
    Off,
}

impl Config {
    /// Parses a command line, the program's name first, and the environment.
    ///
    /// # Errors
    /// What is wrong with it, or the help or version text that was asked for; [`clap::Error::exit`] prints either.
    pub fn parse<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        if let Some(flags) = flags_of_gor(&arguments) {
            return Self::of_gor(flags);
        }
        let command = Cli::command();
        let arguments = variables::with_cleaned(&command, arguments, |name| std::env::var_os(name));
        let mut command = variables::without_unclean(command);
        let mut matches = command.try_get_matches_from_mut(arguments)?;
        let cli =
            Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
        let verb = cli.verb.name();
        let job = match cli.verb {
            Verb::Mirror(args) => args.into_job().map(Job::Mirror),
            Verb::Record(args) => args.into_job().map(Job::Record),
            Verb::Replay(args) => args.into_job().map(Job::Replay),
            Verb::Inspect(args) => args.into_job().map(Job::Inspect),
            Verb::Convert(args) => args.into_job().map(Job::Convert),
            Verb::Inject(args) => args.into_job().map(Job::Inject),
            // Read above.
            Verb::Gor(_) => Err(Wrong("give its flags right behind 'gor'".to_owned())),
            Verb::Verdict(args) => args.into_job().map(Job::Verdict),
            Verb::Mock(args) => args.into_job().map(Job::Mock),
            Verb::Demo(args) => Ok(Job::Demo(args.into_job())),
        };
        let job = job.map_err(|wrong| {
            let mut command = Cli::command();
            command.build();
            let usage = command.find_subcommand_mut(verb);
            match usage {
                Some(usage) => usage.error(ErrorKind::ValueValidation, wrong.0),
                None => command.error(ErrorKind::ValueValidation, wrong.0),
            }
        })?;
        Ok(Self {
            logging: cli.logging,
            sandbox: cli.restraint.sandbox,
            job,
        })
    }
}

/// The arguments behind `gor`, when the program is called by that name or that is the verb.
fn flags_of_gor(arguments: &[OsString]) -> Option<&[OsString]> {
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_name() == Some("gor".as_ref()) {
        return Some(rest);
    }
    let (verb, rest) = rest.split_first()?;
    (verb == "gor").then_some(rest)
}

impl Config {
    /// GoReplay's flags; how to log comes from the environment and `--verbose`.
    fn of_gor(flags: &[OsString]) -> Result<Self, clap::Error> {
        let wrong = |text: String| clap::Error::raw(ErrorKind::ValueValidation, text);
        let mut words = Vec::new();
        for flag in flags {
            let word = flag
                .to_str()
                .ok_or_else(|| wrong(format!("{flag:?} is not UTF-8\n")))?;
            words.push(word.to_owned());
        }
        let (job, verbose) = match gor::parse(&words) {
            Ok(gor::Asked::Run(job, verbose)) => (job, verbose),
            Ok(gor::Asked::Help) => {
                let gor = clap::Command::new("gor").override_help(gor::help());
                return Err(gor
                    .try_get_matches_from(["gor", "--help"])
                    .expect_err("clap tells the help as an error"));
            }
            Err(text) => {
                return Err(wrong(format!(
                    "{text}\n\n'shadowtap gor --help' lists every flag.\n"
                )));
            }
        };
        let environment = variables::without_unclean(OnlyLogging::command());
        let matches = environment.try_get_matches_from(["gor"])?;
        let OnlyLogging {
            mut logging,
            restraint,
        } = OnlyLogging::from_arg_matches(&matches)?;
        if logging.log_level.is_none() {
            logging.log_level = match verbose {
                0 => None,
                1 | 2 => Some("debug".to_owned()),
                _ => Some("trace".to_owned()),
            };
        }
        Ok(Self {
            logging,
            sandbox: restraint.sandbox,
            job: Job::Gor(job),
        })
    }
}

/// The flags of logging alone, for what the environment says about them.
#[derive(Parser, Debug)]
#[command(name = "gor")]
struct OnlyLogging {
    #[command(flatten)]
    logging: Logging,

    #[command(flatten)]
    restraint: Restraint,
}

/// What is wrong with a combination of flags that are each right.
#[derive(Debug)]
pub struct Wrong(pub String);

/// The command itself, for help pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Mirror real HTTP traffic from version 1 of a service to version 2, from the packets that already flow.
///
/// shadowtap watches the network interface, rebuilds the HTTP/1 requests in the packets, and sends each one to a second
/// version as well. Nothing proxies the first version and nothing waits for it.
#[derive(Parser, Debug)]
#[command(
    name = "shadowtap",
    version,
    propagate_version = true,
    max_term_width = 110,
    styles = STYLES,
    after_help = "Every flag can be given as an environment variable: SHADOWTAP_PORT for --port; an empty one counts as none.\n\
                  Exit codes: 0 done, 1 failed while running, 2 wrong usage; replay --fail-on: 3 rejected, 4 undecided. Data goes to standard output, logs to standard error.\n\
                  'shadowtap VERB --help' shows a verb's flags and examples; 'shadowtap demo' shows the whole thing at work."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    logging: Logging,

    #[command(flatten)]
    restraint: Restraint,
}

/// What the program does without.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
#[command(next_help_heading = "Security")]
struct Restraint {
    /// Whether system calls and files that are not needed are given up once the program has begun (Linux).
    ///
    /// /healthz and the log say how far the kernel goes along: no_new_privs, seccomp, Landlock.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "SHADOWTAP_SANDBOX"
    )]
    sandbox: SandboxMode,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Mirror(mirror::Flags),
    Record(record::Flags),
    Replay(replay::Flags),
    Inspect(inspect::Flags),
    Convert(convert::Flags),
    Gor(gor::Flags),
    Inject(inject::Flags),
    Verdict(verdict::Flags),
    Mock(mock::Flags),
    Demo(demo::Flags),
}

impl Verb {
    const fn name(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror",
            Self::Record(_) => "record",
            Self::Replay(_) => "replay",
            Self::Inspect(_) => "inspect",
            Self::Convert(_) => "convert",
            Self::Inject(_) => "inject",
            Self::Gor(_) => "gor",
            Self::Verdict(_) => "verdict",
            Self::Mock(_) => "mock",
            Self::Demo(_) => "demo",
        }
    }
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

fn log_level(text: &str) -> Result<String, String> {
    // A filter takes any word for the name of a part of the program, and then says nothing of all others.
    let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
    let mut words = text.split(',').map(str::trim);
    if let Some(word) = words.find(|word| !word.contains(['=', '[', ':']) && !is_level(word)) {
        return Err(format!(
            "'{word}' is no level; use error, warn, info, debug, trace or off, and TARGET=LEVEL for a part of the program"
        ));
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; use error, warn, info, debug, trace, or a filter as in RUST_LOG"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else {
                    continue;
                };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let expected = format!("SHADOWTAP_{}", long.to_uppercase().replace('-', "_"));
                let env = argument.get_env().and_then(|env| env.to_str());
                assert_eq!(env, Some(&*expected), "{} --{long}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Cli::command();
        command.build();
        walk(&command);
    }

    #[test]
    fn every_example_in_the_help_parses() {
        let mut verbs = 0;
        for verb in Cli::command().get_subcommands() {
            let help = verb
                .get_after_help()
                .unwrap_or_else(|| panic!("{} has no examples", verb.get_name()))
                .to_string();
            let examples: Vec<_> = help
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("shadowtap "))
                .collect();
            assert!(!examples.is_empty(), "{}", verb.get_name());
            for example in examples {
                let line = example.split(" #").next().unwrap_or_default();
                let line = line.split(" | ").next().unwrap_or_default();
                let words = line.split_whitespace().map(|word| word.trim_matches('\''));
                let words = std::iter::once("shadowtap").chain(words);
                if let Err(error) = Config::parse(words) {
                    panic!("shadowtap {line}: {error}");
                }
            }
            verbs += 1;
        }
        assert_eq!(verbs, 10);
    }
}
