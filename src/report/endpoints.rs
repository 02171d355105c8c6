//! What a capture alone says of each endpoint: how often, how well, how fast, and where version 1 differs from itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::comparison::{MOST_ENDPOINTS, MOST_FIELDS, WIDEST, cut, share, shown};
use super::{Shown, grouped, latency};
use crate::compare::{DifferenceKind, Endpoints};
use crate::exchange::{Request, Response};
use crate::judge::Buckets;

/// A table of endpoints, those with the most requests first, and the fields that change from one answer to the next.
#[derive(Debug)]
pub struct EndpointTable {
    endpoints: Endpoints,
    rows: BTreeMap<Arc<str>, Row>,
}

#[derive(Debug, Default)]
struct Row {
    requests: u64,
    failed: u64,
    took: Buckets,
    repeated: u64,
    /// In how many repeats a field differed, and what the two answers had there at the first time.
    fields: BTreeMap<(Arc<str>, DifferenceKind), (u64, Shown)>,
}

impl EndpointTable {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            endpoints: Endpoints::new(Vec::new(), MOST_NAMES),
            rows: BTreeMap::new(),
        }
    }

    /// Counts a request, and its answer where there is one.
    pub fn add(&mut self, request: &Request, response: Option<&Response>) {
        let row = self.row(request);
        row.requests += 1;
        let Some(response) = response else {
            return;
        };
        row.failed += u64::from(response.head.status() >= 500);
        let took = response.last_byte.since(request.last_byte);
        if response.completeness.is_whole() && !took.is_zero() {
            row.took.add_duration(took);
        }
    }

    /// Counts a request that was answered within seconds before as well, and where the two answers differ.
    pub fn add_repeat(
        &mut self,
        request: &Request,
        differing: impl IntoIterator<Item = (Arc<str>, DifferenceKind, Shown)>,
    ) {
        let row = self.row(request);
        row.repeated += 1;
        for (field, kind, shown) in differing {
            let key = (field, kind);
            if row.fields.len() < MOST_KEPT || row.fields.contains_key(&key) {
                row.fields.entry(key).or_insert((0, shown)).0 += 1;
            }
        }
    }

    fn row(&mut self, request: &Request) -> &mut Row {
        self.rows.entry(self.endpoints.name(request)).or_default()
    }
}

impl Default for EndpointTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EndpointTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.requests));
        let more = rows.len().saturating_sub(MOST_ENDPOINTS);
        rows.truncate(MOST_ENDPOINTS);
        let widths = rows.iter().map(|(name, _)| name.chars().count());
        let width = widths.max().unwrap_or(0).clamp(8, WIDEST);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>7}  {:>9}  {:>9}  {:>9}",
            "endpoint", "requests", "5xx", "median", "p99", "repeated"
        )?;
        for (name, row) in &rows {
            let took = |q| match row.took.quantile(q) {
                Some(micros) => latency(Duration::from_micros(micros)),
                None => "-".to_owned(),
            };
            writeln!(
                f,
                "{:width$}  {:>9}  {:>7}  {:>9}  {:>9}  {:>9}",
                cut(name),
                grouped(row.requests),
                share(row.failed, row.requests),
                took(0.5),
                took(0.99),
                grouped(row.repeated),
            )?;
        }
        if more > 0 {
            writeln!(f, "and {more} endpoints more, with fewer requests")?;
        }
        if rows.iter().any(|(_, row)| !row.fields.is_empty()) {
            writeln!(
                f,
                "\nWhere the same request is answered otherwise within seconds"
            )?;
        }
        for (name, row) in rows {
            show_fields(f, name, row)?;
        }
        Ok(())
    }
}

fn show_fields(f: &mut fmt::Formatter<'_>, name: &str, row: &Row) -> fmt::Result {
    if row.fields.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {name}")?;
    let mut fields: Vec<_> = row.fields.iter().collect();
    fields.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for ((field, kind), (count, (first, then))) in fields.iter().take(MOST_FIELDS) {
        writeln!(
            f,
            "    {field} ({kind}): in {} of {} repeats",
            grouped(*count),
            grouped(row.repeated)
        )?;
        writeln!(f, "      first  {}", shown(first.as_deref()))?;
        writeln!(f, "      then   {}", shown(then.as_deref()))?;
    }
    if fields.len() > MOST_FIELDS {
        writeln!(f, "    and {} fields more", fields.len() - MOST_FIELDS)?;
    }
    Ok(())
}

/// So many endpoints are told apart.
const MOST_NAMES: usize = 127;

/// So many fields are counted apart at each.
const MOST_KEPT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{answer, request};
    use crate::time::Timestamp;

    #[test]
    fn endpoints_with_what_is_known_of_them() {
        let mut table = EndpointTable::new();
        for number in 0..300u64 {
            let mut asked = request(&format!("GET /items/{number} HTTP/1.1\r\n\r\n"), "");
            asked.last_byte = Timestamp::from_secs_nanos(number, 0);
            let mut answered = answer(if number < 3 { 503 } else { 200 }, "", b"{}");
            answered.last_byte = asked.last_byte.after(Duration::from_millis(20));
            table.add(&asked, (number != 7).then_some(&answered));
            if number % 2 == 0 {
                let shown = (Some("5".to_owned()), None);
                let field = ("body.stock".into(), DifferenceKind::Missing, shown);
                table.add_repeat(&asked, (number % 4 == 0).then_some(field));
            }
        }
        table.add(&request("GET / HTTP/1.1\r\n\r\n", ""), None);
        let text = table.to_string();
        let line = |with: &str| {
            let mut lines = text.lines();
            lines.find(|line| line.starts_with(with)).expect(with)
        };
        let cells: Vec<_> = line("GET /items/{id}").split("  ").map(str::trim).collect();
        let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells[1..3], ["300", "1.00%"], "{text}");
        assert_eq!(cells[5], "150", "{text}");
        assert!(line("GET /   ").contains(" - "), "{text}");
        assert!(
            text.contains("    body.stock (missing): in 75 of 150 repeats\n      first  5\n      then   nothing\n"),
            "{text}"
        );
    }
}
