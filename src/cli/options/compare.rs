//! What is compared, with what, and how it is shown.

use std::path::Path;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::{MarginFlags, ToleranceFlags, Wrong, first_given};
use crate::admin::AdminConfig;
use crate::app::compare::Settings;
use crate::compare::{FieldPattern, Headers, Ignore, Route, Rules};
use crate::http1::FieldName;
use crate::judge::Tolerances;
use crate::record::Format;
use crate::replay::{ReplayConfig, Target};

/// How version 2's answers are compared with version 1's; `docs/compare.md` describes it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Compare")]
pub struct CompareFlags {
    /// A second copy of version 1: it gets the same requests as version 2, and what differs there is noise.
    #[arg(long, value_name = "URL", env = "SHADOWTAP_CONTROL")]
    control: Option<Target>,

    /// Compare these header fields too, beside those that clients act on; '*' is all that mean something.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = header,
        env = "SHADOWTAP_COMPARE_HEADERS"
    )]
    compare_headers: Vec<Header>,

    /// Do not compare this field: body.items[].updatedAt, header.etag, or updatedAt for all of that name; '*' is any part
    /// of a name, '**' any number of names. 'body.items (order)' leaves out this kind of difference alone: missing, extra, type, value,
    /// order or length.
    #[arg(
        long,
        value_name = "FIELD",
        value_delimiter = '\n',
        env = "SHADOWTAP_IGNORE"
    )]
    ignore: Vec<Ignore>,

    /// Take the requests that match this template as one endpoint: /shops/{shop}/items/{item}, 'GET /files/**'.
    #[arg(
        long,
        value_name = "TEMPLATE",
        value_delimiter = '\n',
        env = "SHADOWTAP_ROUTE"
    )]
    route: Vec<Route>,

    #[command(flatten)]
    redact: RedactFlags,

    /// Show credentials in the dashboard's examples as they were captured, not as tokens; what --redact names stays a token.
    /// Only where --admin listens on loopback, or asks for the token of --admin-token-file.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_REVEAL"
    )]
    reveal: bool,

    #[command(flatten)]
    tolerances: ToleranceFlags,

    #[command(flatten)]
    margin: MarginFlags,
}

/// What nobody is to see.
#[derive(Args, Debug)]
pub struct RedactFlags {
    /// Show this field as a token, like Authorization, Cookie, Set-Cookie and X-Api-Key always are: body.user.email,
    /// header.x-tenant, query.code, or email for all of that name.
    #[arg(
        long,
        value_name = "FIELD",
        value_delimiter = '\n',
        env = "SHADOWTAP_REDACT"
    )]
    pub redact: Vec<FieldPattern>,
}

/// What is not to be in a recording.
#[derive(Args, Debug)]
#[command(next_help_heading = "Secrets")]
pub struct RecordingRedactFlags {
    /// Write tokens in place of the values of Authorization, Proxy-Authorization, Cookie, Set-Cookie, X-Api-Key and what
    /// --redact names, into .gor, .jsonl and .har; equal values of one run have equal tokens. A replay sends the tokens.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_REDACT_RECORDING"
    )]
    redact_recording: bool,

    /// With --redact-recording: this field too, such as body.user.email, header.x-tenant, query.code, or email for all of
    /// that name.
    #[arg(
        long,
        value_name = "FIELD",
        value_delimiter = '\n',
        env = "SHADOWTAP_REDACT"
    )]
    redact: Vec<FieldPattern>,
}

impl RecordingRedactFlags {
    /// The fields that are to be tokens in `out`, beside those that always are; `None` where nothing is to be one.
    pub fn into_fields(self, out: &Path) -> Result<Option<Vec<FieldPattern>>, Wrong> {
        if !self.redact_recording {
            return if self.redact.is_empty() {
                Ok(None)
            } else {
                Err(Wrong(
                    "--redact: nothing is redacted in a recording without --redact-recording; add that, or leave --redact out"
                        .to_owned(),
                ))
            };
        }
        if Format::of_name(out).is_some_and(|(format, _)| format == Format::Pcap) {
            return Err(Wrong(format!(
                "--redact-recording: '{}' would hold the packets as they were, secrets included; end --out in .jsonl, .gor or .har",
                out.display()
            )));
        }
        Ok(Some(self.redact))
    }
}

/// What is to be compared.
#[derive(Debug)]
pub struct CompareJob {
    /// What is compared and how it is shown.
    pub settings: Settings,
    /// Whether the last of the targets is the control.
    pub has_control: bool,
}

/// Why nothing is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    /// Nobody has asked for it.
    Unasked,
    /// It is switched off, whatever the rest of a set-up says: a sidecar has to start all the same.
    SwitchedOff,
}

impl CompareFlags {
    /// The job, unless `without` says by what nothing is compared. The control is added to `targets`, of which the first is the
    /// version that is judged.
    pub fn into_job(
        self,
        without: Option<Without>,
        targets: &mut Vec<ReplayConfig>,
        admin: Option<&AdminConfig>,
    ) -> Result<Option<CompareJob>, Wrong> {
        if let Some(without) = without {
            return match self.useless(without) {
                Some(flag) => Err(Wrong(format!(
                    "{flag}: nothing is compared {}, so that it would do nothing",
                    match without {
                        Without::Unasked => "without --compare",
                        Without::SwitchedOff => "with --no-compare",
                    }
                ))),
                None => Ok(None),
            };
        }
        if self.reveal {
            may_reveal(admin)?;
        }
        let has_control = self.control.is_some();
        if let (Some(target), Some(judged)) = (self.control, targets.first()) {
            if targets.iter().any(|config| config.target == target) {
                return Err(Wrong(format!(
                    "--control: {target} is given with --to as well"
                )));
            }
            let control = ReplayConfig {
                target,
                // It gets what version 2 gets.
                limit: None,
                ..judged.clone()
            };
            targets.push(control);
        }
        let all = self
            .compare_headers
            .iter()
            .any(|it| matches!(it, Header::All));
        let names = self.compare_headers.into_iter().filter_map(|it| match it {
            Header::Name(name) => Some(name),
            Header::All => None,
        });
        Ok(Some(CompareJob {
            settings: Settings {
                rules: Rules {
                    headers: Headers::new(names, all),
                    ignore: self.ignore,
                    ..Rules::default()
                },
                routes: self.route,
                redact: self.redact.redact,
                reveal: self.reveal,
                margin: self.margin.margin(),
                tolerances: self.tolerances.over(Tolerances::default()),
                untimed: false,
            },
            has_control,
        }))
    }

    /// The first of them that was given where it does nothing.
    fn useless(&self, without: Without) -> Option<&'static str> {
        let asks_more = first_given([
            ("--control", self.control.is_some()),
            ("--reveal", self.reveal),
        ]);
        if asks_more.is_some() || without == Without::SwitchedOff {
            return asks_more;
        }
        let own = first_given([
            ("--compare-headers", !self.compare_headers.is_empty()),
            ("--ignore", !self.ignore.is_empty()),
            ("--route", !self.route.is_empty()),
            ("--redact", !self.redact.redact.is_empty()),
        ]);
        own.or_else(|| self.tolerances.first_given())
            .or_else(|| self.margin.first_given())
    }
}

/// Whether secrets may be shown there.
fn may_reveal(admin: Option<&AdminConfig>) -> Result<(), Wrong> {
    let wrong = |why: &str| Err(Wrong(format!("--reveal: {why}")));
    match admin {
        None => wrong("it is for the dashboard, which --admin serves"),
        Some(admin) if admin.protection.token.is_none() && !admin.address.ip().is_loopback() => {
            wrong(&format!(
                "--admin {} lets others in, who would see credentials; give --admin-token-file, or listen on 127.0.0.1",
                admin.address
            ))
        }
        Some(_) => Ok(()),
    }
}

#[derive(Clone, Debug)]
enum Header {
    All,
    Name(FieldName),
}

fn header(text: &str) -> Result<Header, String> {
    match text.trim() {
        "*" => Ok(Header::All),
        name => name
            .parse()
            .map(Header::Name)
            .map_err(|error: crate::http1::FieldNameError| error.to_string()),
    }
}
