//! `record`: capture worker → bounded channel → writer.
//!
//! A `.pcap` file gets the packets themselves, any other format the exchanges.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::watch;

use super::Finished;
use super::egress::Addresses;
use super::live::{self, Batch, Block, Packets, WhenDropped};
use super::losses::LossWatch;
use super::restraint::Restraint;
use super::signals::StopSignals;
use crate::account::{Account, Counter, Reason};
use crate::admin::Readiness;
use crate::capture::live::{Live, give_up_capabilities};
use crate::cli::record::Job;
use crate::exchange::{Event, Joiner};
use crate::metrics::Metrics;
use crate::progress::{Progress, Screen};
use crate::record::{Format, Options, RecordError, Writer};
use crate::sandbox::{Needs, Sandbox};
use crate::traffic::{Choice, Redactor};

/// Runs `shadowtap record` until a signal, or until nothing more can be captured or written.
///
/// # Errors
/// What keeps it from starting.
pub fn run(job: &Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    super::runtime()?.block_on(record(job, screen, sandbox))
}

async fn record(job: &Job, screen: &Screen, sandbox: &Sandbox) -> anyhow::Result<Finished> {
    let mut signals = StopSignals::new().context("taking over signals")?;
    let mut readiness = Readiness::default();
    let capture_latch = readiness.latch("the capture is not open");
    let (mut metrics, registry) = Metrics::new(&[]);
    super::serve_admin(job.admin.as_ref(), registry, readiness, None, sandbox)?;
    let live = Live::open(&job.live)?;
    let options = Options {
        force: job.force,
        snap_length: job.live.snaplen,
        rotation: job.rotation,
        ..Options::default()
    };
    let redactor = super::redactor(job.redact.clone())?;
    let writer = Writer::create(&job.out, options)?;
    give_up_capabilities();
    sandbox.enter(&Needs::default().writing(&job.out));
    super::say_what_is_captured(&job.live, &live);
    tracing::info!(to = %writer.path().display(), "recording");
    // Packets are copied as they are, unless some requests are to be left out.
    let is_pcap = writer.format() == Format::Pcap && job.choice.is_everything();
    let (send_blocks, blocks) = live::blocks();
    let (packets, when_dropped) = if is_pcap {
        (Packets::Copied(send_blocks), WhenDropped::Nothing)
    } else {
        (Packets::Passing, WhenDropped::Records)
    };
    let called = if job.egress.is_empty() {
        None
    } else {
        Some(Addresses::resolve(&job.egress).await.now)
    };
    let (workers, stop) = live::start(
        live,
        &job.tap,
        packets,
        when_dropped,
        called,
        Restraint::new(job.limits),
        capture_latch,
    )?;
    let batches = workers.batches.clone();
    let choice = job.choice.clone();
    let (publish, written) = watch::channel(Account::new());
    let writing = thread::Builder::new()
        .name("write".to_owned())
        .spawn(move || {
            if is_pcap {
                // Nobody looks at the exchanges, but they are counted.
                let drain = thread::Builder::new()
                    .name("drain".to_owned())
                    .spawn(move || batches.iter().for_each(drop));
                let done = write_packets(&blocks, writer, publish);
                drop(drain);
                done
            } else {
                write_exchanges(&batches, &choice, redactor.as_ref(), writer, publish)
            }
        })
        .context("starting a thread")?;
    metrics.capturing(true);
    let mut progress = Progress::live(screen);
    let mut losses = LossWatch::new();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            signal = signals.recv() => {
                tracing::info!(signal, "stopping; the same signal again stops at once");
                break;
            }
            _ = beat.tick() => {}
        }
        let mut account = workers.account();
        account.merge(&written.borrow());
        metrics.publish(&account);
        losses.look(&account);
        if progress.is_due() {
            progress.show(&account, None);
        }
        // Its sender is dropped when nothing more can be written.
        if written.has_changed().is_err() {
            break;
        }
    }
    drop(progress);
    metrics.capturing(false);
    drop(stop);
    let stopping = tokio::task::spawn_blocking(move || {
        let (mut account, captured) = workers.join();
        let (recorded, wrote) = match writing.join() {
            Ok((recorded, wrote)) => (recorded, wrote.map_err(anyhow::Error::from)),
            Err(_) => (
                Account::new(),
                Err(anyhow::anyhow!("the writing thread panicked")),
            ),
        };
        account.merge(&recorded);
        Finished {
            account,
            targets: Vec::new(),
            printed: false,
            compared: None,
            outcome: wrote.and(captured),
        }
    });
    let finished = super::unless_signalled(stopping, &mut signals).await?;
    metrics.publish(&finished.account);
    Ok(finished)
}

type Written = (Account, Result<(), RecordError>);

fn write_packets(
    blocks: &Receiver<Block>,
    mut writer: Writer,
    publish: watch::Sender<Account>,
) -> Written {
    let written = until_closed(blocks, &mut writer, &publish, |writer, block| {
        let mut packets = block.packets();
        let written = packets.try_for_each(|packet| writer.packet(&packet));
        written.map_err(|error| (error, packets.count() as u64))
    });
    drop(publish);
    let (mut account, finished) = writer.finish();
    let written = written.map_err(|(error, rest)| {
        let queued: u64 = blocks.iter().map(|block| block.len()).sum();
        give_up(&mut account, rest + queued, &error);
        error
    });
    (account, good_end(written.and(finished)))
}

fn write_exchanges(
    batches: &Receiver<Batch>,
    choice: &Choice,
    redactor: Option<&Redactor>,
    mut writer: Writer,
    publish: watch::Sender<Account>,
) -> Written {
    let mut joiner = Joiner::new(WAITING_REQUESTS);
    let written = until_closed(batches, &mut writer, &publish, |writer, batch| {
        let mut exchanges = batch.into_iter().filter_map(|event| joiner.push(event));
        let written = exchanges
            .try_for_each(|exchange| super::write_chosen(writer, choice, redactor, &exchange));
        written.map_err(|error| (error, exchanges.count() as u64))
    });
    let written = match written {
        Ok(()) => joiner
            .finish()
            .try_for_each(|exchange| super::write_chosen(&mut writer, choice, redactor, &exchange))
            .map_err(|error| (error, 0)),
        Err((error, rest)) => Err((error, rest + joiner.pending() as u64)),
    };
    drop(publish);
    let (mut account, finished) = writer.finish();
    let written = written.map_err(|(error, rest)| {
        let requests = |batch: Batch| {
            let is_request = |event: &&Event| matches!(event, Event::Request(_));
            batch.iter().filter(is_request).count() as u64
        };
        let queued: u64 = batches.iter().map(requests).sum();
        give_up(&mut account, rest + queued, &error);
        error
    });
    (account, good_end(written.and(finished)))
}

/// Counts what was captured after the end of writing.
fn give_up(account: &mut Account, records: u64, error: &RecordError) {
    account.add(Counter::RecordsOffered, records);
    let reason = match error {
        RecordError::Full { .. } => Reason::RecordingFull,
        _ => Reason::WriteFailed,
    };
    account.drop_n(reason, records);
}

/// A recording that became as large as the user wanted has ended well.
fn good_end(written: Result<(), RecordError>) -> Result<(), RecordError> {
    match written {
        Err(full @ RecordError::Full { .. }) => {
            tracing::info!("recording ends: {full}");
            Ok(())
        }
        written => written,
    }
}

/// Writes whatever comes until the channel closes or writing fails; now and then everything is brought to the file.
///
/// The error comes with how much of the item in hand was left.
fn until_closed<T>(
    from: &Receiver<T>,
    writer: &mut Writer,
    publish: &watch::Sender<Account>,
    mut write: impl FnMut(&mut Writer, T) -> Result<(), (RecordError, u64)>,
) -> Result<(), (RecordError, u64)> {
    let mut unflushed = false;
    loop {
        match from.recv_timeout(FLUSH_AFTER) {
            Ok(item) => {
                write(writer, item)?;
                unflushed = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                if std::mem::take(&mut unflushed) {
                    writer.flush().map_err(|error| (error, 0))?;
                }
                writer.turn_if_due().map_err(|error| (error, 0))?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        publish.send_replace(writer.account().clone());
    }
}

/// What was captured is on disk when nothing more came for so long.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// Requests that may wait for their answers before they are recorded without.
const WAITING_REQUESTS: usize = 1 << 16;
