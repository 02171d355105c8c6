//! Which requests are replayed, and what is changed in them.

use std::fmt::Display;
use std::path::PathBuf;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::{ReplayFlags, Wrong};
use crate::replay::FieldName;
use crate::traffic::body::{BodyRewrite, BodySubstitution, JsonMember};
use crate::traffic::rewrite::{
    self, Field, HostSubstitution, PathSubstitution, QueryName, QueryPair,
};
use crate::traffic::{Choice, Percent, Rewrite, Rule, Sample, SampleBy, Selection, Traffic};

/// Which requests are meant; `docs/filters.md` describes the rules.
#[derive(Args, Debug)]
#[command(next_help_heading = "Which requests")]
pub struct ChooseFlags {
    /// Take requests that match this rule only; of several, all must match.
    ///
    /// method:GET,HEAD  path:/api/**  path~REGEX  host:*.example.com  header:NAME  header:NAME=VALUE  query:NAME=VALUE
    /// cookie:NAME=VALUE  basic-auth:USER:*  client:10.0.0.0/8  size:>1MiB  status:2xx. A comma separates alternatives, '*' is anything
    /// (in a path, within a segment; '**' across them), '~' instead of ':' or '=' begins a regular expression.
    #[arg(
        long,
        value_name = "RULE",
        value_delimiter = '\n',
        env = "SHADOWTAP_ONLY"
    )]
    only: Vec<Rule>,

    /// Leave out requests that match this rule, or any of several.
    #[arg(
        long,
        value_name = "RULE",
        value_delimiter = '\n',
        env = "SHADOWTAP_EXCEPT"
    )]
    except: Vec<Rule>,

    /// Take requests with safe methods only: GET, HEAD, OPTIONS, TRACE.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_SAFE_ONLY"
    )]
    safe_only: bool,

    /// Take so many percent of them.
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "100",
        hide_default_value = true,
        env = "SHADOWTAP_PERCENT"
    )]
    percent: Percent,

    /// What a sample takes whole: request, connection, client, header:NAME or cookie:NAME.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "connection",
        env = "SHADOWTAP_SAMPLE_BY"
    )]
    sample_by: SampleBy,
}

impl ChooseFlags {
    /// The rules, where nothing is sent.
    pub fn into_choice(self) -> Choice {
        Choice {
            select: Selection {
                only: self.only,
                except: self.except,
                safe_only: self.safe_only,
            },
            sample: Sample {
                percent: self.percent,
                by: self.sample_by,
            },
        }
    }
}

/// Which requests are replayed, and what is changed in them.
#[derive(Args, Debug)]
pub struct SelectFlags {
    #[command(flatten)]
    choose: ChooseFlags,

    #[command(flatten)]
    rewrite: RewriteFlags,
}

impl SelectFlags {
    /// The rules, where version 1's answer to a request is known before it is replayed.
    pub fn into_traffic(self, replay: &ReplayFlags) -> Result<Traffic, Wrong> {
        self.rewrite.check_marker(replay.marker())?;
        let Choice { select, sample } = self.choose.into_choice();
        Ok(Traffic {
            select,
            sample,
            rewrite: self.rewrite.into_rewrite()?,
            shares: replay.shares(),
            split: replay.split(),
        })
    }

    /// The rules, where it is not.
    pub fn into_live_traffic(self, replay: &ReplayFlags) -> Result<Traffic, Wrong> {
        let traffic = self.into_traffic(replay)?;
        match traffic.on_status() {
            None => Ok(traffic),
            Some(rule) => Err(Wrong(format!(
                "'{}': live, a request is sent before version 1 has answered it, so that its status is not known; \
                 record the traffic and use this rule with replay",
                rule.text()
            ))),
        }
    }
}

/// What is changed in requests before they are sent; `docs/filters.md` says how.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is changed in them")]
pub struct RewriteFlags {
    /// Set this field: the first of that name keeps its place, others of that name are taken out.
    #[arg(
        long,
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_SET_HEADER"
    )]
    set_header: Vec<Field>,

    /// Add this field behind all others.
    #[arg(
        long,
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_ADD_HEADER"
    )]
    add_header: Vec<Field>,

    /// Take out all fields of this name.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = '\n',
        value_parser = rewrite::changeable,
        env = "SHADOWTAP_REMOVE_HEADER"
    )]
    remove_header: Vec<FieldName>,

    /// Replace what matches in the path; $1 is what the first group matched.
    #[arg(
        long,
        value_name = "REGEX=>TEXT",
        value_delimiter = '\n',
        env = "SHADOWTAP_REWRITE_PATH"
    )]
    rewrite_path: Vec<PathSubstitution>,

    /// Replace what matches in the host, before --host is applied.
    #[arg(
        long,
        value_name = "REGEX=>TEXT",
        value_delimiter = '\n',
        env = "SHADOWTAP_REWRITE_HOST"
    )]
    rewrite_host: Vec<HostSubstitution>,

    /// Set this query parameter.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        value_delimiter = '\n',
        env = "SHADOWTAP_SET_QUERY"
    )]
    set_query: Vec<QueryPair>,

    /// Take this query parameter out.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = '\n',
        env = "SHADOWTAP_REMOVE_QUERY"
    )]
    remove_query: Vec<QueryName>,

    /// Replace what matches in the body; its length and chunks follow. Requests with compressed bodies are not sent then.
    #[arg(
        long,
        value_name = "REGEX=>TEXT",
        value_delimiter = '\n',
        env = "SHADOWTAP_REWRITE_BODY"
    )]
    rewrite_body: Vec<BodySubstitution>,

    /// Set a member of a JSON body, as in /user/id=7 or '/items/0/name="x"'; bodies that are not said to be JSON stay.
    #[arg(
        long,
        value_name = "/POINTER=JSON",
        value_delimiter = '\n',
        env = "SHADOWTAP_SET_BODY_JSON"
    )]
    set_body_json: Vec<JsonMember>,

    /// Send everything with this name and password (Authorization: Basic); everybody on this machine can read it here.
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "SHADOWTAP_BASIC_AUTH",
        hide_env_values = true
    )]
    basic_auth: Option<String>,

    /// Send everything with the name and password in the first line of this file, USER:PASSWORD.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "basic_auth",
        env = "SHADOWTAP_BASIC_AUTH_FILE"
    )]
    basic_auth_file: Option<PathBuf>,
}

impl RewriteFlags {
    fn into_rewrite(mut self) -> Result<Rewrite, Wrong> {
        let field = match (self.basic_auth, self.basic_auth_file) {
            (Some(text), _) => Some(
                Field::basic_auth(&text)
                    .map_err(|error| Wrong(format!("--basic-auth: {error}")))?,
            ),
            (None, Some(file)) => {
                let wrong = |error: &dyn Display| {
                    Wrong(format!("--basic-auth-file: {}: {error}", file.display()))
                };
                let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error))?;
                let line = text.lines().next().unwrap_or_default();
                Some(Field::basic_auth(line).map_err(|error| wrong(&error))?)
            }
            (None, None) => None,
        };
        self.set_header.extend(field);
        Ok(Rewrite {
            path: self.rewrite_path,
            remove_query: self.remove_query,
            set_query: self.set_query,
            host: self.rewrite_host,
            remove_header: self.remove_header,
            set_header: self.set_header,
            add_header: self.add_header,
            body: BodyRewrite {
                text: self.rewrite_body,
                json: self.set_body_json,
            },
        })
    }

    /// The marker is what keeps replays from being replayed: only its own flag changes it.
    fn check_marker(&self, marker: Option<&FieldName>) -> Result<(), Wrong> {
        let fields = self.set_header.iter().chain(&self.add_header);
        let mut names = self.remove_header.iter().chain(fields.map(Field::name));
        match marker {
            Some(marker) if names.any(|name| marker.is(name.as_str().as_bytes())) => Err(Wrong(
                format!("{marker} marks what is sent; --marker changes it, not a rule"),
            )),
            _ => Ok(()),
        }
    }
}
