//! What the run showed, as a page, beside what the page said before.

use std::fmt::Write as _;
use std::path::Path;

use super::measure::Rounds;

/// The rows of the table, and the text behind them.
#[derive(Default)]
pub(crate) struct Page {
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: &'static str,
    floor: String,
    subject: String,
    figure: Rounds,
    goal: &'static str,
}

impl Row {
    /// Whether the figure is worse than an earlier one by more than a tenth: larger, unless the goal asks for much.
    fn is_worse_than(&self, earlier: f64) -> bool {
        let figure = self.figure.median();
        if self.goal.starts_with(['≥', '1']) {
            figure < earlier * 0.9
        } else {
            figure > earlier * 1.1
        }
    }
}

/// Everything from here on is written by hand and kept.
const BY_HAND: &str = "<!-- From here on by hand: the benchmark keeps it. -->";

impl Page {
    /// A row: the floor and the subject as people read them, and the figure, round by round, that the goal is about.
    pub(crate) fn row(
        &mut self,
        what: &'static str,
        floor: impl Into<String>,
        subject: impl Into<String>,
        figure: Rounds,
        goal: &'static str,
    ) {
        let row = Row {
            what,
            floor: floor.into(),
            subject: subject.into(),
            figure,
            goal,
        };
        let (low, high) = row.figure.range();
        println!(
            "{what}\n    floor {}, shadowtap {}: {} ({} to {}); to reach: {goal}",
            row.floor,
            row.subject,
            figure_of(row.figure.median()),
            figure_of(low),
            figure_of(high)
        );
        self.rows.push(row);
    }

    /// A sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        println!("{note}");
        self.notes.push(note);
    }

    /// Writes the page to `path`.
    pub(crate) fn write(&self, path: &Path, machine: &str) -> std::io::Result<()> {
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let by_hand = before
            .find(BY_HAND)
            .map_or("", |at| &before[at + BY_HAND.len()..]);
        let mut page = String::from("# Performance\n\n");
        let _ = writeln!(
            page,
            "What shadowtap costs, beside what the plainest thing costs that could do the same, measured in the same run, one after the\n\
             other, round by round. `make bench` writes this page (Linux, as root or with user namespaces, nothing else running); the floors and\n\
             the load are in `benches/performance/`.\n\n{machine}\n"
        );
        page.push_str("| what | floor | shadowtap | figure | over the rounds | to reach | before |\n|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let figure = row.figure.median();
            let (low, high) = row.figure.range();
            let mut last = last(&before, row.what).unwrap_or("–").to_owned();
            if last.parse().is_ok_and(|last| row.is_worse_than(last)) {
                println!(
                    "worse than last time: {}: {last}, now {figure:.2}",
                    row.what
                );
                last += ": now worse";
            }
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} to {} | {} | {} |",
                row.what,
                row.floor,
                row.subject,
                figure_of(figure),
                figure_of(low),
                figure_of(high),
                row.goal,
                last
            );
        }
        page.push('\n');
        for note in &self.notes {
            let _ = writeln!(page, "* {note}");
        }
        let _ = write!(page, "\n{BY_HAND}{by_hand}");
        if by_hand.is_empty() {
            page.push('\n');
        }
        std::fs::write(path, page)
    }
}

/// The figure that the page has now for that row.
fn last<'a>(page: &'a str, what: &str) -> Option<&'a str> {
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| {what} |")))?;
    row.split('|').nth(FIGURE).map(str::trim)
}

/// Which column of the table the figure is in; the one before the first is empty.
const FIGURE: usize = 4;

fn figure_of(figure: f64) -> String {
    if figure >= 100.0 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.2}")
    }
}
