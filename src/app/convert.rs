//! `convert`: files → exchanges, or packets → a file.

use super::Finished;
use super::input::Input;
use crate::account::Account;
use crate::capture::PacketSource;
use crate::cli::convert::Job;
use crate::exchange::Joiner;
use crate::progress::{Progress, Screen};
use crate::record::{Format, Options, Writer};
use crate::sandbox::{Needs, Sandbox};
use crate::traffic::{Choice, Redactor};

/// Runs `shadowtap convert`.
///
/// # Errors
/// When a file does not open, or the new one cannot be created.
pub fn run(job: Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    let everything = job.tap.watch.ends.is_empty() && job.choice.is_everything();
    let input = Input::open(&job.files, job.tap)?;
    let options = Options {
        force: job.force,
        ..Options::default()
    };
    Writer::check_apart(&job.out, &job.files)?;
    let redactor = super::redactor(job.redact)?;
    let writer = Writer::create(&job.out, options)?;
    sandbox.enter_quietly(&Needs::reading(&job.files).writing(&job.out));
    let progress = Progress::files(screen, input.size());
    if writer.format() == Format::Pcap && everything {
        match input.into_packets() {
            Ok((packets, tap)) => return copy_packets(packets, tap, writer, progress),
            Err(input) => return convert(*input, &job.choice, redactor.as_ref(), writer, progress),
        }
    }
    convert(input, &job.choice, redactor.as_ref(), writer, progress)
}

/// Packets stay packets: every one of them, whatever it carries.
fn copy_packets(
    mut packets: impl PacketSource,
    mut tap: crate::tap::Tap,
    mut writer: Writer,
    mut progress: Progress,
) -> anyhow::Result<Finished> {
    let outcome = loop {
        match packets.next_packet() {
            Ok(Some(packet)) => {
                tap.packet(&packet);
                while tap.poll().is_some() {}
                if let Err(error) = writer.packet(&packet) {
                    break Err(error.into());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
        if progress.is_due() {
            progress.show(tap.account(), None);
        }
    };
    tap.finish();
    finish(tap.account().clone(), writer, outcome)
}

fn convert(
    mut input: Input,
    choice: &Choice,
    redactor: Option<&Redactor>,
    mut writer: Writer,
    mut progress: Progress,
) -> anyhow::Result<Finished> {
    let mut joiner = Joiner::new(WAITING_REQUESTS);
    // Damage in one file is no reason to leave the others.
    let mut outcome = Ok(());
    loop {
        match input.next_event() {
            Ok(Some(event)) => {
                if let Some(exchange) = joiner.push(event)
                    && let Err(error) =
                        super::write_chosen(&mut writer, choice, redactor, &exchange)
                {
                    outcome = Err(error.into());
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => outcome = Err(error),
        }
        if progress.is_due() {
            progress.show(&input.account(), Some(input.position()));
        }
    }
    for exchange in joiner.finish() {
        if let Err(error) = super::write_chosen(&mut writer, choice, redactor, &exchange) {
            outcome = outcome.and(Err(error.into()));
            break;
        }
    }
    finish(input.account(), writer, outcome)
}

fn finish(
    mut account: Account,
    writer: Writer,
    outcome: anyhow::Result<()>,
) -> anyhow::Result<Finished> {
    let (recorded, written) = writer.finish();
    account.merge(&recorded);
    Ok(Finished {
        account,
        targets: Vec::new(),
        printed: false,
        compared: None,
        outcome: outcome.and(written.map_err(anyhow::Error::from)),
    })
}

/// Requests that may wait for their answers before they are written without.
const WAITING_REQUESTS: usize = 1 << 16;
