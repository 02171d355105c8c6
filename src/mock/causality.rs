//! Which exchange a call belongs to: by its trace, else by what was open when it was made.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

/// To which exchange a call belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owner<K> {
    /// To this one.
    Known(K),
    /// To one of these, the likeliest first.
    OneOf(Vec<K>),
    /// Nothing that is known was open.
    Nobody,
}

impl<K> Owner<K> {
    /// Those that it may be.
    #[must_use]
    pub fn candidates(&self) -> &[K] {
        match self {
            Self::Known(one) => std::slice::from_ref(one),
            Self::OneOf(several) => several,
            Self::Nobody => &[],
        }
    }
}

/// The exchanges that are open, and the traces of those that were.
#[derive(Debug)]
pub struct Causes<K> {
    /// In the order in which they began.
    open: VecDeque<K>,
    is_open: AHashSet<K>,
    traces: AHashMap<Arc<str>, Vec<K>>,
    /// What has a trace, oldest first.
    traced: VecDeque<(Arc<str>, K)>,
    /// The exchange to which the last call on a connection belonged.
    connections: AHashMap<u64, K>,
    connected: VecDeque<u64>,
}

impl<K> Default for Causes<K> {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            is_open: AHashSet::new(),
            traces: AHashMap::new(),
            traced: VecDeque::new(),
            connections: AHashMap::new(),
            connected: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Causes<K> {
    /// An exchange begins.
    pub fn begin(&mut self, exchange: K, trace: Option<Arc<str>>) {
        if let Some(trace) = trace {
            let known = self.traces.entry(Arc::clone(&trace)).or_default();
            if !known.contains(&exchange) {
                known.push(exchange.clone());
                self.traced.push_back((trace, exchange.clone()));
            }
            if self.traced.len() > MOST_KNOWN
                && let Some((trace, oldest)) = self.traced.pop_front()
                && let Some(known) = self.traces.get_mut(&trace)
            {
                known.retain(|it| *it != oldest);
                if known.is_empty() {
                    self.traces.remove(&trace);
                }
            }
        }
        if self.is_open.insert(exchange.clone()) {
            self.open.push_back(exchange);
        }
        if self.open.len() > MOST_KNOWN
            && let Some(oldest) = self.open.pop_front()
        {
            self.is_open.remove(&oldest);
        }
    }

    /// It ends; calls of its trace still belong to it.
    pub fn end(&mut self, exchange: &K) {
        if self.is_open.remove(exchange) {
            // Most end in about the order in which they began.
            if let Some(at) = self.open.iter().position(|it| it == exchange) {
                self.open.remove(at);
            }
        }
    }

    /// Whether an exchange with this trace is known.
    #[must_use]
    pub fn knows(&self, trace: &str) -> bool {
        self.traces.contains_key(trace)
    }

    /// Whose a call is that is made now, on that connection (a number of the caller's own).
    pub fn owner(&mut self, trace: Option<&str>, connection: Option<u64>) -> Owner<K> {
        let owner = self.find(trace, connection);
        if let (Some(connection), Owner::Known(exchange)) = (connection, &owner) {
            let before = self.connections.insert(connection, exchange.clone());
            if before.is_none() {
                self.connected.push_back(connection);
            }
            if self.connected.len() > MOST_KNOWN
                && let Some(oldest) = self.connected.pop_front()
            {
                self.connections.remove(&oldest);
            }
        }
        owner
    }

    fn find(&self, trace: Option<&str>, connection: Option<u64>) -> Owner<K> {
        if let Some(of_trace) = trace.and_then(|trace| self.traces.get(trace)) {
            let open: Vec<K> = of_trace
                .iter()
                .filter(|exchange| self.is_open.contains(exchange))
                .cloned()
                .collect();
            return match (open.as_slice(), of_trace.last()) {
                ([one], _) => Owner::Known(one.clone()),
                ([], Some(last)) => Owner::Known(last.clone()),
                ([], None) => Owner::Nobody,
                _ => Owner::OneOf(open),
            };
        }
        match self.open.len() {
            0 => Owner::Nobody,
            1 => Owner::Known(self.open[0].clone()),
            2..=MOST_CANDIDATES => {
                let mut several: Vec<K> = self.open.iter().cloned().collect();
                let last = connection.and_then(|connection| self.connections.get(&connection));
                if let Some(at) = last.and_then(|last| several.iter().position(|it| it == last)) {
                    several[..=at].rotate_right(1);
                }
                Owner::OneOf(several)
            }
            // Among so many, only what the calls say can tell.
            _ => Owner::Nobody,
        }
    }
}

/// Exchanges and connections that are remembered; the oldest are forgotten.
const MOST_KNOWN: usize = 1 << 16;

/// Exchanges that a call may belong to, before nothing is said about it.
const MOST_CANDIDATES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_tells_even_when_the_exchange_is_over() {
        let mut causes = Causes::default();
        causes.begin(1, Some("a".into()));
        causes.begin(2, Some("b".into()));
        assert_eq!(causes.owner(Some("a"), None), Owner::Known(1));
        causes.end(&1);
        assert_eq!(causes.owner(Some("a"), None), Owner::Known(1));
        assert_eq!(causes.owner(Some("unknown"), None), Owner::Known(2));
    }

    #[test]
    fn exchanges_of_one_trace_are_told_apart_by_time() {
        let mut causes = Causes::default();
        causes.begin(1, Some("a".into()));
        causes.begin(2, Some("a".into()));
        causes.begin(3, None);
        assert_eq!(causes.owner(Some("a"), None), Owner::OneOf(vec![1, 2]));
        causes.end(&1);
        assert_eq!(causes.owner(Some("a"), None), Owner::Known(2));
    }

    #[test]
    fn without_a_trace_time_tells_and_the_connection_breaks_ties() {
        let mut causes = Causes::default();
        assert_eq!(causes.owner(None, Some(7)), Owner::Nobody);
        causes.begin(1, None);
        causes.begin(2, None);
        causes.end(&1);
        assert_eq!(causes.owner(None, Some(7)), Owner::Known(2));
        causes.begin(3, None);
        causes.begin(4, None);
        assert_eq!(causes.owner(None, Some(8)), Owner::OneOf(vec![2, 3, 4]));
        causes.end(&2);
        causes.begin(2, None);
        assert_eq!(causes.owner(None, Some(7)), Owner::OneOf(vec![2, 3, 4]));
    }

    #[test]
    fn among_too_many_nothing_is_said() {
        let mut causes = Causes::default();
        for exchange in 0..1000 {
            causes.begin(exchange, None);
        }
        assert_eq!(causes.owner(None, None), Owner::Nobody);
        for exchange in 1..1000 {
            causes.end(&exchange);
        }
        assert_eq!(causes.owner(None, None), Owner::Known(0));
    }
}
