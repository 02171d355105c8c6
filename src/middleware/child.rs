//! The child process: started, fed, read, and started again.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::{
    Command, FIRST_PAUSE, LONGEST_PAUSE, LOOK_EVERY, MOST_RETURNED_KIB, Patience, Phase, QUIET,
    Returned, Shared, StartError, Waiting,
};
use crate::account::{Counter, Reason};

/// Starts the command in a process group of its own: a signal at the terminal is for us alone, and what it starts itself
/// can be ended with it.
fn spawn(command: &Command) -> io::Result<Child> {
    tokio::process::Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Keeps the middleware running until it is closed; tells whether it could be started at all.
pub(super) async fn supervise<T>(
    shared: &Shared<T>,
    command: &Command,
    tell: &std::sync::mpsc::SyncSender<Result<(), StartError>>,
    sink: &Sender<Waiting<T>>,
) {
    let first = spawn(command).map_err(|source| StartError::Command {
        command: command.clone(),
        source,
    });
    let (first, word) = match first {
        Ok(first) => (Some(first), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Whoever starts it waits for the word.
    let _ = tell.send(word);
    if first.is_none() {
        return;
    }
    let mut child = first;
    let mut pause = FIRST_PAUSE;
    let mut in_vain = 0;
    loop {
        in_vain += 1;
        let why = match child.take() {
            Some(child) => {
                shared.lock().account.count(Counter::MiddlewareStarts);
                let before = shared.lock().account.get(Counter::MiddlewareReturned);
                let end = run(shared, child, sink).await;
                if shared.lock().account.get(Counter::MiddlewareReturned) > before {
                    pause = FIRST_PAUSE;
                    in_vain = 1;
                }
                match end {
                    End::Closed => return,
                    End::Died(why) => why,
                }
            }
            None => "it could not be started".to_owned(),
        };
        if matches!(shared.lock().phase, Phase::Closing(_)) {
            return;
        }
        shared.died();
        if shared.patience == Patience::Waits && in_vain >= MOST_IN_VAIN {
            let words = format!(
                "--middleware: '{command}' has ended {in_vain} times in a row ({why}) and returned nothing"
            );
            shared.lock().failure = Some(words);
            return;
        }
        tracing::warn!(%command, ?pause, "the middleware has ended ({why}); starting it again");
        if sleep_unless_closed(shared, pause).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        match spawn(command) {
            Ok(started) => {
                let mut state = shared.lock();
                if state.phase == Phase::Down {
                    state.phase = Phase::Running;
                }
                child = Some(started);
            }
            Err(error) => tracing::warn!(%command, %error, "the middleware cannot be started"),
        }
    }
}

/// Waits; whether the middleware was closed meanwhile.
async fn sleep_unless_closed<T>(shared: &Shared<T>, pause: std::time::Duration) -> bool {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if matches!(shared.lock().phase, Phase::Closing(_)) {
            return true;
        }
        sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
    }
    false
}

enum End {
    Closed,
    Died(String),
}

/// Feeds and reads one child to its end.
async fn run<T>(shared: &Shared<T>, mut child: Child, sink: &Sender<Waiting<T>>) -> End {
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return End::Died("it has no standard input and output".to_owned());
    };
    let died = tokio::select! {
        stalled = feed(shared, stdin) => Some(stalled),
        () = read(shared, stdout, sink) => None,
        () = overdue(shared) => None,
    };
    let status = match &died {
        Some(why) => {
            end(&mut child);
            why.clone()
        }
        None => match timeout(LOOK_EVERY * 4, child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                end(&mut child);
                "it closed its standard output".to_owned()
            }
        },
    };
    // Also what it has started itself.
    end(&mut child);
    let _ = child.wait().await;
    if matches!(shared.lock().phase, Phase::Closing(_)) {
        return End::Closed;
    }
    End::Died(status)
}

/// Ends the child and its whole process group.
fn end(child: &mut Child) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.start_kill();
}

/// Writes what waits, until the middleware stalls or its standard input breaks; why.
async fn feed<T>(shared: &Shared<T>, stdin: ChildStdin) -> String {
    let mut open = Some(stdin);
    loop {
        let Some(lines) = shared.take() else {
            // Closed, and all is given: it may end now.
            open = None;
            shared.filled.notified().await;
            continue;
        };
        if lines.is_empty() {
            shared.filled.notified().await;
            continue;
        }
        let Some(stdin) = &mut open else { continue };
        let mut rest = &lines[..];
        while !rest.is_empty() {
            match timeout(shared.stall, stdin.write(rest)).await {
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(error)) => {
                    // It has ended: the end of its output, where what it returned last is, comes before this is over.
                    sleep(QUIET).await;
                    return format!("it does not read its standard input: {error}");
                }
                // While nobody takes what it returned, it cannot be blamed for not reading.
                Err(_) if shared.lock().is_held_up => {}
                Err(_) => {
                    return format!("it has not read its standard input for {:?}", shared.stall);
                }
            }
        }
    }
}

/// Reads what it returns until it closes its standard output.
async fn read<T>(shared: &Shared<T>, stdout: ChildStdout, sink: &Sender<Waiting<T>>) {
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let Ok(piece) = stdout.fill_buf().await else {
            return;
        };
        if piece.is_empty() {
            return;
        }
        let line_feed = memchr::memchr(b'\n', piece);
        let taken = line_feed.map_or(piece.len(), |at| at + 1);
        is_too_long |= line.len() + taken > LONGEST_LINE;
        if !is_too_long {
            line.extend_from_slice(&piece[..taken]);
        }
        stdout.consume(taken);
        if line_feed.is_none() {
            continue;
        }
        if std::mem::take(&mut is_too_long) {
            let mut state = shared.lock();
            state.account.count(Counter::MiddlewareAdded);
            state.account.drop(Reason::MiddlewareMalformed);
        } else if let Some(returned) = shared.returned(&line) {
            shared.lock().is_held_up = true;
            let sent = hand_over(shared, returned, sink).await;
            let mut state = shared.lock();
            state.is_held_up = false;
            state.stirred = Instant::now();
            drop(state);
            if !sent {
                return;
            }
        }
        line.clear();
        line.shrink_to(LINE_KEPT);
    }
}

/// Waits for room and hands a message over; `false` when nobody takes any more.
async fn hand_over<T>(
    shared: &Shared<T>,
    returned: Returned<T>,
    sink: &Sender<Waiting<T>>,
) -> bool {
    let kib = u32::try_from(returned.record.payload.len() >> 10).unwrap_or(u32::MAX);
    let room = Arc::clone(&shared.room_returned);
    let room = room.acquire_many_owned(kib.saturating_add(1).min(MOST_RETURNED_KIB));
    match room.await {
        Ok(room) => sink.send((returned, room)).await.is_ok(),
        Err(_) => false,
    }
}

/// Returns when a closed middleware has had its time: it is quiet, or the grace is over.
async fn overdue<T>(shared: &Shared<T>) {
    loop {
        sleep(LOOK_EVERY).await;
        let state = shared.lock();
        let now = Instant::now();
        if let Phase::Closing(until) = state.phase
            && (now >= until || state.is_quiet(now))
        {
            return;
        }
    }
}

/// Two digits for each byte of the longest record, and its header.
const LONGEST_LINE: usize = 134 << 20;

/// A line that was longer does not keep its memory.
const LINE_KEPT: usize = 1 << 20;

/// Whoever waits for it is told when it has ended so often without a word.
const MOST_IN_VAIN: u32 = 5;
