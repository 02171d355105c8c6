//! Every metric in one struct, its handles resolved once; labels come from enums and configuration, never from traffic.
//!
//! Workers publish copies of their [`Account`]; [`Metrics::publish`] adds what is new in them. The names are those of
//! the printed account with `shadowtap_` before them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter as PromCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::account::{Account, Counter, Reason};
use crate::replay::{BreakerState, Condition, Timings};

/// The content type of OpenMetrics text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The handles of all metrics.
pub struct Metrics {
    counters: Vec<PromCounter>,
    dropped: Vec<PromCounter>,
    targets: Vec<TargetMetrics>,
    up: Gauge,
    published: Account,
}

/// How a replay ended, as a metric label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayOutcome {
    /// The target answered, with this status code.
    Answered(u16),
    /// It was sent, or tried to be, and no whole answer came.
    Failed,
    /// It was not sent.
    Skipped,
}

/// The handles of one target.
#[derive(Clone)]
pub struct TargetMetrics {
    answered: PromCounter,
    failed: PromCounter,
    skipped: PromCounter,
    classes: [PromCounter; STATUS_CLASSES.len()],
    duration: Histogram,
    lateness: Histogram,
    queued: Gauge,
    queued_bytes: Gauge,
    connections: Gauge,
    breaker_open: Gauge,
    breaker: [Gauge; BreakerState::ALL.len()],
    resolved: Gauge,
    paused: Gauge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DropLabels {
    stage: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReplayLabels {
    target: String,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ClassLabels {
    target: String,
    class: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BreakerLabels {
    target: String,
    state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

/// The classes of status codes (RFC 9110 §15), and what is none of them.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The index in [`STATUS_CLASSES`] of a status code.
#[must_use]
pub fn status_class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class) - 1,
        _ => STATUS_CLASSES.len() - 1,
    }
}

/// Upper bounds of the histogram's buckets, in seconds: OpenTelemetry's, and finer ones below, since a service in the
/// same cluster answers in less than its smallest.
const DURATION_BUCKETS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0,
];

impl Metrics {
    /// Makes all metrics, at zero, and the registry that encodes them. `targets` are the names of the targets.
    #[must_use]
    pub fn new(targets: &[String]) -> (Self, Registry) {
        let mut registry = Registry::with_prefix("shadowtap");
        registry.register(
            "build",
            "The version of this program",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let up = Gauge::default();
        registry.register(
            "capturing",
            "1 while packets are being captured",
            up.clone(),
        );
        let counters = Counter::ALL
            .iter()
            .map(|counter| {
                let handle = PromCounter::default();
                // The encoder ends every text in a full stop of its own.
                let help = counter.meaning().trim_end_matches('.');
                registry.register(counter.name(), help, handle.clone());
                handle
            })
            .collect();
        let family = Family::<DropLabels, PromCounter>::default();
        registry.register(
            "dropped",
            "What left early, by stage and reason",
            family.clone(),
        );
        let dropped = Reason::ALL
            .iter()
            .map(|reason| {
                family.get_or_create_owned(&DropLabels {
                    stage: reason.stage().name(),
                    reason: reason.name(),
                })
            })
            .collect();
        let metrics = Self {
            counters,
            dropped,
            targets: target_metrics(&mut registry, targets),
            up,
            published: Account::new(),
        };
        (metrics, registry)
    }

    /// Adds what `account`, the sum of all workers' accounts, has counted since the last call.
    pub fn publish(&mut self, account: &Account) {
        let new = account.since(&self.published);
        for (handle, &counter) in self.counters.iter().zip(Counter::ALL) {
            handle.inc_by(new.get(counter));
        }
        for (handle, &reason) in self.dropped.iter().zip(Reason::ALL) {
            handle.inc_by(new.dropped(reason));
        }
        self.published = account.clone();
    }

    /// The handles of each target, in the order of their names.
    #[must_use]
    pub fn targets(&self) -> &[TargetMetrics] {
        &self.targets
    }

    /// Says whether packets are being captured.
    pub fn capturing(&self, yes: bool) {
        self.up.set(i64::from(yes));
    }
}

impl TargetMetrics {
    /// Counts a replay, how late it left and how long its answer took.
    pub fn replayed(&self, outcome: ReplayOutcome, timings: Option<&Timings>) {
        match outcome {
            ReplayOutcome::Answered(status) => {
                self.answered.inc();
                self.classes[status_class(status)].inc();
            }
            ReplayOutcome::Failed => {
                self.failed.inc();
            }
            ReplayOutcome::Skipped => {
                self.skipped.inc();
            }
        }
        if let Some(timings) = timings {
            self.duration.observe(timings.total.as_secs_f64());
            self.lateness.observe(timings.lateness.as_secs_f64());
        }
    }

    /// Says whether replay is paused because the target leads back to version 1.
    pub fn paused(&self, yes: bool) {
        self.paused.set(i64::from(yes));
    }

    /// Says how the engine is now.
    pub fn publish(&self, now: &Condition) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.queued, now.queued_items);
        set(&self.queued_bytes, now.queued_bytes);
        set(&self.connections, now.connections);
        let is_open = now.breaker != BreakerState::Closed;
        set(&self.breaker_open, usize::from(is_open));
        for (gauge, state) in self.breaker.iter().zip(BreakerState::ALL) {
            set(gauge, usize::from(now.breaker == state));
        }
        set(&self.resolved, usize::from(now.target.is_resolved()));
    }
}

fn target_metrics(registry: &mut Registry, targets: &[String]) -> Vec<TargetMetrics> {
    let outcomes = Family::<ReplayLabels, PromCounter>::default();
    registry.register(
        "replays",
        "Requests that were to be replayed, by how that ended",
        outcomes.clone(),
    );
    let classes = Family::<ClassLabels, PromCounter>::default();
    registry.register(
        "replay_answers",
        "Answers of the target, by class of status code",
        classes.clone(),
    );
    let durations =
        Family::<TargetLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(DURATION_BUCKETS)
        });
    registry.register(
        "replay_duration_seconds",
        "From the first byte sent to the last byte of the target's answer",
        durations.clone(),
    );
    let lateness =
        Family::<TargetLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(DURATION_BUCKETS)
        });
    registry.register(
        "replay_lateness_seconds",
        "From when a request was due to its first byte sent",
        lateness.clone(),
    );
    let breakers = Family::<BreakerLabels, Gauge>::default();
    registry.register(
        "target_breaker",
        "1 for the state that the target's circuit breaker is in: closed lets everything through, open nothing, half_open one request",
        breakers.clone(),
    );
    let mut gauges = |name, help| {
        let family = Family::<TargetLabels, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let queued = gauges(
        "replay_queue_requests",
        "Requests that wait for the target or are under way",
    );
    let queued_bytes = gauges("replay_queue_bytes", "Their bytes, bookkeeping included");
    let connections = gauges("target_connections", "Open connections to the target");
    let breaker_open = gauges(
        "target_breaker_open",
        "1 while the target is left alone because it failed too often in a row",
    );
    let resolved = gauges("target_resolved", "1 while the target has an address");
    let paused = gauges(
        "target_paused",
        "1 while nothing is sent because the target leads back to version 1",
    );
    targets
        .iter()
        .map(|target| {
            let labels = TargetLabels {
                target: target.clone(),
            };
            let outcome = |outcome| {
                outcomes.get_or_create_owned(&ReplayLabels {
                    target: target.clone(),
                    outcome,
                })
            };
            TargetMetrics {
                answered: outcome("answered"),
                failed: outcome("failed"),
                skipped: outcome("skipped"),
                classes: STATUS_CLASSES.map(|class| {
                    classes.get_or_create_owned(&ClassLabels {
                        target: target.clone(),
                        class,
                    })
                }),
                duration: durations.get_or_create_owned(&labels),
                lateness: lateness.get_or_create_owned(&labels),
                queued: queued.get_or_create_owned(&labels),
                queued_bytes: queued_bytes.get_or_create_owned(&labels),
                connections: connections.get_or_create_owned(&labels),
                breaker_open: breaker_open.get_or_create_owned(&labels),
                breaker: BreakerState::ALL.map(|state| {
                    breakers.get_or_create_owned(&BreakerLabels {
                        target: target.clone(),
                        state: state.name(),
                    })
                }),
                resolved: resolved.get_or_create_owned(&labels),
                paused: paused.get_or_create_owned(&labels),
            }
        })
        .collect()
}

/// The registry's content as OpenMetrics text.
#[must_use]
pub fn openmetrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Encoding fails only when a string cannot be written to.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn accounts_become_counters() {
        let (mut metrics, registry) = Metrics::new(&["http://v2".to_owned()]);
        let mut account = Account::new();
        account.add(Counter::Packets, 7);
        account.drop(Reason::NotIp);
        metrics.publish(&account);
        account.add(Counter::Packets, 1);
        metrics.publish(&account);
        let timings = Timings {
            lateness: Duration::from_micros(300),
            writing: Duration::ZERO,
            first_byte: Duration::from_millis(1),
            total: Duration::from_millis(2),
            reused: false,
            round_trip: None,
            unread: Duration::ZERO,
        };
        metrics.targets()[0].replayed(ReplayOutcome::Answered(204), Some(&timings));
        metrics.targets()[0].replayed(ReplayOutcome::Failed, None);
        let text = openmetrics(&registry);
        let helps = text.lines().filter(|line| line.starts_with("# HELP "));
        for help in helps {
            assert!(help.ends_with('.') && !help.ends_with(".."), "{help}");
        }
        for line in [
            "shadowtap_packets_total 8",
            "shadowtap_dropped_total{stage=\"packet\",reason=\"not_ip\"} 1",
            "shadowtap_dropped_total{stage=\"replay\",reason=\"queue_full\"} 0",
            "shadowtap_replays_total{target=\"http://v2\",outcome=\"answered\"} 1",
            "shadowtap_replays_total{target=\"http://v2\",outcome=\"skipped\"} 0",
            "shadowtap_replay_answers_total{target=\"http://v2\",class=\"2xx\"} 1",
            "shadowtap_replay_duration_seconds_bucket{le=\"0.0025\",target=\"http://v2\"} 1",
            "shadowtap_replay_lateness_seconds_bucket{le=\"0.0005\",target=\"http://v2\"} 1",
            "shadowtap_target_breaker{target=\"http://v2\",state=\"half_open\"} 0",
            concat!(
                "shadowtap_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
