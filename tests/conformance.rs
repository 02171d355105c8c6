//! Captures with the truth about what is in them: every exchange found, none invented, every field right.
//!
//! `make conformance` writes the scores to `docs/conformance.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::cases::{self, Case};
use crate::support::run::{PROGRAM, in_root, inspect, root};
use crate::support::score::{Score, score};
use crate::support::{corpus, inside, notes};

#[test]
fn the_kept_captures_are_read_right() {
    hold("kept", kept());
}

#[test]
fn the_generated_captures_are_read_right() {
    hold("generated", generated());
}

#[test]
fn the_collected_captures_are_read_right() {
    let Some(public) = collected("public") else {
        eprintln!(
            "skipped: no captures of other projects beside the repository (../shared/corpus)"
        );
        return;
    };
    println!("{}", public.printed);
    assert!(public.recall >= 0.995, "recall {}", public.recall);
    assert!(public.precision >= 0.999, "precision {}", public.precision);
    for field in ["pairing", "request_body", "response_body"] {
        let share = public.share(field);
        assert!(share >= 0.995, "{field} right in {share}");
    }
}

#[test]
fn the_scorer_beside_the_captures_agrees() {
    let Some(synthetic) = collected("synthetic") else {
        eprintln!("skipped: no captures beside the repository (../shared/corpus)");
        return;
    };
    println!("{}", synthetic.printed);
    let explained = notes::all();
    let unexplained: Vec<_> = synthetic
        .faults
        .iter()
        .filter(|(capture, _)| !explained.contains_key(capture))
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

#[test]
fn the_report_is_written_when_asked_for() {
    let Some(path) = std::env::var_os("SHADOWTAP_REPORT") else {
        return;
    };
    fs::write(in_root("").join(path), report()).expect("the report can be written");
}

/// A capture's score.
struct Scored {
    case: Case,
    score: Score,
}

fn kept() -> &'static [Scored] {
    static SCORES: OnceLock<Vec<Scored>> = OnceLock::new();
    SCORES.get_or_init(|| run(corpus::all()))
}

fn generated() -> &'static [Scored] {
    static SCORES: OnceLock<Vec<Scored>> = OnceLock::new();
    SCORES.get_or_init(|| run(cases::all()))
}

/// Runs the program over each case. With `SHADOWTAP_KEEP` the captures and their truth stay in that folder.
fn run(cases: Vec<Case>) -> Vec<Scored> {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let keep = std::env::var_os("SHADOWTAP_KEEP").map(PathBuf::from);
    let folder = keep.as_deref().unwrap_or(temporary.path());
    let schema = fs::read_to_string(in_root("docs/exchange.schema.json")).expect("it is there");
    let schema = serde_json::from_str(&schema).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    cases
        .into_iter()
        .map(|case| {
            let path = folder.join(&case.name);
            fs::write(&path, &case.file).expect("the capture can be written");
            if keep.is_some() {
                let truth: String = case
                    .truth
                    .iter()
                    .map(|line| Value::from(line.clone()).to_string() + "\n")
                    .collect();
                fs::write(folder.join(format!("{}.truth.jsonl", case.name)), truth)
                    .expect("the truth can be written");
            }
            let found = inside::read(&case.file);
            let lines = found.lines();
            let mut score = score(&case.truth, &lines);
            for line in lines {
                if let Err(error) = schema.validate(&Value::from(line)) {
                    score
                        .faults
                        .push(format!("a line breaks the schema: {error}"));
                }
            }
            if let Some(damage) = found.damage.filter(|_| case.class != "file") {
                score.faults.push(damage);
            }
            let inspection = inspect(&path);
            if inspection.stdout != found.text {
                score
                    .faults
                    .push("the program prints something else than the pipeline gives".to_owned());
            }
            if inspection.code != Some(0) && case.class != "file" {
                score.faults.push(format!(
                    "exit code {:?}: {}",
                    inspection.code, inspection.stderr
                ));
            }
            if keep.is_none() {
                fs::remove_file(&path).expect("just written");
            }
            Scored { case, score }
        })
        .collect()
}

/// Prints the score by class and fails when anything is wrong that no note explains.
fn hold(set: &str, scores: &[Scored]) {
    println!("{}", table(scores));
    let explained = notes::all();
    let mut wrong = String::new();
    for Scored { case, score } in scores {
        if explained.contains_key(&case.name) {
            if score.perfect() && score.other_policies.is_empty() {
                let _ = writeln!(
                    wrong,
                    "{}: nothing is wrong, but a note says why",
                    case.name
                );
            }
            continue;
        }
        for fault in &score.faults {
            let _ = writeln!(
                wrong,
                "{} ({}, {}): {fault}",
                case.name, case.class, case.what
            );
        }
        for policy in &score.other_policies {
            let _ = writeln!(wrong, "{} ({}): read as {policy}", case.name, case.what);
        }
    }
    let lines = wrong.lines().count();
    assert!(
        wrong.is_empty(),
        "{lines} faults in the {set} captures:\n{wrong}"
    );
}

/// One line for each class.
fn table(scores: &[Scored]) -> String {
    let mut classes: BTreeMap<&str, (usize, usize, Score)> = BTreeMap::new();
    for Scored { case, score } in scores {
        let (captures, perfect, total) = classes.entry(&case.class).or_default();
        *captures += 1;
        *perfect += usize::from(score.perfect());
        total.merge(score);
    }
    let mut out = String::from(
        "| class | captures | without a fault | required found | recall | precision | forbidden |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut sum = (0, 0, Score::default());
    for (class, (captures, perfect, score)) in &classes {
        row(&mut out, class, *captures, *perfect, score);
        sum.0 += captures;
        sum.1 += perfect;
        sum.2.merge(score);
    }
    row(&mut out, "**all**", sum.0, sum.1, &sum.2);
    out
}

fn row(out: &mut String, class: &str, captures: usize, perfect: usize, score: &Score) {
    let _ = writeln!(
        out,
        "| {class} | {captures} | {perfect} | {}/{} | {:.2} % | {:.2} % | {} |",
        score.found,
        score.required,
        score.recall() * 100.0,
        score.precision() * 100.0,
        score.forbidden
    );
}

/// What the scorer that lies beside the captures says.
struct Collected {
    printed: String,
    recall: f64,
    precision: f64,
    /// Every fault, by capture.
    faults: Vec<(String, String)>,
    fields: BTreeMap<String, u64>,
    by_feature: Value,
    captures: usize,
    required: u64,
}

impl Collected {
    /// The share of the scored values of `field` that is right.
    fn share(&self, field: &str) -> f64 {
        let sum = |only_ok: bool| -> u64 {
            self.fields
                .iter()
                .filter(|(name, _)| {
                    name.split_once(':').is_some_and(|(name, verdict)| {
                        name == field && verdict != "absent" && (!only_ok || verdict == "ok")
                    })
                })
                .map(|(_, count)| count)
                .sum()
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of exchanges")]
        let share = sum(true) as f64 / sum(false).max(1) as f64;
        share
    }
}

/// Runs the scorer beside the captures over one of its sets; `None` when there are none.
fn collected(set: &str) -> Option<&'static Collected> {
    static PUBLIC: OnceLock<Option<Collected>> = OnceLock::new();
    static SYNTHETIC: OnceLock<Option<Collected>> = OnceLock::new();
    let cell = if set == "public" { &PUBLIC } else { &SYNTHETIC };
    cell.get_or_init(|| {
        let folder = shared()?;
        let results = tempfile::tempdir().expect("a temporary folder");
        let json = results.path().join("score.json");
        let output = Command::new("python3")
            .arg(folder.join("check.py"))
            .arg(folder.join(set))
            .args([
                "--run",
                &format!("'{PROGRAM}' inspect --json '{{pcap}}'"),
                "-v",
            ])
            .arg("--save")
            .arg(results.path())
            .arg("--json")
            .arg(&json)
            .output()
            .expect("python3 can be started");
        let all = String::from_utf8_lossy(&output.stdout);
        let printed: Vec<&str> = all
            .lines()
            .filter(|line| line.ends_with("<--") || !line.contains(": required "))
            .collect();
        let json = fs::read_to_string(&json).unwrap_or_else(|_| {
            panic!(
                "the scorer failed: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let mut faults = Vec::new();
        for (capture, result) in json["per_capture"].as_object().expect("an object") {
            for (what, list) in [
                ("missed", "missed"),
                ("invented", "false_positives"),
                ("wrong", "bad"),
            ] {
                for fault in result[list].as_array().into_iter().flatten() {
                    faults.push((capture.clone(), format!("{what} {fault}")));
                }
            }
        }
        Some(Collected {
            printed: printed.join("\n"),
            recall: json["recall"].as_f64().expect("a number"),
            precision: json["precision"].as_f64().expect("a number"),
            faults,
            fields: serde_json::from_value(json["fields"].clone()).expect("counts"),
            by_feature: json["by_feature"].clone(),
            captures: json["per_capture"].as_object().expect("an object").len(),
            required: json["total"]["required"].as_u64().unwrap_or(0),
        })
    })
    .as_ref()
}

/// The folder of captures beside the repository, if there is one.
fn shared() -> Option<PathBuf> {
    let folder = root().join("../shared/corpus");
    folder.join("check.py").is_file().then_some(folder)
}

fn report() -> String {
    let mut out = String::from(
        "# Conformance\n\n\
         Captures with the truth about what is in them, and what `shadowtap inspect --json` finds. Written by `make conformance`;\n\
         the explanations come from `docs/conformance-notes.tsv`.\n\n\
         *Required* exchanges must be found, with their headers, bodies, completeness, interim answers and pairing; *forbidden*\n\
         ones are requests that no receiver ever processed. A capture is without a fault when every one of these is right.\n\n",
    );
    let _ = writeln!(
        out,
        "## Kept captures (`fixtures/conformance`)\n\nAdversarial, truth by construction, one idea each.\n\n{}",
        table(kept())
    );
    let _ = writeln!(
        out,
        "## Generated captures (`tests/support/cases.rs`)\n\nToo large to keep, or made up at random from a fixed seed: any HTTP on any TCP in any\n\
         frames, in any kind of file.\n\n{}",
        table(generated())
    );
    let _ = writeln!(out, "## Beside other engines\n");
    let _ = writeln!(
        out,
        "The scores of the other engines on the same sets, by the same scorer. Bodies of Suricata are those of the files that\n\
         it hashed.\n"
    );
    for set in ["public", "synthetic"] {
        let Some(score) = collected(set) else {
            let _ = writeln!(out, "The {set} set was not there when this was written.\n");
            continue;
        };
        let title = if set == "public" {
            "Captures of other projects' test suites"
        } else {
            "Adversarial captures"
        };
        let _ = writeln!(
            out,
            "### {title} ({} captures, {} required exchanges)\n\n\
             | engine | recall | precision | pairing right | request bodies right | response bodies right |\n|---|---:|---:|---:|---:|---:|\n\
             | **shadowtap** | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % |",
            score.captures,
            score.required,
            score.recall * 100.0,
            score.precision * 100.0,
            score.share("pairing") * 100.0,
            score.share("request_body") * 100.0,
            score.share("response_body") * 100.0,
        );
        for (of, engine, numbers) in ENGINES {
            if *of == set {
                let _ = writeln!(
                    out,
                    "| {engine} | {} |",
                    numbers.map(|number| format!("{number:.2} %")).join(" | ")
                );
            }
        }
        let _ = writeln!(
            out,
            "\n| class | required found | invented |\n|---|---:|---:|"
        );
        for (feature, counts) in score.by_feature.as_object().into_iter().flatten() {
            let count = |name: &str| counts[name].as_u64().unwrap_or(0);
            let _ = writeln!(
                out,
                "| {} | {}/{} | {} |",
                feature.trim_start_matches("group:"),
                count("hit_required"),
                count("required"),
                count("false_positive")
            );
        }
        let _ = writeln!(out);
    }
    let _ = writeln!(out, "## What is left, and why\n");
    let mut faulty: BTreeMap<String, usize> = BTreeMap::new();
    for Scored { case, score } in kept().iter().chain(generated()) {
        *faulty.entry(case.name.clone()).or_default() += score.faults.len();
    }
    // The kept captures are part of the synthetic set.
    let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
    for set in ["public", "synthetic"] {
        for (capture, _) in collected(set).iter().flat_map(|score| &score.faults) {
            *elsewhere.entry(capture.clone()).or_default() += 1;
        }
    }
    for (capture, count) in elsewhere {
        faulty.entry(capture).or_insert(count);
    }
    let explained = notes::all();
    faulty.retain(|name, count| *count > 0 || explained.contains_key(name));
    for name in explained.keys() {
        faulty.entry(name.clone()).or_default();
    }
    if faulty.is_empty() {
        let _ = writeln!(out, "Nothing.");
    } else {
        let _ = writeln!(
            out,
            "| capture | values that differ | why |\n|---|---:|---|"
        );
    }
    for (name, count) in faulty {
        let why = explained
            .get(&name)
            .map_or("not explained yet", String::as_str);
        let _ = writeln!(out, "| {name} | {count} | {why} |");
    }
    out
}

/// What other engines score: set, engine, recall, precision, pairing, request bodies, response bodies, in percent.
const ENGINES: &[(&str, &str, [f64; 5])] = &[
    (
        "public",
        "tshark, `tcp.reassemble_out_of_order` on",
        [99.20, 99.97, 56.83, 100.0, 99.54],
    ),
    ("public", "tshark, off", [99.24, 99.23, 96.01, 100.0, 99.25]),
    (
        "public",
        "Suricata 9.0.0-dev",
        [98.52, 99.50, 98.51, 89.00, 91.08],
    ),
    (
        "public",
        "tcpflow + llhttp + http.client",
        [96.20, 98.95, 59.60, 99.56, 99.42],
    ),
    (
        "synthetic",
        "tshark, `tcp.reassemble_out_of_order` on",
        [99.23, 99.14, 99.40, 99.95, 99.82],
    ),
    (
        "synthetic",
        "tshark, off",
        [94.67, 95.52, 98.88, 99.95, 99.82],
    ),
    (
        "synthetic",
        "Suricata 9.0.0-dev",
        [37.55, 99.39, 72.19, 99.46, 98.97],
    ),
    (
        "synthetic",
        "tcpflow + llhttp + http.client",
        [96.93, 98.13, 99.77, 99.72, 99.90],
    ),
];
