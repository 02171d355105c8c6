//! `inspect`: files → exchanges → a table or JSON lines.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use super::Finished;
use super::compare::{Before, Repeats, random_key};
use super::input::Input;
use crate::account::Account;
use crate::cli::inspect::{Job, Output};
use crate::compare::{self, Rules};
use crate::exchange::{Exchange, Joiner};
use crate::progress::{Progress, Screen};
use crate::record::jsonl::{self, Detail};
use crate::report::{self, EndpointTable, Totals};
use crate::sandbox::{Needs, Sandbox};
use crate::traffic::{Choice, Redactor};

/// Runs `shadowtap inspect`.
///
/// # Errors
/// When a file does not open, or standard output fails.
pub fn run(job: Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    let input = Input::open(&job.files, job.tap)?;
    let overview = Overview::new(Redactor::new(random_key()?, Vec::new()));
    sandbox.enter_quietly(&Needs::reading(&job.files));
    show(input, &job.choice, job.output, overview, screen)
        .map_err(|error| anyhow::Error::new(error).context("standard output: writing failed"))
}

fn show(
    mut input: Input,
    choice: &Choice,
    output: Output,
    mut overview: Overview,
    screen: &Screen,
) -> io::Result<Finished> {
    // A table on the same terminal shows well enough how far it is.
    let mut progress = if io::stdout().is_terminal() {
        Progress::none()
    } else {
        Progress::files(screen, input.size())
    };
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut joiner = Joiner::new(WAITING_REQUESTS);
    let mut left_out = 0_u64;
    let mut chosen = |exchange: &Exchange| {
        let is_chosen = choice.refusal(exchange).is_none();
        left_out += u64::from(!is_chosen);
        is_chosen
    };
    if output == Output::Table {
        writeln!(out, "{}", report::exchange_heading())?;
    }
    // An error ends the packets, not the events: what the connections still held comes after it.
    let mut outcome = Ok(());
    loop {
        match input.next_event() {
            Ok(Some(event)) => {
                if let Some(exchange) = joiner.push(event)
                    && chosen(&exchange)
                {
                    print(exchange, output, &mut overview, &mut out)?;
                }
            }
            Ok(None) => break,
            Err(error) => outcome = Err(error),
        }
        if progress.is_due() {
            progress.show(&input.account(), Some(input.position()));
        }
    }
    let late = joiner.late();
    for exchange in joiner.finish().filter(|exchange| chosen(exchange)) {
        print(exchange, output, &mut overview, &mut out)?;
    }
    out.flush()?;
    if left_out > 0 {
        tracing::info!(
            "{left_out} exchanges that the filters leave out are not shown; the account counts them all the same"
        );
    }
    if late > 0 {
        tracing::warn!(
            late,
            "answers were left out: too many requests waited for theirs at once"
        );
    }
    let account: Account = input.account();
    if output == Output::Table {
        let Overview {
            totals, endpoints, ..
        } = &overview;
        let account = report::account(&account, &[]);
        write!(out, "\n{totals}\n\n{endpoints}\n{account}")?;
        out.flush()?;
    }
    Ok(Finished {
        account,
        targets: Vec::new(),
        outcome,
        printed: output == Output::Table,
        compared: None,
    })
}

fn print(
    exchange: Exchange,
    output: Output,
    overview: &mut Overview,
    out: &mut impl Write,
) -> io::Result<()> {
    match output {
        Output::Table => {
            writeln!(out, "{}", report::exchange_line(&exchange))?;
            overview.add(exchange);
            Ok(())
        }
        Output::Json => jsonl::write_exchange(&exchange, out, Detail::Inspect),
    }
}

/// What is said of all exchanges together.
struct Overview {
    totals: Totals,
    endpoints: EndpointTable,
    repeats: Repeats,
    rules: Rules,
    redactor: Redactor,
}

impl Overview {
    fn new(redactor: Redactor) -> Self {
        Self {
            totals: Totals::new(),
            endpoints: EndpointTable::new(),
            repeats: Repeats::new(),
            rules: Rules::default(),
            redactor,
        }
    }

    fn add(&mut self, exchange: Exchange) {
        self.totals.add(&exchange);
        let Some(request) = exchange.request else {
            return;
        };
        self.endpoints.add(&request, exchange.response.as_ref());
        let Some(response) = exchange.response else {
            return;
        };
        if !response.completeness.is_whole() || !request.completeness.is_whole() {
            return;
        }
        let Some(before) = self.repeats.exchange(&request, &response) else {
            return;
        };
        let differences = match before {
            Before::Same(_) => Ok(Vec::new()),
            Before::Other(before) => {
                compare::differences(&request, &before, &response, &self.rules)
            }
        };
        // What is too large to be compared is no repeat.
        if let Ok(differences) = differences {
            let shown = differences.iter().map(|difference| {
                let shown = self.redactor.difference(difference);
                (shown.field, shown.kind, (shown.v1, shown.v2))
            });
            self.endpoints.add_repeat(&request, shown);
        }
    }
}

/// More requests than this never wait for their answers at once in a sane capture.
const WAITING_REQUESTS: usize = 1 << 16;
