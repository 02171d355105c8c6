//! Keeps a mirror from replaying into version 1 itself, which would do everything twice.
//!
//! This happens where version 2's Service selects version 1's pods, as a preview Service does between two releases, or where
//! a target's name leads to the pod itself. Addresses tell only the second, so that the wire has to tell the first: every
//! replay is marked, and a marked request that arrives at version 1 pauses replay. Which target it came through, and whether
//! it still does, a probe tells: an `OPTIONS *`, which asks a server for nothing (RFC 9110 §9.3.7), marked with a number
//! made from the target's URL. The sidecars of version 1's other pods have the same target, so one's probe warns all.
//!
//! [`state`] has what follows from what, without clock or sockets.

mod state;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::state::{Guard, Means};
use crate::admin::{Latch, Readiness};
use crate::capture::live::local_addresses;
use crate::exchange::Request;
use crate::metrics::TargetMetrics;
use crate::replay::{EngineHandle, FieldName, Gate, Host, ReplayConfig, Scheme, TargetState};
use crate::tap::{Watch, WatchedEnd};

/// The guards of all targets of a mirror.
pub(super) struct Guards {
    marker: Option<FieldName>,
    watch: Watch,
    targets: Vec<Mutex<Guarded>>,
}

struct Guarded {
    name: String,
    handle: EngineHandle,
    guard: Guard,
    /// The marker's value in probes of this target, here and in the sidecars of version 1's other pods.
    probe_mark: String,
    /// All of a probe.
    probe: Vec<u8>,
    /// The addresses that the guard knows of.
    addresses: Vec<SocketAddr>,
    /// Which of them is probed next.
    turn: usize,
    /// Says why the mirror is not ready, while it is paused.
    pause: Latch,
}

/// One place in [`Readiness`] for each target's pause.
pub(super) fn pause_latches(readiness: &mut Readiness, targets: usize) -> Vec<Latch> {
    (0..targets).map(|_| readiness.silent_latch()).collect()
}

/// Refuses targets that are written as an address which is version 1's: nothing can make that right later.
///
/// # Errors
/// Which one it is.
pub(super) fn refuse_own_addresses(targets: &[ReplayConfig], watch: &Watch) -> anyhow::Result<()> {
    for config in targets {
        let Host::Address(ip) = config.target.host() else {
            continue;
        };
        let address = SocketAddr::new(*ip, config.target.port());
        if own_address(&[address], watch).is_some() {
            bail!(
                "--to {} is {address}, which is version 1 itself: it would get each of its requests again. \
                 Where both versions listen on the same port of one machine, watch version 1's address alone: \
                 --port ADDRESS:PORT",
                config.target
            );
        }
    }
    Ok(())
}

impl Guards {
    pub(super) fn new(
        configs: &[ReplayConfig],
        handles: &[EngineHandle],
        pauses: Vec<Latch>,
        watch: &Watch,
    ) -> Arc<Self> {
        let targets = configs.iter().zip(handles).zip(pauses);
        Arc::new(Self {
            marker: configs.first().and_then(|config| config.marker.clone()),
            watch: watch.clone(),
            targets: targets
                .map(|((config, handle), pause)| {
                    Mutex::new(Guarded::new(config, handle.clone(), pause))
                })
                .collect(),
        })
    }

    /// Looks at a request that has arrived at version 1.
    pub(super) fn look(&self, request: &Request) {
        let Some(marker) = &self.marker else {
            return;
        };
        let Some(mark) = request.head.fields().get(marker.as_str()) else {
            return;
        };
        for target in &self.targets {
            let mut target = lock(target);
            let is_probe = mark == target.probe_mark.as_bytes();
            let is_other_probe = !is_probe && mark.starts_with(PROBE.as_bytes());
            if !is_other_probe {
                target.change(|guard| guard.marked(Instant::now(), is_probe));
            }
        }
    }

    /// Does what is due: to be called some ten times a second.
    pub(super) fn beat(self: &Arc<Self>, metrics: &[TargetMetrics]) {
        for (index, (target, metrics)) in self.targets.iter().zip(metrics).enumerate() {
            let mut target = lock(target);
            target.follow_addresses(&self.watch);
            let mut is_due = false;
            target.change(|guard| is_due = guard.beat(Instant::now()));
            metrics.paused(target.guard.why().is_some());
            if is_due && !target.addresses.is_empty() {
                let address = target.addresses[target.turn % target.addresses.len()];
                target.turn = target.turn.wrapping_add(1);
                let (probe, guards) = (target.probe.clone(), Arc::clone(self));
                tokio::spawn(async move {
                    let is_answered = probe_once(address, &probe).await;
                    lock(&guards.targets[index])
                        .change(|guard| guard.probed(Instant::now(), is_answered));
                });
            }
        }
    }
}

impl Guarded {
    fn new(config: &ReplayConfig, handle: EngineHandle, pause: Latch) -> Self {
        let name = config.target.to_string();
        let digest = Sha256::digest(name.as_bytes());
        let number: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let probe_mark = format!("{PROBE}{number}");
        let marker = config.marker.as_ref().map(ToString::to_string);
        let probe = format!(
            "OPTIONS * HTTP/1.1\r\nHost: {}\r\nUser-Agent: shadowtap\r\nConnection: close\r\n{}: {probe_mark}\r\n\r\n",
            config.target.authority(),
            marker.as_deref().unwrap_or_default(),
        );
        // A probe of an https target would have to speak TLS; behind whatever ends that, only the marks of replays tell.
        let means = match (&marker, config.target.scheme()) {
            (Some(_), Scheme::Http) if config.hold_new_addresses => Means::ProbeFirst,
            (Some(_), Scheme::Http) => Means::Probe,
            _ => Means::Addresses,
        };
        Self {
            name,
            handle,
            guard: Guard::new(means),
            probe_mark,
            probe: probe.into_bytes(),
            addresses: Vec::new(),
            turn: 0,
            pause,
        }
    }

    /// Tells the guard about addresses that it does not know, or that the engine holds requests for.
    fn follow_addresses(&mut self, watch: &Watch) {
        // The gate first: the engine shuts it before it shows the addresses.
        let is_held = self.handle.gate() == Gate::Hold && self.guard.gate() != Gate::Hold;
        let mut addresses = match self.handle.target_state() {
            TargetState::Resolved(addresses) => addresses,
            TargetState::Asking | TargetState::Unresolved(_) => Vec::new(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        let own = own_address(&addresses, watch);
        let is_new = addresses != self.addresses || own != self.guard.own_address();
        if is_new || (is_held && !addresses.is_empty()) {
            self.addresses = addresses;
            let any = !self.addresses.is_empty();
            self.change(|guard| guard.addresses(Instant::now(), any, own));
            // The engine may have shut it by itself.
            self.handle.set_gate(self.guard.gate());
        }
    }

    /// Changes the guard, and does and says what follows.
    fn change(&mut self, change: impl FnOnce(&mut Guard)) {
        let before = self.guard.why();
        let gate_before = self.guard.gate();
        change(&mut self.guard);
        let after = self.guard.why();
        if self.guard.gate() != gate_before {
            self.handle.set_gate(self.guard.gate());
        }
        if before == after {
            return;
        }
        let target = &self.name;
        match &after {
            Some(why) => {
                tracing::warn!(%target, "replay is paused: {why}");
                self.pause
                    .say(Some(format!("replay to {target} is paused: {why}")));
            }
            None => {
                tracing::info!(%target, "replay goes on: the target no longer leads to version 1");
                self.pause.say(None);
            }
        }
    }
}

/// The first address that is of this machine and watched: version 1 itself.
fn own_address(addresses: &[SocketAddr], watch: &Watch) -> Option<SocketAddr> {
    let is_watched = |address: &&SocketAddr| {
        let is = |end: &WatchedEnd| {
            end.port == address.port() && end.address.is_none_or(|ip| ip == address.ip())
        };
        watch.ends.iter().any(is)
    };
    let mut watched = addresses.iter().filter(is_watched).peekable();
    watched.peek()?;
    let local: HashSet<IpAddr> = local_addresses().unwrap_or_default();
    watched
        .find(|address| local.contains(&address.ip()))
        .copied()
}

/// Sends a probe; whether anything was answered.
async fn probe_once(address: SocketAddr, probe: &[u8]) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(probe).await?;
        let mut answer = [0; 512];
        stream.read(&mut answer).await
    };
    let answered = tokio::time::timeout(PROBE_PATIENCE, exchange).await;
    answered.is_ok_and(|read| read.is_ok_and(|length| length > 0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it at worst undecided, and the next beat decides.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the marker's value begins in a probe.
const PROBE: &str = "probe ";

/// How long a target may take to answer a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
